use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::change::{Changes, Source};
use super::watches::Watches;
use super::{Change, Value, Verdict, cloned, validate};
use crate::backend::{CasOutcome, StateContainer, Watcher};
use crate::engine::{Cell, Combiner, Engine, Fate, Part, Position, lost_commits, with_deadline};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Key, Revision, Shared, State};

/// A named, typed, durable cell that is changed on its own by compare-and-set, without a transaction.
///
/// It is a cheap handle to the atom: clone and share it. All operations on the atom, in all processes, take effect one
/// after the other, each between its call and its return.
///
/// # Errors
/// The methods here give [`NotFound`](ErrorKind::NotFound) if the atom was destroyed; [`Nested`](ErrorKind::Nested)
/// inside the body of a transaction, which cannot include an atom; [`Rejected`](ErrorKind::Rejected) if the validator
/// refuses the value; [`TooLarge`](ErrorKind::TooLarge) if the value is too large for the store;
/// [`Unavailable`](ErrorKind::Unavailable) if the store was unavailable until the client's deadline;
/// [`Timeout`](ErrorKind::Timeout) if others' writes of the same atom took until the deadline;
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if a write was sent and its reply lost: only then may it have taken
/// effect.
///
/// # Cancel safety
/// If the future of a method is dropped before its write is sent, nothing happens. After that the write may or may not
/// take effect, as a whole.
pub struct Atom<T> {
    inner: Arc<AtomInner>,
    types: PhantomData<fn() -> T>,
}

struct AtomInner {
    core: AtomCore,
    watches: Watches,
}

#[derive(Clone)]
struct AtomCore {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    container: Arc<dyn StateContainer>,
    combiner: Arc<Combiner>,
}

/// The outcome of writing together with others.
enum Together<O> {
    Written(Option<O>),
    /// Another process wrote in between.
    Lost,
    Late,
    /// Try it alone.
    Failed,
}

type Current = Option<(Shared, Revision)>;

impl<T: Value> Atom<T> {
    pub(super) fn new(engine: Arc<Engine>, cell: Arc<Cell>) -> Self {
        let container = cell.store.state(&cell.key);
        let core = AtomCore { engine, cell, container, combiner: Arc::default() };
        Self { inner: Arc::new(AtomInner { core, watches: Watches::default() }), types: PhantomData }
    }

    pub(super) async fn open(&self) -> Result<()> {
        let core = &self.inner.core;
        let deadline = core.engine.deadline();
        core.existing(deadline).await.map(drop).map_err(|error| error.during("open atom"))
    }

    pub(super) async fn create(&self, value: T, or_open: bool) -> Result<()> {
        let core = &self.inner.core;
        let create = async {
            let deadline = core.engine.deadline();
            let value: Shared = Arc::new(value);
            for tries in 0.. {
                let created = core.create(&value, or_open, deadline).await;
                match created {
                    Err(error) if or_open => {
                        if !core.engine.looks_again(&error, tries, deadline).await {
                            return Err(error);
                        }
                    }
                    created => return created,
                }
            }
            unreachable!("the loop above has no end but a return")
        };
        create.await.map_err(|error| error.during("create atom"))
    }

    /// The atom's key.
    pub fn key(&self) -> &Key {
        &self.inner.core.cell.key
    }

    /// The current value.
    #[doc(alias = "deref")]
    pub async fn get(&self) -> Result<T> {
        self.inner.core.engine.begin("get")?;
        let core = &self.inner.core;
        cloned(core.existing(core.engine.deadline()).await?.0)
    }

    /// Sets the value to the result of `f`, and returns it. `f` may be called several times, and should be quick: if
    /// others write while it runs, it is called again.
    #[doc(alias = "swap!!")]
    pub async fn swap(&self, f: impl Fn(T) -> T) -> Result<T> {
        self.write("swap", |current: &Shared| {
            let new = f(cloned(Arc::clone(current))?);
            Ok(Some((new.clone(), new)))
        })
        .await
        .map(|new| new.expect("a swap always writes"))
    }

