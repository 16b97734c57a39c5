//! Where the library's own tasks run.
//!
//! What a client does in the background (signs of life, requests whose caller has gone away, connections) must not end with the
//! runtime that happened to need it first: a client may be used from many runtimes, one after the other or at once, or from an
//! executor of another kind. So it runs on a thread of the library's own.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// A task without a result.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a client's tasks are run.
#[derive(Clone, Default)]
pub struct Tasks {
    wrap: Option<Arc<dyn Fn(Task) -> Task + Send + Sync>>,
}

impl Tasks {
    /// Has each task be what `wrap` makes of it, for simulations, which stop a client with all its tasks.
    pub fn wrapped(wrap: impl Fn(Task) -> Task + Send + Sync + 'static) -> Self {
        Self { wrap: Some(Arc::new(wrap)) }
    }

    /// Runs a task to its end, whatever becomes of the caller and of its runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.spawn_on(&runtime(), task)
    }

    /// Runs a task beside the caller, for what is short and done often: it may end early with the caller's runtime.
    pub(crate) fn spawn_near(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        // A runtime of one thread runs only while somebody waits on it.
        let near = Handle::try_current().ok().filter(|current| current.runtime_flavor() == RuntimeFlavor::MultiThread);
        self.spawn_on(&near.unwrap_or_else(runtime), task)
    }

    fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.wrap {
            None => runtime.spawn(task),
            Some(wrap) => runtime.spawn(wrap(Box::pin(task))),
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("wrapped", &self.wrap.is_some()).finish()
    }
}

/// The runtime for what must outlive its caller: one thread of the library's own, shared by all clients of the process.
///
/// Where tokio's clock is paused it is the caller's, so that tests on simulated time see one clock.
///
/// # Panics
/// If the system cannot start a thread.
pub fn runtime() -> Handle {
    static OWN: OnceLock<Handle> = OnceLock::new();
    match Handle::try_current() {
        Ok(current) if is_clock_paused() => current,
        _ => OWN.get_or_init(start).clone(),
    }
}

fn start() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("the system can make a runtime");
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("avout".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .expect("the system can start a thread");
    handle
}

/// Whether tokio's clock stands still (`tokio::time::pause`, in tests): it is then not between two looks at the system's.
pub fn is_clock_paused() -> bool {
    let before = std::time::Instant::now();
    let now = tokio::time::Instant::now().into_std();
    !(before..=std::time::Instant::now()).contains(&now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    /// A task goes on when the runtime that it was started from has ended.
    #[test]
    fn tasks_outlive_their_runtime() {
        let (go, gone) = oneshot::channel::<()>();
        let (done, end) = oneshot::channel();
        let caller = Builder::new_current_thread().build().expect("a runtime");
        caller.block_on(async {
            Tasks::default().spawn(async move {
                gone.await.expect("it is told");
                tokio::time::sleep(Duration::from_millis(1)).await;
                done.send(()).expect("somebody listens");
            });
        });
        drop(caller);
        go.send(()).expect("it listens");
        end.blocking_recv().expect("the task came to its end");
    }

    /// On a paused clock tasks follow it.
    #[tokio::test(start_paused = true)]
    async fn tasks_follow_a_paused_clock() {
        assert!(is_clock_paused());
        let begun = std::time::Instant::now();
        let task = Tasks::default().spawn(tokio::time::sleep(Duration::from_secs(3600)));
        task.await.expect("no panic");
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::resume();
        assert!(!is_clock_paused());
    }
}
