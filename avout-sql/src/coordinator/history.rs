//! Whether the history of the file goes on from what this client has seen.
//!
//! SQLite loses nothing that it has acknowledged, but somebody may write an older copy into the open file (`.restore`, the backup API), or
//! over its bytes. Then the clock goes back, and the same points come again for other commits. So each client remembers the last batch
//! that it has seen, and whenever another one stands in the clock's row it looks whether its own is still part of the history: each
//! writer's batches are numbered, and the number of its last one is always found, in the clock's row or in `writers`.
//!
//! ```text
//! A commits batches 6 and 7      R reads: the last batch is A's 7
//! a copy with A's batch 5 is put back      B commits, so that the clock is beyond what R has seen
//! R reads: the last batch is B's. A's row says 5: what R has seen is gone
//! ```
//! That would not hold if A then made other batches 6 and 7. So a client which finds that something is gone goes on under another
//! name, as a new writer. A writer's name is part of the revisions that it gives, too: what was read in a history that is
//! gone is as expected in no other, whatever points come again there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use avout_core::backend::history::{Losses, LostCommits};
use avout_core::protocol::Point;
use rusqlite::Connection;

use crate::schema::clock::{self, Batch, Clock};
use crate::schema::tables;

/// How often a connection forgets what it has read, so that it finds bytes that were changed under it.
const FORGETS: Duration = Duration::from_secs(1);

/// What one client knows of the history.
pub(crate) struct History {
    state: Mutex<State>,
    losses: Arc<Losses>,
}

struct State {
    known: Known,
    forgot: Instant,
}

/// What is known at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// How many losses were reported by then.
    pub(crate) losses: u64,
    clock: Clock,
}

impl History {
    /// Begins with the clock as it is now.
    pub(crate) fn new(clock: Clock) -> Self {
        let state = State { known: Known { losses: 0, clock }, forgot: Instant::now() };
        Self { state: Mutex::new(state), losses: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn losses(&self) -> &Arc<Losses> {
        &self.losses
    }

    /// What is known now. It is asked before the clock is read that [`follow`](Self::follow) is given.
    pub(crate) fn known(&self) -> Known {
        self.lock().known
    }

    /// Whether the next reader is to forget what its connection has in memory.
    pub(crate) fn forgets(&self) -> bool {
        let mut state = self.lock();
        let due = state.forgot.elapsed() >= FORGETS;
        if due {
            state.forgot = Instant::now();
        }
        due
    }

    /// Takes in a clock that was read after `known` was asked for. If what was known then is gone it reports that, and gives true.
    pub(crate) fn follow(&self, connection: &Connection, known: Known, clock: &Clock) -> rusqlite::Result<bool> {
        if *clock == known.clock {
            return Ok(false);
        }
        let goes_on = clock.point >= known.clock.point && has(connection, known.clock.last, clock)?;
        let mut state = self.lock();
        if state.known.losses != known.losses {
            // A loss was found meanwhile, and all that began before it is done again.
            return Ok(false);
        }
        if !goes_on {
            // Nobody can tell how much of it is left: others may have committed since.
            self.losses.report(LostCommits::new(point(&state.known.clock), None));
            state.known = Known { losses: known.losses + 1, clock: *clock };
        } else if clock.point >= state.known.clock.point {
            state.known.clock = *clock;
        }
        Ok(!goes_on)
    }

    /// Notes a batch of this client's own that followed on what was known.
    pub(crate) fn committed(&self, losses: u64, clock: Clock) {
        let mut state = self.lock();
        if state.known.losses == losses && clock.point >= state.known.clock.point {
            state.known.clock = clock;
        }
    }
}

fn point(clock: &Clock) -> Point {
    Point::new(clock.point.unsigned_abs())
}

/// Whether this batch is part of the history that ends in `clock`.
fn has(connection: &Connection, batch: Option<Batch>, clock: &Clock) -> rusqlite::Result<bool> {
    let Some(batch) = batch else {
        return Ok(true);
    };
    if let Some(last) = &clock.last
        && last.writer == batch.writer
    {
        return Ok(last.number >= batch.number);
    }
    match clock::kept(connection, batch.writer)? {
        Some(number) => Ok(number >= batch.number),
        // The version before removed the rows of clients that ended.
        None if !batch.writer.leaves_its_row() => Ok(true),
        None => tables::has_removed_writers(connection),
    }
}
