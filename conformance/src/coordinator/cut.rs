//! Connections that are cut and made again.

use std::time::Duration;

use avout_core::backend::Coordinator;
use avout_core::protocol::CommitOutcome;
use avout_core::{ErrorKind, Key};

use crate::law::{Ctx, Failure, Outcome, laws, needs, within};
use crate::sample::{entry, key, number, put, puts, write};

laws! { "coordinator":
    answers_again_after_a_cut,
    a_watch_outlives_a_cut,
}

pub(crate) async fn cut(ctx: &Ctx) -> Outcome {
    needs(ctx.fixture.cut_connections(&ctx.namespace).await, "the fixture cannot cut connections")
}

/// Writes `number` through a client whose connection was cut, as often as it takes.
async fn write_at_last(ctx: &Ctx, client: &dyn Coordinator, key: &Key, to: u64) -> Outcome {
    let attempts = async {
        loop {
            let attempt = async {
                let seen = client.read(std::slice::from_ref(key), None).await?.entries.remove(0);
                if seen.as_ref().map(number) == Some(to) {
                    return Ok(true);
                }
                let revision = seen.as_ref().map(|entry| &entry.revision);
                let outcome = client.commit(&puts([put(key, revision, to)])).await?;
                Ok(matches!(outcome, CommitOutcome::Committed(_)))
            };
            match attempt.await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => match avout_core::Error::kind(&error) {
                    ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => {}
                    _ => return Err(Failure::from(error)),
                },
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(ctx.fixture.time_limit() / 3, "a commit after the connections were cut", attempts).await
}

/// Reads through a client whose connections were cut, maybe one after the other, as often as it takes.
async fn read_at_last(client: &dyn Coordinator, key: &Key) -> Option<u64> {
    loop {
        match client.read(std::slice::from_ref(key), None).await {
            Ok(found) => return found.entries[0].as_ref().map(number),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client whose connections were cut answers again by itself, and only with errors that let the caller try again meanwhile.
async fn answers_again_after_a_cut(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*one, &key, 0).await?;
    for round in 1..=3 {
        cut(&ctx).await?;
        write_at_last(&ctx, &*one, &key, 2 * round).await?;
        write_at_last(&ctx, &*two, &key, 2 * round + 1).await?;
        let found = entry(&*one, &key).await?;
        assert_eq!(found.as_ref().map(number), Some(2 * round + 1), "after the connections were cut");
    }
    Ok(())
}

/// A watch tells of a cut, or of the changes meanwhile, and is a whole watch again afterwards.
async fn a_watch_outlives_a_cut(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*one, &key, 0).await?;
    let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
    for round in 1..=3 {
        cut(&ctx).await?;
        for value in [2 * round, 2 * round + 1] {
            write_at_last(&ctx, &*two, &key, value).await?;
            let seen = async {
                loop {
                    // An error is no end of a watch, unless it is one of the final kinds.
                    if let Err(error) = watcher.changed().await {
                        assert!(!matches!(error.kind(), ErrorKind::Closed | ErrorKind::StoreLost), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    if read_at_last(&*one, &key).await == Some(value) {
                        return;
                    }
                }
            };
            let limit = ctx.fixture.hint_delay() + ctx.fixture.time_limit() / 6;
            within(limit, "a hint after the connections were cut", seen).await;
        }
    }
    Ok(())
}
