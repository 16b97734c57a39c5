use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::task::JoinHandle;

use super::floor::KnownFloor;

/// Begins a task when a client first comes to know the floor.
type Begin = Box<dyn Fn(&KnownFloor) -> JoinHandle<()> + Send + Sync>;

/// A task of a client that begins with its first read, and ends with it.
#[derive(Default)]
pub(super) struct Background {
    state: Mutex<State>,
    begin: OnceLock<Begin>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Running(JoinHandle<()>),
    Closed,
}

impl Background {
    /// Says how it begins. Without that it does not.
    pub(super) fn set(&self, begin: impl Fn(&KnownFloor) -> JoinHandle<()> + Send + Sync + 'static) {
        // There is one for the whole life of a client.
        let _ = self.begin.set(Box::new(begin));
    }

    /// Begins, if it has not begun or ended yet.
    pub(super) fn start(&self, floor: &KnownFloor) {
        let Some(begin) = self.begin.get() else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Idle) {
            *state = State::Running(begin(floor));
        }
    }

    /// Ends for good.
    pub(super) async fn close(&self) {
        let state = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Closed);
        if let State::Running(task) = state {
            task.abort();
            // It was ended just now: there is nothing to be told.
            let _ = task.await;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let State::Running(task) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
