use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use avout_core::protocol::{Key, Record};
use bytes::Bytes;

use crate::schema::clock::{Clock, Stamp};

/// The largest record that is kept.
const LARGEST: usize = 4 << 10;

/// How much is kept, about.
const MOST: usize = 4 << 20;

/// What a record takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// After a look in vain, so many reads do not look.
const DOUBT: i32 = 64;

/// So many looks that found what they sought make up for one in vain.
const WORTH: i32 = 8;

/// Records that this client has read or written.
///
/// They save two things:
///
/// - *Decoding.* Whoever reads the same bytes again, as nearly every transaction does that comes after another one of its
///   client, need not decode them. The bytes are compared, so this is never out of date.
/// - *Reading.* The clock counts all commits of all clients. While it stands where this client's last commit left it, nobody else
///   has written, and what the client wrote or read there is what the file has. So one look at the clock is enough. Where others
///   write too the clock has nearly always moved on, and after a few looks in vain it is seldom tried.
///
/// A program that is not avout may change rows and leave the clock alone. The writer sees that with its next batch, and nothing
/// from before is relied on any more; so only while a batch is under way are rows not read.
#[derive(Default)]
pub(crate) struct Known {
    kept: Mutex<Kept>,
    /// Whether looks have been worth it. Below zero: how many reads do not look.
    worth: AtomicI32,
}

#[derive(Default)]
pub(crate) struct Kept {
    records: HashMap<Key, Held>,
    bytes: usize,
    /// The clock after this client's last commit.
    clock: Option<Clock>,
    /// Which records are current at that clock: those of this number.
    current: u64,
}

struct Held {
    stamp: Stamp,
    bytes: Bytes,
    record: Arc<Record>,
    /// It was current as long as this is `Kept::current`. Zero: never known to be.
    current: u64,
}

/// A record, and what names it.
pub(crate) type Stamped = (Stamp, Arc<Record>);

impl Known {
    /// The record of these bytes, which lie under this key.
    pub(crate) fn find(&self, key: &Key, bytes: &[u8]) -> Option<Arc<Record>> {
        let kept = self.lock();
        let held = kept.records.get(key)?;
        (held.bytes == bytes).then(|| Arc::clone(&held.record))
    }

    /// The records of these keys, if the file has them as long as its clock is the one that `clock` reads. `None`: they
    /// are to be read.
    pub(crate) fn current<E>(
        &self,
        keys: &[Key],
        clock: impl FnOnce() -> Result<Clock, E>,
    ) -> Result<Option<(Clock, Vec<Stamped>)>, E> {
        let worth = self.worth.load(Ordering::Relaxed);
        if worth < 0 {
            self.worth.store(worth + 1, Ordering::Relaxed);
            return Ok(None);
        }
        let Some((as_of, mut records)) = self.lock().all(keys) else {
            return Ok(None);
        };
        let clock = clock()?;
        let mut found = clock == as_of;
        if !found {
            // This client's own commit was seen before it was noted: it may be by now.
            let now = self.lock().all(keys).filter(|(as_of, _)| *as_of == clock);
            found = now.is_some();
            records = now.map_or(records, |(_, records)| records);
        }
        let worth = if found { (worth + 1).min(DOUBT) } else { worth - WORTH };
        self.worth.store(if worth < 0 { -DOUBT } else { worth }, Ordering::Relaxed);
        Ok(found.then_some((clock, records)))
    }

    /// Keeps a record that was read when the clock was at `clock`.
    pub(crate) fn keep(&self, key: &Key, stamp: Stamp, bytes: Bytes, record: &Arc<Record>, clock: &Clock) {
        if bytes.len() > LARGEST {
            return;
        }
        let mut kept = self.lock();
        let current = if kept.clock == Some(*clock) { kept.current } else { 0 };
        // What is known to be current is not replaced by what may have been read before.
        if current == 0
            && kept.clock.is_some()
            && kept.records.get(key).is_some_and(|held| held.current == kept.current)
        {
            return;
        }
        let before = kept.insert(key, Held { stamp, bytes, record: Arc::clone(record), current });
        let all = kept.make_room();
        // What they hold is freed when nobody waits for it.
        drop(kept);
        drop((before, all));
    }

