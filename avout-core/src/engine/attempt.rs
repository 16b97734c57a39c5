use std::collections::HashMap;
use std::sync::Arc;

use super::cell::{Cell, Function};
use super::floor::KnownFloor;
use super::keymap::KeyMap;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Entry, Key, Payload, Point, Reading, Revision, Shared, Snapshot, place};

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
    pub(crate) primed: Option<Primed>,
    /// The floor when the attempt began.
    pub(crate) floor: Option<KnownFloor>,
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

/// Entries that were all current at one point.
pub(crate) struct Primed {
    pub(crate) point: Point,
    pub(crate) entries: HashMap<Key, Option<Entry>>,
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
    /// What was current at the read point; `None`: absent.
    pub(crate) payload: Option<Payload>,
    /// `payload` comes from the history: the key has changed since the read point.
    pub(crate) historical: bool,
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

/// What to do to see some keys.
pub(crate) enum Plan {
    /// Nothing: they are seen.
    Seen,
    /// Read these keys; the first `wanted` of them are new, the others were seen before and are read to extend.
    Read { keys: Vec<Key>, wanted: usize, generation: u64 },
}

impl Seen {
    fn current(entry: Option<Entry>) -> Self {
        let payload = entry.as_ref().map(|entry| entry.record.payload.clone());
        Self { entry, payload, historical: false, value: None }
    }

    pub(crate) fn revision(&self) -> Option<&Revision> {
        self.entry.as_ref().map(|entry| &entry.revision)
    }
}

impl Attempt {
    pub(crate) fn new(primed: Option<Primed>, floor: Option<KnownFloor>) -> Self {
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
    pub(crate) fn plan(&mut self, wanted: &[&Key], extend: bool) -> Plan {
        self.take_primed(wanted);
        let unseen = |key: &&&Key| self.keys.get(key).is_none_or(|touched| touched.seen.is_none());
        let mut keys: Vec<Key> = Vec::with_capacity(wanted.len());
        for key in wanted.iter().filter(unseen) {
            if !keys.contains(key) {
                keys.push((*key).clone());
            }
        }
        if keys.is_empty() {
            return Plan::Seen;
        }
        let wanted = keys.len();
        if extend {
            keys.extend(self.seen().map(|(key, _)| key.clone()));
        }
        Plan::Read { keys, wanted, generation: self.generation }
    }

    fn take_primed(&mut self, wanted: &[&Key]) {
        let Some(mut primed) = self.primed.take() else {
            return;
        };
        if self.read_point.is_some_and(|point| point != primed.point) {
            return;
        }
        for key in wanted {
            if let Some(entry) = primed.entries.remove(*key) {
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

    /// All keys that were seen.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Key, &Seen)> {
        self.keys.iter().filter_map(|(key, touched)| touched.seen.as_ref().map(|seen| (key, seen)))
    }

    /// Takes in the entries of a plan. `Ok(false)`: another plan is needed, with an extension if `extend` now
    /// says so.
    pub(crate) fn admit(
        &mut self,
        keys: &[Key],
        wanted: usize,
        generation: u64,
        snapshot: Snapshot,
        extend: &mut bool,
    ) -> Result<bool> {
        let extended = keys.len() > wanted;
        let Some(read_point) = self.read_point else {
            self.read_point = Some(snapshot.point);
            self.see_all(keys, snapshot.entries);
            return Ok(true);
        };
        match place(read_point, snapshot.point, snapshot.entries[..wanted].iter().map(Option::as_ref)) {
            Reading::Again => return Ok(false),
            Reading::Use => {
                self.see_all(&keys[..wanted], snapshot.entries);
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
        let unchanged = keys[wanted..].iter().zip(&snapshot.entries[wanted..]).all(|(key, entry)| {
            let seen = self.keys.get(key).and_then(|touched| touched.seen.as_ref());
            seen.is_some_and(|seen| seen.revision() == entry.as_ref().map(|entry| &entry.revision))
        });
        if !self.pinned && unchanged {
            self.read_point = Some(snapshot.point);
            self.see_all(&keys[..wanted], snapshot.entries);
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
                    let historical = since != entry.record.since(entry.point);
                    let payload = Some(payload.clone());
                    Seen { entry: Some(entry), payload, historical, value: None }
                }
                Some(entry) => Seen::current(Some(entry)),
                None if snapshot.point == read_point => Seen::current(None),
                None => return Err(self.doom(key)),
            };
            self.see(key, seen);
        }
        Ok(true)
    }

    fn see_all(&mut self, keys: &[Key], entries: Vec<Option<Entry>>) {
        for (key, entry) in keys.iter().zip(entries) {
            self.see(key, Seen::current(entry));
        }
    }

    /// The pending write of a key.
    pub(crate) fn write(&self, key: &Key) -> Option<&Write> {
        self.keys.get(key).and_then(|touched| touched.write.as_ref())
    }

    /// All pending writes, to put them back with [`resume`](Self::resume).
    pub(crate) fn save(&self) -> Vec<(Key, Write)> {
        let writes = self.keys.iter().filter_map(|(key, touched)| Some((key, touched.write.as_ref()?)));
        writes.map(|(key, write)| (key.clone(), write.clone())).collect()
    }

    /// After a part of the body ended: if it did in a retry, undoes its writes and lets the attempt go on. What was read
    /// stays read. Otherwise answers `false`, and changes nothing.
    pub(crate) fn resume(&mut self, saved: Vec<(Key, Write)>) -> bool {
        if !matches!(self.phase, Phase::Retry) {
            return false;
        }
        self.phase = Phase::Running;
        for (_, touched) in self.keys.iter_mut() {
            touched.write = None;
        }
        for (key, write) in saved {
            self.keys.entry(&key).write = Some(write);
        }
        true
    }
}

fn restart(key: &Key) -> Error {
    Error::new(ErrorKind::Restart, "changed by another transaction: this attempt will be run again").at(key)
}

impl Write {
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
