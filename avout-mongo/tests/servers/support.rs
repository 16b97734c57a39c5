//! What the tests share.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use avout_conformance::servers::{Proxy, shared};
use avout_core::{ErrorKind, Ref, Stm};
use avout_mongo::{Backend, Options};

/// How long steps are waited for: longer than any failover takes.
const STEPS_DEADLINE: Duration = Duration::from_secs(120);

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A namespace of its own on the server that the tests share.
pub(crate) async fn shared_url(namespace: &str) -> Result<String, Box<dyn Error>> {
    Ok(with(&shared::mongo_url("tests").await?, &format!("namespace={namespace}")))
}

/// A URL with one more option.
pub(crate) fn with(url: &str, option: &str) -> String {
    format!("{url}{}{option}", if url.contains('?') { '&' } else { '?' })
}

/// The shared server behind a proxy, which the driver does not go around.
pub(crate) async fn behind_proxy(namespace: &str) -> Result<(Proxy, String), Box<dyn Error>> {
    let proxy = shared::mongo().await?.proxy(0).await?;
    let url = format!("mongodb://{}/tests?directConnection=true&namespace={namespace}&timeout=3s", proxy.address());
    Ok((proxy, url))
}

pub(crate) async fn open(url: &str) -> avout_core::Result<Backend> {
    Options::from_url(url)?.open().await
}

pub(crate) fn stm(backend: &Backend) -> Stm {
    Stm::new(backend.coordinator.clone(), backend.store.clone())
}

/// A client with a deadline.
pub(crate) async fn client(url: &str, deadline: u64) -> avout_core::Result<Stm> {
    let backend = open(url).await?;
    let builder = Stm::builder(backend.coordinator, backend.store);
    Ok(builder.deadline(Some(Duration::from_secs(deadline))).build())
}

/// The driver itself.
pub(crate) async fn driver(url: &str) -> Result<mongodb::Database, Box<dyn Error>> {
    let plain = url.split('&').filter(|part| !part.starts_with("namespace=") && !part.starts_with("timeout="));
    let client = mongodb::Client::with_uri_str(plain.collect::<Vec<_>>().join("&")).await?;
    Ok(client.database("tests"))
}

/// The first command of a request, by its name: the first field of the body.
pub(crate) fn command(message: &[u8]) -> Option<&str> {
    // Header, flags, kind of the section, the document's length and the field's type.
    let name = message.get(16 + 4 + 1 + 4 + 1..)?;
    std::str::from_utf8(&name[..name.iter().position(|byte| *byte == 0)?]).ok()
}

/// Tasks that move amounts between two refs and count how it went, until they are told to end.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<avout_core::Result<()>>>,
}

impl Load {
    pub(crate) async fn begin(url: &str, count: usize) -> Result<Self, Box<dyn Error>> {
        let (stop, acknowledged, unknown) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let first = client(url, 60).await?;
        first.create_or_open_ref("/minus", 0_i64).await?;
        first.create_or_open_ref("/plus", 0_i64).await?;
        let mut tasks = Vec::new();
        for task in 0..count {
            // Two tasks a client, so that clients compete too.
            let stm = if task % 2 == 0 { client(url, 60).await? } else { first.clone() };
            let (stop, acknowledged, unknown) = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&unknown));
            tasks.push(tokio::spawn(async move {
                let own = stm.create_or_open_ref(format!("/own/{task}"), 0_i64).await?;
                let (minus, plus) = (stm.open_ref::<i64>("/minus").await?, stm.open_ref::<i64>("/plus").await?);
                while !stop.load(Ordering::SeqCst) {
                    match step(&stm, &minus, &plus, &own).await {
                        Ok(()) => acknowledged.fetch_add(1, Ordering::SeqCst),
                        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                            unknown.fetch_add(1, Ordering::SeqCst)
                        }
                        Err(error) => return Err(error),
                    };
                }
                Ok(())
            }));
        }
        Ok(Self { stop, acknowledged, unknown, tasks })
    }

    /// Waits until so many more steps are acknowledged.
    pub(crate) async fn steps(&self, more: u64) {
        let goal = self.acknowledged.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + STEPS_DEADLINE;
        while self.acknowledged.load(Ordering::SeqCst) < goal {
            assert!(!self.tasks.iter().all(tokio::task::JoinHandle::is_finished), "all tasks have ended");
            assert!(Instant::now() < deadline, "{more} more steps took longer than {STEPS_DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the tasks, and compares what is there with what was acknowledged.
    pub(crate) async fn end(self, url: &str) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        let count = self.tasks.len();
        for task in self.tasks {
            task.await??;
        }
        let stm = client(url, 60).await?;
        let (minus, plus) = (stm.open_ref::<i64>("/minus").await?, stm.open_ref::<i64>("/plus").await?);
        let mut own = Vec::new();
        for task in 0..count {
            own.push(stm.open_ref::<i64>(format!("/own/{task}")).await?);
        }
        let (minus, plus, own) = stm
            .dosync(async |tx| {
                let (minus, plus) = tx.get_many((&minus, &plus)).await?;
                Ok((minus, plus, tx.get_many(&own).await?.iter().sum::<i64>()))
            })
            .await?;
        let (acknowledged, unknown) = (self.acknowledged.load(Ordering::SeqCst), self.unknown.load(Ordering::SeqCst));
        assert_eq!((minus, plus), (-plus, own), "a transaction in part");
        let plus = u64::try_from(plus)?;
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&plus),
            "{plus} are there, {acknowledged} were acknowledged, {unknown} are unknown"
        );
        Ok(())
    }
}

async fn step(stm: &Stm, minus: &Ref<i64>, plus: &Ref<i64>, own: &Ref<i64>) -> avout_core::Result<()> {
    stm.dosync(async |tx| {
        let (a, b, c) = tx.get_many((minus, plus, own)).await?;
        assert_eq!(a, -b, "a body sees a transaction in part");
        tx.set(minus, a - 1).await?;
        tx.set(plus, b + 1).await?;
        tx.set(own, c + 1).await
    })
    .await
}
