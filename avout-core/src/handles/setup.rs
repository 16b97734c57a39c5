use std::time::Duration;

use super::StmBuilder;

/// What is set for clients in operation.
impl StmBuilder {
    /// The client only reads: refs, atoms, transactions that write nothing, watches, and who holds what. A client is one too whose URL
    /// says `readonly=true`; then the backend also makes nothing when it opens, and a user without any right to write will do.
    ///
    /// Whatever would write is [`Denied`](crate::ErrorKind::Denied), before anything of it is sent: commits, atoms, locks and
    /// queues, sweeps, and [`resolve`](super::Stm::resolve). It has no session and does not sweep in the background.
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.config.readonly = readonly;
        self
    }

    /// How long the client pauses before it repeats what a store was unavailable for: a random time, of up to `first` the first
    /// time, twice that the next, and so on up to `longest`. 10 ms and 1 s unless set; both from 1 ms to a minute, and `longest` is
    /// `first` at least. Connections are made again by the backend, at its own pace.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        const SHORTEST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_secs(60);
        let first = first.clamp(SHORTEST, LONGEST);
        (self.config.first_pause, self.config.longest_pause) = (first, longest.clamp(first, LONGEST));
        self
    }
}
