//! Values in znodes: whole, or in parts where one znode does not take them.

use avout_core::backend::StoreCapabilities;
use avout_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use zookeeper::{Client as Zk, CreateMode, Error as ZkError, MultiReadResult, MultiReader, Stat};

use crate::schema::{ANY_VERSION, made_by, stamped};
use crate::wire::{Client, Ground, Right, classify, classify_at, unexpected};

/// The largest value, in bytes.
pub(super) const MAX_VALUE: usize = 16 << 20;

/// A value that is larger is worth a warning.
const LARGE: usize = 1 << 20;

/// The most bytes of a value that one znode holds. A server with half of the usual `jute.maxbuffer` takes it.
pub(super) const PART_BYTES: usize = 508 * 1024;

/// How many parts are written or read at the same time.
const AT_ONCE: usize = 4;

const WHOLE: u8 = 1;
const PARTS: u8 = 2;

/// What a value's own znode holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The value.
    Whole(Bytes),
    /// Where its parts are.
    Parts(Parts),
}

/// A value that lies in several znodes. They are written before the head that tells of them, under names that nobody else
/// uses, and are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Random, a part of their names.
    set: u64,
    pub(super) count: u32,
    length: u64,
    checksum: u32,
}

impl Parts {
    /// The name of a part, behind what its kind of container puts before it.
    pub(super) fn name(&self, number: u32) -> String {
        format!("{:016x}.{number}", self.set)
    }

    /// The names of all parts.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.count).map(|number| self.name(number))
    }
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Whole(bytes) => [&[WHOLE][..], bytes].concat(),
            Self::Parts(Parts { set, count, length, checksum }) => {
                let mut out = vec![PARTS];
                out.extend(set.to_be_bytes());
                out.extend(count.to_be_bytes());
                out.extend(length.to_be_bytes());
                out.extend(checksum.to_be_bytes());
                out
            }
        }
    }

    pub(super) fn decode(data: Bytes) -> Result<Self> {
        match data.first() {
            Some(&WHOLE) => Ok(Self::Whole(data.slice(1..))),
            Some(&PARTS) if data.len() == 25 => {
                let number =
                    |from: usize, to: usize| data[from..to].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
                let (count, length) = (number(9, 13) as u32, number(13, 21));
                if length > MAX_VALUE as u64 || u64::from(count) != length.div_ceil(PART_BYTES as u64) {
                    return Err(corrupt());
                }
                Ok(Self::Parts(Parts { set: number(1, 9), count, length, checksum: number(21, 25) as u32 }))
            }
            _ => Err(corrupt()),
        }
    }

    /// The parts, if it is in parts.
    pub(super) fn parts(&self) -> Option<&Parts> {
        match self {
            Self::Whole(_) => None,
            Self::Parts(parts) => Some(parts),
        }
    }
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "the value's znodes are not as avout wrote them")
}

/// What a store in ZooKeeper can do.
pub(super) fn capabilities() -> StoreCapabilities {
    let mut capabilities = StoreCapabilities::default();
    capabilities.max_value = MAX_VALUE;
    capabilities.durable = true;
    capabilities.shared_between_processes = true;
    capabilities.push = true;
    capabilities
}

/// The head of a value. Writes its parts, if it is to have any, as `<before><name>`; the outer znode must be there.
///
/// # Errors
/// `NoNode` inside: the outer znode is not there, and perhaps some parts are not either.
pub(super) async fn write(client: &Client, before: &str, value: Bytes) -> Result<Result<Head, ZkError>> {
    if value.len() <= PART_BYTES {
        return Ok(Ok(Head::Whole(value)));
    }
    if value.len() > LARGE {
        client.warn_of_large(value.len());
    }
    let parts = Parts {
        set: rand::random(),
        count: u32::try_from(value.len().div_ceil(PART_BYTES)).expect("a value has at most 16 MiB"),
        length: value.len() as u64,
        checksum: crc32fast::hash(&value),
    };
    let options = &made_by(&client.options, CreateMode::Persistent);
    let write = |number: u32| {
        let start = number as usize * PART_BYTES;
        let part = value.slice(start..value.len().min(start + PART_BYTES));
        let path = format!("{before}{}", parts.name(number));
        async move { client.change(|changes| changes.create(&path, &part, options)).await }
    };
    // All are waited for: one that is left under way could be made after the outer znode was, and nobody would know of it.
    let answers: Vec<_> = stream::iter((0..parts.count).map(write)).buffered(AT_ONCE).collect().await;
    let mut failed = None;
    let mut made = Vec::new();
    for (answer, name) in answers.into_iter().zip(parts.names()) {
        match answer {
            Ok(Ok(())) => made.push(name),
            Ok(Err(error)) => failed = failed.or(Some(Ok(error))),
            Err(error) => failed = failed.or(Some(Err(error))),
        }
    }
    if let Some(error) = failed {
        for name in made {
            let path = format!("{before}{name}");
            // The first error is told. What is left of the parts goes with the version.
            let _ = client.change(|changes| changes.delete(&path, ANY_VERSION)).await;
        }
        return error.map(Err);
    }
    Ok(Ok(Head::Parts(parts)))
}

