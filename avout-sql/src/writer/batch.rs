use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::ended::{Applied, Ended, Failure, Unsettled};
use super::work::{Batch, Conflicts, Job};
use crate::client::Shared;
use crate::client::here::Pace;
use crate::coordinator::known::Kept;
use crate::schema::clock::{self, Clock, Name};
use crate::schema::tables;
use crate::watch::hub::Change;
use crate::wire::connection::{patiently, roll_back, run};
use crate::wire::error::classify;
use crate::wire::file::Lengths;
use crate::wire::log::Log;

/// After so many requests without a conflict none is expected.
pub(super) const CALM: usize = 64;

/// How long a closing client waits for the lock, to remove its row. It may as well stay.
const CLOSING: Duration = Duration::from_millis(100);

/// The thread that owns the connection which writes.
///
/// All requests that wait are done in one SQLite transaction, and so share one wait for the disk. Answers go out after
/// its COMMIT, conflicts too: what they say of other keys may come from a commit of the same batch.
pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    /// The connection is not to be trusted any more.
    pub(super) stale: bool,
    /// What this connection said of commits by others, of whatever program, in the last batch that was committed. `None` if it was
    /// not asked, or is another connection now.
    pub(super) others: Option<i64>,
    /// The name of this client's row in `writers`.
    pub(super) id: Name,
    /// How many losses were known of when it was taken.
    pub(super) losses: u64,
    /// Whether that row was made.
    pub(super) registered: bool,
    /// The batch in that row.
    pub(super) number: i64,
    pub(super) pace: Pace,
    /// How many requests were done since the last conflict.
    pub(super) calm: usize,
    pub(super) log: Log,
    /// What must be done before anything else.
    pub(super) unsettled: Option<Unsettled>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection, id: Name) -> Result<Self> {
        let mut writer = Self {
            shared,
            connection,
            stale: false,
            others: None,
            id,
            losses: 0,
            registered: true,
            number: 0,
            pace: Pace::new(),
            calm: 0,
            log: Log::default(),
            unsettled: None,
        };
        writer.log.follow(&mut writer.connection)?;
        Ok(writer)
    }

    /// Whether its thread has something to do, though no message says so.
    pub(crate) fn wants_its_thread(&self) -> bool {
        self.unsettled.is_some() || self.log.is_long()
    }

    /// Its connection, for one who reads while it does nothing.
    pub(crate) fn to_read(&self) -> Option<&Connection> {
        (!self.stale && self.unsettled.is_none() && self.connection.is_autocommit()).then_some(&self.connection)
    }

    /// Does one request on the thread of the caller, without waiting for anything but the disk. Gives it back if that cannot be.
    pub(crate) fn batch_here(&mut self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let begun = Instant::now();
        let fit =
            self.pace.is_quick() && self.registered && !self.stale && !self.wants_its_thread() && !self.has_lost();
        // Whatever is wrong with the file, its thread finds it too, and says so.
        if !fit || self.check().is_err() {
            return Some(job);
        }
        let mut jobs = [job];
        let applied = self.apply(&mut jobs, Duration::ZERO);
        let Ok(applied) = applied else {
            roll_back(&self.connection);
            let [job] = jobs;
            return Some(job);
        };
        let Some(applied) = applied else {
            roll_back(&self.connection);
            jobs.into_iter().for_each(|job| job.succeed());
            return None;
        };
        self.shared.stats.count_here();
        let result = match self.send_commit() {
            Ok(()) => self.committed(applied, &mut jobs),
            Err(error) => match self.not_committed(error, applied) {
                Ended::Known(failure) => Err(failure),
                Ended::Open { error, number, changes } => {
                    let [job] = jobs;
                    self.unsettled = Some(Unsettled { job, error, number, changes });
                    return None;
                }
            },
        };
        self.pace.note(begun.elapsed());
        self.answer(jobs.into(), result);
        None
    }

    #[cfg(test)]
    pub(crate) fn hurry(&mut self) {
        self.pace = Pace::quick();
    }

    /// Writes the log back to the file, if it is time.
    pub(super) fn tidy(&mut self) {
        if self.log.is_long() && !self.stale {
            self.log.write_back(&self.connection);
        }
    }

    pub(super) fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        jobs.retain(|job| !job.is_abandoned());
        if jobs.is_empty() {
            return;
        }
        self.has_lost();
        if let Err(error) = self.ready() {
            return fail(jobs, &error);
        }
        let begun = Instant::now();
        match self.attempt(&mut jobs) {
            Err(Failure::Never { each: true, .. }) if jobs.len() > 1 => {
                // One request must not fail the others.
                for job in jobs {
                    self.batch(vec![job]);
                }
            }
            result => {
                self.pace.note(begun.elapsed());
                self.answer(jobs, result);
            }
        }
    }

    pub(super) fn answer(&mut self, jobs: Vec<Box<dyn Job>>, result: Result<Vec<Change>, Failure>) {
        match result {
            Ok(changes) => {
                self.shared.hub.notify(changes);
                jobs.into_iter().for_each(|job| job.succeed());
            }
            Err(Failure::Never { error, .. }) => fail(jobs, &error),
            Err(Failure::Unknown { error, number }) => self.give_receipts(jobs, error, number),
        }
    }

    /// Sees to a file that is there, a connection that works, and a row in `writers`.
    pub(super) fn ready(&mut self) -> Result<()> {
        self.check()?;
        if self.stale && self.shared.file.is_some() {
            self.connect()?;
        }
        self.stale = false;
        if !self.registered {
            let timeout = self.shared.options.busy_timeout;
            let (connection, id) = (&mut self.connection, self.id);
            patiently(timeout, || {
                let transaction = connection.transaction()?;
                tables::add_writer(&transaction, id)?;
                transaction.commit()
            })
            .map_err(classify)?;
            self.registered = true;
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        let Some(file) = &self.shared.file else {
            return Ok(());
        };
        file.check_all(|| Lengths::of(&self.connection))
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Vec<Change>, Failure> {
        match self.apply(jobs, self.shared.options.busy_timeout) {
            Ok(Some(mut applied)) => {
                applied.others = clock::others(&self.connection).ok();
                match self.send_commit() {
                    Ok(()) => self.committed(applied, jobs),
                    Err(error) => match self.not_committed(error, applied) {
                        Ended::Known(failure) => Err(failure),
                        Ended::Open { error, number, changes } => self.settle(error, number, changes),
                    },
                }
            }
            Ok(None) => {
                roll_back(&self.connection);
                Ok(Vec::new())
            }
            Err((error, each)) => {
                roll_back(&self.connection);
                // A full disk, a lock, a value too large: the connection is as good as before.
                self.stale =
                    matches!(error.kind(), ErrorKind::Corrupt) || (error.kind() == ErrorKind::Unavailable && each);
                Err(Failure::Never { error, each })
            }
        }
    }

    /// Begins a transaction, for whose lock it waits so long, and does all jobs in it. `None` if they wrote nothing. An error
    /// says whether it is of one of the jobs.
    fn apply(&mut self, jobs: &mut [Box<dyn Job>], timeout: Duration) -> Result<Option<Applied>, (Error, bool)> {
        let mut conflicts = if self.calm < CALM { Conflicts::Possible } else { Conflicts::Unexpected };
        loop {
            let expected = conflicts;
            let result = self.apply_to(jobs, timeout, &mut conflicts);
            if result.is_err() && self.has_lost() {
                roll_back(&self.connection);
                if timeout.is_zero() {
                    return result;
                }
                self.ready().map_err(|error| (error, false))?;
                continue;
            }
            self.calm = if conflicts == Conflicts::Seen { 0 } else { self.calm.saturating_add(jobs.len()) };
            match result {
                Err(_) if (expected, conflicts) == (Conflicts::Unexpected, Conflicts::Seen) => {}
                result => return result,
            }
            roll_back(&self.connection);
            conflicts = Conflicts::Possible;
        }
    }

    /// Goes on under another name, which nobody knows anything of.
    pub(super) fn rename(&mut self) {
        self.id = Name::new();
        self.registered = false;
        self.number = 0;
    }

    /// Whether something is gone of what this client has seen, perhaps of its own batches. It goes on under another name then: others take the
    /// numbers of a writer for the history that they have seen.
    fn has_lost(&mut self) -> bool {
        let losses = self.shared.history.losses().count();
        let lost = losses != self.losses;
        if lost {
            self.losses = losses;
            self.others = None;
            self.rename();
        }
        lost
    }

    fn apply_to(
        &self,
        jobs: &mut [Box<dyn Job>],
        timeout: Duration,
        conflicts: &mut Conflicts,
    ) -> Result<Option<Applied>, (Error, bool)> {
        let connection = &self.connection;
        let all = |error| (classify(error), false);
        let one = |error| (classify(error), true);
        let known = self.shared.history.known();
        patiently(timeout, || run(connection, "BEGIN IMMEDIATE")).map_err(all)?;
        let clock = Clock::read(connection).map_err(all)?;
        self.shared.follow(connection, known, &clock).map_err(|error| (error, false))?;
        if self.shared.history.losses().count() != self.losses {
            return Err((Error::new(ErrorKind::StoreLost, "an older copy of the file was put back"), false));
        }
        let mut batch = Batch::new(connection, self.id, clock.point, *conflicts);
        let applied = jobs.iter_mut().try_for_each(|job| job.apply(&mut batch));
        *conflicts = batch.conflicts();
        applied.map_err(|error| (error, true))?;
        if !batch.wrote() {
            return Ok(None);
        }
        let (mut ended, mut number) = (clock, None);
        if batch.point() > clock.point {
            let sealed = clock::Batch { writer: self.id, number: self.number + 1 };
            clock.seal(connection, batch.point(), sealed).map_err(one)?;
            ended = Clock { point: batch.point(), last: Some(sealed) };
            number = Some(sealed.number);
        }
        Ok(Some(Applied { changes: batch.into_changes(), others: None, began: clock, ended, number }))
    }

    /// After a COMMIT that succeeded.
    fn committed(&mut self, applied: Applied, jobs: &mut [Box<dyn Job>]) -> Result<Vec<Change>, Failure> {
        let Applied { changes, others, began, ended, number } = applied;
        self.shared.stats.count(ended.point - began.point);
        self.number = number.unwrap_or(self.number);
        // SQLite acknowledges commits to a file that is no longer there. Should it come back, so does the commit.
        match (self.check(), number) {
            (Ok(()), _) => {
                // A batch that failed takes nothing in: the next one still sees what was written before it.
                let alone = others.is_some() && others == self.others;
                self.others = others;
                let note = |known: &mut Kept| jobs.iter_mut().for_each(|job| job.note(known));
                self.shared.known.committed(alone, &began, ended, note);
                self.shared.history.committed(self.losses, ended);
                Ok(changes)
            }
            (Err(error), None) => Err(Failure::Never { error, each: false }),
            (Err(error), Some(number)) => Err(Failure::Unknown { error, number }),
        }
    }

    fn send_commit(&self) -> rusqlite::Result<()> {
        #[cfg(test)]
        if let Some(result) = self.shared.faults.commit(&self.connection) {
            return result;
        }
        run(&self.connection, "COMMIT")
    }

    /// Another connection, before the old one is closed.
    fn connect(&mut self) -> Result<()> {
        self.connection = self.shared.connect()?;
        self.others = None;
        self.log.follow(&mut self.connection)
    }

    /// Removes the row of this client, if it has written nothing. Others may have seen what it wrote, and will look whether it is still there.
    pub(super) fn end(self) {
        let is_new = self.number == 0 && self.registered;
        if is_new && self.shared.file.is_some() && !self.stale && self.check().is_ok() {
            let removed =
                patiently(CLOSING, || self.connection.execute("DELETE FROM writers WHERE id = ?1", [self.id.bytes()]));
            if let Err(error) = removed {
                tracing::debug!(%error, "the row of a closing client stays");
            }
        }
    }
}

fn fail(jobs: Vec<Box<dyn Job>>, error: &Error) {
    jobs.into_iter().for_each(|job| job.fail(error.clone()));
}
