use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use super::Connection;
use super::history::Losses;
use super::{Page, Watcher, page};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Floor, Key, Realm, Revision, State, Version};

/// The abilities and limits of a [`Store`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// The largest value, in bytes, with its envelope.
    pub max_value: usize,
    /// It lives in this process and keeps [`State::Shared`] as it is.
    pub in_process: bool,
    /// Values survive the loss of power once a write has returned.
    pub durable: bool,
    /// Other processes can have the same store open.
    pub shared_between_processes: bool,
    /// [`StateContainer::watch`] is told of changes; without this it polls.
    pub push: bool,
    /// It was opened to read only: the engine sends it no writes, and refuses them itself.
    pub readonly: bool,
}

impl Default for StoreCapabilities {
    /// The least that any store can do: no special abilities, and no limit.
    fn default() -> Self {
        Self {
            max_value: usize::MAX,
            in_process: false,
            durable: false,
            shared_between_processes: false,
            push: false,
            readonly: false,
        }
    }
}

impl StoreCapabilities {
    /// The bytes of a value that the store can keep, for a store outside of this process.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) beyond [`max_value`](Self::max_value); [`Unsupported`](ErrorKind::Unsupported) for a value that
    /// is not encoded.
    pub fn bytes_of(&self, value: State) -> Result<Bytes> {
        match value {
            State::Bytes(bytes) if bytes.len() <= self.max_value => Ok(bytes),
            State::Bytes(bytes) => {
                let (size, max) = (bytes.len(), self.max_value);
                let message = match max >> 20 {
                    0 => format!("a value of {size} bytes: this store takes at most {max} bytes"),
                    max => format!("a value of {size} bytes: this store takes at most {max} MiB"),
                };
                Err(Error::new(ErrorKind::TooLarge, message))
            }
            State::Shared(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "a value with the in-process codec can be kept in the memory of this process only",
            )),
        }
    }
}

/// The kind of container that a key names. Containers of different kinds under one key are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An atom, in a [`StateContainer`].
    Atom,
    /// The values of a ref, in a [`VersionedStateContainer`].
    Ref,
}

/// Makes the containers of refs and atoms.
///
/// # Contract
/// Making a container does no input or output and cannot fail: two containers made for one key are two views of the
/// same state.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The id kept inside the store's namespace: the same for every client of it, and different from all others.
    fn realm(&self) -> Realm;

    /// Its abilities and limits. The same answer for as long as the store lives.
    fn capabilities(&self) -> StoreCapabilities;

    /// The container of an atom.
    fn state(&self, key: &Key) -> Arc<dyn StateContainer>;

    /// The container of a ref's values.
    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer>;

    /// Where it reports lost writes that it had acknowledged, as [`Coordinator::losses`](super::Coordinator::losses)
    /// does. A store of the same client gives the same one.
    fn losses(&self) -> Option<&Arc<Losses>> {
        None
    }

    /// Where it reports whether it is connected, as [`Coordinator::connection`](super::Coordinator::connection) does. A
    /// store of the same client gives the same one.
    fn connection(&self) -> Option<&Arc<Connection>> {
        None
    }

    /// Asks the store for an answer, in one request that changes nothing. The default reads an atom that cannot exist.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): no answer came. [`StoreLost`](crate::ErrorKind::StoreLost): the
    /// realm is another one, if the store can tell that by a read.
    ///
    /// # Cancel safety
    /// Safe.
    async fn ping(&self) -> Result<()> {
        self.state(&Floor::key()).state().await.map(drop)
    }

    /// A page of the keys of this kind that hold anything and are `prefix` or lie under it, sorted: the first ones
    /// after `after`, or of all. The contract is that of [`Coordinator::list`](super::Coordinator::list).
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): try again.
    ///
    /// # Cancel safety
    /// Safe.
    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page>;

    /// The keys of all pages of [`keys`](Self::keys).
    ///
    /// # Errors
    /// Those of `keys`.
    ///
    /// # Cancel safety
    /// Safe.
    async fn all_keys(&self, kind: Kind, prefix: &Key) -> Result<Vec<Key>> {
        page::all(|after| async move { self.keys(kind, prefix, after.as_ref()).await }).await
    }

    /// Deletes these values of refs, as far as they exist: the same as
    /// [`delete_state_at`](VersionedStateContainer::delete_state_at) for each. The default does that for all at once; a
    /// store that needs fewer requests overrides it.
    ///
    /// # Errors
    /// Those of `delete_state_at`. Values may have been deleted all the same.
    ///
    /// # Cancel safety
    /// Safe.
    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        let deletes = values.iter().map(|(key, version)| {
            let container = self.versioned_state(key);
            async move { container.delete_state_at(version).await }
        });
        join_all(deletes).await.into_iter().collect()
    }
}

