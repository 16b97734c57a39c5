use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use avout_core::Result;
use rusqlite::Connection;

/// Connections that read, lent to one reader at a time.
pub(crate) struct Readers {
    pool: Mutex<Pool>,
    returned: Condvar,
    most: usize,
}

struct Pool {
    idle: Vec<Connection>,
    /// How many there are, idle or lent.
    count: usize,
    /// How many wait for one: to wake nobody costs a system call too.
    waiting: usize,
    closed: bool,
}

impl Readers {
    pub(crate) fn new(first: Option<Connection>, most: usize) -> Self {
        let idle: Vec<_> = first.into_iter().collect();
        Self {
            pool: Mutex::new(Pool { count: idle.len(), idle, waiting: 0, closed: false }),
            returned: Condvar::new(),
            most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is idle, without waiting.
    pub(crate) fn take_idle(&self) -> Option<Connection> {
        self.lock().idle.pop()
    }

    /// One that is idle, a new one, or the next that is given back. Blocks: not for threads of the async runtime.
    pub(crate) fn take(&self, connect: impl FnOnce() -> Result<Connection>) -> Result<Connection> {
        let mut pool = self.lock();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Ok(connection);
            }
            if pool.count < self.most {
                pool.count += 1;
                drop(pool);
                return connect().inspect_err(|_| self.forget());
            }
            pool.waiting += 1;
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
            pool.waiting -= 1;
        }
    }

    pub(crate) fn give_back(&self, connection: Connection) {
        let mut pool = self.lock();
        if !pool.closed {
            pool.idle.push(connection);
            self.wake(&pool);
        }
    }

    /// Counts one less: a connection that failed is not given back.
    pub(crate) fn forget(&self) {
        let mut pool = self.lock();
        pool.count = pool.count.saturating_sub(1);
        self.wake(&pool);
    }

    fn wake(&self, pool: &Pool) {
        if pool.waiting > 0 {
            self.returned.notify_one();
        }
    }

    /// Takes all that are idle out. Those that are lent are closed when they are given back.
    pub(crate) fn close(&self) -> Vec<Connection> {
        let mut pool = self.lock();
        pool.closed = true;
        pool.count = pool.count.saturating_sub(pool.idle.len());
        std::mem::take(&mut pool.idle)
    }
}
