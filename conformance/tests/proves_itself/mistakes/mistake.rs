/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Nothing,
    // Of whatever is asked.
    LostReplyAsFailure,
    NoTimeLimit,
    NeverLost,
    RealmNotKept,
    // Of the coordinator.
    BeginningIsNow,
    ReceiveLimit,
    ChecksOfAFollower,
    LateWatch,
    SilentReconnect,
    ReadInParts,
    ReadOfAFollower,
    VersionAsRevision,
    CommitTooLarge,
    TooManyKeys,
    FreshIncomplete,
    WrongPoint,
    ChecksUnchecked,
    // Of the coordinator and the store.
    ListByText,
    // Of the store.
    OverwrittenValue,
    // Of sessions.
    SessionRevived,
    SessionShort,
    SessionEndless,
    SessionCounted,
    AliveSorted,
}
