//! Points of a transaction at which tests have a client die, stop or wait. For tests only: the feature `failpoints`.
//!
//! Each commit of a transaction passes the four points in turn, and each write of an [`Atom`](crate::Atom) those that it has: it
//! is its own value write and commit, so it does not pass [`BetweenValueWriteAndCommit`](Failpoint::BetweenValueWriteAndCommit).
//! Commits within memory pass none.
//!
//! What happens there is said by [`hook`], or by the environment variable `AVOUT_FAILPOINTS` of a process:
//! `point=action:probability`, several of them with commas between. The points are `before-value-write`,
//! `between-value-write-and-commit`, `commit-in-flight` and `between-commit-and-clean-up`. The actions are `kill` (SIGKILL to
//! the process itself), `stop` (SIGSTOP to itself, until somebody sends SIGCONT) and `sleep` with a number of milliseconds,
//! `sleep(50)`, in which only the one that came there waits. Without a probability it is done each time.
//!
//! ```text
//! AVOUT_FAILPOINTS=commit-in-flight=kill:0.01,before-value-write=sleep(20):0.1
//! ```

use std::fmt;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::backend::time::{sleep, timeout};

/// The variable that says what a process does where.
const VARIABLE: &str = "AVOUT_FAILPOINTS";

/// For how long a request may have been under way when something happens to it: most replies come sooner.
const IN_FLIGHT: Duration = Duration::from_millis(3);

/// A point of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failpoint {
    /// Nothing has been written.
    BeforeValueWrite,
    /// Values are in their stores, and nothing points at them.
    BetweenValueWriteAndCommit,
    /// The request to commit is under way, or done, and the client has not taken notice of a reply.
    CommitInFlight,
    /// The client knows that it committed, and has removed nothing yet.
    BetweenCommitAndCleanUp,
}

impl Failpoint {
    /// All of them, in the order in which a transaction passes them.
    pub const ALL: [Self; 4] =
        [Self::BeforeValueWrite, Self::BetweenValueWriteAndCommit, Self::CommitInFlight, Self::BetweenCommitAndCleanUp];

    /// Its name in `AVOUT_FAILPOINTS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeValueWrite => "before-value-write",
            Self::BetweenValueWriteAndCommit => "between-value-write-and-commit",
            Self::CommitInFlight => "commit-in-flight",
            Self::BetweenCommitAndCleanUp => "between-commit-and-clean-up",
        }
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|point| point.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is no failpoint: there are {names}")
        })
    }
}

/// What the one that came to a point waits for.
pub type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

type Hook = dyn Fn(Failpoint) -> Option<Wait> + Send + Sync;

static HOOK: RwLock<Option<Arc<Hook>>> = RwLock::new(None);

/// Asks `hook` from now on at each point of each client of this process: `Some` is waited for there, and `None` lets it pass.
/// It takes the place of the one before, and comes before what `AVOUT_FAILPOINTS` says.
pub fn hook(hook: impl Fn(Failpoint) -> Option<Wait> + Send + Sync + 'static) {
    *HOOK.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Kill,
    Stop,
    Sleep(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    point: Failpoint,
    action: Action,
    probability: f64,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, rest) = text.trim().split_once('=').ok_or("it has no `=`: write `point=action:probability`")?;
        let (action, probability) = rest.split_once(':').unwrap_or((rest, "1"));
        let chance = probability.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
        let millis = |text: &str| text.strip_prefix("sleep(")?.strip_suffix(')')?.parse().ok();
        let action = match (action, millis(action)) {
            ("kill", _) => Action::Kill,
            ("stop", _) => Action::Stop,
            (_, Some(millis)) => Action::Sleep(Duration::from_millis(millis)),
            _ => return Err(format!("`{action}` is no action: there are kill, stop and sleep(milliseconds)")),
        };
        let probability = chance.ok_or_else(|| format!("`{probability}` is no probability from 0 to 1"))?;
        Ok(Self { point: point.parse()?, action, probability })
    }
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts.map(|part| part.parse().map_err(|why| format!("{VARIABLE}: in `{part}`: {why}"))).collect()
}

/// # Panics
/// If the variable cannot be understood: a test that kills nobody would pass.
fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let text = std::env::var_os(VARIABLE).unwrap_or_default();
        parse(&text.to_string_lossy()).unwrap_or_else(|why| panic!("{why}"))
    })
}

impl Rule {
    fn wait(self) -> Option<Wait> {
        if rand::random::<f64>() >= self.probability {
            return None;
        }
        let signal = |signal| kill_process(getpid(), signal).expect("a process may send signals to itself");
        Some(Box::pin(async move {
            match self.action {
                Action::Kill => signal(Signal::KILL),
                Action::Stop => signal(Signal::STOP),
                Action::Sleep(time) => sleep(time).await,
            }
        }))
    }
}

/// What is to be waited for at a point.
fn wait_at(point: Failpoint) -> Option<Wait> {
    let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
    let hooked = hook.and_then(|hook| hook(point));
    hooked.or_else(|| rules().iter().filter(|rule| rule.point == point).find_map(|rule| rule.wait()))
}

/// A client is at this point.
pub(crate) async fn reach(point: Failpoint) {
    if let Some(wait) = wait_at(point) {
        wait.await;
    }
}

/// Sends a request, which is its first poll, with the point [`Failpoint::CommitInFlight`] after a random short while. Nobody
/// looks at the reply as long as the one that came there waits.
pub(crate) async fn in_flight<T>(request: impl Future<Output = T>) -> T {
    let Some(wait) = wait_at(Failpoint::CommitInFlight) else {
        return request.await;
    };
    let mut request = pin!(request);
    let early = timeout(IN_FLIGHT.mul_f64(rand::random()), &mut request).await.ok();
    wait.await;
    match early {
        Some(reply) => reply,
        None => request.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that the documentation shows is understood.
    #[test]
    fn rules_are_read() {
        let kill = Rule { point: Failpoint::CommitInFlight, action: Action::Kill, probability: 0.01 };
        let action = Action::Sleep(Duration::from_millis(20));
        let nap = Rule { point: Failpoint::BeforeValueWrite, action, probability: 0.1 };
        let stop = Rule { point: Failpoint::BetweenCommitAndCleanUp, action: Action::Stop, probability: 1.0 };
        let text = "commit-in-flight=kill:0.01, before-value-write=sleep(20):0.1,between-commit-and-clean-up=stop";
        assert_eq!(parse(text), Ok(vec![kill, nap, stop]));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    /// What cannot be understood is refused, with what there is.
    #[test]
    fn other_rules_are_refused() {
        for (text, why) in [
            ("commit-in-flight", "no `=`"),
            ("commit=kill", "before-value-write, between"),
            ("commit-in-flight=die", "kill, stop and sleep"),
            ("commit-in-flight=sleep(soon)", "kill, stop and sleep"),
            ("commit-in-flight=kill:2", "from 0 to 1"),
            ("commit-in-flight=kill:NaN", "from 0 to 1"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains(why) && refused.contains(text), "{refused}");
        }
    }
}