/// The outcome of a compare-and-set.
#[derive(Clone, Debug)]
pub enum CasOutcome {
    /// The state was as expected and is now the new one, with this revision.
    Set(Revision),
    /// The state was another one, and nothing changed. This is the state that was found; `None`: there is none.
    Stale(Option<(State, Revision)>),
}

/// The state of one atom.
///
/// # Contract
/// - Linearizable: all operations on one container, by any client, take effect one after the other, each
///   between its call and its return.
/// - Each write gives a revision that this container never had before, not even before a `destroy`.
///
/// # Errors
/// For all methods: [`Unavailable`](crate::ErrorKind::Unavailable) if surely nothing was written;
/// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if a write was sent and its reply lost;
/// [`TooLarge`](crate::ErrorKind::TooLarge), [`Full`](crate::ErrorKind::Full) and
/// [`Denied`](crate::ErrorKind::Denied) with nothing written.
///
/// # Cancel safety
/// For all methods: if the future of a write is dropped, the write may or may not take effect, as a whole.
#[async_trait]
pub trait StateContainer: Send + Sync {
    /// Prepares the container if the store needs that. Idempotent; it writes no state.
    async fn init(&self) -> Result<()>;

    /// Removes the state and all that belongs to it. Idempotent.
    async fn destroy(&self) -> Result<()>;

    /// The current state with its revision; `None` if there is none.
    async fn state(&self) -> Result<Option<(State, Revision)>>;

    /// Writes `value`, whatever was there.
    async fn set_state(&self, value: State) -> Result<Revision>;

    /// Writes `value` if the current revision is `expected`; `None` expects no state.
    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome>;

    /// Watches the state, as [`Coordinator::watch`](super::Coordinator::watch) does records. The first state and a
    /// `destroy` are changes too. A store that does not report changes returns a [`Polling`](super::Polling).
    ///
    /// # Contract
    /// The watch is in place when this returns: every later change, by any client, wakes it. It ends when it is dropped, and with
    /// an error when the client is closed.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    async fn watch(&self) -> Result<Box<dyn Watcher>>;
}

/// The values of one ref. A value never changes once it is written.
///
/// # Contract
/// - A version is written at most once with one value. Writing it again with the same value succeeds and changes
///   nothing, so that a caller may repeat after a lost reply. Another value for the same version is refused
///   ([`AlreadyExists`](crate::ErrorKind::AlreadyExists)), and the first one stays.
/// - A written value is found by every client from then on, until it is deleted.
///
/// # Errors
/// For all methods: [`Unavailable`](crate::ErrorKind::Unavailable) if the store did not answer; the
/// operation may or may not have taken effect, which is harmless here: nothing points at a value
/// before its transaction commits, and all operations may be repeated.
/// [`TooLarge`](crate::ErrorKind::TooLarge) names the store's limit; nothing was written.
///
/// # Cancel safety
/// For all methods: safe. A value left behind is an orphan, and the sweeper removes it.
#[async_trait]
pub trait VersionedStateContainer: Send + Sync {
    /// Prepares the container if the store needs that. Idempotent.
    async fn init(&self) -> Result<()>;

    /// Removes all values and all that belongs to the container. Idempotent.
    async fn destroy(&self) -> Result<()>;

    /// The value of this version; `None` if there is none.
    async fn state_at(&self, version: &Version) -> Result<Option<State>>;

    /// Writes `value` under `version`, durably on return as far as the store is durable.
    async fn set_state_at(&self, version: &Version, value: State) -> Result<()>;

    /// Deletes the value of this version, if there is one. Idempotent.
    async fn delete_state_at(&self, version: &Version) -> Result<()>;

    /// All versions that have a value, in order.
    async fn versions(&self) -> Result<Vec<Version>>;
}
