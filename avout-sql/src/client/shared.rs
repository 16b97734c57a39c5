use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::here::Open;
use crate::coordinator::history::{self, History};
use crate::coordinator::known::Known;
use crate::options::Options;
use crate::schema::clock::Clock;
use crate::schema::tables;
use crate::watch::hub::Hub;
use crate::wire::connection::{connect, patiently};
use crate::wire::error::classify;
use crate::wire::file::File;

/// The largest record, value or commit. SQLite's limit for a row is 1,000,000,000 bytes.
pub(crate) const MAX_BYTES: usize = 512 << 20;

/// What the threads of one client have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// `None` for a store in memory.
    pub(crate) file: Option<File>,
    pub(crate) realm: Realm,
    pub(crate) hub: Hub,
    pub(crate) known: Known,
    pub(crate) history: History,
    /// Requests to write that are under way.
    pub(crate) open: Open,
    pub(crate) stats: Stats,
    #[cfg(test)]
    pub(crate) faults: crate::wire::faults::Faults,
}

impl Shared {
    pub(crate) fn new(options: Options, file: Option<File>, realm: Realm, clock: Clock) -> Self {
        Self {
            options,
            file,
            realm,
            hub: Hub::default(),
            known: Known::default(),
            history: History::new(clock),
            open: Open::default(),
            stats: Stats::default(),
            #[cfg(test)]
            faults: crate::wire::faults::Faults::default(),
        }
    }

    /// One more connection to the file, which is checked to be the same.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let Some(file) = &self.file else {
            return Err(Error::new(ErrorKind::Unsupported, "a store in memory has one connection"));
        };
        file.check()?;
        let connection = connect(&self.options, Some(file))?;
        file.check()?;
        let realm = patiently(self.options.busy_timeout, || tables::realm(&connection));
        if realm.map_err(|error| self.cause(&connection, error))? != self.realm {
            return Err(Error::new(ErrorKind::StoreLost, "the file holds another store now"));
        }
        Ok(connection)
    }

    /// What a failed read means.
    pub(crate) fn cause(&self, connection: &Connection, error: Error) -> Error {
        match &self.file {
            Some(file) => file.cause(connection, error),
            None => error,
        }
    }

    /// Takes in a clock that was read after `known` was asked for.
    pub(crate) fn follow(&self, connection: &Connection, known: history::Known, clock: &Clock) -> Result<()> {
        if self.file.is_some() && self.history.follow(connection, known, clock).map_err(classify)? {
            self.hub.begin_anew();
        }
        Ok(())
    }

    /// Reads the clock, and takes it in.
    pub(crate) fn look(&self, connection: &Connection, known: history::Known) -> Result<()> {
        if self.file.is_some() {
            self.follow(connection, known, &Clock::read(connection).map_err(classify)?)?;
        }
        Ok(())
    }
}

/// What the writer did, for tests and measurements.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    transactions: AtomicU64,
    commits: AtomicU64,
    /// The transactions among them that were done on the threads of their callers.
    here: AtomicU64,
}

impl Stats {
    /// Counts one SQLite transaction with so many commits in it.
    pub(crate) fn count(&self, commits: i64) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(commits.unsigned_abs(), Ordering::Relaxed);
    }

    pub(crate) fn count_here(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.transactions.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }
}
