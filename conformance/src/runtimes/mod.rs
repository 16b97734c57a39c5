//! One client on several runtimes, one after the other and at once, and under other executors than tokio's.

pub(crate) mod ended;
pub(crate) mod others;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Does this on a thread of its own, with no runtime around it.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = oneshot::channel();
    thread::spawn(move || done.send(catch_unwind(AssertUnwindSafe(work))));
    match end.await.expect("a panic is caught") {
        Ok(done) => done,
        Err(panic) => resume_unwind(panic),
    }
}

/// A runtime of one thread, which runs only while somebody waits on it.
fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A runtime with threads of its own.
fn threaded() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A runtime of one thread on simulated time, which is also that of all that the client does in the background.
pub(crate) fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}