    /// Changes the value in place, and returns the result of `f`. `f` may be called several times.
    pub async fn update<O>(&self, f: impl Fn(&mut T) -> O) -> Result<O> {
        self.write("update", |current: &Shared| {
            let mut value = cloned(Arc::clone(current))?;
            let out = f(&mut value);
            Ok(Some((value, out)))
        })
        .await
        .map(|out| out.expect("an update always writes"))
    }

    /// Sets the value, whatever it was.
    #[doc(alias = "reset!!")]
    pub async fn reset(&self, value: T) -> Result<()> {
        self.write("reset", |_: &Shared| Ok(Some((value.clone(), ())))).await.map(drop)
    }

    /// Sets the value to `new` if it is `old`; `false` if it is not.
    #[doc(alias = "compare-and-set!!")]
    pub async fn compare_and_set(&self, old: &T, new: T) -> Result<bool>
    where
        T: PartialEq,
    {
        let written = self.write("compare and set", |current: &Shared| {
            let is_old = cloned::<T>(Arc::clone(current))? == *old;
            Ok(is_old.then(|| (new.clone(), ())))
        });
        written.await.map(|written| written.is_some())
    }

    /// Destroys the atom. It can be created again.
    #[doc(alias = "destroy-atom!!")]
    pub async fn destroy(&self) -> Result<()> {
        self.inner.core.engine.begin("destroy")?;
        let core = &self.inner.core;
        let destroy = || core.container.destroy();
        let destroyed = core.engine.until_or(core.engine.deadline(), ErrorKind::OutcomeUnknown, destroy);
        destroyed.await.map_err(|error| error.at(&core.cell.key).during("destroy"))
    }

    /// Replaces this handle's validator, which clones share. Other handles keep theirs.
    #[doc(alias = "set-validator!!")]
    pub fn set_validator<V: Verdict>(&self, f: impl Fn(&T) -> V + Send + Sync + 'static) {
        self.inner.core.cell.set_validator(Some(validate::validator(f)));
    }

    /// Removes this handle's validator.
    pub fn remove_validator(&self) {
        self.inner.core.cell.set_validator(None);
    }

    /// The changes from now on. The last value is always delivered; values that were soon replaced may be skipped.
    pub async fn watch(&self) -> Result<Changes<T>> {
        self.inner.core.engine.begin("watch")?;
        let core = self.inner.core.clone();
        let (losses, deadline) = (core.engine.losses.now(), core.engine.deadline());
        let watcher = core.engine.watch_atom(&core.cell.key, &core.container, deadline).await;
        // The watch is made before the look: any later change is hinted.
        let watcher = watcher.map_err(|error| error.at(&core.cell.key).during("watch"))?;
        let (last, since) = core.current(deadline).await?.unzip();
        Ok(Changes::from_source(AtomSource { core, watcher, since, last, losses, anew: false, look: false }))
    }

    /// Calls `f` with changes from now on, one after the other, until [`remove_watch`](Self::remove_watch) is called or
    /// the last clone of this handle is dropped. It replaces a watch of the same name.
    ///
    /// `f` is called on a thread that may block, like that of [`Ref::add_watch`](crate::Ref::add_watch).
    #[doc(alias = "add-watch!!")]
    pub async fn add_watch(
        &self,
        name: impl Into<String>,
        f: impl Fn(&Change<T>) + Send + Sync + 'static,
    ) -> Result<()> {
        let changes = self.watch().await?;
        self.inner.watches.add(&self.inner.core.engine.config.tasks, name.into(), changes, f);
        Ok(())
    }

    /// Ends the watch of this name; `false`: there is none.
    #[doc(alias = "remove-watch!!")]
    pub fn remove_watch(&self, name: &str) -> bool {
        self.inner.watches.remove(name)
    }

    /// Applies `decide` to the current value, alone or together with other tasks' operations on it. `Ok(None)`: it
    /// chose not to write.
    async fn write<O>(
        &self,
        operation: &'static str,
        decide: impl Fn(&Shared) -> Result<Option<(T, O)>>,
    ) -> Result<Option<O>> {
        self.inner.core.engine.begin(operation)?;
        let core = &self.inner.core;
        let checked = |current: &Shared| {
            let Some((new, out)) = decide(current)? else {
                return Ok(None);
            };
            let new: Shared = Arc::new(new);
            core.cell.validate(&new)?;
            Ok(Some((new, out)))
        };
        core.write(checked).await.map_err(|error| error.at(&core.cell.key).during(operation))
    }
}

