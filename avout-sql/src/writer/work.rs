use avout_core::protocol::Key;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::coordinator::known::Kept;
use crate::schema::clock::{Clock, Name, Stamp};
use crate::watch::hub::{Change, Table};

/// Something that the writer does inside a SQLite transaction that it shares with others.
pub(crate) trait Work: Send + 'static {
    /// What the caller is told once the transaction is committed.
    type Answer: Send + 'static;

    /// About how much it writes.
    fn bytes(&self) -> usize;

    /// Whether the caller may be kept until it is done: not if he has requests to make to other stores meanwhile.
    fn may_keep_caller(&self) -> bool {
        true
    }

    /// Does it, or finds that it cannot be done and writes nothing.
    ///
    /// An error rolls the whole batch back, and the others are done again without this one; so it is called more than once. So it
    /// is where a conflict was [`Unexpected`](Conflicts::Unexpected): all are done again then.
    fn apply(&self, batch: &mut Batch<'_>) -> Result<Self::Answer>;

    /// Notes the records that it wrote under this stamp, once that is committed.
    fn note(&mut self, _stamp: Stamp, _known: &mut Kept) {}
}

/// The transaction that the works of one batch share.
///
/// The write lock is held: what a work reads stays so until the commit. Works of the same batch see each other's writes.
pub(crate) struct Batch<'a> {
    pub(crate) connection: &'a Connection,
    writer: Name,
    began: i64,
    clock: i64,
    wrote: bool,
    changes: Vec<Change>,
    conflicts: Conflicts,
}

/// What is expected of conflicts in a batch, and what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflicts {
    /// None is expected: works write before they have looked whether all is as they need it. A conflict then undoes the batch.
    Unexpected,
    /// Works look first.
    Possible,
    /// There was one.
    Seen,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(connection: &'a Connection, writer: Name, clock: i64, conflicts: Conflicts) -> Self {
        Self { connection, writer, began: clock, clock, wrote: false, changes: Vec::new(), conflicts }
    }

    pub(crate) fn conflicts(&self) -> Conflicts {
        self.conflicts
    }

    /// Notes a conflict.
    pub(crate) fn conflict(&mut self) {
        self.conflicts = Conflicts::Seen;
    }

    /// The point of the state as it is now.
    pub(crate) fn point(&self) -> i64 {
        self.clock
    }

    /// The clock in the middle of the batch, which no other one is taken for.
    pub(crate) fn as_of(&self) -> Clock {
        Clock { point: self.clock, last: None }
    }

    /// The stamp that [`next`](Self::next) will give.
    pub(crate) fn coming(&self) -> Result<Stamp> {
        let point =
            self.clock.checked_add(1).ok_or_else(|| Error::new(ErrorKind::Corrupt, "the clock is at its end"))?;
        Ok(Stamp::new(point, self.writer))
    }

    /// A point of its own for the work that writes now.
    pub(crate) fn next(&mut self) -> Result<Stamp> {
        let stamp = self.coming()?;
        self.clock = stamp.point;
        self.wrote = true;
        Ok(stamp)
    }

    /// Notes a write that has no point.
    pub(crate) fn wrote_value(&mut self) {
        self.wrote = true;
    }

    /// Notes a change for the watchers.
    pub(crate) fn changed(&mut self, table: Table, key: &Key, stamp: Option<Stamp>) {
        self.changes.push(Change { table, key: key.clone(), as_of: self.clock, stamp });
    }

    /// How many points were given out.
    pub(crate) fn points(&self) -> i64 {
        self.clock - self.began
    }

    /// Whether there is anything to commit.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

/// A work with the caller who waits for it.
pub(crate) trait Job: Send {
    /// Whether nobody waits any more, so that it need not begin.
    fn is_abandoned(&self) -> bool;
    fn bytes(&self) -> usize;
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<()>;
    /// The point that it took in the batch; `None` if it changed nothing that has a point.
    fn point(&self) -> Option<i64>;
    /// Notes what the last `apply` wrote, once that is committed.
    fn note(&mut self, known: &mut Kept);
    /// Gives the caller the answer of the last `apply`.
    fn succeed(self: Box<Self>);
    fn fail(self: Box<Self>, error: Error);
}

/// What the caller gets. The work comes back with its answer: its memory is freed on the thread that took it, where that costs
/// less, and not while others wait for the writer.
type Reply<W> = Result<(<W as Work>::Answer, W)>;

pub(crate) struct Pending<W: Work> {
    work: W,
    reply: oneshot::Sender<Reply<W>>,
    answer: Option<W::Answer>,
    stamp: Option<Stamp>,
}

impl<W: Work> Pending<W> {
    pub(crate) fn new(work: W) -> (Box<Self>, oneshot::Receiver<Reply<W>>) {
        let (reply, receiver) = oneshot::channel();
        (Box::new(Self { work, reply, answer: None, stamp: None }), receiver)
    }
}

impl<W: Work> Job for Pending<W> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn bytes(&self) -> usize {
        self.work.bytes()
    }

    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<()> {
        let before = batch.point();
        self.answer = Some(self.work.apply(batch)?);
        self.stamp = (batch.point() > before).then(|| Stamp::new(batch.point(), batch.writer));
        Ok(())
    }

    fn point(&self) -> Option<i64> {
        self.stamp.map(|stamp| stamp.point)
    }

    fn note(&mut self, known: &mut Kept) {
        if let Some(stamp) = self.stamp {
            self.work.note(stamp, known);
        }
    }

    fn succeed(self: Box<Self>) {
        let answer = self.answer.expect("a batch that was committed has applied each of its works");
        // The caller may have gone meanwhile; the work is done all the same.
        let _ = self.reply.send(Ok((answer, self.work)));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}
