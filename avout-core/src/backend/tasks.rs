//! Where the library's own tasks run.
//!
//! A client's background work (signs of life, requests whose caller has gone away, connections) must not end with the
//! runtime that happened to need it first: a client may be used from many runtimes, one after the other or at once, or
//! from an executor of another kind. So it runs on a thread of the library's own.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

use super::clock::{HeldClock, is_clock_paused};

/// How often the library's thread wakes up without need.
const OFTEN: Duration = Duration::from_secs(5);

/// A task without a result.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a client's tasks are run.
#[derive(Clone, Default)]
pub struct Tasks {
    wrap: Option<Arc<dyn Fn(Task) -> Task + Send + Sync>>,
}

impl Tasks {
    /// Wraps each task with `wrap`, for simulations, which stop a client with all its tasks.
    pub fn wrapped(wrap: impl Fn(Task) -> Task + Send + Sync + 'static) -> Self {
        Self { wrap: Some(Arc::new(wrap)) }
    }

    /// Runs a task to its end, whatever becomes of the caller and of its runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.wrap {
            None => runtime().spawn(task),
            Some(wrap) => runtime().spawn(wrap(Box::pin(task))),
        }
    }

    /// Runs a task beside the caller, for short and frequent work.
    pub(crate) fn spawn_near(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.wrap {
            None => spawn_near(task),
            Some(wrap) => spawn_near(wrap(Box::pin(task))),
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("wrapped", &self.wrap.is_some()).finish()
    }
}

/// The runtime for tasks that must outlive their caller: one thread of the library's own, shared by all clients of the
/// process.
///
/// If tokio's clock is paused it is the caller's runtime, so that tests on simulated time see one clock.
///
/// # Panics
/// If the system cannot start a thread.
pub fn runtime() -> Handle {
    match Handle::try_current() {
        Ok(current) if is_clock_paused() => current,
        _ => connections(),
    }
}

/// Runs a task beside the caller, for short and frequent work: on the caller's runtime, if that has threads of its own.
/// If that runtime ends before the task does, the task goes on with [`connections`].
pub fn spawn_near(task: impl Future<Output = ()> + Send + 'static) {
    match Handle::try_current() {
        Ok(current) if current.runtime_flavor() == RuntimeFlavor::MultiThread => {
            current.spawn(Moving(Some(Box::pin(task))));
        }
        // A runtime of one thread runs only while a thread waits on it.
        _ => drop(runtime().spawn(task)),
    }
}

/// A task that goes on elsewhere when its runtime drops it.
struct Moving(Option<Task>);

impl Future for Moving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A task that panicked is not put back.
        let Some(mut task) = self.0.take() else {
            return Poll::Ready(());
        };
        let polled = task.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(task);
        }
        polled
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            connections().spawn(task);
        }
    }
}

/// The runtime for connections to servers: the library's own, whose clock always runs, since a server's does.
///
/// # Panics
/// If the system cannot start a thread.
pub fn connections() -> Handle {
    static OWN: OnceLock<(u32, Handle)> = OnceLock::new();
    static OF_CHILD: Mutex<Option<(u32, Handle)>> = Mutex::new(None);
    let process = std::process::id();
    let (of, handle) = OWN.get_or_init(|| (process, start()));
    if *of == process {
        return handle.clone();
    }
    // Threads do not survive a fork: a child that opens clients of its own has a thread of its own.
    let mut own = OF_CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    match &*own {
        Some((of, handle)) if *of == process => handle.clone(),
        _ => own.insert((process, start())).1.clone(),
    }
}

fn start() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("the system can make a runtime");
    let handle = runtime.handle().clone();
    // A timer that is due before all others wakes the thread when it is made. As long as there is always one soon, that
    // is rare.
    let run = async {
        loop {
            tokio::time::sleep(OFTEN).await;
        }
    };
    thread::Builder::new()
        .name("avout".into())
        .spawn(move || runtime.block_on(run))
        .expect("the system can start a thread");
    handle
}

/// Polls a future with [`connections`] around it, on any executor: tasks that a driver spawns, and its sockets and
/// timers, belong there. So it works under any executor, and nothing of it ends with the caller's runtime.
pub async fn inside<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let runtime = connections();
    poll_fn(|context| {
        let _context = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

/// The same for a request to a server, which answers by the system's clock: a paused clock is held meanwhile.
pub async fn request<F: Future>(future: F) -> F::Output {
    let _held = HeldClock::here();
    inside(future).await
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// A task that was begun beside its caller goes on when the caller's runtime ends.
    #[test]
    fn tasks_beside_the_caller_move_on() {
        let (go, gone) = oneshot::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let (done, end) = oneshot::channel();
        let caller = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        caller.block_on(async {
            spawn_near(async move {
                begun.send(thread::current().id()).expect("somebody listens");
                gone.await.expect("it is told");
                crate::backend::time::sleep(Duration::from_millis(1)).await;
                done.send(thread::current().id()).expect("somebody listens");
            });
            assert_ne!(has_begun.await.expect("it begins"), thread::current().id());
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