    /// Notes that these records were found in the file when the clock was at `clock`.
    pub(crate) fn confirm<'a>(&self, found: impl Iterator<Item = (&'a Key, Stamp)>, clock: &Clock) {
        let mut kept = self.lock();
        if kept.clock != Some(*clock) {
            return;
        }
        let current = kept.current;
        for (key, stamp) in found {
            if let Some(held) = kept.records.get_mut(key)
                && held.stamp == stamp
            {
                held.current = current;
            }
        }
    }

    /// Notes a batch of this client's that was committed: it found the clock at `began` and left it at `ended`. `alone`: no other
    /// program has written to the file since the batch before. `note` has each of its commits note what it wrote.
    pub(crate) fn committed(&self, alone: bool, began: &Clock, ended: Clock, note: impl FnOnce(&mut Kept)) {
        let mut kept = self.lock();
        if !alone || kept.clock != Some(*began) {
            // Others have written meanwhile, nobody knows what.
            kept.current += 1;
        }
        kept.clock = Some(ended);
        note(&mut kept);
        let all = kept.make_room();
        drop(kept);
        drop(all);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Notes what the batch wrote that is being noted. What was kept before takes the places of the bytes and the record: whoever
    /// they are from is to free it, for the writer has others waiting.
    pub(crate) fn put(&mut self, key: &Key, stamp: Stamp, bytes: &mut Bytes, record: &mut Arc<Record>) {
        if bytes.len() > LARGEST {
            self.remove(key);
            return;
        }
        let held = Held { stamp, bytes: std::mem::take(bytes), record: Arc::clone(record), current: self.current };
        if let Some(before) = self.insert(key, held) {
            (*bytes, *record) = (before.bytes, before.record);
        }
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.remove(key);
    }

    fn all(&self, keys: &[Key]) -> Option<(Clock, Vec<Stamped>)> {
        let clock = self.clock?;
        let find = |key| {
            let held = self.records.get(key)?;
            (held.current == self.current).then(|| (held.stamp, Arc::clone(&held.record)))
        };
        Some((clock, keys.iter().map(find).collect::<Option<_>>()?))
    }

    fn insert(&mut self, key: &Key, held: Held) -> Option<Held> {
        self.bytes += held.bytes.len() + OVERHEAD;
        let before = match self.records.get_mut(key) {
            Some(place) => Some(std::mem::replace(place, held)),
            None => self.records.insert(key.clone(), held),
        };
        self.bytes -= before.as_ref().map_or(0, |held| held.bytes.len() + OVERHEAD);
        before
    }

    fn remove(&mut self, key: &Key) -> Option<Held> {
        let before = self.records.remove(key);
        self.bytes -= before.as_ref().map_or(0, |held| held.bytes.len() + OVERHEAD);
        before
    }

    /// Gives everything away if there is too much.
    fn make_room(&mut self) -> Option<HashMap<Key, Held>> {
        (self.bytes > MOST).then(|| {
            self.bytes = 0;
            std::mem::take(&mut self.records)
        })
    }
}

#[cfg(test)]
mod tests {
    use avout_core::protocol::{CodecId, Meta, Payload, Realm};

    use super::*;

    fn at(point: i64) -> Stamp {
        Stamp { point, writer: 1 }
    }

    fn clock(point: i64) -> Clock {
        Clock { point, last: None }
    }

    fn record(n: u8) -> (Bytes, Arc<Record>) {
        let meta = Meta { realm: Realm::new(1), codec: CodecId(1), type_tag: "t".into(), history: 1 };
        let record = Record::first(meta.into(), Payload::Inline(Bytes::from(vec![n; 100])));
        (record.encode().expect("it is small").into(), Arc::new(record))
    }

