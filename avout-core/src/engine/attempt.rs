use std::sync::Arc;

use super::cell::{Cell, Function, absent};
use super::floor::KnownFloor;
use super::keymap::KeyMap;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Entry, Key, Payload, Point, Reading, Revision, Shared, Snapshot, State, classify};

/// From how many keys on that were seen a read no longer reads them all again to move the read point up.
const MOST_READ_AGAIN: usize = 32;

/// What happens after the end of an attempt, in the order in which it was asked for.
pub(crate) type CommitHook = Box<dyn FnOnce(Point) + Send>;
/// What happens when an attempt is given up.
pub(crate) type AbortHook = Box<dyn FnOnce() + Send>;

/// One try of a transaction: what its body has read and written so far.
#[derive(Default)]
pub(crate) struct Attempt {
    /// What the body sees; set by the first read.
    pub(crate) read_point: Option<Point>,
    /// Something that was read has changed since, so the read point can no longer move.
    pub(crate) pinned: bool,
    pub(crate) keys: KeyMap<Touched>,
    /// Grows with every key that is seen, so that an extension notices what was read beside it.
    pub(crate) generation: u64,
    /// Entries that a conflict gave for free, all current at one point.
    pub(crate) primed: Option<Box<Primed>>,
    /// The floor when the attempt began.
    pub(crate) floor: Option<KnownFloor>,
    /// How many losses the stores had had when the attempt began.
    pub(crate) history: u64,
    pub(crate) phase: Phase,
    pub(crate) on_commit: Vec<CommitHook>,
    pub(crate) on_abort: Vec<AbortHook>,
}

/// What becomes of the attempt.
#[derive(Default)]
pub(crate) enum Phase {
    #[default]
    Running,
    /// It cannot commit and the body will be run again, whatever the body returns.
    Doomed { key: Key },
    /// The body asked to wait for a change of what it read.
    Retry,
    /// The body is over.
    Ended,
}

/// Entries that were all current at one point. Always in a box: most attempts have none, and have no room for them.
pub(crate) struct Primed {
    /// The floor under which they were seen, or an earlier one. An attempt that uses them commits only under this one.
    pub(crate) floor: Option<KnownFloor>,
    pub(crate) point: Point,
    /// Each is taken out when an attempt uses it.
    entries: KeyMap<Option<Option<Entry>>>,
}

/// What an attempt did to one key.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) seen: Option<Seen>,
    /// The body knows the value: under `Serializable` the commit checks it.
    pub(crate) read: bool,
    /// The body asked for the value to be protected: the commit always checks it.
    pub(crate) ensured: bool,
    pub(crate) write: Option<Write>,
}

/// A key's state at the read point.
pub(crate) struct Seen {
    /// The current entry when it was read: what a commit compares.
    pub(crate) entry: Option<Entry>,
    /// What was current at the read point, if that comes from the entry's history: the key has changed since.
    pub(crate) past: Option<Box<Payload>>,
    /// The value, once it was decoded.
    pub(crate) value: Option<Shared>,
}

/// A write that waits for the commit.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) cell: Arc<Cell>,
    pub(crate) action: Action,
}

#[derive(Clone)]
pub(crate) enum Action {
    Set(Shared),
    /// Sets a ref that must not exist yet.
    Create(Shared),
    /// `provisional` is the value for the body; the commit applies the functions again if the ref has changed.
    Commute {
        functions: Vec<Function>,
        provisional: Shared,
    },
    Destroy,
}

/// Where an attempt was before a part of its body.
pub(crate) struct Saved {
    writes: Vec<(Key, Write)>,
    on_commit: usize,
    on_abort: usize,
}

/// What a body is shown of a cell.
pub(crate) enum Shown {
    Value(Shared),
    /// The value has to be loaded.
    Payload(Payload),
}

/// What to do to see some keys.
pub(crate) enum ReadPlan {
    /// Nothing: they are seen.
    Seen,
    /// Read these keys; the first `wanted` of them are new, the others were seen before and are read to extend.
    Read { keys: Vec<Key>, wanted: usize, generation: u64 },
}

impl Seen {
    fn current(entry: Option<Entry>) -> Self {
        Self { entry, past: None, value: None }
    }

    /// What was current at the read point; `None`: absent.
    pub(crate) fn payload(&self) -> Option<&Payload> {
        self.past.as_deref().or(self.entry.as_ref().map(|entry| &entry.record.payload))
    }

