//! Byte strings of types that serde knows only as sequences of numbers, at the price of a copy. Going through serde
//! would cost a call for each byte, and in a debug build many.

use castaway::cast;

/// The bytes of a `Vec<u8>` or `[u8]`; `None`: the value is something else.
pub(in crate::handles) fn bytes_of<T: ?Sized>(value: &T) -> Option<&[u8]> {
    match cast!(value, &Vec<u8>) {
        Ok(bytes) => Some(bytes),
        Err(value) => cast!(value, &[u8]).ok(),
    }
}

/// A `Vec<u8>` of these bytes, or one in an `Option`; `None`: `T` is something else.
pub(super) fn take_bytes<T>(bytes: &[u8]) -> Option<T> {
    let mut slot = None::<T>;
    if let Ok(slot) = cast!(&mut slot, &mut Option<Vec<u8>>) {
        *slot = Some(bytes.to_vec());
    } else if let Ok(slot) = cast!(&mut slot, &mut Option<Option<Vec<u8>>>) {
        *slot = Some(Some(bytes.to_vec()));
    }
    slot
}
