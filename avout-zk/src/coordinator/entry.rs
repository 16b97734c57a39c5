//! What a znode tells of an entry.

use std::sync::Arc;

use avout_core::protocol::{Entry, Point, Record, Revision};
use avout_core::{Error, ErrorKind, Result};
use zookeeper::Stat;

use crate::schema::stamped;
use crate::wire::unexpected;

/// ZooKeeper numbers its changes from 1 on, by epoch and count.
pub(super) fn point(zxid: i64) -> Result<Point> {
    u64::try_from(zxid).map(Point::new).map_err(|_| unexpected())
}

/// What is compared of a znode, as this client knows it.
///
/// The servers compare the version alone. What else is in it is for the client: `mark`, a number that tells the znode or its write from
/// another one with the same version, and how many losses the client had met (its generation), since versions
/// repeat after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) generation: u32,
    pub(crate) mark: i64,
    pub(crate) version: i32,
}

impl Token {
    pub(crate) fn revision(self) -> Revision {
        let (mark, version) = (u128::from(self.mark.cast_unsigned()), u128::from(self.version.cast_unsigned()));
        Revision::number(u128::from(self.generation) << 96 | mark << 32 | version)
    }

    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): it is no revision of this backend.
    pub(crate) fn of(revision: &Revision) -> Result<Self> {
        let message = "no revision of a znode";
        let number = revision.as_number().ok_or_else(|| Error::new(ErrorKind::InvalidInput, message))?;
        let generation = u32::try_from(number >> 96).expect("32 of 128 bits are left");
        // Truncated: each its own bits.
        let (mark, version) = (((number >> 32) as u64).cast_signed(), (number as u32).cast_signed());
        Ok(Self { generation, mark, version })
    }
}

/// The entry of a znode, read in a generation; `None`: it stands for the absence of one.
pub(super) fn entry(data: Vec<u8>, stat: &Stat, generation: u32) -> Result<Option<Entry>> {
    if data.is_empty() {
        return Ok(None);
    }
    let record = Record::decode(&stamped(data, stat.version)?)?;
    let revision = Token { generation, mark: stat.czxid, version: stat.version }.revision();
    Ok(Some(Entry { revision, point: point(stat.mzxid)?, record: Arc::new(record) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All parts come back from a revision, negative versions too, and each part makes it another one.
    #[test]
    fn revisions_hold_versions() {
        let token = Token { generation: 3, mark: 0x7_0000_0009, version: 1 };
        for version in [0, 1, i32::MAX, i32::MIN, -2] {
            for generation in [0, 1, u32::MAX] {
                let token = Token { generation, version, ..token };
                assert_eq!(Token::of(&token.revision()).expect("its own"), token);
            }
        }
        assert_ne!(token.revision(), Token { mark: 0x7_0000_000a, ..token }.revision());
        assert_ne!(token.revision(), Token { generation: 4, ..token }.revision());
        assert!(Token::of(&Revision::text("x")).is_err());
    }
}