    /// Whether the ref existed at the read point.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.payload(), None | Some(Payload::Deleted))
    }

    pub(crate) fn revision(&self) -> Option<&Revision> {
        self.entry.as_ref().map(|entry| &entry.revision)
    }
}

impl Primed {
    pub(crate) fn new(
        floor: Option<KnownFloor>,
        point: Point,
        entries: impl IntoIterator<Item = (Key, Option<Entry>)>,
    ) -> Box<Self> {
        let entries = entries.into_iter().map(|(key, entry)| (key, Some(entry))).collect();
        Box::new(Self { floor, point, entries })
    }
}

impl Attempt {
    pub(crate) fn new(primed: Option<Box<Primed>>, floor: Option<KnownFloor>) -> Self {
        let floor = primed.as_ref().and_then(|primed| primed.floor.clone()).or(floor);
        Self { primed, floor, ..Self::default() }
    }

    /// Refuses to go on when the attempt cannot.
    pub(crate) fn check_running(&self) -> Result<()> {
        match &self.phase {
            Phase::Running => Ok(()),
            Phase::Doomed { key } => Err(restart(key)),
            Phase::Retry => Err(Error::new(ErrorKind::Restart, "the transaction waits for a change of what it read")),
            Phase::Ended => {
                Err(Error::new(ErrorKind::Misuse, "this Tx was used after its body had ended: do not keep it"))
            }
        }
    }

