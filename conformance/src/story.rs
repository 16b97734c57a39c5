use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The panics of one law's threads. Many laws panic by plan: a panic is told with a law that fails, and of one that passes nothing is printed.
pub(crate) struct Story {
    threads: String,
}

/// A panic as it was when it happened.
struct Panicked {
    what: String,
    backtrace: Backtrace,
}

/// By the name of the law's threads.
static STORIES: Mutex<Option<HashMap<String, Vec<Panicked>>>> = Mutex::new(None);

impl Story {
    /// Begins to listen to the threads that will have the [name](Self::threads).
    pub(crate) fn begin() -> Self {
        static LISTENING: Once = Once::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        LISTENING.call_once(listen);
        let threads = format!("law-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        stories().get_or_insert_default().insert(threads.clone(), Vec::new());
        Self { threads }
    }

    /// The name that the law's threads must have.
    pub(crate) fn threads(&self) -> &str {
        &self.threads
    }

    /// What happened, in order: each panic on lines of its own.
    pub(crate) fn told(self) -> String {
        let panics = stories().as_mut().and_then(|stories| stories.remove(&self.threads)).unwrap_or_default();
        let mut text = String::new();
        for Panicked { what, backtrace } in panics {
            // Text takes everything.
            let _ = write!(text, "\n{what}");
            if backtrace.status() == BacktraceStatus::Captured {
                let _ = write!(text, "\n{backtrace}");
            }
        }
        text
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if let Some(stories) = stories().as_mut() {
            stories.remove(&self.threads);
        }
    }
}

fn stories() -> MutexGuard<'static, Option<HashMap<String, Vec<Panicked>>>> {
    STORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on panics of laws' threads are kept; others are told as they were.
fn listen() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !keep(panic) {
            others(panic);
        }
    }));
}

fn keep(panic: &PanicHookInfo<'_>) -> bool {
    let thread = std::thread::current();
    let mut stories = stories();
    let story = thread.name().zip(stories.as_mut()).and_then(|(name, stories)| stories.get_mut(name));
    story.map(|story| story.push(Panicked { what: panic.to_string(), backtrace: Backtrace::capture() })).is_some()
}
