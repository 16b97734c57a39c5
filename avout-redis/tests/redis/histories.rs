//! A server that comes back without the last that it had acknowledged, in the middle of transactions.

use std::sync::Arc;

use async_trait::async_trait;
use avout_conformance::servers::Redis;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator as _, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Realm, State};
use avout_core::{Isolation, Key, Ref, Result, Stm, Store, Version};
use tokio::sync::{Barrier, mpsc, oneshot};

use crate::support::{Outcome, Pair, at_last, lost, namespace, open};

/// A server that keeps what it had at the last `SAVE`.
pub(crate) async fn forgetful() -> Outcome<Redis> {
    Ok(Redis::with(&["--appendonly", "no"]).await?)
}

pub(crate) async fn forget(redis: &Redis) -> Outcome {
    redis.node(0).kill().await?;
    redis.node(0).start().await?;
    Ok(())
}

/// Transactions that read before a loss and go on after it see one history, with one exception: one of them is told. This holds
/// for those that only read, which nothing checks at their end, and for those that write beside what they read.
pub(crate) async fn no_transaction_sees_two_histories() -> Outcome {
    let redis = forgetful().await?;
    let url = redis.url(&namespace());
    let pair = Pair::open(open(&url).await?, "pair").await?;
    let log: Ref<u64> = pair.stm.create_ref("/log", 0).await?;
    let other = Pair::open(open(&url).await?, "pair").await?;
    // So that there is a history to be read at an old point.
    for value in 1..=3 {
        assert_eq!(pair.bump().await?, value);
    }
    assert_eq!(other.read().await?, 3);
    redis.command(0, &["SAVE"]).await?;
    assert_eq!(pair.bump().await?, 4);

    const READERS: usize = 6;
    let (begun, go_on) = (Arc::new(Barrier::new(READERS + 1)), Arc::new(Barrier::new(READERS + 1)));
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let (pair, log, begun, go_on) = (pair.clone(), log.clone(), Arc::clone(&begun), Arc::clone(&go_on));
            tokio::spawn(async move {
                let isolation = if number % 2 == 0 { Isolation::Serializable } else { Isolation::Snapshot };
                pair.stm
                    .transaction()
                    .isolation(isolation)
                    .dosync(async |tx| {
                        let a = tx.get(pair.a()).await?;
                        if tx.attempt() == 1 {
                            begun.wait().await;
                            go_on.wait().await;
                        }
                        let b = tx.get(pair.b()).await?;
                        assert_eq!(a, b, "both histories in attempt {}", tx.attempt());
                        if number >= READERS / 2 {
                            tx.set(&log, a).await?;
                        }
                        Ok::<_, avout_core::Error>(a)
                    })
                    .await
            })
        })
        .collect();
    begun.wait().await;
    forget(&redis).await?;
    // The new history becomes longer than the old one was.
    for value in 4..=9 {
        assert_eq!(other.bump().await?, value);
    }
    go_on.wait().await;
    let mut told = 0;
    for reader in readers {
        match reader.await? {
            Ok(value) => assert_eq!(value, 9, "a value of the lost history"),
            Err(error) => {
                assert!(lost(&error).is_some(), "{error:?}");
                told += 1;
            }
        }
    }
    assert_eq!(told, 1, "a loss is told once");
    assert_eq!(log.get().await?, 9);
    Ok(())
}

/// A store that lets something happen after each value that it wrote.
struct Interrupted {
    inner: Arc<dyn Store>,
    written: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

struct InterruptedValues {
    inner: Arc<dyn VersionedStateContainer>,
    written: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

#[async_trait]
impl Store for Interrupted {
    fn realm(&self) -> Realm {
        self.inner.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        self.inner.state(key)
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(InterruptedValues { inner: self.inner.versioned_state(key), written: self.written.clone() })
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.keys(kind, prefix, after).await
    }
}

#[async_trait]
impl VersionedStateContainer for InterruptedValues {
    async fn init(&self) -> Result<()> {
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        self.inner.destroy().await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.inner.state_at(version).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.inner.set_state_at(version, value).await?;
        let (go_on, waits) = oneshot::channel();
        if self.written.send(go_on).is_ok() {
            let _ = waits.await;
        }
        Ok(())
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.inner.delete_state_at(version).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.inner.versions().await
    }
}

/// A value that was written to the store and lost with it, before its commit was sent, is written again.
pub(crate) async fn no_record_points_at_a_lost_value() -> Outcome {
    let redis = forgetful().await?;
    let url = redis.url(&namespace());
    let backend = avout_redis::connect(&url).await?;
    let (written, mut interrupt) = mpsc::unbounded_channel();
    let store = Arc::new(Interrupted { inner: backend.store.clone(), written });
    let stm = Stm::builder(backend.coordinator.clone(), store).build();
    let large: Ref<Vec<u8>> = {
        let ((), made) = tokio::join!(
            async { drop(interrupt.recv().await) },
            stm.create_ref("/large", vec![1; 100_000]).into_future()
        );
        made?
    };
    for round in 2..=4 {
        redis.command(0, &["SAVE"]).await?;
        let writer = {
            let large = large.clone();
            tokio::spawn(async move { large.set(vec![round; 100_000]).await })
        };
        // The value is written: the server forgets it, and the client connects again before the commit is sent.
        let go_on = interrupt.recv().await.expect("a value");
        forget(&redis).await?;
        at_last("a connection", async || backend.coordinator.read(&[], None).await.ok()).await;
        let _ = go_on.send(());
        let again = async {
            while let Some(go_on) = interrupt.recv().await {
                let _ = go_on.send(());
            }
        };
        tokio::select! {
            done = writer => done??,
            () = again => unreachable!("the store is there"),
        }
        // Another client, with no value in memory.
        let other: Ref<Vec<u8>> = open(&url).await?.open_ref("/large").await?;
        assert_eq!(other.get().await?, vec![round; 100_000]);
    }
    Ok(())
}