    /// Gives the attempt up for another run of the body.
    pub(crate) fn doom(&mut self, key: &Key) -> Error {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Doomed { key: key.clone() };
        }
        restart(key)
    }

    /// Keys that the body knows of and that are not seen yet; takes them from the primed entries where it can.
    pub(crate) fn plan<'k>(&mut self, wanted: impl Iterator<Item = &'k Key> + Clone, extend: bool) -> ReadPlan {
        self.take_primed(wanted.clone());
        let most = wanted.size_hint().0;
        let mut keys: Vec<Key> = Vec::new();
        for key in wanted {
            if self.keys.get(key).is_none_or(|touched| touched.seen.is_none()) && !keys.contains(key) {
                if keys.is_empty() {
                    keys.reserve_exact(most);
                }
                keys.push(key.clone());
            }
        }
        if keys.is_empty() {
            return ReadPlan::Seen;
        }
        let wanted = keys.len();
        if extend {
            keys.extend(self.seen().map(|(key, _)| key.clone()));
        }
        ReadPlan::Read { keys, wanted, generation: self.generation }
    }

    fn take_primed<'k>(&mut self, wanted: impl Iterator<Item = &'k Key>) {
        let Some(mut primed) = self.primed.take() else {
            return;
        };
        if self.read_point.is_some_and(|point| point != primed.point) {
            return;
        }
        for key in wanted {
            if let Some(entry) = primed.entries.get_mut(key).and_then(Option::take) {
                self.read_point = Some(primed.point);
                self.see(key, Seen::current(entry));
            }
        }
        self.primed = Some(primed);
    }

    fn see(&mut self, key: &Key, seen: Seen) {
        self.generation += 1;
        let touched = self.keys.entry(key);
        if touched.seen.is_none() {
            touched.seen = Some(seen);
        }
    }

    /// What the body is shown of a cell whose key is seen or written. `read`: it comes to know the value, so the commit
    /// protects it.
    pub(crate) fn show(&mut self, cell: &Cell, read: bool) -> Result<Shown> {
        let touched = self.keys.entry(&cell.key);
        if let Some((write, known)) = touched.write.as_ref().and_then(|write| Some((write, write.known()?))) {
            return write.shown_to(cell, known.ok_or_else(|| absent(&cell.key))?);
        }
        touched.read |= read;
        if let Some(write @ Write { action: Action::Commute { provisional, .. }, .. }) = &touched.write {
            return write.shown_to(cell, provisional);
        }
        let Some(seen) = touched.seen.as_ref().filter(|seen| seen.is_alive()) else {
            return Err(absent(&cell.key));
        };
        if let Some(entry) = &seen.entry {
            cell.check_meta(&entry.record.meta)?;
        }
        match (&seen.value, seen.payload()) {
            // Another handle may have read it as another type.
            (Some(value), _) if is_of(cell, value) => Ok(Shown::Value(Arc::clone(value))),
            (_, Some(Payload::Shared(value))) => cell.own(value).map(Shown::Value),
            (_, Some(payload)) => Ok(Shown::Payload(payload.clone())),
            (_, None) => Err(absent(&cell.key)),
        }
    }

    /// Remembers the value of a key that was seen.
    pub(crate) fn know(&mut self, key: &Key, value: &Shared) {
        if let Some(seen) = &mut self.keys.entry(key).seen {
            seen.value = Some(Arc::clone(value));
        }
    }

    /// All keys that were seen.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Key, &Seen)> {
        self.keys.iter().filter_map(|(key, touched)| touched.seen.as_ref().map(|seen| (key, seen)))
    }

    /// Takes in the entries of a plan. `Ok(false)`: another plan is needed, with an extension if `extend` now
    /// says so.
    pub(crate) fn admit(
        &mut self,
        mut keys: Vec<Key>,
        wanted: usize,
        generation: u64,
        snapshot: Snapshot,
        extend: &mut bool,
    ) -> Result<bool> {
        let extended = keys.len() > wanted;
        let Some(read_point) = self.read_point else {
            self.read_point = Some(snapshot.point);
            keys.truncate(wanted);
            self.see_all(keys, snapshot.entries);
            return Ok(true);
        };
        match classify(read_point, snapshot.point, snapshot.entries[..wanted].iter().map(Option::as_ref)) {
            Reading::Again => return Ok(false),
            Reading::Use => {
                keys.truncate(wanted);
                self.see_all(keys, snapshot.entries);
                return Ok(true);
            }
            Reading::Extend => {}
        }
        if !self.pinned && !extended && self.generation > 0 {
            *extend = true;
            return Ok(false);
        }
        if !self.pinned && self.generation != generation {
            return Ok(false);
        }
        if !self.pinned && self.is_unchanged(&keys[wanted..], &snapshot.entries[wanted..]) {
            self.read_point = Some(snapshot.point);
            keys.truncate(wanted);
            self.see_all(keys, snapshot.entries);
            return Ok(true);
        }
        self.pinned = true;
        for (key, entry) in keys[..wanted].iter().zip(snapshot.entries) {
            let seen = match entry {
                Some(entry) if entry.point > read_point => {
                    let Some((since, payload)) = entry.record.at(entry.point, read_point) else {
                        return Err(self.doom(key));
                    };
                    // A reservation makes an entry newer than the payload in it.
                    let past = (since != entry.record.since(entry.point)).then(|| Box::new(payload.clone()));
                    Seen { entry: Some(entry), past, value: None }
                }
                Some(entry) => Seen::current(Some(entry)),
                None if snapshot.point == read_point => Seen::current(None),
                None => return Err(self.doom(key)),
            };
            self.see(key, seen);
        }
        Ok(true)
    }

    /// Where a coordinator with snapshots of its own is to read. `None`: now, together with all that was seen, so that the
    /// read point can move up.
    pub(crate) fn point_to_read_at(&self) -> Option<Point> {
        let many = self.seen().nth(MOST_READ_AGAIN).is_some();
        self.read_point.filter(|_| self.pinned || many)
    }

    /// The same as [`admit`](Self::admit) for a coordinator with snapshots of its own, which is not asked what the points
    /// of its entries say.
    pub(crate) fn admit_native(
        &mut self,
        mut keys: Vec<Key>,
        wanted: usize,
        generation: u64,
        snapshot: Snapshot,
    ) -> bool {
        let Some(read_point) = self.read_point else {
            self.read_point = Some(snapshot.point);
            keys.truncate(wanted);
            self.see_all(keys, snapshot.entries);
            return true;
        };
        if snapshot.point != read_point {
            if snapshot.point < read_point || self.pinned || self.generation != generation {
                return false;
            }
            if !self.is_unchanged(&keys[wanted..], &snapshot.entries[wanted..]) {
                self.pinned = true;
                return false;
            }
            self.read_point = Some(snapshot.point);
        }
        keys.truncate(wanted);
        self.see_all(keys, snapshot.entries);
        true
    }

    /// Whether these keys, which were seen, have the revisions with which they were.
    fn is_unchanged(&self, keys: &[Key], entries: &[Option<Entry>]) -> bool {
        keys.iter().zip(entries).all(|(key, entry)| {
            let seen = self.keys.get(key).and_then(|touched| touched.seen.as_ref());
            seen.is_some_and(|seen| seen.revision() == entry.as_ref().map(|entry| &entry.revision))
        })
    }

    fn see_all(&mut self, keys: Vec<Key>, entries: Vec<Option<Entry>>) {
        self.generation += keys.len() as u64;
        let first = self.keys.is_empty();
        self.keys.reserve(keys.len());
        for (key, entry) in keys.into_iter().zip(entries) {
            if first {
                // The keys of a plan are all different.
                self.keys.push(key, Touched { seen: Some(Seen::current(entry)), ..Touched::default() });
                continue;
            }
            let touched = self.keys.entry_of(key);
            if touched.seen.is_none() {
                touched.seen = Some(Seen::current(entry));
            }
        }
    }

    /// What the body came to know, but for what was made part of a plan.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&Key, &Seen)> {
        let known = self.keys.iter().filter(|(_, touched)| touched.read || touched.ensured);
        known.filter_map(|(key, touched)| Some((key, touched.seen.as_ref()?)))
    }

    /// The keys with a pending write.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|(_, touched)| touched.write.is_some()).map(|(key, _)| key)
    }

    /// The pending write of a key.
    pub(crate) fn write(&self, key: &Key) -> Option<&Write> {
        self.keys.get(key).and_then(|touched| touched.write.as_ref())
    }

    /// Whether the body's own writes alone tell what it sees of a key.
    pub(crate) fn is_written(&self, key: &Key) -> bool {
        self.write(key).is_some_and(|write| write.known().is_some())
    }

    /// All pending writes and hooks, to go back to with [`resume`](Self::resume).
    pub(crate) fn save(&self) -> Saved {
        let writes = self.keys.iter().filter_map(|(key, touched)| Some((key, touched.write.as_ref()?)));
        Saved {
            writes: writes.map(|(key, write)| (key.clone(), write.clone())).collect(),
            on_commit: self.on_commit.len(),
            on_abort: self.on_abort.len(),
        }
    }

    /// After a part of the body ended: if it did in a retry, undoes its writes and lets the attempt go on; what was read
    /// stays read. Gives the part's hooks for an abort, to be called. Otherwise answers `None`, and changes nothing.
    pub(crate) fn resume(&mut self, saved: Saved) -> Option<Vec<AbortHook>> {
        if !matches!(self.phase, Phase::Retry) {
            return None;
        }
        self.phase = Phase::Running;
        self.on_commit.truncate(saved.on_commit);
        for (_, touched) in self.keys.iter_mut() {
            touched.write = None;
        }
        for (key, write) in saved.writes {
            self.keys.entry(&key).write = Some(write);
        }
        Some(self.on_abort.split_off(saved.on_abort.min(self.on_abort.len())))
    }
}