    fn keys<const N: usize>(names: [&str; N]) -> [Key; N] {
        names.map(|name| Key::new(name).expect("a name"))
    }

    /// A batch of this client's own in which each of these keys gets a record of this number, at the point where it ends.
    fn commit(known: &Known, began: i64, ended: i64, writes: &[(&Key, u8)]) {
        known.committed(true, &clock(began), clock(ended), |kept| {
            for (key, n) in writes {
                let (mut bytes, mut record) = record(*n);
                kept.put(key, at(ended), &mut bytes, &mut record);
            }
        });
    }

    /// The points of the records that are known to be current while the clock is there, without doubts from before.
    fn current(known: &Known, keys: &[Key], now: i64) -> Option<Vec<i64>> {
        known.worth.store(0, Ordering::Relaxed);
        let look = || Ok::<_, ()>(clock(now));
        let (as_of, records) = known.current(keys, look).expect("the clock was read")?;
        assert_eq!(as_of, clock(now));
        Some(records.into_iter().map(|(stamp, _)| stamp.point).collect())
    }

    /// A record is found by its key and its own bytes, and by no others.
    #[test]
    fn the_same_bytes_give_the_same_record() {
        let known = Known::default();
        let [a, b] = keys(["/a", "/b"]);
        let ((first, one), (second, two)) = (record(1), record(2));
        known.keep(&a, at(1), first.clone(), &one, &clock(1));
        assert!(known.find(&a, &first).is_some_and(|found| Arc::ptr_eq(&found, &one)));
        assert!(known.find(&a, &second).is_none() && known.find(&b, &first).is_none());
        assert!(known.find(&a, &first[..50]).is_none());
        known.keep(&a, at(2), second.clone(), &two, &clock(2));
        assert!(known.find(&a, &second).is_some_and(|found| Arc::ptr_eq(&found, &two)));
        assert!(known.find(&a, &first).is_none());
    }

    /// However many there are, about as much is kept as is allowed.
    #[test]
    fn it_has_an_end() {
        let known = Known::default();
        let (bytes, one) = record(1);
        for n in 0..3 * MOST / (bytes.len() + OVERHEAD) {
            known.keep(&Key::new(format!("/{n}")).expect("a name"), at(1), bytes.clone(), &one, &clock(1));
            let kept = known.lock();
            assert_eq!(kept.bytes, kept.records.len() * (bytes.len() + OVERHEAD));
            assert!(kept.bytes <= MOST);
        }
        let [large] = keys(["/large"]);
        known.keep(&large, at(1), Bytes::from(vec![0; LARGEST + 1]), &one, &clock(1));
        assert!(known.find(&large, &vec![0; LARGEST + 1]).is_none());
    }

    /// What this client wrote is current as long as nobody else has written, and only all keys together are.
    #[test]
    fn what_was_written_is_current_until_others_write() {
        let known = Known::default();
        let [a, b, c] = keys(["/a", "/b", "/c"]);
        commit(&known, 0, 3, &[(&a, 1), (&b, 2)]);
        commit(&known, 3, 4, &[(&b, 3)]);
        assert_eq!(current(&known, &[a.clone(), b.clone()], 4), Some(vec![3, 4]));
        assert_eq!(current(&known, &[a.clone(), c.clone()], 4), None);
        assert_eq!(current(&known, &[a.clone(), b.clone()], 5), None);
        // Another one has written, and this one after that.
        commit(&known, 5, 6, &[(&b, 4)]);
        assert_eq!(current(&known, std::slice::from_ref(&b), 6), Some(vec![6]));
        assert_eq!(current(&known, std::slice::from_ref(&a), 6), None);
        known.confirm([(&a, at(2)), (&c, at(5))].into_iter(), &clock(6));
        assert_eq!(current(&known, std::slice::from_ref(&a), 6), None, "that is another record");
        known.confirm([(&a, at(3))].into_iter(), &clock(5));
        assert_eq!(current(&known, std::slice::from_ref(&a), 6), None, "that was before");
        known.confirm([(&a, at(3))].into_iter(), &clock(6));
        assert_eq!(current(&known, &[a.clone(), b.clone()], 6), Some(vec![3, 6]));
        // Another program has written, and left the clock alone.
        known.committed(false, &clock(6), clock(7), |_| {});
        assert_eq!(current(&known, std::slice::from_ref(&a), 7), None);
    }

