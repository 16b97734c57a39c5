use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hub::Claim;
use super::queue::{Inner, Queue};
use super::rules::Claimant;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Tx, Value};
use crate::protocol::Key;

/// A value that was received from a [`Queue`] and is to be acknowledged. Dropped, it is handed out again.
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
    queue: Queue<T>,
    out: Ticket,
    value: T,
}

/// That a value is out. Dropped, it lets others have it.
struct Ticket {
    inner: Arc<Inner>,
    claim: Option<Claim>,
    session: Arc<Session>,
    who: Claimant,
    number: u64,
    times: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        let (inner, session) = (Arc::clone(&self.inner), Arc::clone(&self.session));
        let (number, who, times) = (self.number, self.who, self.times);
        self.inner.hub.background(async move {
            if let Err(error) = inner.expose(number, who, times).await {
                tracing::warn!(key = %inner.key, %error, "a value could not be handed back: the session ends");
                inner.hub.lose(&session);
            }
            drop(claim);
        });
    }
}

impl<T: Value + Serialize + DeserializeOwned> Delivery<T> {
    pub(super) fn new(
        queue: Queue<T>,
        claim: Claim,
        session: Arc<Session>,
        who: Claimant,
        number: u64,
        times: u32,
        value: T,
    ) -> Self {
        let inner = Arc::clone(&queue.inner);
        let out = Ticket { inner, claim: Some(claim), session, who, number, times };
        Self { queue, out, value }
    }

    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// How often it was handed out, this time among them.
    pub fn times(&self) -> u32 {
        self.out.times
    }

    /// Takes the value off the queue, now that all is done, and gives it.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): it was handed to somebody else meanwhile, or was acknowledged by them. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// Dropped, it may have been taken off or is handed out again.
    pub async fn ack(mut self) -> Result<T> {
        let done = self.queue.inner.hub.transact_soon(async |tx| self.ack_in(&tx).await).await;
        done.map_err(|error| error.during("ack"))?;
        self.out.claim = None;
        Ok(self.value)
    }

    /// Takes the value off the queue as a part of a transaction: it commits only if the value is still this one's, so what the
    /// transaction does is done once for each value.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): it was handed to somebody else meanwhile. Those of [`Tx`]'s methods.
    pub async fn ack_in(&self, tx: &Tx) -> Result<()> {
        let Ticket { inner, who, number, times, .. } = &self.out;
        if !inner.settle(tx, *number, *who, *times).await? {
            return Err(handed_on(&inner.key));
        }
        self.queue.item(*number)?.remove(tx).await
    }
}

fn handed_on(key: &Key) -> Error {
    Error::new(ErrorKind::Lost, "it was hidden for too long, and handed to somebody else").at(key)
}

impl<T: std::fmt::Debug> std::fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.out.inner.key;
        f.debug_struct("Delivery").field("queue", key).field("times", &self.out.times).finish_non_exhaustive()
    }
}
