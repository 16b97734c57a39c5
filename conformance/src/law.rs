use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::{Coordinator, Store};
use avout_core::{Error, Stm, StmBuilder};
use futures_util::future::BoxFuture;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::{Backend, Fixture};

/// What every backend must do, as a test of its own.
#[derive(Clone, Copy)]
pub struct Law {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    /// It rests on signs of life that arrive in time, so a machine that stands still breaks it as well.
    pub(crate) timed: bool,
    pub(crate) test: fn(Ctx) -> BoxFuture<'static, Outcome>,
}

impl Law {
    /// The group and the law's own name, as in `coordinator::absent_reads_as_none`.
    pub fn name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }
}

/// Makes a file's table of laws, `LAWS`, from its group and the names of its functions, which are `async fn(Ctx) -> Outcome`. Those
/// after `timed` rest on requests that are answered in time, signs of life most of all.
macro_rules! laws {
    ($group:literal: $($law:ident),* $(,)? $(; timed: $($timed:ident),+ $(,)?)?) => {
        pub(crate) const LAWS: &[$crate::law::Law] = &[
            $($crate::law::laws!(@one $group, $law, false),)*
            $($($crate::law::laws!(@one $group, $timed, true),)+)?
        ];
    };
    (@one $group:literal, $law:ident, $timed:literal) => {
        $crate::law::Law { group: $group, name: stringify!($law), timed: $timed, test: |ctx| Box::pin($law(ctx)) }
    };
}
pub(crate) use laws;

/// How a law ends. It may panic as well, which is a failure.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a law did not pass.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The backend broke it.
    Broken(String),
    /// It does not apply to this backend, for this reason.
    Skipped(String),
}

impl From<Error> for Failure {
    /// A backend that is asked for what it can do answers without an error.
    fn from(error: Error) -> Self {
        Self::Broken(format!("the backend answered with an error: {error:?}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Leaves a law that does not apply, unless `applies`.
pub(crate) fn needs(applies: bool, reason: &str) -> Outcome {
    if applies { Ok(()) } else { Err(Failure::Skipped(reason.to_owned())) }
}

/// What a law is given: a fresh namespace, and a seed for whatever it draws.
#[derive(Clone)]
pub(crate) struct Ctx {
    pub(crate) fixture: Arc<dyn Fixture>,
    pub(crate) namespace: String,
    pub(crate) seed: u64,
}

impl Ctx {
    /// A new client of the law's namespace.
    pub(crate) async fn open(&self) -> Result<Backend, Failure> {
        Ok(self.fixture.open(&self.namespace).await?)
    }

    /// A new client's coordinator.
    pub(crate) async fn coordinator(&self) -> Result<Arc<dyn Coordinator>, Failure> {
        let coordinator = self.open().await?.coordinator;
        coordinator.ok_or_else(|| Failure::Skipped("the backend is no coordinator".to_owned()))
    }

    /// A new client's store.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>, Failure> {
        let store = self.open().await?.store;
        store.ok_or_else(|| Failure::Skipped("the backend is no store".to_owned()))
    }

    /// The coordinators of two new clients.
    pub(crate) async fn coordinators(&self) -> Result<[Arc<dyn Coordinator>; 2], Failure> {
        Ok([self.coordinator().await?, self.coordinator().await?])
    }

    /// The stores of two new clients.
    pub(crate) async fn stores(&self) -> Result<[Arc<dyn Store>; 2], Failure> {
        Ok([self.store().await?, self.store().await?])
    }

    /// A client to be set up further. It relies on hints of changes, so that a law finds those that are lost.
    pub(crate) fn stm(&self, coordinator: Arc<dyn Coordinator>, store: Arc<dyn Store>) -> StmBuilder {
        self.plain_stm(coordinator, store).look_every(Duration::from_secs(24 * 3600))
    }

    /// The same, as it is without the suite.
    pub(crate) fn plain_stm(&self, coordinator: Arc<dyn Coordinator>, store: Arc<dyn Store>) -> StmBuilder {
        self.fixture.configure(Stm::builder(coordinator, store))
    }

    /// The same for another namespace, which is removed with the law's own.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { namespace: elsewhere(&self.namespace), ..self.clone() }
    }

    /// A generator that draws the same for the same seed and `stream`.
    pub(crate) fn rng(&self, stream: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// Waits for a watch's hint, within the time that the backend states.
    pub(crate) async fn hinted<T>(&self, what: &str, hint: impl Future<Output = T>) -> T {
        within(self.fixture.hint_delay(), what, hint).await
    }
}

/// The name of a law's second namespace.
pub(crate) fn elsewhere(namespace: &str) -> String {
    format!("{namespace}_b")
}

/// Waits at most `limit`; then the law is broken.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Runs tasks side by side and gives what they give; the first failure or panic is the law's.
pub(crate) async fn together<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    let mut running = tokio::task::JoinSet::new();
    let mut done: Vec<Option<T>> = Vec::new();
    for (place, task) in tasks.into_iter().enumerate() {
        done.push(None);
        running.spawn(async move { (place, task.await) });
    }
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok((place, value)) => done[place] = Some(value?),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => return Err(Failure::Broken(format!("a task was cancelled: {error}"))),
            },
        }
    }
    Ok(done.into_iter().flatten().collect())
}
