//! Several tasks' writes of one atom as one write to the store. While a write is in flight, others apply their functions to
//! what it will leave, one after the other; when it is done, what they made is the next write.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Cell, time};
use crate::backend::tasks::Tasks;
use crate::backend::{CasOutcome, StateContainer};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Revision, Shared};

/// The most writes that are put into one.
const MOST: usize = 1024;

/// How often a function is applied in a row while others are faster.
const TRIES: usize = 8;

/// Combines the writes of one atom's handle and its clones.
///
/// No function of a user's runs under the lock: it is applied to what is there, and counts only if that is still there afterwards.
#[derive(Default)]
pub(crate) struct Combiner {
    state: Mutex<State>,
    /// Told when a task that found nothing to build on should look again.
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// The lead whose duty it is to end what is under way.
    led_by: Option<u64>,
    /// What the write in flight will leave, and all that waits on top of it; `None` while that is not known.
    tip: Option<Shared>,
    /// The tip was read with this revision, and no write on it has begun.
    unwritten: Option<Revision>,
    /// Those whose functions were applied to the tip since the write in flight was sent, by their numbers.
    next: Vec<Waiting>,
    /// The last number that was given to a lead, a place, or a change of the tip.
    last: u64,
    /// The number of the tip.
    changed: u64,
}

/// A write that waits for the one in flight.
struct Waiting {
    number: u64,
    /// What its function was applied to; `None` if that decided to write nothing.
    built_on: Option<Shared>,
    deadline: Option<Instant>,
    told: oneshot::Sender<Fate>,
}

/// What became of a write that was combined with others.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Done,
    /// It did not take effect: apply the function again.
    Lost,
    /// It did not take effect, for a reason that may lie in one of the others: try alone.
    Failed,
    /// The deadline passed before it was sent.
    Late,
    Unknown,
}

/// How a task takes part.
pub(crate) enum Part<O> {
    /// Nothing is under way: it reads what is there, says so with [`Lead::has_read`], and takes part again.
    Lead(Lead),
    /// Its function was the first to be applied to what was read, and it writes this itself.
    Write { lead: Lead, revision: Revision, new: Shared, out: O },
    /// Its function writes nothing, on what it has read itself.
    Nothing(Result<Option<O>>),
    /// Its function was applied and gave this, which holds if the fate is `Done`.
    Joined { out: Result<Option<O>>, place: Place },
    /// It should look for itself what is there.
    Alone,
    /// Others were faster each time.
    Overtaken,
    /// Wait until something has moved.
    Wait,
}

/// The duty to end what is under way. Dropped, it lets those who wait on top of it down, unless another one has taken it over.
pub(crate) struct Lead {
    combiner: Arc<Combiner>,
    number: u64,
}

/// A place among those who wait for the write in flight. Dropped before its own write is sent, it leaves nothing behind: those
/// who have built on it apply their functions again.
pub(crate) struct Place {
    combiner: Arc<Combiner>,
    number: u64,
    /// Whether there is anything of its own in what is written.
    writes: bool,
    fate: oneshot::Receiver<Fate>,
    told: bool,
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Gives the former tip, which is a user's value and is not to be dropped under the lock.
    fn set_tip(&mut self, tip: Option<Shared>) -> Option<Shared> {
        self.changed = self.number();
        std::mem::replace(&mut self.tip, tip)
    }

    fn lead(&mut self, combiner: &Arc<Combiner>) -> Lead {
        let number = self.number();
        self.led_by = Some(number);
        Lead { combiner: Arc::clone(combiner), number }
    }
}

impl Combiner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be waited for after [`Part::Wait`]; made before taking part, so that nothing is missed.
    pub(crate) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Takes part with a function that decides on a new value. `own` is the lead under which the caller has read, if it has.
    pub(crate) fn take_part<O>(
        self: &Arc<Self>,
        decide: impl Fn(&Shared) -> Result<Option<(Shared, O)>>,
        deadline: Option<Instant>,
        own: Option<&Lead>,
    ) -> Part<O> {
        for _ in 0..TRIES {
            let (tip, changed) = {
                let mut state = self.state();
                if state.led_by.is_none() {
                    return Part::Lead(state.lead(self));
                }
                match &state.tip {
                    Some(tip) if state.next.len() < MOST => (Arc::clone(tip), state.changed),
                    _ => return Part::Wait,
                }
            };
            let decided = decide(&tip);
            let mut state = self.state();
            if state.changed != changed || state.next.len() >= MOST {
                continue;
            }
            return match decided {
                Ok(Some((new, out))) => self.build(state, tip, new, out, deadline),
                nothing => {
                    let nothing = nothing.map(|_| None);
                    let read_by_own = own.is_some_and(|own| state.led_by == Some(own.number));
                    match state.unwritten.is_some() {
                        // Nobody may ever write on it, and for others than its reader it may be old.
                        true if read_by_own => Part::Nothing(nothing),
                        true => {
                            // Before what was decided is dropped, in which there may be a user's error.
                            drop(state);
                            Part::Alone
                        }
                        // What it decided holds only if the tip comes to be, so it waits for that.
                        false => Part::Joined { out: nothing, place: self.join(&mut state, None, deadline) },
                    }
                }
            };
        }
        Part::Overtaken
    }

    /// Puts `new` on top of the tip.
    fn build<O>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        tip: Shared,
        new: Shared,
        out: O,
        deadline: Option<Instant>,
    ) -> Part<O> {
        // The same one as `tip`, so it is not dropped here.
        let _former = state.set_tip(Some(Arc::clone(&new)));
        match state.unwritten.take() {
            Some(revision) => {
                let lead = state.lead(self);
                // Before `tip`, which may be the last one of a user's value.
                drop(state);
                Part::Write { lead, revision, new, out }
            }
            None => Part::Joined { out: Ok(Some(out)), place: self.join(&mut state, Some(tip), deadline) },
        }
    }

    fn join(self: &Arc<Self>, state: &mut State, built_on: Option<Shared>, deadline: Option<Instant>) -> Place {
        let number = state.number();
        let writes = built_on.is_some();
        let (told, fate) = oneshot::channel();
        state.next.push(Waiting { number, built_on, deadline, told });
        Place { combiner: Arc::clone(self), number, writes, fate, told: false }
    }

    fn tell(&self, told: Vec<Waiting>, fate: Fate) {
        for waiting in told {
            let fate = match fate {
                // What it decided on may not have come to be, and it wrote nothing.
                Fate::Unknown if waiting.built_on.is_none() => Fate::Lost,
                fate => fate,
            };
            // One that no longer waits does not need to know.
            let _ = waiting.told.send(fate);
        }
        self.moved.notify_waiters();
    }
}

