//! Where a [`Once`](super::Once) remembers ids, and how many.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How many ids a [`Once`] remembers, and where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Settings {
    /// All ids are in the buckets that this number makes.
    Keep(u64),
    Moving {
        keep: u64,
        /// Ids may still be in the bucket that they had when there were so many.
        past: Vec<u64>,
        /// All is being removed.
        ending: bool,
    },
}

/// How many ids a bucket holds.
pub(super) const IN_BUCKET: usize = 64;
/// How many of `keep` ids fall into one bucket, on average.
const ON_AVERAGE: u64 = 32;

impl Settings {
    pub(super) fn keep(&self) -> u64 {
        match self {
            Self::Keep(keep) | Self::Moving { keep, .. } => *keep,
        }
    }

    pub(super) fn past(&self) -> &[u64] {
        match self {
            Self::Keep(_) => &[],
            Self::Moving { past, .. } => past,
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Moving { ending: true, .. })
    }

    /// The same for another number.
    pub(super) fn changed(&self, keep: u64) -> Self {
        let mut past = self.past().to_vec();
        past.push(buckets(self.keep()));
        past.sort_unstable();
        past.dedup();
        past.retain(|past| *past != buckets(keep));
        if past.is_empty() { Self::Keep(keep) } else { Self::Moving { keep, past, ending: false } }
    }

    /// Refuses it while all is being removed.
    pub(super) fn refuse_ending(&self) -> Result<()> {
        match self.is_ending() {
            true => Err(Error::new(ErrorKind::Contended, "it is being destroyed: if nobody does so, destroy it again")),
            false => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    /// Oldest first.
    pub(super) done: Vec<Done>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) id: String,
    #[serde(with = "bytes_as_bytes")]
    pub(super) result: Vec<u8>,
}

/// Without this each byte would take up to two.
mod bytes_as_bytes {
    use serde::de::{Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl Bucket {
    pub(super) fn find(&self, id: &str) -> Option<&Done> {
        self.done.iter().find(|done| done.id == id)
    }
}

/// How many buckets it takes for each to be half full.
pub(super) fn buckets(keep: u64) -> u64 {
    keep.div_ceil(ON_AVERAGE).next_power_of_two()
}

/// The number of an id's bucket, of so many.
pub(super) fn bucket_of(id: &str, buckets: u64) -> u64 {
    hash(id) & (buckets - 1)
}

/// FNV-1a, mixed: it must stay the same for ever, in all processes.
fn hash(id: &str) -> u64 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

pub(super) fn some(keep: u64) -> Result<()> {
    match keep {
        0 => Err(Error::new(ErrorKind::InvalidInput, "at least one id has to be remembered")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handles::{Codec, MessagePack};

    const KEEP: u64 = 65_536;

    /// An id stays in its bucket for ever, and ids are spread over the buckets: with as many as are to be kept none is full.
    #[test]
    fn spreads_ids() {
        assert_eq!(hash("payment 17"), hash(&String::from("payment 17")));
        let mut buckets = vec![0_usize; 2048];
        for id in 0..KEEP {
            buckets[(hash(&format!("request/{id}")) & 2047) as usize] += 1;
        }
        let fullest = buckets.into_iter().max().unwrap_or_default();
        assert!(fullest <= IN_BUCKET, "{fullest} of {KEEP} ids in one bucket");
    }

    /// Settings are the bare number that they were in the first format, but while ids are being moved.
    #[test]
    fn settings_are_a_number() {
        let first = Codec::<u64>::encode(&MessagePack, &65_536).expect("a number");
        assert_eq!(Codec::<Settings>::encode(&MessagePack, &Settings::Keep(65_536)).expect("a number"), first);
        let read: Settings = MessagePack.decode(&first).expect("settings");
        assert_eq!(read, Settings::Keep(65_536));
        let moving = read.changed(32);
        assert_eq!(moving, Settings::Moving { keep: 32, past: vec![2048], ending: false });
        assert_eq!(moving.changed(65_536), Settings::Moving { keep: 65_536, past: vec![1], ending: false });
        let bytes = Codec::<Settings>::encode(&MessagePack, &moving).expect("settings");
        let again: Settings = MessagePack.decode(&bytes).expect("settings");
        assert_eq!(again, moving);
        assert_eq!(Settings::Keep(64).changed(40), Settings::Keep(40), "there are two buckets as before");
    }
}