fn not_found(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "there is no atom of this name, or it was destroyed: create it").at(key)
}

impl AtomCore {
    async fn create(&self, value: &Shared, or_open: bool, deadline: Option<Instant>) -> Result<()> {
        if or_open && self.current(deadline).await?.is_some() {
            return Ok(());
        }
        self.engine.until(deadline, || self.container.init()).await?;
        self.cell.validate(value)?;
        match self.set_if(None, value, deadline).await? {
            CasOutcome::Set(_) => Ok(()),
            CasOutcome::Stale(found) if or_open => self.decode(found).map(drop),
            // This works whatever the type of its value is.
            CasOutcome::Stale(_) => {
                Err(Error::new(ErrorKind::AlreadyExists, "there is an atom of this name already: open it"))
            }
        }
    }

    async fn current(&self, deadline: Option<Instant>) -> Result<Current> {
        let found = self.engine.until(deadline, || self.container.state()).await;
        // The value that was read may be older than one that this client has seen.
        self.engine.tell_losses()?;
        self.decode(found.map_err(|error| error.at(&self.cell.key))?)
    }

    async fn existing(&self, deadline: Option<Instant>) -> Result<(Shared, Revision)> {
        self.current(deadline).await?.ok_or_else(|| not_found(&self.cell.key))
    }

    fn decode(&self, found: Option<(State, Revision)>) -> Result<Current> {
        found.map(|(state, revision)| Ok((self.cell.decode(&state)?, revision))).transpose()
    }

    /// Applies a function that decides on a new value, until the value is written or the function chooses not to write.
    async fn write<O>(&self, decide: impl Fn(&Shared) -> Result<Option<(Shared, O)>>) -> Result<Option<O>> {
        let begun = Instant::now();
        let deadline = self.engine.deadline();
        let late = |lost: u32| {
            let error = Error::new(ErrorKind::Timeout, "the deadline passed before the atom could be written");
            error.with_effort(lost + 1, begun.elapsed())
        };
        // In memory a write takes less time than combining it with others.
        let mut alone = self.cell.store.capabilities().in_process;
        for lost in 0.. {
            let written = match alone {
                true => self.write_alone(&decide, deadline).await?,
                false => match self.write_together(&decide, deadline).await? {
                    Together::Written(out) => Some(out),
                    Together::Lost => None,
                    Together::Late => return Err(late(lost)),
                    Together::Failed => {
                        alone = true;
                        None
                    }
                },
            };
            if let Some(out) = written {
                return Ok(out);
            }
            if !self.engine.yield_or_pause(lost, deadline).await {
                self.engine.closing.check()?;
                return Err(late(lost));
            }
        }
        unreachable!("the loop above has no end but a return")
    }

    /// Writes together with other tasks that write at the same time.
    async fn write_together<O>(
        &self,
        decide: &impl Fn(&Shared) -> Result<Option<(Shared, O)>>,
        deadline: Option<Instant>,
    ) -> Result<Together<O>> {
        let closing = &self.engine.closing;
        let _busy = closing.enter()?;
        let mut own = None;
        let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        for again in 0.. {
            if again > 0 && is_late() {
                return Ok(Together::Late);
            }
            let moved = self.combiner.moved();
            let part = self.combiner.take_part(decide, deadline, own.as_ref());
            own = None;
            match part {
                Part::Lead(lead) => {
                    let (value, revision) = match self.existing(deadline).await {
                        // It has waited for others until then.
                        Err(error) if again > 0 && error.kind() == ErrorKind::Unavailable && is_late() => {
                            return Ok(Together::Late);
                        }
                        found => found?,
                    };
                    lead.has_read(&value, revision);
                    own = Some(lead);
                }
                Part::Write { lead, revision, new, out } => {
                    return Ok(match self.set_if(Some(revision), &new, deadline).await? {
                        CasOutcome::Set(revision) => {
                            lead.done(&self.engine.config.tasks, revision, &self.cell, &self.container);
                            Together::Written(Some(out))
                        }
                        CasOutcome::Stale(_) => Together::Lost,
                    });
                }
                Part::Nothing(out) => return out.map(Together::Written),
                Part::Joined { out, place } => {
                    match closing.last_work(closing.race(place.fate(deadline))).await.unwrap_or(Fate::Unknown) {
                        Fate::Done => return out.map(Together::Written),
                        Fate::Lost => {}
                        Fate::Late => return Ok(Together::Late),
                        Fate::Failed => return Ok(Together::Failed),
                        Fate::Unknown => {
                            let message = "it was written together with others, and the reply to that did not come";
                            return Err(Error::new(ErrorKind::OutcomeUnknown, message));
                        }
                    }
                }
                Part::Alone => {
                    let written = self.write_alone(decide, deadline).await?;
                    return Ok(written.map_or(Together::Lost, Together::Written));
                }
                Part::Overtaken => return Ok(Together::Lost),
                Part::Wait => {
                    // At the deadline the loop ends.
                    let _ = closing.race(with_deadline(deadline, pin!(moved))).await?;
                }
            }
        }
        unreachable!("the loop above has no end but a return")
    }

