//! The versions of znodes that are compared, and what tells their data from what somebody else put there.
//!
//! ZooKeeper compares a version alone, and a znode that was deleted and made again begins with the same ones. So what is compared has no
//! data at version 0, and its data names the version with which it was written: what is made or set by hand does not fit.

use std::iter;

use avout_core::{Error, ErrorKind, Result};
use bytes::{Buf, Bytes};

/// Any version, in a request.
pub(crate) const ANY_VERSION: i32 = -1;

/// Data with a stamp begins with it, and data of the version before with smaller ones.
const STAMPED: u8 = 0xa5;
/// The version is any but 0: servers differ in what comes after the end.
const PAST_THE_END: i32 = 0;

/// The versions under which a znode with `version` is set, one after the other in one request.
///
/// Where the next version would be -1, which means "any" in a request, it is set three times at once, and nobody ever sees what is between.
/// Servers before 3.9.3 give the versions -1, 0 and 1, later ones leave out -1.
pub(crate) fn steps(version: i32, hop_at: i32) -> impl Iterator<Item = i32> {
    iter::once(version).chain(iter::repeat_n(ANY_VERSION, if version == hop_at { 2 } else { 0 }))
}

/// The data of a znode that has `version` when it is set to this.
pub(crate) fn stamp(version: i32, hop_at: i32, data: &[u8]) -> Vec<u8> {
    let next = if version == hop_at { PAST_THE_END } else { version.wrapping_add(1) };
    [&[STAMPED][..], &next.to_be_bytes(), data].concat()
}

/// The data behind the stamp. What the version before has written has none.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt): it was not written by avout as this version of the znode.
pub(crate) fn stamped(data: Vec<u8>, version: i32) -> Result<Bytes> {
    let mut data = Bytes::from(data);
    if data.first() != Some(&STAMPED) {
        return Ok(data);
    }
    data.advance(1);
    match data.try_get_i32() {
        Ok(told) if version != 0 && (told == version || told == PAST_THE_END) => Ok(data),
        _ => {
            let message = "the znode was made or set by something else than avout: delete it, or restore all data";
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data comes back from a znode of the version that it was written for, and from no other; data without a stamp from any.
    #[test]
    fn stamps_name_versions() {
        let read = |data: &[u8], version| stamped(data.to_vec(), version);
        for (version, next) in [(0, 1), (7, 8), (i32::MAX, i32::MIN)] {
            let data = stamp(version, -2, b"x");
            assert_eq!(read(&data, next).expect("its version"), &b"x"[..]);
            for other in [0, version, next.wrapping_add(1)] {
                assert_eq!(read(&data, other).expect_err("another one").kind(), ErrorKind::Corrupt, "{other}");
            }
        }
        let past = stamp(-2, -2, b"x");
        assert!(read(&past, 1).is_ok() && read(&past, 2).is_ok() && read(&past, 0).is_err());
        assert!(read(b"\x02x", 0).is_ok() && read(b"\xa5x", 1).is_err());
    }

    /// A version that means "any" is passed in one request.
    #[test]
    fn steps_pass_the_end() {
        assert!(steps(-3, -2).eq([-3]));
        assert!(steps(-2, -2).eq([-2, ANY_VERSION, ANY_VERSION]));
    }
}
