use std::borrow::Cow;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::{AbortHook, CommitHook};
use crate::backend::tasks::Tasks;

/// What a transaction is protected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As if transactions ran one after the other, in an order that agrees with real time: strict serializability. Each commit checks
    /// everything that was read.
    #[default]
    Serializable,
    /// Clojure's: the body sees one moment, and writes exclude each other, but what is only read may change before the
    /// commit unless it is `ensure`d. Two such transactions can each read what the other writes (write skew).
    Snapshot,
}

/// What a client's transactions do unless they say otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long a transaction or an operation on a handle may take; `None`: for ever. 30 s by default.
    pub deadline: Option<Duration>,
    /// How many attempts a transaction may make; `None`: any number, which is the default.
    pub max_attempts: Option<u32>,
    /// How many bytes of values from stores are kept in memory. 32 MiB by default.
    pub cache_bytes: u64,
    /// How long a session of this client lives without a sign of life: what its locks outlive it by. 10 s by default.
    pub session_ttl: Duration,
    /// About how often one of all clients of the namespace sweeps in the background; `None`: this client never does. Once an
    /// hour by default.
    pub sweep_every: Option<Duration>,
    /// The seed of back-off times; `None`: drawn from the operating system.
    pub seed: Option<u64>,
    /// It only reads. `false` by default; so does a client whose coordinator was opened to read only.
    pub readonly: bool,
    /// The longest pause before the first repetition of what the store was unavailable for. 10 ms by default.
    pub first_pause: Duration,
    /// The longest pause before any later repetition. 1 s by default.
    pub longest_pause: Duration,
    /// The random part of the client's id, for simulations, whose runs repeat; no two clients may have the same.
    #[doc(hidden)]
    pub client: Option<u128>,
    /// How long whoever waits for a change waits for a hint, about, before it looks by itself; for tests of hints.
    #[doc(hidden)]
    pub look_every: Duration,
    /// How what goes on in the background is run.
    #[doc(hidden)]
    pub tasks: Tasks,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Some(Duration::from_secs(30)),
            max_attempts: None,
            cache_bytes: 32 * 1024 * 1024,
            session_ttl: Duration::from_secs(10),
            sweep_every: Some(Duration::from_secs(3600)),
            seed: None,
            readonly: false,
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(1),
            client: None,
            look_every: Duration::from_secs(5),
            tasks: Tasks::default(),
        }
    }
}

/// How one transaction is run.
pub(crate) struct Options {
    pub(crate) isolation: Isolation,
    pub(crate) deadline: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) label: Cow<'static, str>,
    pub(crate) on_commit: Vec<CommitHook>,
    pub(crate) on_abort: Vec<AbortHook>,
    /// When its sender has gone nobody wants the transaction any more: a commit that was not sent, or surely did not happen, is not
    /// sent.
    pub(crate) wanted: Option<watch::Receiver<()>>,
    /// It is a user's operation: each attempt begins by telling of commits that were lost.
    pub(crate) tells: bool,
}

impl Options {
    /// For the last part of an operation that has to be over by then.
    pub(crate) fn until(config: &Config, deadline: Option<Instant>) -> Self {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Self { deadline: left, ..Self::new(config) }
    }

    /// For a part of an operation that has told of lost commits when it began, or of what goes on in the background.
    pub(crate) fn silent(config: &Config) -> Self {
        Self { tells: false, ..Self::new(config) }
    }

    pub(crate) fn new(config: &Config) -> Self {
        Self {
            isolation: Isolation::default(),
            deadline: config.deadline,
            max_attempts: config.max_attempts,
            label: Cow::Borrowed(""),
            on_commit: Vec::new(),
            on_abort: Vec::new(),
            wanted: None,
            tells: true,
        }
    }
}
