//! A reply to a read, as entries.

use avout_core::Result;
use avout_core::protocol::{Key, Point, Snapshot};
use redis::Value;

use crate::schema::cell::{self, Clock};
use crate::wire::Client;

pub(super) fn snapshot<'a>(
    client: &Client,
    clock: &Clock,
    cells: impl Iterator<Item = (&'a Key, Value)>,
) -> Result<Snapshot> {
    let boundary = client.history.boundary();
    let entries = cells.map(|(key, cell)| cell::entry(cell, boundary).map_err(|error| error.at(key)));
    Ok(Snapshot { point: Point::new(clock.point), entries: entries.collect::<Result<_>>()? })
}