    /// Reads, decides and writes by compare-and-set; `None`: another process wrote in between.
    async fn write_alone<O>(
        &self,
        decide: &impl Fn(&Shared) -> Result<Option<(Shared, O)>>,
        deadline: Option<Instant>,
    ) -> Result<Option<Option<O>>> {
        let (value, revision) = self.existing(deadline).await?;
        let Some((new, out)) = decide(&value)? else {
            return Ok(Some(None));
        };
        Ok(match self.set_if(Some(revision), &new, deadline).await? {
            CasOutcome::Set(_) => Some(Some(out)),
            CasOutcome::Stale(_) => None,
        })
    }

    async fn set_if(&self, expected: Option<Revision>, new: &Shared, deadline: Option<Instant>) -> Result<CasOutcome> {
        let state = self.cell.encode_for_store(new)?;
        let write = || self.container.compare_and_set_state(expected.clone(), state.clone());
        let done = self.engine.until_or(deadline, ErrorKind::OutcomeUnknown, write).await;
        done.map_err(|error| error.at(&self.cell.key))
    }
}

impl AtomCore {
    /// Tells a watch of a loss: the values it has seen belong to another history.
    fn tell_losses(&self, losses: &mut Position, anew: &mut bool) -> Result<()> {
        let Some(lost) = self.engine.losses.next(losses) else { return Ok(()) };
        *anew = true;
        Err(lost_commits(lost).at(&self.cell.key))
    }
}

/// Follows an atom by the hints of its container.
struct AtomSource {
    core: AtomCore,
    watcher: Box<dyn Watcher>,
    /// The last state seen, readable or not.
    since: Option<Revision>,
    last: Option<Shared>,
    /// The losses that were told.
    losses: Position,
    /// Writes were lost: the next value is delivered as it is found.
    anew: bool,
    /// Look before waiting: something may have changed.
    look: bool,
}

impl<T: Value> Source<T> for AtomSource {
    async fn next(&mut self) -> Result<Change<T>> {
        loop {
            let AtomCore { engine, container, .. } = &self.core;
            self.core.tell_losses(&mut self.losses, &mut self.anew)?;
            if !self.look && !self.anew {
                self.watcher.changed().await?;
                self.look = true;
            }
            let now = engine.until(None, || container.state()).await;
            // A state that cannot be read is told once, and looked at again when it changes.
            self.look = false;
            self.core.tell_losses(&mut self.losses, &mut self.anew)?;
            let now = now?;
            let revision = now.as_ref().map(|(_, revision)| revision.clone());
            if !std::mem::take(&mut self.anew) && revision == self.since {
                continue;
            }
            self.since = revision;
            let new = self.core.decode(now)?.map(|(value, _)| value);
            let old = std::mem::replace(&mut self.last, new.clone());
            let (old, new) = (old.map(cloned).transpose()?, new.map(cloned).transpose()?);
            return Ok(Change { old, new, point: None, skipped: true });
        }
    }
}

impl<T> Clone for Atom<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), types: PhantomData }
    }
}

impl<T> std::fmt::Debug for Atom<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Atom").field(&self.inner.core.cell.key).finish()
    }
}
