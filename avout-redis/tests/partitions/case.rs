//! What is tried: servers of a shape, a fault, and how careful servers and clients are.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A master and two replicas, each with a sentinel beside it.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The master's processes are killed, and started again after a while.
    Kill,
    /// They stand still for so many seconds.
    Stop(u64),
    /// The master cannot reach the other servers, nor they it, for a while. Clients reach all.
    Cut,
    /// An operator has a replica take over.
    Failover,
    /// The namespace's slot is moved to another master.
    Migrate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The defaults.
    Plain,
    /// `wait_replicas=majority`.
    Majority,
    /// The same with `reads=confirmed`, and `min-replicas-to-write` on the servers.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) fault: Fault,
    pub(crate) mode: Mode,
}

const SHAPES: [Shape; 2] = [Shape::Sentinel, Shape::Cluster];
const FAULTS: [Fault; 7] =
    [Fault::Cut, Fault::Kill, Fault::Stop(3), Fault::Stop(8), Fault::Stop(40), Fault::Failover, Fault::Migrate];
const MODES: [Mode; 3] = [Mode::Plain, Mode::Majority, Mode::All];

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let cases = FAULTS.into_iter().flat_map(|fault| {
            SHAPES.into_iter().flat_map(move |shape| MODES.into_iter().map(move |mode| Self { shape, fault, mode }))
        });
        cases.filter(|case| case.shape == Shape::Cluster || case.fault != Fault::Migrate)
    }
}

impl Fault {
    /// How long it lasts.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::Kill => Duration::from_secs(6),
            Self::Stop(seconds) => Duration::from_secs(seconds),
            Self::Cut => Duration::from_secs(12),
            Self::Failover | Self::Migrate => Duration::ZERO,
        }
    }

    /// Whether it has another server become the master, for certain.
    pub(crate) fn moves(self) -> bool {
        self != Self::Stop(3)
    }
}

impl Mode {
    /// The options of clients.
    pub(crate) fn options(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Majority => "?wait_replicas=majority",
            Self::All => "?wait_replicas=majority&reads=confirmed&min_replicas=1",
        }
    }

    /// The arguments of servers.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Majority => &[],
            Self::All => &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"],
        }
    }

    /// How many replicas must confirm before clients can commit.
    pub(crate) fn replicas(self) -> usize {
        usize::from(self != Self::Plain)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape {
            Shape::Sentinel => "sentinel",
            Shape::Cluster => "cluster",
        };
        let mode = match self.mode {
            Mode::Plain => "plain",
            Mode::Majority => "majority",
            Mode::All => "all",
        };
        match self.fault {
            Fault::Kill => write!(f, "{shape} kill {mode}"),
            Fault::Stop(seconds) => write!(f, "{shape} stop{seconds} {mode}"),
            Fault::Cut => write!(f, "{shape} cut {mode}"),
            Fault::Failover => write!(f, "{shape} failover {mode}"),
            Fault::Migrate => write!(f, "{shape} migrate {mode}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|case| case.to_string() == text).ok_or_else(|| format!("there is no case {text:?}"))
    }
}

/// How thorough it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// A test, which has to hold on a machine that does much else: no client stays behind for ever.
    Short,
    Long,
}

impl Length {
    /// How long all is well before the fault, and how long clients are looked at after it.
    pub(crate) fn around(self) -> (Duration, Duration) {
        let seconds = if self == Self::Short { (1, 2) } else { (2, 6) };
        (Duration::from_secs(seconds.0), Duration::from_secs(seconds.1))
    }

    pub(crate) fn lasts(self, case: Case) -> Duration {
        if self == Self::Short { case.fault.lasts().min(Duration::from_secs(6)) } else { case.fault.lasts() }
    }
}
