//! When the log is written back to the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use avout_core::Result;
use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::error::classify;

/// The pages in the log from which on it is written back, as SQLite has it.
const LONG: i32 = 1000;

/// After how many pages that is tried again, if readers kept the log from being begun anew.
const AGAIN: i32 = 25;

/// How long the log is, as far as its writer knows.
///
/// SQLite would write it back inside the COMMIT that makes it too long. The writer does it when its answers are out.
#[derive(Default)]
pub(crate) struct Log {
    pages: Arc<AtomicI32>,
    /// How many they were when it was last written back.
    written_back: i32,
}

impl Log {
    /// Counts the pages that this connection's commits leave in the log, which it no longer writes back by itself.
    pub(crate) fn follow(&mut self, connection: &mut Connection) -> Result<()> {
        let pages = Arc::clone(&self.pages);
        let count = move |_: &mut Wal, now| {
            pages.store(now, Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(count)).map_err(classify)
    }

    /// Whether it is time to write it back.
    pub(crate) fn is_long(&self) -> bool {
        let pages = self.pages.load(Ordering::Relaxed);
        // It was begun anew if it is shorter than it was.
        pages >= LONG && (pages < self.written_back || pages - self.written_back >= AGAIN)
    }

    /// Writes back what no reader needs in the log. Readers and writers go on meanwhile.
    pub(crate) fn write_back(&mut self, connection: &Connection) {
        self.written_back = self.pages.load(Ordering::Relaxed);
        // A failure is no harm: the log is as it was, and whatever is wrong with the disk the next commit finds.
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log was not written back");
        }
    }
}
