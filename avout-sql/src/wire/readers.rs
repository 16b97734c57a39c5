use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avout_core::Result;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Connections that read, lent to one reader at a time.
///
/// Whoever uses one has a permit. It is waited for in turn and without a thread, so that any number of readers can wait.
pub(crate) struct Readers {
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
}

struct Idle {
    connections: Vec<Connection>,
    closed: bool,
}

impl Readers {
    pub(crate) fn new(first: Option<Connection>, most: usize) -> Self {
        let idle = Idle { connections: first.into_iter().collect(), closed: false };
        Self { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(most)) }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is idle, without waiting. It is given back before its permit.
    pub(crate) fn take_idle(&self) -> Option<(SemaphorePermit<'_>, Connection)> {
        let permit = self.permits.try_acquire().ok()?;
        let connection = self.lock().connections.pop()?;
        Some((permit, connection))
    }

    /// Waits for its turn to [`take`](Self::take) one.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        // A paused clock stays: those who have the permits read on threads that hold it.
        Arc::clone(&self.permits).acquire_owned().await.expect("it is never closed")
    }

    /// One that is idle, or a new one. It takes a turn.
    pub(crate) fn take(
        &self,
        _turn: &OwnedSemaphorePermit,
        connect: impl FnOnce() -> Result<Connection>,
    ) -> Result<Connection> {
        let idle = self.lock().connections.pop();
        idle.map_or_else(connect, Ok)
    }

    /// Takes back one that works.
    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.lock();
        if !idle.closed {
            idle.connections.push(connection);
        }
    }

    /// Takes all that are idle out. Those that are lent are closed when they are given back.
    pub(crate) fn close(&self) -> Vec<Connection> {
        let mut idle = self.lock();
        idle.closed = true;
        std::mem::take(&mut idle.connections)
    }
}