impl Place {
    /// Waits for the fate, until the deadline.
    pub(crate) async fn fate(mut self, deadline: Option<Instant>) -> Fate {
        let fate = match time::with_deadline(deadline, pin!(&mut self.fate)).await {
            Ok(told) => told.unwrap_or(if self.writes { Fate::Unknown } else { Fate::Lost }),
            Err(_) if self.leave() => Fate::Late,
            // It is under way, or was decided just now.
            Err(_) => self.fate.try_recv().unwrap_or(if self.writes { Fate::Unknown } else { Fate::Late }),
        };
        self.told = true;
        fate
    }

    /// Whether it was still there, and nobody had begun to write it.
    fn leave(&self) -> bool {
        let mut state = self.combiner.state();
        let Ok(at) = state.next.binary_search_by_key(&self.number, |waiting| waiting.number) else {
            return false;
        };
        let mut left = state.next.remove(at);
        let mut lost = Vec::new();
        let mut former = None;
        if let Some(before) = left.built_on.take() {
            lost = state.next.split_off(at);
            former = state.set_tip(Some(before));
        }
        drop(state);
        drop(former);
        self.combiner.tell(lost, Fate::Lost);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.told {
            self.leave();
        }
    }
}

impl Lead {
    /// Lets others, and the reader itself, build on what was read; whoever is first writes it.
    pub(crate) fn has_read(&self, value: &Shared, revision: Revision) {
        self.combiner.state().unwritten = Some(revision);
        self.publish(value);
    }

    /// Lets others build on this.
    pub(crate) fn publish(&self, value: &Shared) {
        let former = self.combiner.state().set_tip(Some(Arc::clone(value)));
        drop(former);
        self.combiner.moved.notify_waiters();
    }

    /// The write took effect: what was built on it is written next, in a task of its own, since it is many tasks' business
    /// and must not end with one of them.
    pub(crate) fn done(self, tasks: &Tasks, revision: Revision, cell: &Arc<Cell>, container: &Arc<dyn StateContainer>) {
        let is_awaited = !self.combiner.state().next.is_empty();
        if is_awaited {
            tasks.spawn_near(write_on(self, revision, Arc::clone(cell), Arc::clone(container)));
        }
    }

    /// What has been built on the write in flight, which took effect.
    fn take_next(&self) -> Option<(Vec<Waiting>, Shared)> {
        let mut state = self.combiner.state();
        let mut next = std::mem::take(&mut state.next);
        let first = next.iter().position(|waiting| waiting.built_on.is_some());
        let writers = next.split_off(first.unwrap_or(next.len()));
        let tip = first.map(|_| state.tip.clone().expect("there is a tip while a write is in flight"));
        drop(state);
        // What they decided on has come to be, whatever becomes of the next write.
        self.combiner.tell(next, Fate::Done);
        tip.map(|tip| (writers, tip))
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut state = self.combiner.state();
        if state.led_by != Some(self.number) {
            return;
        }
        (state.led_by, state.unwritten) = (None, None);
        let former = state.set_tip(None);
        let next = std::mem::take(&mut state.next);
        drop(state);
        drop(former);
        self.combiner.tell(next, Fate::Lost);
    }
}

/// Writes what others have built, as long as there is more of it. From taking it to sending it there is no wait, so that whoever
/// leaves before it is sent is not in it.
async fn write_on(lead: Lead, mut revision: Revision, cell: Arc<Cell>, container: Arc<dyn StateContainer>) {
    while let Some((writers, tip)) = lead.take_next() {
        // Each waits until its own deadline, and after the last one nobody does.
        let latest = time::latest(writers.iter().map(|waiting| waiting.deadline));
        let written = match cell.encode_for_store(&tip) {
            Ok(state) => {
                let mut request = container.compare_and_set_state(Some(revision), state);
                let late = |_| Err(Error::new(ErrorKind::OutcomeUnknown, "no answer came by the deadline"));
                time::with_deadline(latest, request.as_mut()).await.unwrap_or_else(late)
            }
            Err(error) => Err(error),
        };
        let combiner = &lead.combiner;
        match written {
            Ok(CasOutcome::Set(now)) => {
                combiner.tell(writers, Fate::Done);
                revision = now;
            }
            Ok(CasOutcome::Stale(_)) => return combiner.tell(writers, Fate::Lost),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => return combiner.tell(writers, Fate::Unknown),
            Err(error) => {
                tracing::debug!(%error, "a combined write failed, each tries alone");
                return combiner.tell(writers, Fate::Failed);
            }
        }
    }
}
