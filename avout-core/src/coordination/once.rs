use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::buckets::{Bucket, Done, IN_BUCKET, Settings, bucket_of, buckets, some};
use super::grant_queue::own_key;
use super::session_manager::SessionManager;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Body, Codec, MessagePack, Stm, SystemRef, Tx, Value};
use crate::protocol::Key;

/// Transactions that take effect at most once for each id; made by [`Stm::once`](crate::Stm::once).
///
/// The id and the result are committed together with the effect. A later call with the same id, in any process, returns
/// that result and does not run the body. So a request can safely be repeated, even after a crash or an unknown
/// outcome.
///
/// # Retention
/// Ids are remembered in buckets, each of which holds its 64 newest: an id is forgotten when 64 newer ones fell into
/// its bucket. There are enough buckets for each to be half full with `keep` ids. So what is stored is bounded, and
/// each of the last `keep` ids is remembered, except with a chance of less than one in a million. No clock is involved.
/// Repeating an id after so many others takes effect again: choose `keep` accordingly. All users of one `Once` must
/// name the same `keep`.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let balance = stm.create_ref("/balance", 100_i64).await?;
/// let payments = stm.once("/payments", 1_000_000)?;
/// for _ in 0..3 {
///     let left = payments.dosync("payment 17", async |tx| tx.alter(&balance, |n| n - 30).await).await?;
///     assert_eq!(left, 70);
/// }
/// assert_eq!(balance.get().await?, 70);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Once {
    pub(super) manager: Arc<SessionManager>,
    pub(super) key: Key,
    pub(super) keep: u64,
    pub(super) settings: SystemRef<Settings>,
}

/// How many ids [`Stm::dosync_once`] remembers at least.
const KEEP: u64 = 65_536;
/// How many ids a new one replaces at most.
const FORGOTTEN_AT_ONCE: usize = 2;
/// The longest id, in bytes.
const MAX_ID: usize = 256;

impl Stm {
    /// Runs `body` as a transaction that takes effect at most once for this id; later calls with the same id return its
    /// result. The last 65,536 ids are remembered; with [`once`](Self::once) you choose the number.
    ///
    /// # Errors
    /// As [`Once::dosync`].
    ///
    /// # Cancel safety
    /// As [`dosync`](Self::dosync): to find out whether it took effect, call it again with the same id.
    pub async fn dosync_once<T, F, Fut>(&self, id: impl Into<String>, body: F) -> Result<T>
    where
        T: Value + Serialize + DeserializeOwned,
        F: Body<Fut>,
        Fut: Future<Output = Result<T>>,
    {
        self.once("/default", KEEP)?.dosync(id, body).await
    }

    /// Transactions of this name that take effect at most once for each id, of which the last `keep` are remembered. It
    /// makes no request.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, one of more than 460 bytes, or `keep` is zero.
    /// [`Mismatch`](ErrorKind::Mismatch), from every operation: it remembers another number of ids; [`Once::set_keep`]
    /// changes it.
    pub fn once(&self, key: impl AsRef<str>, keep: u64) -> Result<Once> {
        let manager = SessionManager::of(self);
        let key = Key::new(key)?;
        some(keep).map_err(|error| error.at(&key))?;
        // The longest key of a bucket must be valid.
        own_key("once", "18446744073709551615", &key)?;
        let settings = SystemRef::new(&manager.engine, own_key("once", "keep", &key)?, "keep");
        Ok(Once { manager, key, keep, settings })
    }
}

impl Once {
    /// Runs `body` as a transaction. If one with this id has committed before, returns its result instead.
    ///
    /// Transactions whose ids fall into one bucket conflict with each other. The result is stored with the id, so it should be small.
    ///
    /// # Errors
    /// Those of [`Stm::dosync`](crate::Stm::dosync): the id is not remembered then.
    /// [`InvalidInput`](ErrorKind::InvalidInput): an id of more than 256 bytes. [`Mismatch`](ErrorKind::Mismatch):
    /// another `keep` than the one it was first used with. [`Codec`](ErrorKind::Codec): the result cannot be stored, or
    /// the stored one is of another type.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync): to find out whether it took effect, call it again with the same id.
    pub async fn dosync<T, F, Fut>(&self, id: impl Into<String>, body: F) -> Result<T>
    where
        T: Value + Serialize + DeserializeOwned,
        F: Body<Fut>,
        Fut: Future<Output = Result<T>>,
    {
        self.manager.engine.begin("dosync_once")?;
        let id = id.into();
        if id.len() > MAX_ID {
            return Err(Error::new(ErrorKind::InvalidInput, "an id has at most 256 bytes").at(&self.key));
        }
        let number = bucket_of(&id, buckets(self.keep));
        let bucket = self.bucket(number)?;
        let (bucket, id, body) = (&bucket, &id, &body);
        self.manager
            .transact_soon(|tx| async move {
                tx.0.see(&[self.settings.key(), bucket.key()]).await?;
                let past = self.use_settings(&tx).await?;
                let mut done = bucket.get(&tx).await?.unwrap_or_default();
                let mut found = done.find(id).cloned();
                for buckets in past {
                    let number = bucket_of(id, buckets);
                    if found.is_none() {
                        found = self.bucket(number)?.get(&tx).await?.and_then(|past| past.find(id).cloned());
                    }
                }
                if let Some(found) = found {
                    return MessagePack.decode(&found.result).map_err(|cause| {
                        let message = "the result that was stored for this id is of another type";
                        Error::new(ErrorKind::Codec, message).at(&self.key).with_source(cause)
                    });
                }
                let result = body(tx.clone()).await?;
                let encoded = MessagePack.encode(&result).map_err(|cause| {
                    Error::new(ErrorKind::Codec, "the result cannot be stored").at(&self.key).with_source(cause)
                })?;
                // A bucket that holds more, from when there were more buckets, shrinks to that little by little.
                let beyond = (done.done.len() + 1).saturating_sub(IN_BUCKET).min(FORGOTTEN_AT_ONCE);
                done.done.drain(..beyond);
                done.done.push(Done { id: id.clone(), result: encoded });
                bucket.put(&tx, done).await?;
                Ok(result)
            })
            .await
            .map_err(|error| error.during("dosync_once"))
    }

    /// Checks in a transaction that the stored number is this handle's, or stores it. Gives how many buckets there were
    /// before, if ids may still be in those.
    async fn use_settings(&self, tx: &Tx) -> Result<Vec<u64>> {
        let Some(settings) = self.stored(tx).await? else {
            self.settings.put(tx, Settings::Keep(self.keep)).await?;
            return Ok(Vec::new());
        };
        settings.refuse_ending().map_err(|error| error.at(&self.key))?;
        Ok(settings.past().to_vec())
    }

    /// The stored settings. Refused if their number is not this handle's.
    pub(super) async fn stored(&self, tx: &Tx) -> Result<Option<Settings>> {
        let settings = self.settings.get(tx).await?;
        match settings.as_ref().map(Settings::keep) {
            Some(keep) if keep != self.keep => {
                let message = format!("it remembers {keep} ids, and is used with {}", self.keep);
                Err(Error::new(ErrorKind::Mismatch, message).at(&self.key))
            }
            _ => Ok(settings),
        }
    }

    pub(super) fn bucket(&self, number: u64) -> Result<SystemRef<Bucket>> {
        Ok(SystemRef::new(&self.manager.engine, own_key("once", &number.to_string(), &self.key)?, "once"))
    }
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("key", &self.key).field("keep", &self.keep).finish()
    }
}
