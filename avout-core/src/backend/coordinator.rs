use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::history::Losses;
use super::{Connection, Page, Sessions, Watcher, page};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Commit, CommitOutcome, Key, Point, Realm, Resolution, Revision, Snapshot};

/// The abilities and limits of a [`Coordinator`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoordinatorCapabilities {
    /// The id of the physical namespace: the same for every client of it, and different from all others.
    pub realm: Realm,
    /// It lives in this process and keeps [`Payload::Shared`](crate::Payload::Shared) as it is.
    pub in_process: bool,
    /// Commits survive the loss of power once they are acknowledged.
    pub durable: bool,
    /// Other processes can have the same namespace open.
    pub shared_between_processes: bool,
    /// The largest encoded value, in bytes, that is put into a record; a larger value goes to a store.
    pub max_inline: usize,
    /// The largest encoded record, in bytes.
    pub max_record: usize,
    /// The largest commit: the sum of its puts' encoded records and of the names of its checks, puts and deletes, in bytes. A
    /// commit names each key once.
    pub max_commit: usize,
    /// The most keys that one commit or one read names: up to this many, including the engine's slot and floor. A read
    /// names records without knowing their sizes, so a read of `max_keys` keys is answered even if each has the largest
    /// record.
    pub max_keys: usize,
    /// If the reply to a commit is lost, the coordinator itself can tell the outcome afterwards, by
    /// [`resolve`](Coordinator::resolve). Without this the engine adds a slot to each commit.
    pub definite_replies: bool,
    /// A key that was deleted and put again never has an earlier revision again. Without this the engine checks the
    /// floor in each commit.
    pub unique_revisions: bool,
    /// `read` can answer as of an earlier point.
    pub native_snapshots: bool,
    /// It was opened to read only: the engine sends it no writes, and refuses them itself.
    pub readonly: bool,
}

impl CoordinatorCapabilities {
    /// The least that any coordinator can do: no special abilities, and no limits. Set the fields that differ.
    pub fn new(realm: Realm) -> Self {
        Self {
            realm,
            in_process: false,
            durable: false,
            shared_between_processes: false,
            max_inline: 16 * 1024,
            max_record: usize::MAX,
            max_commit: usize::MAX,
            max_keys: usize::MAX,
            definite_replies: false,
            unique_revisions: false,
            native_snapshots: false,
            readonly: false,
        }
    }
}

