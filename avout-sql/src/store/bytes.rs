use avout_core::Result;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::schema::clock::Stamp;
use crate::wire::error::classify;

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
