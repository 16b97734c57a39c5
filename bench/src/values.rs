//! The values that refs and rows hold.

use serde::{Deserialize, Serialize};

/// A value of a certain size with a number in it that changes.
pub(crate) trait Sample: avout::Value + Serialize + for<'de> Deserialize<'de> + std::fmt::Debug {
    fn of(size: usize) -> Self;
    fn bump(self) -> Self;
}

/// 16 bytes, in memory and about as many in a record. The numbers are large, since MessagePack makes small ones smaller.
pub(crate) type Small = (u64, u64);

impl Sample for Small {
    fn of(_: usize) -> Self {
        (1 << 40, 1 << 40)
    }

    fn bump(self) -> Self {
        (self.0 + 1, self.1)
    }
}

/// A document of a given size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    number: u64,
    text: String,
}

impl Sample for Page {
    fn of(size: usize) -> Self {
        Self { number: 1 << 40, text: "x".repeat(size - 8) }
    }

    fn bump(mut self) -> Self {
        self.number += 1;
        self
    }
}

/// The same by hand: bytes that begin with the number.
pub(crate) fn blob(size: usize) -> Vec<u8> {
    let mut bytes = vec![b'x'; size];
    bytes[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    bytes
}

pub(crate) fn bump_blob(bytes: &mut [u8]) {
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    bytes[..8].copy_from_slice(&(number + 1).to_le_bytes());
}
