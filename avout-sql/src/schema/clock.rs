//! The clock's row: the point of the last commit, and who made it.

use avout_core::protocol::{Point, Revision};
use avout_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A writer's name, drawn by chance: a client has one, and another one after something that nobody can tell of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name([u8; 16]);

impl Name {
    /// How the names end whose rows stay when their clients end.
    const STAYS: [u8; 2] = [0xa7, 0x03];

    /// A new name.
    pub(crate) fn new() -> Self {
        let mut bytes: [u8; 16] = rand::random();
        bytes[14..].copy_from_slice(&Self::STAYS);
        Self(bytes)
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether its row in `writers` stays when its client ends. The version before removed it.
    pub(crate) fn leaves_its_row(self) -> bool {
        self.0[14..] == Self::STAYS
    }

    /// What stands for it beside what it writes. Never 0, which the version before wrote.
    fn mark(self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        i64::from_be_bytes([a, b, c, d, e, f, g, h]) | 1
    }
}

/// Names what a key has: the point where it was written, and by whom. Points may come again when an older copy of the file is put back,
/// and then it is another one who gives them: see [`history`](crate::coordinator::history).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) point: i64,
    pub(crate) writer: i64,
}

impl Stamp {
    /// What no key ever has.
    pub(crate) const NONE: Self = Self { point: -1, writer: 0 };

    pub(crate) fn new(point: i64, writer: Name) -> Self {
        Self { point, writer: writer.mark() }
    }

    /// As a revision.
    pub(crate) fn revision(self) -> Revision {
        Revision::number(u128::from(self.writer.cast_unsigned()) << 64 | u128::from(self.point.cast_unsigned()))
    }

    /// What a revision names. One that is not ours names what no key ever has.
    pub(crate) fn expected(revision: &Revision) -> Self {
        revision.as_number().map_or(Self::NONE, |number| {
            let [writer, point] = [(number >> 64) as u64, number as u64].map(u64::cast_signed);
            Self { point, writer }
        })
    }
}

/// A batch, among all that were ever written to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) writer: Name,
    pub(crate) number: i64,
}

impl Batch {
    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.writer.bytes());
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// `None`: no batch, as in a new file.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (writer, rest) = bytes.split_first_chunk()?;
        Some(Self { writer: Name::from_bytes(*writer), number: i64::from_be_bytes(rest.try_into().ok()?) })
    }
}

/// What the clock's row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The point of the last commit.
    pub(crate) point: i64,
    /// The last batch that gave out points.
    pub(crate) last: Option<Batch>,
}

impl Clock {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("SELECT point, record FROM refs WHERE id = 0")?.query_row([], |row| Self::of(row, 0))
    }

    /// What a row says that has the point in this column, and the batch in the next one.
    pub(crate) fn of(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(Self { point: row.get(column)?, last: Batch::decode(row.get_ref(column + 1)?.as_bytes()?) })
    }

    /// Writes the clock at the end of a batch.
    pub(crate) fn seal(&self, connection: &Connection, point: i64, batch: Batch) -> rusqlite::Result<()> {
        if let Some(last) = &self.last
            && last.writer != batch.writer
        {
            keep(connection, last)?;
        }
        connection
            .prepare_cached("UPDATE refs SET point = ?1, record = ?2 WHERE id = 0")?
            .execute(params![point, batch.encode()])
            .map(|_| ())
    }

    /// The number of the last batch of `writer` that took effect. `None`: nothing is known of this writer.
    pub(crate) fn last_batch_of(&self, connection: &Connection, writer: Name) -> rusqlite::Result<Option<i64>> {
        match &self.last {
            Some(last) if last.writer == writer => Ok(Some(last.number)),
            _ => kept(connection, writer),
        }
    }
}

/// The number in a writer's own row, if there is one.
pub(crate) fn kept(connection: &Connection, writer: Name) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT batch FROM writers WHERE id = ?1")?
        .query_row([writer.bytes()], |row| row.get(0))
        .optional()
}

/// Writes a writer's batch to its own row.
fn keep(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let rows = connection
        .prepare_cached("UPDATE writers SET batch = ?2 WHERE id = ?1")?
        .execute(params![batch.writer.bytes(), batch.number])?;
    if rows == 0 {
        // Thousands of clients came since, and this row was taken for one of a client that died.
        let row = params![batch.writer.bytes(), batch.number];
        connection.execute("INSERT INTO writers (id, batch) VALUES (?1, ?2)", row)?;
    }
    Ok(())
}

/// A number that changes when another connection has committed anything, avout's or not. It means nothing to other connections.
pub(crate) fn others(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Writes the clock in the middle of a batch, for one who reads it there.
pub(crate) fn set_clock(connection: &Connection, point: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE refs SET point = ?1 WHERE id = 0")?.execute([point]).map(|_| ())
}

/// A point as SQLite keeps it.
pub(crate) fn point(number: i64) -> Result<Point> {
    match u64::try_from(number) {
        Ok(number) => Ok(Point::new(number)),
        Err(_) => Err(Error::new(ErrorKind::Corrupt, "a point below zero")),
    }
}
