//! When the log is written back to the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use avout_core::Result;
use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::wire::connection::patiently;
use crate::wire::error::classify;

/// The pages in the log from which on it is written back, as SQLite has it.
const LONG: i32 = 1000;

/// After how many pages that is tried again, if readers kept the log from being begun anew.
const AGAIN: i32 = 100;

/// How long the second try and those after it wait for these readers.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long the log is, as far as its writer knows.
///
/// SQLite would write it back inside the COMMIT that makes it too long. The writer does it when its answers are out.
#[derive(Default)]
pub(crate) struct Log {
    pages: Arc<AtomicI32>,
    /// How many they were when it was last written back; 0 if it was begun anew since.
    written_back: Arc<AtomicI32>,
}

impl Log {
    /// Counts the pages that this connection's commits leave in the log, which it no longer writes back by itself.
    pub(crate) fn follow(&mut self, connection: &mut Connection) -> Result<()> {
        let (pages, written_back) = (Arc::clone(&self.pages), Arc::clone(&self.written_back));
        let count = move |_: &mut Wal, now| {
            if now < pages.swap(now, Ordering::Relaxed) {
                written_back.store(0, Ordering::Relaxed);
            }
            Ok(())
        };
        connection.wal_hook(Some(count)).map_err(classify)
    }

    /// Whether it is time to write it back.
    pub(crate) fn is_long(&self) -> bool {
        match self.written_back.load(Ordering::Relaxed) {
            0 => self.pages.load(Ordering::Relaxed) >= LONG,
            before => self.pages.load(Ordering::Relaxed) - before >= AGAIN,
        }
    }

    /// Writes the log back, so that the next commit begins it anew.
    ///
    /// At first as far as no reader needs it, and without waiting. Where readers come and go all the time one of them is in
    /// the log whenever the next commit looks, so it would grow on. Then those are waited for who read from it, while newcomers
    /// read from the file, which has everything.
    pub(crate) fn write_back(&self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        let done = if self.written_back.swap(pages, Ordering::Relaxed) != 0 {
            patiently(PATIENCE, || connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())))
        } else {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        };
        // A failure is no harm: the log is as it was, and whatever is wrong with the disk the next commit finds.
        if let Err(error) = done {
            tracing::debug!(%error, "the log was not written back");
        }
    }
}
