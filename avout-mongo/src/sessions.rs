use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use avout_core::Result;
use mongodb::ClientSession;
use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocumentBuf, rawdoc};
use rand::seq::SliceRandom as _;

use crate::schema::STRIPES;
use crate::wire::error::classify;

/// What the transactions of a client share.
pub(crate) struct Transactions {
    driver: mongodb::Client,
    /// One transaction at a time runs in a session.
    pub(crate) sessions: Pool<Session>,
    /// Copies of the floor's revision that no transaction of this client checks now.
    pub(crate) stripes: Pool<i32>,
    /// How long a commit takes, in microseconds.
    usual: AtomicU64,
    /// The server has refused to tell of other users' sessions.
    pub(crate) sees_only_own: AtomicBool,
}

pub(crate) struct Session {
    pub(crate) session: ClientSession,
    /// Of its last transaction. A higher one ends it, should it still be open on the server.
    pub(crate) number: i64,
}

impl Transactions {
    pub(crate) fn new(driver: mongodb::Client) -> Self {
        let stripes = Pool::new();
        let mut all: Vec<i32> = (0..STRIPES).collect();
        all.shuffle(&mut rand::rng());
        all.into_iter().for_each(|stripe| stripes.give_back(stripe));
        let sees_only_own = AtomicBool::new(false);
        Self { driver, sessions: Pool::new(), stripes, usual: AtomicU64::new(2_000), sees_only_own }
    }

    pub(crate) async fn session(&self) -> Result<Session> {
        if let Some(session) = self.sessions.take() {
            return Ok(session);
        }
        let session = self.driver.start_session().causal_consistency(false).await;
        Ok(Session { session: session.map_err(classify)?, number: 0 })
    }

    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(1_000_000);
        let usual = self.usual.load(Ordering::Relaxed);
        self.usual.store(usual - usual / 8 + micros / 8, Ordering::Relaxed);
    }

    /// Some time in which a commit that is under way has probably ended.
    pub(crate) fn pause(&self, tries: u32) -> Duration {
        let most = self.usual.load(Ordering::Relaxed).saturating_mul(1 << tries.min(6)).min(200_000);
        Duration::from_micros(rand::random_range(most / 4..=most))
    }
}

impl Session {
    /// A command as a part of the transaction.
    pub(crate) fn part(&self, mut command: RawDocumentBuf, first: bool) -> RawDocumentBuf {
        if first {
            command.append(cstr!("readConcern"), rawdoc! { "level": "local" });
            command.append(cstr!("startTransaction"), true);
        }
        command.append(cstr!("txnNumber"), self.number);
        command.append(cstr!("autocommit"), false);
        command
    }
}

/// A pool of things that are used by one at a time and are never many.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn give_back(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }
}
