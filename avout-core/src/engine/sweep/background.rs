use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::round::Sweep;
use super::sessions::Seen;
use crate::backend::time::{sleep, sleep_until};
use crate::engine::client::Engine;
use crate::engine::floor::KnownFloor;

/// A background sweep works for one part in this many of the time that it takes.
const SHARE: u32 = 10;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Makes a client sweep in the background, as its configuration says. The task keeps no client alive: it holds one only
/// during a step.
pub(crate) fn sweep_in_background(engine: &Engine) {
    let Some(every) = engine.config.sweep_every.filter(|_| !engine.readonly) else { return };
    let (tasks, own) = (engine.config.tasks.clone(), Weak::clone(&engine.own));
    engine.sweeper.set(move |floor| tasks.spawn(work(Weak::clone(&own), every, floor.clone())));
}

/// Each client looks, after a time of its own, whether the floor is still as it saw it last. If so nobody has swept for
/// that long, by this client's own clock, and it sweeps. Of many clients the one with the shortest time sweeps, and the
/// others see that the floor was raised.
async fn work(engine: Weak<Engine>, every: Duration, mut seen: KnownFloor) {
    let mut sessions = Seen::new();
    loop {
        let Some(pause) = engine.upgrade().map(|engine| engine.backoff.spread(every)) else { return };
        sleep(pause).await;
        let Some(held) = engine.upgrade() else { return };
        let now = held.refresh_floor(held.deadline()).await;
        drop(held);
        match now {
            Ok(now) if now.revision == seen.revision => {
                // The round logs its failures. Whether it completed or not, this client waits as long as all others.
                let _ = sweep(&engine, &mut sessions).await;
                let Some(held) = engine.upgrade() else { return };
                if let Ok(now) = held.refresh_floor(held.deadline()).await {
                    seen = now;
                }
            }
            Ok(now) => seen = now,
            Err(error) => tracing::debug!(%error, "not swept, the floor cannot be read"),
        }
    }
}

/// One sweep, with pauses in which it holds no client. `None`: the client is gone.
async fn sweep(engine: &Weak<Engine>, sessions: &mut Seen) -> Option<()> {
    let mut sweep = Sweep::new(true, std::mem::take(sessions));
    loop {
        let begun = Instant::now();
        let held: Arc<Engine> = engine.upgrade()?;
        let more = sweep.step(&held).await;
        drop(held);
        if !matches!(more, Ok(true)) {
            *sessions = std::mem::take(&mut sweep.seen);
        }
        match more {
            Ok(true) => {
                sleep((begun.elapsed() * (SHARE - 1)).min(LONGEST_REST)).await;
                if let Some(due) = sweep.due() {
                    sleep_until(due).await;
                }
            }
            Ok(false) => {
                tracing::debug!(report = ?sweep.report, "swept in the background");
                return Some(());
            }
            Err(error) => {
                tracing::debug!(%error, "a background sweep ended early");
                return Some(());
            }
        }
    }
}
