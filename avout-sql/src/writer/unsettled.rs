//! How a COMMIT ended that failed: finding out, and telling those who wait.

use std::time::Duration;

use avout_core::protocol::Resolution;
use avout_core::{Error, ErrorKind, Receipt as CoreReceipt, Result};

use super::batch::Writer;
use super::ended::{Applied, Ended, Failure, Unsettled};
use super::work::Job;
use crate::coordinator::outcome::{self, Receipt};
use crate::schema::clock;
use crate::watch::hub::Change;
use crate::wire::connection::roll_back;
use crate::wire::error::classify;

impl Writer {
    /// Finds out how a batch ended that another thread left.
    pub(super) fn finish(&mut self) {
        if let Some(Unsettled { job, error, number, changes }) = self.unsettled.take() {
            let result = self.settle(error, number, changes);
            self.answer(vec![job], result);
        }
    }

    /// After a COMMIT that failed.
    pub(super) fn not_committed(&mut self, error: rusqlite::Error, Applied { changes, number, .. }: Applied) -> Ended {
        let definite = outcome::is_definite(&self.connection, &error);
        roll_back(&self.connection);
        let error = classify(error);
        match number {
            Some(number) if !definite && self.shared.file.is_some() => {
                self.stale = true;
                Ended::Open { error, number, changes }
            }
            _ => Ended::Known(Failure::Never { each: error.kind() == ErrorKind::Full, error }),
        }
    }

    /// Finds out how a COMMIT ended that failed.
    pub(super) fn settle(&mut self, error: Error, number: i64, changes: Vec<Change>) -> Result<Vec<Change>, Failure> {
        for pause in [20, 100, 0] {
            match self.look(number) {
                Ok(true) => {
                    self.number = number;
                    return Ok(changes);
                }
                Ok(false) => {
                    self.number = number + 1;
                    return Err(Failure::Never { error, each: false });
                }
                Err(error) => tracing::warn!(%error, "the outcome of a batch is not known yet"),
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        Err(Failure::Unknown { error, number })
    }

    fn look(&mut self, number: i64) -> Result<bool> {
        #[cfg(test)]
        self.shared.faults.look()?;
        self.check()?;
        // The new connection is opened before the old one is closed: were that the last one to the file, the log would be
        // recovered, with the frames of the failed commit in it.
        let connection = self.shared.connect()?;
        let happened = outcome::decide(&connection, self.shared.options.busy_timeout, self.id, number)?;
        self.connection = connection;
        self.others = None;
        self.log.follow(&mut self.connection)?;
        self.stale = false;
        Ok(happened)
    }

    /// Tells the callers that the outcome is open, and goes on under another name, so that nothing this client does
    /// touches the row that will tell.
    pub(super) fn give_receipts(&mut self, jobs: Vec<Box<dyn Job>>, error: Error, number: i64) {
        let receipt = Receipt { realm: self.shared.realm, writer: self.id, batch: number, point: 0 };
        self.rename();
        self.stale = true;
        for job in jobs {
            let Some(point) = job.point() else {
                // It wrote nothing, or a value that nothing points at. What it saw may never have been.
                job.fail(error.clone());
                continue;
            };
            let bytes = Receipt { point, ..receipt }.encode();
            let error = Error::new(ErrorKind::OutcomeUnknown, "the commit was sent and it cannot be told how it ended")
                .with_receipt(CoreReceipt::Native(bytes))
                .with_source(error.clone());
            job.fail(error);
        }
    }

    pub(super) fn resolve(&mut self, receipt: &Receipt) -> Result<Resolution> {
        if receipt.realm != self.shared.realm {
            return Err(Error::new(ErrorKind::Unsupported, "the receipt is of another store"));
        }
        self.ready()?;
        let timeout = self.shared.options.busy_timeout;
        let happened = outcome::decide(&self.connection, timeout, receipt.writer, receipt.batch);
        roll_back(&self.connection);
        match happened? {
            true => Ok(Resolution::Committed(clock::point(receipt.point)?)),
            false => Ok(Resolution::NotCommitted),
        }
    }
}
