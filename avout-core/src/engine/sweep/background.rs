use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::sessions::Seen;
use super::{Engine, KnownFloor, Sweep};
use crate::backend::tasks::Tasks;
use crate::backend::time::{sleep, sleep_until};

/// Of the time that a background sweep takes it works one part in this many.
const SHARE: u32 = 10;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The task that sweeps now and then. It keeps no client alive: it holds one only for as long as it does a step.
#[derive(Default)]
pub(crate) struct Background(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Running(JoinHandle<()>),
    Closed,
}

impl Background {
    /// Begins, if it has not begun or ended yet.
    pub(in crate::engine) fn start(&self, tasks: &Tasks, engine: &Weak<Engine>, every: Duration, floor: &KnownFloor) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Idle) {
            *state = State::Running(tasks.spawn(work(Weak::clone(engine), every, floor.clone())));
        }
    }

    /// Ends for good.
    pub(in crate::engine) async fn close(&self) {
        let state = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Closed);
        if let State::Running(task) = state {
            task.abort();
            // It was ended just now: there is nothing to be told.
            let _ = task.await;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let State::Running(task) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// Each client looks after a time of its own whether the floor is still as it saw it last. If so nobody has swept for that
/// long, by this client's own clock, and it sweeps. Of many clients the one with the shortest time does it, and the others see
/// that the floor was raised.
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
                // It logs what fails. Whether it came to its end or not, this client waits as long as all others.
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