/// Orders the commits of a namespace: an atomic compare-and-commit over several keys.
///
/// Transactions need nothing else from a coordinating store. Safety rests on it alone: whatever clients do, even if
/// they die or sleep, a commit takes effect as a whole, or not at all.
///
/// # Contract
/// For the whole trait:
/// - All commits are in one total order, and [`Point`]s grow along it. If a commit was acknowledged before another one
///   was sent, it comes first.
/// - Each put gives its key a revision that differs from the one before it; with `unique_revisions`, from every one
///   that the key ever had.
/// - Acknowledged commits stay, to the degree that `durable` says.
/// - The engine never sends sizes over the capabilities' limits.
/// - Every call except a wait for a change ends in bounded time, even if the server stops answering and keeps its
///   connections open: with `Unavailable`, or `OutcomeUnknown` for a commit that was sent. The engine's own deadlines
///   are no replacement: dropping a future leaves the connection as it is.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// Its abilities and limits. The same answer for as long as the coordinator lives.
    fn capabilities(&self) -> &CoordinatorCapabilities;

    /// Reads the entries of `keys`, all current together. One request to the store.
    ///
    /// # Contract
    /// - Atomic: all entries, including absent ones, were current at the snapshot's `point`.
    /// - Linearizable: without `at`, `point` is not before any commit that was acknowledged, to any client, before this
    ///   call.
    /// - No entry has a point after the snapshot's. Later commits have points after it.
    /// - Without `native_snapshots` `at` is ignored, whatever it is, and the entries are the current ones.
    /// - With `native_snapshots` it answers as of exactly `at`, or with `TooOld`. The engine asks for points that
    ///   snapshots of the namespace had. [`Point::ZERO`] is the moment before the first commit, when every key was
    ///   absent, and never means "now". A point after the current one is `TooOld` too: nobody knows yet what will be
    ///   current then.
    /// - It is answered however many bytes the entries have, as long as `keys` are at most
    ///   [`max_keys`](CoordinatorCapabilities::max_keys). If the store's replies are limited, ask it again as of the
    ///   same point, or declare a lower limit.
    /// - The namespace's realm is verified along with the answer, in the same step of the store. If the namespace was
    ///   emptied, or emptied and made anew by others, the answer is `StoreLost`, even for a client that only reads.
    /// - `keys` may be empty, which asks for the point alone. A key that occurs twice is answered twice.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the store did not answer; try again. [`TooOld`](ErrorKind::TooOld):
    /// `at` is no longer held, or not reached yet. [`StoreLost`](ErrorKind::StoreLost): the realm is not the one that
    /// was opened. [`Corrupt`](ErrorKind::Corrupt), with its key: a record is not readable.
    ///
    /// # Cancel safety
    /// Safe: a read changes nothing.
    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot>;

    /// The same as [`read`](Self::read) without `at`, for a coordinator in memory that never waits and never fails.
    /// `None`, the default: nothing was done, and the caller uses `read`.
    ///
    /// # Contract
    /// An answer is one that `read` could have given at some moment of the call, and it is given without blocking.
    fn read_now(&self, keys: &[Key]) -> Option<Snapshot> {
        let _ = keys;
        None
    }

    /// Applies `commit` as a whole or not at all. One request to the store, in the common case.
    ///
    /// # Contract
    /// - It takes effect if and only if every key has the revision that the commit expects, at one moment between call
    ///   and return, which is its point. No reader sees a part of it.
    /// - `Committed` gives the new revisions in the order of the puts. `Conflict` means that nothing took effect and
    ///   nothing will.
    /// - A commit that only checks passes if and only if one with the same checks and a put would: no stale state
    ///   decides it.
    /// - Conflicts carry fresh entries where that costs no request of its own.
    /// - The realm is compared in the same step. A namespace that was emptied accepts no commit of a client that knew
    ///   it before.
    /// - The request is sent once. Turn off a driver's own retries after a lost reply: the second copy would get a
    ///   conflict, although the first took effect.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): the request was, or may have been, sent, and no reply came. *Any*
    /// transport error after the first byte was sent is of this kind. With `definite_replies` the error carries a
    /// [`Receipt::Native`](crate::Receipt::Native). [`Unavailable`](ErrorKind::Unavailable): surely nothing was
    /// applied, and nothing will be. [`Full`](ErrorKind::Full), [`Denied`](ErrorKind::Denied),
    /// [`StoreLost`](ErrorKind::StoreLost): likewise, and trying again at once is of no use.
    ///
    /// # Cancel safety
    /// If the future is dropped the outcome is open: the commit takes effect as a whole, now or later, or never.
    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome>;

    /// The same as [`commit`](Self::commit), for a coordinator in memory that never waits and never fails, and has
    /// `definite_replies`. `None`, the default: nothing was done and nothing will be, and the caller uses `commit`.
    ///
    /// # Contract
    /// An answer is one that `commit` could have given, and it is given without blocking.
    fn commit_now(&self, commit: &Commit) -> Option<CommitOutcome> {
        let _ = commit;
        None
    }

    /// The point of the entries of a put that got `revision` in a commit at `committed`. The default is `committed`.
    ///
    /// # Contract
    /// A store that gives a commit its point only after its records were written cannot keep the point beside them.
    /// With `native_snapshots` it may give entries another point, determined by `revision` alone. That point is the
    /// same for every reader and for all puts of a commit. It is not after the commit's point, and it is after that of
    /// every earlier commit of the same keys that the committing client has seen. The engine then lets `read` decide
    /// what was current at a point, and uses the points of entries only for the order of one key's payloads.
    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        let _ = revision;
        committed
    }

    /// Finds out how the commit with the [`Receipt::Native`](crate::Receipt::Native) of these bytes ended, and makes
    /// that final.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): try again.
    /// [`Unsupported`](ErrorKind::Unsupported): the receipt is not of this coordinator, or too old.
    ///
    /// # Cancel safety
    /// Safe: it may be repeated until there is an answer.
    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        let _ = receipt;
        Err(Error::new(ErrorKind::Unsupported, "this coordinator gives no receipts of its own"))
    }

    /// Begins to watch `keys`, at least one. Changes that are committed after the return are seen.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): try again.
    ///
    /// # Cancel safety
    /// Safe: the watch ends if the future is dropped. Dropping the watcher ends the watch.
    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>>;

    /// The store's own way to tell which clients are alive, if it has one. Without it clients keep heartbeat records,
    /// which any coordinator can hold.
    fn sessions(&self) -> Option<&dyn Sessions> {
        None
    }

    /// Where it reports lost commits that it had acknowledged, if it can notice that. The same answer for as long as
    /// the coordinator lives. After reporting a loss its requests continue with the present state: the engine tells
    /// users and watches.
    fn losses(&self) -> Option<&Arc<Losses>> {
        None
    }

    /// Where it reports whether it is connected, if it has connections. The same answer for as long as the coordinator
    /// lives.
    fn connection(&self) -> Option<&Arc<Connection>> {
        None
    }

    /// A page of the keys that have a record and are `prefix` or lie under it ([`Key::is_under`]), sorted: the first
    /// ones after `after`, or of all. It includes tombstones, and the engine's own keys if `prefix` is [`Key::root`].
    ///
    /// # Contract
    /// - It is linearizable for each key, but not a snapshot of all.
    /// - `after` need not have a record, nor lie under `prefix`.
    /// - A page has about [`Page::SIZE`] keys, unless the store reads all of them for any page. Only the last one may
    ///   be empty.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): try again.
    ///
    /// # Cancel safety
    /// Safe.
    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page>;

    /// The keys of all pages of [`list`](Self::list).
    ///
    /// # Errors
    /// Those of `list`.
    ///
    /// # Cancel safety
    /// Safe.
    async fn list_all(&self, prefix: &Key) -> Result<Vec<Key>> {
        page::all(|after| async move { self.list(prefix, after.as_ref()).await }).await
    }
}