    /// What is deleted or became too large to be kept is not known any more.
    #[test]
    fn what_is_gone_is_not_current() {
        let known = Known::default();
        let [a, b] = keys(["/a", "/b"]);
        commit(&known, 0, 1, &[(&a, 1), (&b, 2)]);
        known.committed(true, &clock(1), clock(2), |kept| kept.delete(&a));
        assert_eq!(current(&known, std::slice::from_ref(&a), 2), None);
        known.committed(true, &clock(2), clock(3), |kept| {
            kept.put(&b, at(3), &mut Bytes::from(vec![0; LARGEST + 1]), &mut record(3).1)
        });
        assert_eq!(current(&known, std::slice::from_ref(&b), 3), None);
    }

    /// What was read is current if the clock was then where it is known to be; and what comes late replaces nothing.
    #[test]
    fn what_was_read_is_current_as_of_then() {
        let known = Known::default();
        let [a, b] = keys(["/a", "/b"]);
        let (old, read) = record(1);
        known.keep(&a, at(1), old.clone(), &read, &clock(1));
        assert_eq!(current(&known, std::slice::from_ref(&a), 1), None, "nothing was written");
        commit(&known, 1, 2, &[(&b, 2)]);
        known.keep(&a, at(1), old.clone(), &read, &clock(2));
        assert_eq!(current(&known, &[a.clone(), b.clone()], 2), Some(vec![1, 2]));
        commit(&known, 2, 3, &[(&a, 3)]);
        known.keep(&a, at(1), old.clone(), &read, &clock(2));
        assert_eq!(current(&known, std::slice::from_ref(&a), 3), Some(vec![3]));
        known.committed(true, &clock(3), clock(4), |kept| kept.delete(&a));
        known.keep(&a, at(3), old, &read, &clock(3));
        assert_eq!(current(&known, std::slice::from_ref(&a), 4), None);
    }

    /// A commit of one's own that becomes visible before it is noted: what is noted by the time the clock was read is used.
    #[test]
    fn a_commit_may_be_noted_meanwhile() {
        let known = Known::default();
        let [a] = keys(["/a"]);
        commit(&known, 0, 1, &[(&a, 1)]);
        let noted = known.current(std::slice::from_ref(&a), || {
            commit(&known, 1, 2, &[(&a, 2)]);
            Ok::<_, ()>(clock(2))
        });
        assert!(matches!(noted, Ok(Some((as_of, records))) if as_of == clock(2) && records[0].0 == at(2)));
        let noted = known.current(std::slice::from_ref(&a), || {
            commit(&known, 2, 3, &[(&a, 3)]);
            commit(&known, 3, 4, &[(&a, 4)]);
            Ok::<_, ()>(clock(3))
        });
        assert!(matches!(noted, Ok(None)), "the clock was read before");
    }

    /// Looks in vain are given up, and tried again after a while.
    #[test]
    fn looks_in_vain_are_seldom() {
        let known = Known::default();
        let [a] = keys(["/a"]);
        commit(&known, 0, 1, &[(&a, 1)]);
        let mut looks = 0;
        for _ in 0..10 * DOUBT {
            let looked = known.current(std::slice::from_ref(&a), || {
                looks += 1;
                Ok::<_, ()>(clock(9))
            });
            assert!(matches!(looked, Ok(None)));
        }
        assert!((5..=10).contains(&looks), "{looks} looks");
        let found = (0..=DOUBT)
            .any(|_| matches!(known.current(std::slice::from_ref(&a), || Ok::<_, ()>(clock(1))), Ok(Some(_))));
        assert!(found, "it is tried again");
    }
}
