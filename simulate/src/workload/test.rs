use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use avout_core::{Key, Point};

use super::program::{Setting, Task};
use super::record::Recorder;
use crate::World;
use crate::progress::Progress;

/// How far a schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Faulty,
    /// Faults are over.
    Healed,
    /// Watches end.
    Stopped,
}

/// What all clients of one schedule share.
pub(super) struct Test {
    pub(super) world: World,
    pub(super) setting: Setting,
    pub(super) recorder: Recorder,
    pub(super) tasks: Mutex<Vec<VecDeque<Task>>>,
    /// Which lists each client watches.
    pub(super) watched: Vec<Vec<usize>>,
    pub(super) watches: Mutex<Vec<Watch>>,
    /// How many lives each client has had.
    pub(super) lives: Vec<AtomicU64>,
    pub(super) phase: Progress<Phase>,
    /// Which clients have done all tasks, and which have ended.
    pub(super) done: Progress<Vec<(bool, bool)>>,
}

/// What one watch was told.
pub(super) struct Watch {
    pub(super) key: Key,
    /// The last change before it began, or a later one.
    pub(super) since: Option<Point>,
    pub(super) told: Vec<Told>,
    /// It was not cut short by its client's death.
    pub(super) to_the_end: bool,
}

pub(super) struct Told {
    pub(super) old: Option<Vec<u64>>,
    pub(super) new: Option<Vec<u64>>,
    pub(super) point: Option<Point>,
    pub(super) skipped: bool,
}

impl Test {
    /// Waits until this holds of all clients.
    pub(super) async fn all(&self, of: impl Fn(&(bool, bool)) -> bool) {
        self.done.until(|clients| clients.iter().all(&of)).await;
    }

    pub(super) async fn reach(&self, phase: Phase) {
        self.phase.until(|now| *now >= phase).await;
    }

    /// A number for a life of a client: 1, 1001, 2001 and so on for the first one.
    pub(super) fn next_process(&self, client: usize) -> u64 {
        let lives = self.lives[client].fetch_add(1, Ordering::Relaxed);
        lives * 1000 + client as u64 + 1
    }

    /// The next task of a client. One that it dies in is not done again.
    pub(super) fn next_task(&self, client: usize) -> Option<Task> {
        lock(&self.tasks)[client].pop_front()
    }

    pub(super) fn is_done(&self, client: usize) {
        self.done.change(|clients| clients[client].0 = true);
    }

    pub(super) fn has_ended(&self, client: usize) {
        self.done.change(|clients| clients[client].1 = true);
    }

    pub(super) fn new_watch(&self, key: &Key) -> usize {
        let since = self.world.records().points(key).last().copied();
        let mut watches = lock(&self.watches);
        watches.push(Watch { key: key.clone(), since, told: Vec::new(), to_the_end: false });
        watches.len() - 1
    }

    pub(super) fn told(&self, watch: usize, told: Told) {
        lock(&self.watches)[watch].told.push(told);
    }

    pub(super) fn watched_to_the_end(&self, watch: usize) {
        lock(&self.watches)[watch].to_the_end = true;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
