//! Replies that are lost after the request was carried out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::backend::Coordinator;
use avout_core::protocol::{CommitOutcome, Resolution};
use avout_core::{Error, ErrorKind, Key, Receipt};

use crate::law::{Ctx, Failure, Outcome, laws, needs, together, within};
use crate::sample::{keys, number, put, puts, write};

laws! { "coordinator":
    a_lost_reply_is_an_unknown_outcome,
}

/// How often a task of a law increments its count, and for how long at most. Before every other write it has a reply lost.
pub(crate) const ROUNDS: usize = 24;
pub(crate) const AT_MOST: Duration = Duration::from_secs(8);

/// What a task was told of its increments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// They were made.
    pub(crate) made: u64,
    /// Nobody knows.
    pub(crate) unknown: u64,
}

impl Told {
    /// The count must be among what was acknowledged, and what may have happened beside that.
    #[track_caller]
    pub(crate) fn explains(self, counted: u64, what: &str) {
        let most = self.made + self.unknown;
        assert!(
            counted <= most,
            "{what}: {counted} increments were made, and {most} at most were told as made or unknown: a lost reply was told as a \
             failure"
        );
        assert!(counted >= self.made, "{what}: {} increments were acknowledged, and {counted} were made", self.made);
    }
}

/// Whether a commit took effect whose error has this receipt.
async fn resolved(client: &dyn Coordinator, error: &Error) -> Result<Option<bool>, Failure> {
    let Some(Receipt::Native(receipt)) = error.receipt() else { return Ok(None) };
    loop {
        match client.resolve(receipt).await {
            Ok(Resolution::Committed(_)) => return Ok(Some(true)),
            Ok(Resolution::NotCommitted) => return Ok(Some(false)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn count(ctx: Ctx, client: Arc<dyn Coordinator>, key: Key) -> Result<Told, Failure> {
    let (mut told, begun) = (Told::default(), Instant::now());
    for round in 0..ROUNDS {
        if begun.elapsed() > AT_MOST {
            break;
        }
        let attempt = async {
            let seen = client.read(std::slice::from_ref(&key), None).await?.entries.remove(0);
            if round % 2 == 0 {
                ctx.fixture.lose_reply(&ctx.namespace).await;
            }
            let next = seen.as_ref().map_or(0, number) + 1;
            client.commit(&puts([put(&key, seen.as_ref().map(|entry| &entry.revision), next)])).await
        };
        match attempt.await {
            Ok(CommitOutcome::Committed(_)) => told.made += 1,
            Ok(CommitOutcome::Conflict(_)) => {}
            Err(error) => {
                match error.kind() {
                    ErrorKind::Unavailable => {}
                    ErrorKind::OutcomeUnknown => match resolved(&*client, &error).await? {
                        Some(true) => told.made += 1,
                        Some(false) => {}
                        None => told.unknown += 1,
                    },
                    _ => return Err(error.into()),
                }
                // The client connects again.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(told)
}

/// A commit whose reply was lost is told as an unknown outcome and never as a failure: what the clients were told explains the
/// counts that they left, also where a receipt says how a commit ended.
async fn a_lost_reply_is_an_unknown_outcome(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let counts = keys("count", 4);
    for key in &counts {
        write(&*clients[0], key, 0).await?;
    }
    needs(ctx.fixture.lose_reply(&ctx.namespace).await, "the fixture cannot lose a reply")?;
    let counting = counts.iter().enumerate().map(|(task, key)| {
        let (ctx, client, key) = (ctx.clone(), Arc::clone(&clients[task % 2]), key.clone());
        async move { count(ctx, client, key).await }
    });
    let told = together(counting).await?;
    for (key, told) in counts.iter().zip(told) {
        let read = async {
            loop {
                match clients[0].read(std::slice::from_ref(key), None).await {
                    Ok(mut found) => return Ok(found.entries.remove(0)),
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(Failure::from(error)),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = within(ctx.fixture.time_limit() / 3, "a read after the last lost reply", read).await?;
        told.explains(found.as_ref().map_or(0, number), key.as_str());
    }
    Ok(())
}
