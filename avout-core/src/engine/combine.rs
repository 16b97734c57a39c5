//! Several tasks' writes of one atom as one write to the store. While a write is in flight, others apply their functions to
//! what it will leave, one after the other; when it is done, what they made is the next write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use super::{Cell, failpoints};
use crate::backend::tasks::Tasks;
use crate::backend::{CasOutcome, StateContainer};
use crate::error::{ErrorKind, Result};
use crate::protocol::{Revision, Shared};

/// The most writes that are put into one.
const MOST: usize = 1024;

/// Combines the writes of one atom's handle and its clones.
#[derive(Default)]
pub(crate) struct Combiner {
    state: Mutex<State>,
    /// Told when a task that found nothing to build on should look again.
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// A write is on its way, or being prepared.
    in_flight: bool,
    /// What the write in flight will leave, and all that waits on top of it; `None` while that is not known.
    tip: Option<Shared>,
    /// Those whose functions were applied to the tip since the write in flight was sent.
    next: Vec<oneshot::Sender<Fate>>,
}

/// What became of a write that was combined with others.
pub(crate) enum Fate {
    Done,
    /// It did not take effect: apply the function again.
    Lost,
    /// It did not take effect, for a reason that may lie in one of the others: try alone.
    Failed,
    Unknown,
}

/// How a task takes part.
pub(crate) enum Part<O> {
    /// It leads: nothing is in flight, and it does the next write itself.
    Lead(Lead),
    /// Its function was applied and gave this, which holds if the fate is `Done`.
    Joined { out: Result<Option<O>>, fate: oneshot::Receiver<Fate> },
    /// Wait until something has moved.
    Wait,
}

/// The duty to end what is in flight. Dropped, it lets those who wait on top of it down.
pub(crate) struct Lead {
    combiner: Arc<Combiner>,
    led: bool,
}

impl Combiner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be waited for after [`Part::Wait`]; made before taking part, so that nothing is missed.
    pub(crate) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Takes part with a function that decides on a new value.
    pub(crate) fn take_part<O>(
        self: &Arc<Self>,
        decide: impl FnOnce(&Shared) -> Result<Option<(Shared, O)>>,
    ) -> Part<O> {
        let mut state = self.state();
        if !state.in_flight {
            state.in_flight = true;
            return Part::Lead(Lead { combiner: Arc::clone(self), led: false });
        }
        let Some(tip) = &state.tip else {
            return Part::Wait;
        };
        if state.next.len() == MOST {
            return Part::Wait;
        }
        // Whatever it decides holds only if the tip comes to be, so it waits for that even if it writes nothing.
        let out = decide(tip).map(|decided| {
            decided.map(|(new, out)| {
                state.tip = Some(new);
                out
            })
        });
        let (sender, fate) = oneshot::channel();
        state.next.push(sender);
        Part::Joined { out, fate }
    }

    fn tell(&self, told: Vec<oneshot::Sender<Fate>>, fate: fn() -> Fate) {
        for sender in told {
            // One that no longer waits does not need to know.
            drop(sender.send(fate()));
        }
        self.moved.notify_waiters();
    }
}

impl Lead {
    /// Lets others build on what this write will leave.
    pub(crate) fn publish(&self, value: &Shared) {
        self.combiner.state().tip = Some(Arc::clone(value));
        self.combiner.moved.notify_waiters();
    }

    /// The write took effect: what was built on it is written next, in a task of its own, since it is many tasks' business
    /// and must not end with one of them.
    pub(crate) fn done(
        mut self,
        tasks: &Tasks,
        revision: Revision,
        cell: &Arc<Cell>,
        container: &Arc<dyn StateContainer>,
    ) {
        if let Some((next, tip)) = self.take_next() {
            tasks.spawn_near(write_on(self, next, tip, revision, Arc::clone(cell), Arc::clone(container)));
        }
    }

    /// What has been built on the write in flight; without that the lead is over.
    fn take_next(&mut self) -> Option<(Vec<oneshot::Sender<Fate>>, Shared)> {
        let mut state = self.combiner.state();
        let next = std::mem::take(&mut state.next);
        if let (false, Some(tip)) = (next.is_empty(), &state.tip) {
            return Some((next, Arc::clone(tip)));
        }
        state.in_flight = false;
        state.tip = None;
        self.led = true;
        drop(state);
        self.combiner.moved.notify_waiters();
        None
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.led {
            let mut state = self.combiner.state();
            state.in_flight = false;
            state.tip = None;
            let next = std::mem::take(&mut state.next);
            drop(state);
            self.combiner.tell(next, || Fate::Lost);
        }
    }
}

/// Writes what others have built, as long as there is more of it.
async fn write_on(
    mut lead: Lead,
    mut writers: Vec<oneshot::Sender<Fate>>,
    mut tip: Shared,
    mut revision: Revision,
    cell: Arc<Cell>,
    container: Arc<dyn StateContainer>,
) {
    loop {
        let written = match cell.encode_for_store(&tip) {
            Ok(state) => failpoints::in_flight(container.compare_and_set_state(Some(revision), state)).await,
            Err(error) => Err(error),
        };
        let combiner = Arc::clone(&lead.combiner);
        match written {
            Ok(CasOutcome::Set(now)) => {
                combiner.tell(writers, || Fate::Done);
                match lead.take_next() {
                    Some(more) => (writers, tip) = more,
                    None => return,
                }
                revision = now;
            }
            Ok(CasOutcome::Stale(_)) => return combiner.tell(writers, || Fate::Lost),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                return combiner.tell(writers, || Fate::Unknown);
            }
            Err(error) => {
                tracing::debug!(%error, "a combined write failed, each tries alone");
                return combiner.tell(writers, || Fate::Failed);
            }
        }
    }
}
