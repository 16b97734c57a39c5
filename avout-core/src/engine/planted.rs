//! Mistakes that tests have a client make, to see that they are found. Without the feature `planted-bugs` none can be chosen.

use super::Config;
use super::attempt::Action;
use super::plan::Plan;

/// A mistake of the engine.
#[doc(hidden)]
#[cfg_attr(not(feature = "planted-bugs"), allow(unreachable_pub, reason = "it is public with the feature"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An entry is used that is newer than the read point, with no look at what was read before.
    SnapshotNotExtended,
    /// A key that was commuted and read is not checked.
    CommuteUnchecked,
    /// Commits do not check the floor.
    FloorUnchecked,
    /// A commit goes by the floor that is known when it is sent, and not by that under which its bases were read.
    FloorTakenLate,
    /// A slot is used on under a later epoch.
    SlotKept,
    /// A sweep deletes values without having raised the floor.
    FloorNotRaised,
    /// A sweep goes by records that it read before it raised the floor.
    RecordsReadFirst,
    /// A sweep removes records as they are by then, whatever they were when it saw them.
    RemovedAsIs,
    /// A sweep's removals do not take turns.
    TurnIgnored,
    /// A sweep removes no records.
    RecordsKept,
    /// A client that is closed removes the slots of commits that may come late, too.
    LateForgotten,
    /// A sweep deletes no values.
    ValuesKept,
    /// A sweep deletes values that records point at.
    PointersIgnored,
    /// A sweep takes values of other coordinators for its own.
    OthersValuesTaken,
    /// A transaction's values are written to one store after the other.
    StoresInTurn,
    /// A body does not read back what it has written.
    OwnWritesUnseen,
    /// What has changed since the read point is given up, though history has it.
    HistoryUnused,
    /// Each read is made twice.
    ReadsTwice,
    /// The first attempt is given up, whatever came of it.
    AttemptWasted,
    /// A body that was doomed, and returned a value all the same, is committed.
    DoomForgotten,
    /// What was only read is checked under `Isolation::Snapshot` too.
    SnapshotChecksReads,
    /// What a blind write has left is not kept for the next one.
    LeftForgotten,
    /// An error rests on a record that a blind write has left and that is there no more.
    BasesUndoubted,
    /// What a blind write has left is used under any floor.
    LeftOutlivesFloor,
    /// Whoever waits for a change looks only when it is told to.
    HintsTrusted,
    /// A session is relied on though the store may have forgotten it.
    SessionUndoubted,
    /// What is made or opened is not looked at again after a lost reply.
    OpeningNotRepeated,
    /// Nobody is told of commits that were lost.
    LossSwallowed,
    /// A commit's error is taken for success.
    ErrorSwallowed,
    /// An unknown outcome is told as a failure.
    UnknownToldAsFailure,
    /// A commit whose reply was lost is taken for one that did not happen.
    FenceSkipped,
    /// Values are written that a validator refuses.
    ValidatorsSkipped,
    /// Refs of other clients are taken.
    OthersRefsTaken,
    /// Deadlines of transactions are not kept.
    DeadlineIgnored,
    /// Attempts are not counted.
    AttemptsUnlimited,
    /// Hooks of attempts that are given up are not called.
    AbortHooksSkipped,
    /// Hooks for the commit are called though the body failed.
    CommitHooksAnyway,
    /// A retry waits for nothing.
    RetryAtOnce,
    /// What the first branch of an `or_else` wrote is kept.
    BranchKept,
    /// A watch tells what it has told before.
    ToldAgain,
    /// A watch does not say that it has skipped values.
    SkippedUnsaid,
    /// A reservation is no reason to wait.
    ReservationIgnored,
    /// A reservation is waited for without end.
    ReservationEndless,
    /// Nobody queues.
    QueueSkipped,
    /// Nobody queues, and a reservation is no reason to wait.
    Unfair,
    /// A queue is waited in without end.
    QueueEndless,
    /// A turn at the head of a queue never ends.
    TurnKept,
    /// Those who are next in a queue are not told what was left.
    HandOverLost,
    /// Nothing is merged or combined.
    Apart,
    /// Merged functions are applied twice.
    MergedTwice,
    /// All of a merged commit get the error of one.
    RefusalShared,
    /// Those who wait to be merged are never told.
    WaitersForgotten,
    /// A swap builds on what a write in flight will replace.
    SwapOnOldValue,
    /// A swap that was combined with a lost write is taken for done.
    SwapLossHidden,
    /// All of a combined write get the error of one.
    SwapFailureShared,
    /// A lock has room for all.
    LockForAll,
    /// Who came last to a lock is served first.
    LastFirst,
    /// All grants have one number.
    TokensStand,
    /// A lock that is made again counts its grants from zero.
    TokensBeginAgain,
    /// A guard that a transaction requires is not looked at.
    RequireIgnored,
    /// Those who were granted something are not told.
    GrantUntold,
    /// Nobody is taken for dead.
    DeadStay,
    /// Others are taken for dead at sight.
    LivingTakenForDead,
    /// A session is taken for ended by a look from before it had begun.
    BegunMeanwhile,
    /// A client does not notice that its session is late.
    LossUnnoticed,
    /// A request ends with the session that it was made in.
    RequestLostWithSession,
    /// What is dropped is not given back.
    DropKeeps,
    /// A release ends with its future.
    ReleaseDropped,
    /// What is about to be given back is not waited for.
    CloseAtOnce,
    /// A lock is destroyed though it is used.
    DestroyAnyway,
    /// A lock is acquired inside the body of a transaction.
    AcquireNested,
    /// Those who are notified wait on.
    NotifiedStay,
    /// A wait at a condition has no end in time.
    WaitEndless,
    /// A barrier opens before the last has come.
    BarrierEarly,
    /// It is not remembered what was done once.
    OnceForgotten,
    /// A client that is to read only writes.
    ReadonlyForgotten,
    /// A ping is answered without asking.
    PingUnsent,
}

/// Longer than any test.
pub(super) const ENDLESS: std::time::Duration = std::time::Duration::from_secs(3600);

/// Whether this client makes this mistake.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is(config: &Config, bug: Bug) -> bool {
    config.planted == Some(bug)
}

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is(_: &Config, _: Bug) -> bool {
    false
}

impl Plan {
    /// Takes the check off all keys that were commuted.
    pub(super) fn uncheck_commutes(&mut self) {
        for planned in &mut self.writes {
            planned.soft |= matches!(planned.write.action, Action::Commute { .. });
        }
    }
}