fn restart(key: &Key) -> Error {
    Error::new(ErrorKind::Restart, "changed by another transaction: this attempt will be run again").at(key)
}

fn is_of(cell: &Cell, value: &Shared) -> bool {
    (**value).type_id() == cell.coder.rust_type()
}

impl Write {
    /// A value of this write through a handle of the same ref, which may be of another type.
    fn shown_to(&self, cell: &Cell, value: &Shared) -> Result<Shown> {
        if is_of(cell, value) {
            return Ok(Shown::Value(Arc::clone(value)));
        }
        let adopted = cell.own(value).or_else(|mismatch| match self.cell.encode(value) {
            Ok(bytes) => cell.decode(&State::Bytes(bytes)),
            Err(_) => Err(mismatch),
        });
        adopted.map(Shown::Value)
    }

    /// The value that the body reads back; `None`: it destroys the ref.
    pub(crate) fn shown(&self) -> Option<&Shared> {
        match &self.action {
            Action::Set(value) | Action::Create(value) | Action::Commute { provisional: value, .. } => Some(value),
            Action::Destroy => None,
        }
    }

    /// The value that the body would read back without a look at the store: `None` if that is open, since it depends on
    /// the current value; `Some(None)` if there will be none.
    pub(crate) fn known(&self) -> Option<Option<&Shared>> {
        match &self.action {
            Action::Set(value) | Action::Create(value) => Some(Some(value)),
            Action::Destroy => Some(None),
            Action::Commute { .. } => None,
        }
    }
}
