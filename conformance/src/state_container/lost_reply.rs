//! Replies that are lost after an atom was written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::ErrorKind;
use avout_core::backend::{CasOutcome, StateContainer};

use crate::coordinator::lost_reply::{AT_MOST, ROUNDS, Told};
use crate::law::{Ctx, Failure, Outcome, laws, needs, together, within};
use crate::sample::{bytes, key, state};

laws! { "state_container":
    a_lost_reply_is_an_unknown_outcome,
}

fn number(state: &avout_core::protocol::State) -> u64 {
    u64::from_be_bytes(bytes(state)[..].try_into().expect("a number was written"))
}

async fn count(ctx: Ctx, container: Arc<dyn StateContainer>) -> Result<Told, Failure> {
    let (mut told, begun) = (Told::default(), Instant::now());
    for round in 0..ROUNDS {
        if begun.elapsed() > AT_MOST {
            break;
        }
        let attempt = async {
            let seen = container.state().await?;
            if round % 2 == 0 {
                ctx.fixture.lose_reply(&ctx.namespace).await;
            }
            let next = seen.as_ref().map_or(0, |(seen, _)| number(seen)) + 1;
            let revision = seen.map(|(_, revision)| revision);
            container.compare_and_set_state(revision, state(next.to_be_bytes())).await
        };
        match attempt.await {
            Ok(CasOutcome::Set(_)) => told.made += 1,
            Ok(CasOutcome::Stale(_)) => {}
            Err(error) => {
                match error.kind() {
                    ErrorKind::Unavailable => {}
                    ErrorKind::OutcomeUnknown => told.unknown += 1,
                    _ => return Err(error.into()),
                }
                // The client connects again.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(told)
}

/// A write whose reply was lost is told as an unknown outcome and never as a failure: what the clients were told explains the
/// counts that they left.
async fn a_lost_reply_is_an_unknown_outcome(ctx: Ctx) -> Outcome {
    let stores = ctx.stores().await?;
    let counts: Vec<_> = (0..4).map(|n| stores[n % 2].state(&key(&format!("/count/{n}")))).collect();
    for container in &counts {
        container.init().await?;
        container.set_state(state(0_u64.to_be_bytes())).await?;
    }
    needs(ctx.fixture.lose_reply(&ctx.namespace).await, "the fixture cannot lose a reply")?;
    let counting = counts.iter().map(|container| {
        let (ctx, container) = (ctx.clone(), Arc::clone(container));
        async move { count(ctx, container).await }
    });
    let told = together(counting).await?;
    for (container, told) in counts.iter().zip(told) {
        let read = async {
            loop {
                match container.state().await {
                    Ok(found) => return Ok(found.map_or(0, |(found, _)| number(&found))),
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(Failure::from(error)),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let counted = within(ctx.fixture.time_limit() / 3, "a read after the last lost reply", read).await?;
        told.explains(counted, "an atom");
    }
    Ok(())
}
