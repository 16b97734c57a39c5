use avout_core::protocol::State;
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::client::MAX_BYTES;
use crate::schema::clock::Stamp;
use crate::wire::error::classify;

/// The bytes of a state that the store can take.
pub(super) fn bytes_of(value: State) -> Result<Bytes> {
    match value {
        State::Bytes(bytes) if bytes.len() <= MAX_BYTES => Ok(bytes),
        State::Bytes(_) => Err(Error::new(ErrorKind::TooLarge, "a value has at most 512 MiB")),
        State::Shared(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "a value with the in-process codec can be kept in the memory of this process only",
        )),
    }
}

/// A value that a statement reads, if it is not larger than `limit`. SQLite gives the length without reading the value.
pub(super) fn limited(
    connection: &Connection,
    sql: &'static str,
    params: impl rusqlite::Params,
    limit: usize,
) -> Result<Option<Option<(Bytes, Stamp)>>> {
    let found = connection.prepare_cached(sql).and_then(|mut statement| {
        statement
            .query_row(params, |row| {
                let (length, stamp) = (row.get::<_, i64>(0)?, Stamp { point: row.get(1)?, writer: row.get(2)? });
                if usize::try_from(length).is_ok_and(|length| length > limit) {
                    return Ok(None);
                }
                Ok(Some((Bytes::from(row.get::<_, Vec<u8>>(3)?), stamp)))
            })
            .optional()
    });
    Ok(match found.map_err(classify)? {
        None => Some(None),
        Some(None) => None,
        Some(Some(found)) => Some(Some(found)),
    })
}
