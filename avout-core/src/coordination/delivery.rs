use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task;

use super::holdings::GiveBack;
use super::records::Records;
use super::rules::Claimant;
use super::session::Session;
use super::session_manager::Claim;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Tx, Value};

/// A value that was received from a [`Queue`](crate::Queue) and is to be acknowledged. If it is dropped the value is
/// redelivered.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let mails = stm.queue::<String>("/mails", 1000)?;
/// mails.push("hello".to_string()).await?;
/// let mail = mails.receive(Duration::from_secs(60)).await?;
/// assert_eq!((&**mail.value(), mail.times()), ("hello", 1));
/// drop(mail); // it could not be sent
///
/// let mail = mails.receive(Duration::from_secs(60)).await?;
/// assert_eq!(mail.times(), 2);
/// mail.ack().await?;
/// assert!(mails.is_empty().await?);
/// # Ok(()) }
/// ```
#[must_use = "a value that is not acknowledged is handed out again"]
pub struct Delivery<T> {
    out: Ticket,
    number: u64,
    times: u32,
    value: T,
}

/// The fact that a value is out. Dropping it lets others have the value.
pub(super) struct Ticket(Arc<Held>);

struct Held {
    records: Arc<Records>,
    /// `None`: it was acknowledged or handed back.
    claim: Mutex<Option<Claim>>,
    session: Arc<Session>,
    who: Claimant,
}

impl Ticket {
    pub(super) fn new(
        records: Arc<Records>,
        claim: Claim,
        session: Arc<Session>,
        who: Claimant,
        task: Option<task::Id>,
    ) -> Self {
        let held = Arc::new(Held { records, claim: Mutex::new(Some(claim)), session, who });
        let back: Weak<dyn GiveBack> = Arc::downgrade(&held) as _;
        let manager = &held.records.manager;
        manager.holdings.add(held.records.head.key(), who, task, back);
        // After it was added: a close either finds it or is seen.
        if manager.engine.closing.has_begun() {
            held.give_back();
        }
        Self(held)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Held {
    fn take_claim(&self) -> Option<Claim> {
        self.records.manager.holdings.remove(self.who);
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl GiveBack for Held {
    fn is_held(&self) -> bool {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).is_some() && self.session.is_alive()
    }

    fn give_back(&self) {
        let Some(claim) = self.take_claim() else {
            return;
        };
        let (records, session, who) = (Arc::clone(&self.records), Arc::clone(&self.session), self.who);
        self.records.manager.background(async move {
            if let Err(error) = records.expose(who).await {
                tracing::warn!(key = %records.key, %error, "a value could not be handed back: the session ends");
                records.manager.lose(&session);
            }
            drop(claim);
        });
    }
}

impl<T: Value + Serialize + DeserializeOwned> Delivery<T> {
    pub(super) fn new(out: Ticket, number: u64, times: u32, value: T) -> Self {
        Self { out, number, times, value }
    }

    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The value's number in the queue. Values are numbered in the order in which they were pushed.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How often the value was delivered, including this time.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Takes the value off the queue, now that its work is done, and returns it.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the value was redelivered to another consumer, or the queue was destroyed. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// If the future is dropped the value is either taken off or redelivered.
    pub async fn ack(self) -> Result<T> {
        let done = self.out.0.records.manager.transact_soon(async |tx| self.ack_in(&tx).await).await;
        done.map_err(|error| error.during("ack"))?;
        drop(self.out.0.take_claim());
        Ok(self.value)
    }

    /// Takes the value off the queue as a part of a transaction, which commits only if this delivery still has the
    /// value. So the work of the transaction is done once for each value.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the value was redelivered to another consumer, or the queue was destroyed. Those of
    /// [`Tx`]'s methods.
    pub async fn ack_in(&self, tx: &Tx) -> Result<()> {
        let Held { records, who, .. } = &*self.out.0;
        if records.settle(tx, *who).await? {
            return Ok(());
        }
        let message = "it was hidden for too long and handed to somebody else, or was taken off the queue";
        Err(Error::new(ErrorKind::Lost, message).at(&records.key))
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.out.0.records.key;
        let mut f = f.debug_struct("Delivery");
        f.field("queue", key).field("number", &self.number).field("times", &self.times).finish_non_exhaustive()
    }
}
