use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use avout_core::protocol::{Key, Record};
use bytes::Bytes;

/// The largest record that is kept.
const LARGEST: usize = 4 << 10;

/// How much is kept, about.
const MOST: usize = 4 << 20;

/// What a record takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// Records beside the bytes that they were decoded from, or encoded to: whoever reads the same bytes again, as nearly every
/// transaction does that comes after another one of its client, need not decode them. They are compared, so nothing here can be
/// out of date.
#[derive(Default)]
pub(crate) struct Decoded(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    records: HashMap<Key, (Bytes, Arc<Record>)>,
    bytes: usize,
}

impl Decoded {
    /// The record of these bytes, which lie under this key.
    pub(crate) fn find(&self, key: &Key, bytes: &[u8]) -> Option<Arc<Record>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, record) = kept.records.get(key)?;
        (known == bytes).then(|| Arc::clone(record))
    }

    /// Keeps a record in the place of the one before it.
    pub(crate) fn keep(&self, key: &Key, bytes: Bytes, record: &Arc<Record>) {
        if bytes.len() > LARGEST {
            return;
        }
        let size = bytes.len() + OVERHEAD;
        let (key, new) = (key.clone(), (bytes, Arc::clone(record)));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += size;
        let before = kept.records.insert(key, new);
        kept.bytes -= before.as_ref().map_or(0, |(bytes, _)| bytes.len() + OVERHEAD);
        let all = (kept.bytes > MOST).then(|| std::mem::take(&mut *kept));
        // What they hold is freed when nobody waits for it.
        drop(kept);
        drop((before, all));
    }
}

#[cfg(test)]
mod tests {
    use avout_core::protocol::{CodecId, Meta, Payload, Realm};

    use super::*;

    fn record(n: u8) -> (Bytes, Arc<Record>) {
        let meta = Meta { realm: Realm::new(1), codec: CodecId(1), type_tag: "t".into(), history: 1 };
        let record = Record::first(meta.into(), Payload::Inline(Bytes::from(vec![n; 100])));
        (record.encode().expect("it is small").into(), Arc::new(record))
    }

    /// A record is found by its key and its own bytes, and by no others.
    #[test]
    fn the_same_bytes_give_the_same_record() {
        let decoded = Decoded::default();
        let [a, b] = ["/a", "/b"].map(|name| Key::new(name).expect("a name"));
        let ((first, one), (second, two)) = (record(1), record(2));
        decoded.keep(&a, first.clone(), &one);
        assert!(decoded.find(&a, &first).is_some_and(|found| Arc::ptr_eq(&found, &one)));
        assert!(decoded.find(&a, &second).is_none() && decoded.find(&b, &first).is_none());
        assert!(decoded.find(&a, &first[..50]).is_none());
        decoded.keep(&a, second.clone(), &two);
        assert!(decoded.find(&a, &second).is_some_and(|found| Arc::ptr_eq(&found, &two)));
        assert!(decoded.find(&a, &first).is_none());
    }

    /// However many there are, about as much is kept as is allowed.
    #[test]
    fn it_has_an_end() {
        let decoded = Decoded::default();
        let (bytes, one) = record(1);
        for n in 0..3 * MOST / (bytes.len() + OVERHEAD) {
            decoded.keep(&Key::new(format!("/{n}")).expect("a name"), bytes.clone(), &one);
            let kept = decoded.0.lock().expect("no panic");
            assert_eq!(kept.bytes, kept.records.len() * (bytes.len() + OVERHEAD));
            assert!(kept.bytes <= MOST);
        }
        decoded.keep(&Key::new("/large").expect("a name"), Bytes::from(vec![0; LARGEST + 1]), &one);
        assert!(decoded.find(&Key::new("/large").expect("a name"), &vec![0; LARGEST + 1]).is_none());
    }
}
