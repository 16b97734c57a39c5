use std::sync::Arc;

use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities};
use avout_core::protocol::{Point, Realm};
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::{ClientSession, Database};

use crate::find::read;
use crate::hub::Hub;
use crate::options::Options;
use crate::progress::Progress;
use crate::schema::{self, Names};
use crate::sessions::Transactions;
use crate::wire::request::{Failure, Requests, bounded};

/// The largest record. MongoDB's limit for a document, and for a reply, is 16 MiB.
pub(crate) const MAX_RECORD: usize = 4 << 20;

/// The largest commit, all of which is one command of at most 16 MiB.
pub(crate) const MAX_COMMIT: usize = 8 << 20;

/// The most keys of a commit or a read, for the same reason.
pub(crate) const MAX_KEYS: usize = 8192;

/// The largest value. It lies in chunks.
pub(crate) const MAX_VALUE: usize = 512 << 20;

/// One client of a namespace: what the coordinator, the store, their containers and watchers share. It ends with the
/// last of them.
pub(crate) struct Client {
    pub(crate) options: Options,
    pub(crate) database: Database,
    pub(crate) admin: Database,
    pub(crate) names: Arc<Names>,
    pub(crate) realm: Realm,
    pub(crate) coordinates: CoordinatorCapabilities,
    pub(crate) stores: StoreCapabilities,
    pub(crate) transactions: Transactions,
    pub(crate) hub: Arc<Hub>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) process: u32,
}

impl Client {
    /// Connections do not survive a fork.
    pub(crate) fn usable(&self) -> Result<()> {
        if std::process::id() != self.process {
            return Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"));
        }
        Ok(())
    }

    /// Sends a command once and gives the reply, which may still hold errors of single writes.
    pub(crate) async fn run(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        self.requests().run(command).await
    }

    /// The same of the database of administrators.
    pub(crate) async fn run_admin(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        Requests { database: &self.admin, timeout: self.options.timeout }.run(command).await
    }

    /// The reply to a `find` at this level of read concern, which shows all that was acknowledged before the call; with
    /// `at`, what was there at that point.
    pub(crate) async fn find(
        &self,
        find: &RawDocumentBuf,
        level: &str,
        at: Option<Point>,
    ) -> Result<Document, Failure> {
        read(&self.requests(), &self.progress, &self.names, find, level, at).await
    }

    pub(crate) fn requests(&self) -> Requests<'_> {
        Requests { database: &self.database, timeout: self.options.timeout }
    }

    /// The same in a session.
    pub(crate) async fn run_in(
        &self,
        database: &Database,
        session: &mut ClientSession,
        command: RawDocumentBuf,
    ) -> Result<Document, Failure> {
        let request = database.run_raw_command(command).session(session);
        bounded(self.options.timeout, async move { request.await }).await
    }

    pub(crate) fn saw(&self, point: Point) {
        self.progress.saw(point);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.progress.seen()
    }

    /// Checks that the namespace is still the one that was opened.
    pub(crate) async fn check_realm(&self) -> Result<()> {
        schema::check_realm(&self.requests(), &self.names, self.realm).await
    }
}
