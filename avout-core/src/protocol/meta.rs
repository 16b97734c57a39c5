use super::{CodecId, Realm};

/// What stays the same over a ref's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The store that the ref's values belong to.
    pub realm: Realm,
    /// The codec of its values.
    pub codec: CodecId,
    /// The type of its values. At most 255 bytes.
    pub type_tag: Box<str>,
    /// How many earlier payloads its record keeps, at most [`MAX_HISTORY`].
    pub history: u16,
}

/// The most earlier payloads that a record keeps, whatever its ref asks for.
pub const MAX_HISTORY: u16 = 256;

/// The most bytes of earlier inline values, with their envelopes, that a record keeps, beyond the newest of them, which is kept whatever its size.
/// Values that lie in a store count as nothing here.
pub const MAX_HISTORY_BYTES: usize = 4096;
