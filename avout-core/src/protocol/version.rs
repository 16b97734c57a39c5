use std::fmt;
use std::str::FromStr;

use super::bytes::Reader;
use super::id::ClientId;
use crate::error::{Error, ErrorKind, Result};

/// The name of one value in a container: unique for ever.
///
/// It tells the commit that wrote the value: the floor's epoch when its attempt began, the client, the
/// client's slot, and the sequence number in that slot. A value is written under its version at
/// most once. Versions of one container are ordered by epoch first, which is what a sweeper goes by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The floor's epoch when the attempt began.
    pub epoch: u64,
    /// The client that wrote the value.
    pub client: ClientId,
    /// Which of the client's slots its commit used.
    pub slot: u32,
    /// The commit's number in that slot.
    pub sequence: u64,
}

impl Version {
    /// How many bytes [`encode`](Self::encode) gives.
    pub const ENCODED_BYTES: usize = 36;

    /// The version as bytes, which sort as versions do.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.client.number().to_be_bytes());
        bytes[24..28].copy_from_slice(&self.slot.to_be_bytes());
        bytes[28..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// The version that [`encode`](Self::encode) gave these bytes for.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if they are not exactly [`ENCODED_BYTES`](Self::ENCODED_BYTES) long.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "version");
        let version = Self::read(&mut reader)?;
        reader.end()?;
        Ok(version)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            epoch: u64::from_be_bytes(reader.array()?),
            client: ClientId::new(u128::from_be_bytes(reader.array()?)),
            slot: u32::from_be_bytes(reader.array()?),
            sequence: u64::from_be_bytes(reader.array()?),
        })
    }
}

/// `epoch-client-slot-sequence` in hexadecimal digits of fixed width: it sorts as versions do and is
/// safe in file names, paths and keys.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{:08x}-{:016x}", self.epoch, self.client, self.slot, self.sequence)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fn part<'a>(parts: &mut std::str::Split<'a, char>, digits: usize) -> Option<&'a str> {
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        let parse = || -> Option<Self> {
            let mut parts = text.split('-');
            let version = Self {
                epoch: u64::from_str_radix(part(&mut parts, 16)?, 16).ok()?,
                client: ClientId::new(u128::from_str_radix(part(&mut parts, 32)?, 16).ok()?),
                slot: u32::from_str_radix(part(&mut parts, 8)?, 16).ok()?,
                sequence: u64::from_str_radix(part(&mut parts, 16)?, 16).ok()?,
            };
            parts.next().is_none().then_some(version)
        };
        parse().ok_or_else(|| Error::new(ErrorKind::Corrupt, "not the text of a version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version comes back from its text and its bytes, and both sort as it does.
    #[test]
    fn comes_back_and_sorts() {
        let version = |epoch, sequence| Version { epoch, client: ClientId::new(7), slot: 3, sequence };
        let (low, high) = (version(1, 900), version(2, 10));
        for v in [low, high] {
            assert_eq!(Version::decode(&v.encode()).expect("bytes"), v);
            assert_eq!(v.to_string().parse::<Version>().expect("text"), v);
        }
        assert!(low < high && low.encode() < high.encode() && low.to_string() < high.to_string());
        assert!(Version::decode(&low.encode()[1..]).is_err());
        assert!("1-2-3-4".parse::<Version>().is_err());
    }
}
