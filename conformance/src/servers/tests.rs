use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::Error;
use crate::runner::{Verdict, absent};

/// How long a test of servers may take.
const LIMIT: Duration = Duration::from_secs(300);

/// One test that starts servers, for [`run_tests`].
#[derive(Debug)]
pub struct ServerTest(Trial);

impl ServerTest {
    /// A test of this name. It runs in an async runtime of its own, for at most 5 minutes.
    pub fn new<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), Box<dyn StdError>>>,
    {
        Self(Trial::ignorable_test(name, move || {
            let runtime = crate::runner::runtime("servers");
            // Boxed: such a future is often large.
            let outcome = runtime.block_on(async { tokio::time::timeout(LIMIT, Box::pin(test())).await });
            runtime.shutdown_background();
            match outcome {
                Ok(Ok(())) => Ok(Completion::Completed),
                Ok(Err(error)) => match unless_missing(error.as_ref()) {
                    Verdict::Skipped(why) => Ok(Completion::ignored_with(why)),
                    Verdict::Failed(how) => Err(Failed::from(how)),
                    Verdict::Passed => Ok(Completion::Completed),
                },
                Err(_) => Err(Failed::from(format!("it hung: no end within {LIMIT:?}"))),
            }
        }))
    }
}

/// Runs tests that start servers, as the `main` of a test without the standard harness, and exits.
///
/// A test that fails because a server [is not installed](Error::is_missing) shows as ignored, with the reason, unless
/// `AVOUT_TEST_REQUIRE` names that server. [`server_tests!`](crate::server_tests) writes the call.
pub fn run_tests(tests: impl IntoIterator<Item = ServerTest>) -> ! {
    let trials = tests.into_iter().map(|test| test.0).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}

/// The `main` of a test without the standard harness whose tests are `async fn name() -> Result<(), Box<dyn Error>>`.
///
/// ```toml
/// [[test]]
/// name = "faults"
/// harness = false
/// ```
/// ```no_run
/// use std::error::Error;
/// use avout_conformance::servers::Redis;
///
/// async fn survives_a_restart() -> Result<(), Box<dyn Error>> {
///     let redis = Redis::single().await?;
///     redis.node(0).restart().await?;
///     Ok(())
/// }
///
/// avout_conformance::server_tests![survives_a_restart];
/// ```
///
/// A server that is not installed makes the test ignored: see [`run_tests`](crate::servers::run_tests).
#[macro_export]
macro_rules! server_tests {
    ($($name:ident),* $(,)?) => {
        fn main() {
            $crate::servers::run_tests([$($crate::servers::ServerTest::new(stringify!($name), $name)),*])
        }
    };
}

/// Skipped if the cause of an error is a server that is not there and need not be.
fn unless_missing(error: &(dyn StdError + 'static)) -> Verdict {
    let mut cause = Some(error);
    while let Some(link) = cause {
        if let Some(error) = link.downcast_ref::<Error>().filter(|error| error.is_missing()) {
            return absent(error.server(), &error.to_string(), std::env::var("AVOUT_TEST_REQUIRE").ok().as_deref());
        }
        cause = link.source();
    }
    Verdict::Failed(chain(error))
}

/// An error with its sources.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