/// A value as it was read.
pub(super) struct Found {
    pub(super) stat: Stat,
    /// `None`: the znode stands for the absence of a value.
    pub(super) value: Option<(Head, Bytes)>,
}

/// Reads the value whose head is at `path`, with its parts at `<before><name>`; `None`: there is no head.
///
/// The head is not older than the call. Its parts were written before it, so the server that has it has them.
pub(super) async fn read(client: &Client, path: &str, before: &str) -> Result<Option<Found>> {
    // Each round sees another head, whose parts were there when it was written.
    let mut seen = None;
    loop {
        let add = |reader: &mut MultiReader<'_>| reader.add_get_data(path);
        let answer = client.request(ErrorKind::Unavailable, async |ground: Ground| {
            let mut results = client.read_by(&ground.zk, &add).await.map_err(classify)?;
            client.clock(results.next())?;
            let (data, stat) = match results.next() {
                Some(MultiReadResult::Data { data, stat }) => (data, stat),
                Some(MultiReadResult::Error { err: ZkError::NoNode }) => return Ok(Ok(None)),
                Some(MultiReadResult::Error { err }) => return Err(classify_at(err, Right::Read, path)),
                _ => return Err(unexpected()),
            };
            if data.is_empty() {
                return Ok(Ok(Some(Found { stat, value: None })));
            }
            let head = Head::decode(stamped(data, stat.version)?)?;
            let value = match &head {
                Head::Whole(bytes) => bytes.clone(),
                Head::Parts(of) => match read_parts(&ground.zk, of, before).await? {
                    Ok(value) => value,
                    Err(missing) => return Ok(Err((stat.mzxid, missing))),
                },
            };
            Ok(Ok(Some(Found { stat, value: Some((head, value)) })))
        });
        match answer.await?? {
            Ok(found) => return Ok(found),
            Err((head, missing)) if seen == Some(head) => {
                let message =
                    format!("{missing} is gone, a part of the value: it was deleted by something else than avout");
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Err((head, _)) => seen = Some(head),
        }
    }
}

/// Reads parts by the connection that has their head. The inner error: the first that is gone.
async fn read_parts(zk: &Zk, of: &Parts, before: &str) -> Result<Result<Bytes, String>> {
    let reads = of.names().map(|name| {
        let path = format!("{before}{name}");
        async move { zk.get_data(&path).await.map(|(data, _)| data).map_err(|error| (error, path)) }
    });
    match stream::iter(reads).buffered(AT_ONCE).try_collect::<Vec<_>>().await {
        Ok(parts) => join(of, parts).map(Ok),
        Err((ZkError::NoNode, path)) => Ok(Err(path)),
        Err((error, path)) => Err(classify_at(error, Right::Read, &path)),
    }
}

fn join(of: &Parts, parts: Vec<Vec<u8>>) -> Result<Bytes> {
    let mut value = BytesMut::new();
    parts.iter().for_each(|part| value.extend_from_slice(part));
    if value.len() as u64 != of.length || crc32fast::hash(&value) != of.checksum {
        return Err(corrupt());
    }
    Ok(value.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head comes back from its bytes; others are corrupt, and claim nothing that is then allocated.
    #[test]
    fn heads_come_back() {
        let parts = Parts { set: 7 << 40, count: 3, length: 2 * PART_BYTES as u64 + 1, checksum: u32::MAX };
        for head in [Head::Whole(Bytes::new()), Head::Whole(Bytes::from_static(b"x")), Head::Parts(parts)] {
            assert_eq!(Head::decode(head.encode().into()).expect("its own"), head);
        }
        let wrong = Head::Parts(Parts { count: 4, ..parts }).encode();
        let huge = Head::Parts(Parts { count: u32::MAX, length: u64::MAX, ..parts }).encode();
        for data in [vec![], vec![3, 1], vec![PARTS, 1], wrong, huge] {
            assert_eq!(Head::decode(data.into()).expect_err("no head").kind(), ErrorKind::Corrupt);
        }
    }
}
