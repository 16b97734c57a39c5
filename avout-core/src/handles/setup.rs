use std::time::Duration;

use super::StmBuilder;

/// Settings of clients for operators.
impl StmBuilder {
    /// The client only reads: refs, atoms, transactions that write nothing, watches, and the state of locks. A client
    /// whose URL says `readonly=true` does so too; then the backend also creates nothing when it opens, and a user
    /// without write access suffices.
    ///
    /// Operations that would write are [`Denied`](crate::ErrorKind::Denied) before anything is sent: commits, atoms,
    /// locks and queues, sweeps, and [`resolve`](super::Stm::resolve). The client has no session and does not sweep in
    /// the background.
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.config.readonly = readonly;
        self
    }

    /// How long the client pauses before it retries a request that failed because the store was unavailable: a random
    /// time, of up to `first` the first time, twice that the next, and so on up to `longest`. The defaults are 10 ms
    /// and 1 s. Both must be from 1 ms to a minute, and `longest` at least `first`. The backend reconnects at its own
    /// pace.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        const SHORTEST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_secs(60);
        let first = first.clamp(SHORTEST, LONGEST);
        (self.config.first_pause, self.config.longest_pause) = (first, longest.clamp(first, LONGEST));
        self
    }
}
