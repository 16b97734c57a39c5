//! Watches that fail, and hints of what is no change.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_conformance::servers::{Protocol, Proxy, shared};
use avout_core::backend::{Coordinator as _, Wake, Watcher};
use avout_core::protocol::{Check, Commit, CommitOutcome, Put, Revision, SlotState};
use avout_core::{ErrorKind, Key};
use avout_zk::Backend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Outcome, eventually, tests, within};

tests![a_watch_that_fails_holds_up_no_other, a_check_of_absence_wakes_nobody];

/// The request that makes a persistent watch.
const ADD_WATCH: [u8; 4] = [0, 0, 0, 106];
/// What an overloaded server answers.
const THROTTLED: i32 = -127;

/// Stands before a server, and puts an error in the place of its answer to a request that watches a certain path.
#[derive(Clone)]
struct Refuser {
    path: &'static str,
    refuses: Arc<AtomicBool>,
    /// How often it did.
    refused: Arc<AtomicU32>,
    /// How many requests to watch others there were meanwhile.
    others: Arc<AtomicU32>,
}

impl Refuser {
    async fn before(server: SocketAddr, path: &'static str) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let refuser = Self { path, refuses: Arc::default(), refused: Arc::default(), others: Arc::default() };
        let accepting = refuser.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let wrong = Arc::<Mutex<HashSet<[u8; 4]>>>::default();
                tokio::spawn(accepting.clone().requests(from_client, to_server, Arc::clone(&wrong)));
                tokio::spawn(replies(from_server, to_client, wrong));
            }
        });
        Ok((refuser, address))
    }

    async fn requests(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, wrong: Arc<Mutex<HashSet<[u8; 4]>>>) {
        while let Ok(message) = message(&mut from).await {
            if message.get(8..12) == Some(&ADD_WATCH[..]) && self.refuses.load(Ordering::SeqCst) {
                if message.windows(self.path.len()).any(|part| part == self.path.as_bytes()) {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(number(&message));
                } else {
                    self.others.fetch_add(1, Ordering::SeqCst);
                }
            }
            if to.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, wrong: Arc<Mutex<HashSet<[u8; 4]>>>) {
    while let Ok(mut message) = message(&mut from).await {
        let refused = {
            let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
            number(&message).is_some_and(|number| wrong.remove(&number))
        };
        if refused {
            // Behind the length are the request's number, the number of the last change, and the error.
            message[16..20].copy_from_slice(&THROTTLED.to_be_bytes());
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(4 + length as usize, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

fn number(message: &[u8]) -> Option<[u8; 4]> {
    message.get(4..8)?.try_into().ok()
}

async fn put(
    backend: &Backend,
    key: &Key,
    checks: Vec<Check>,
    revision: Option<Revision>,
) -> Result<Revision, Box<dyn std::error::Error>> {
    let record = Arc::new(SlotState { sequence: 1, committed: true }.to_record());
    let puts = vec![Put { key: key.clone(), revision, record }];
    match backend.coordinator.commit(&Commit { checks, puts, ..Commit::default() }).await? {
        CommitOutcome::Committed(committed) => Ok(committed.revisions[0].clone()),
        CommitOutcome::Conflict(conflict) => Err(format!("{conflict:?}").into()),
    }
}

/// When watches are made again after a lost connection and the server refuses one of them, all others are made, and that one is
/// tried again until it is.
async fn a_watch_that_fails_holds_up_no_other() -> Outcome {
    let zk = shared::zookeeper().await?;
    let (refuser, address) = Refuser::before(zk.node(0).address(), "/refused").await?;
    let proxy = Proxy::speaking(Protocol::ZooKeeper, address).await?;
    let url = |address: &dyn std::fmt::Display| format!("zk://{address}/watches_refused?connections=1&timeout=2s");
    let (watching, writing) =
        (avout_zk::connect(&url(&proxy.address())).await?, avout_zk::connect(&url(&zk.address())).await?);
    let keys = (0..20).map(|n| Key::new(format!("/{n}"))).chain([Key::new("/refused")]);
    let mut watchers = Vec::new();
    for key in keys {
        let key = key?;
        watchers.push((watching.coordinator.watch(std::slice::from_ref(&key)).await?, key));
    }
    refuser.refuses.store(true, Ordering::SeqCst);
    proxy.cut().await;
    proxy.heal().await?;
    let hint = async |watcher: &mut Box<dyn Watcher>, what: &str| within(what, watcher.changed()).await;
    let (mut refused, its_key) = watchers.pop().ok_or("a watcher")?;
    for (watcher, key) in &mut watchers {
        assert_eq!(hint(watcher, "a hint that changes may be lost").await?, Wake::Lost, "{key}");
        put(&writing, key, Vec::new(), None).await?;
        assert_eq!(hint(watcher, "a hint of a change").await?, Wake::Changed, "{key}");
    }
    assert_eq!(refuser.others.load(Ordering::SeqCst), 20, "how often the others were asked for");
    eventually("another try", || async { refuser.refused.load(Ordering::SeqCst) > 1 }).await;
    let early = tokio::time::timeout(Duration::ZERO, refused.changed()).await;
    assert!(early.is_err(), "a hint of a watch that was not made");
    // One that is asked for now is told of the server's error.
    let error = watching.coordinator.watch(std::slice::from_ref(&its_key)).await.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Unavailable));
    refuser.refuses.store(false, Ordering::SeqCst);
    assert_eq!(hint(&mut refused, "a hint that changes may be lost").await?, Wake::Lost);
    put(&writing, &its_key, Vec::new(), None).await?;
    assert_eq!(hint(&mut refused, "a hint of a change").await?, Wake::Changed);
    Ok(())
}

/// Commits that check that a key is not there change nothing of it, and those that watch it are left in peace, though the server tells
/// them of the znode that such a commit makes and deletes.
async fn a_check_of_absence_wakes_nobody() -> Outcome {
    const COMMITS: u64 = 50;
    let backend = avout_zk::connect(&shared::zookeeper().await?.url("watches_absent")).await?;
    let (absent, key) = (Key::new("/absent")?, Key::new("/key")?);
    let mut watcher = backend.coordinator.watch(std::slice::from_ref(&absent)).await?;
    let woken = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&woken);
    let watching = tokio::spawn(async move {
        while watcher.changed().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut revision = None;
    for _ in 0..COMMITS {
        let checks = vec![Check { key: absent.clone(), revision: None }];
        revision = Some(put(&backend, &key, checks, revision).await?);
    }
    assert_eq!(woken.load(Ordering::SeqCst), 0, "{COMMITS} checks of absence woke a watcher");
    put(&backend, &absent, Vec::new(), None).await?;
    eventually("the watcher hears of a real change", || async { woken.load(Ordering::SeqCst) > 0 }).await;
    watching.abort();
    Ok(())
}
