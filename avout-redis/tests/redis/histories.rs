//! A server that comes back without the last that it had acknowledged, in the middle of transactions.

use std::sync::Arc;

use avout_conformance::servers::Redis;
use avout_core::{Isolation, Ref};
use tokio::sync::Barrier;

use crate::faults::is_commit;
use crate::support::{Outcome, Pair, lost, namespace, open};

/// A server that keeps what it had at the last `SAVE`.
async fn forgetful() -> Outcome<Redis> {
    Ok(Redis::with(&["--appendonly", "no"]).await?)
}

async fn forget(redis: &Redis) -> Outcome {
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

/// A value that was written to the store and lost with it, before its commit was sent, is written again.
pub(crate) async fn no_record_points_at_a_lost_value() -> Outcome {
    let redis = forgetful().await?;
    let proxy = redis.proxy(0).await?;
    let name = namespace();
    let stm = open(&format!("redis://{}/{name}", proxy.address())).await?;
    let large = stm.create_ref("/large", vec![1_u8; 100_000]).await?;
    for round in 2..=4 {
        redis.command(0, &["SAVE"]).await?;
        proxy.cut_on_request(is_commit);
        let writer = {
            let large = large.clone();
            tokio::spawn(async move { large.set(vec![round; 100_000]).await })
        };
        proxy.is_cut().await;
        forget(&redis).await?;
        proxy.heal().await?;
        writer.await??;
        // Another client, with no value in memory.
        let other: Ref<Vec<u8>> = open(&redis.url(&name)).await?.open_ref("/large").await?;
        assert_eq!(other.get().await?, vec![round; 100_000]);
    }
    Ok(())
}
