//! A client's process: its life and all that the library does for it in the background, stopped together and killed together.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use avout_core::backend::tasks::{Task, Tasks};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::World;

/// The longest that a process stops, unless its session lives longer: then it is twice as long as that.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a process ended.
pub(crate) enum End {
    Done,
    Killed,
}

/// What of a process a future belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What its user wrote.
    Body,
    /// What the library does beside it, such as signs of life.
    Background,
}

/// One process. It is a cheap handle.
#[derive(Clone)]
pub(crate) struct Process(Arc<Inner>);

struct Inner {
    world: World,
    client: usize,
    state: Mutex<State>,
}

struct State {
    killed: bool,
    /// After how many steps it is killed.
    killed_at: Option<u64>,
    /// Until when its parts stand still.
    stopped: [Option<Instant>; 2],
    members: u64,
    /// Those to be woken when it is killed, in the order in which they were started.
    wakers: BTreeMap<u64, Waker>,
}

impl Process {
    pub(crate) fn new(world: &World, client: usize, killed_at: Option<u64>) -> Self {
        let state = State { killed: false, killed_at, stopped: [None; 2], members: 0, wakers: BTreeMap::new() };
        Self(Arc::new(Inner { world: world.clone(), client, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a future a part of the process.
    pub(crate) fn run<F: Future<Output = ()>>(&self, part: Part, future: F) -> Member<F> {
        let mut state = self.state();
        state.members += 1;
        Member { process: self.clone(), number: state.members, part, pause: None, future: Some(Box::pin(future)) }
    }

    /// Starts a task that is a part of what its user wrote.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let member = self.run(Part::Body, future);
        tokio::spawn(async move {
            // How it ended is its process's business.
            let _ = member.await;
        })
    }

    /// Has the library's own tasks be parts of it.
    pub(crate) fn tasks(&self) -> Tasks {
        let process = self.clone();
        Tasks::wrapped(move |task: Task| {
            let member = process.run(Part::Background, task);
            Box::pin(async move {
                // How it ended is its process's business.
                let _ = member.await;
            })
        })
    }

    /// Adds a line about it to the story.
    pub(crate) fn tell(&self, what: &str) {
        self.0.world.tell(|| format!("client {} {what}", self.0.client));
    }

    /// Ends it wherever it is: each part vanishes when it is looked at next.
    pub(crate) fn kill(&self) {
        let wakers = {
            let mut state = self.state();
            state.killed = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// One step of any part: it may be the last one, or the last one for a while.
    fn step(&self) {
        let Inner { world, client, .. } = &*self.0;
        let due = {
            let mut state = self.state();
            let due = state.killed_at == Some(0);
            state.killed_at = state.killed_at.filter(|_| !due).map(|left| left.saturating_sub(1));
            due
        };
        if due && world.count_fault() {
            world.count_trouble();
            world.tell(|| format!("client {client} is killed"));
            return self.kill();
        }
        if world.fault(world.knobs().pauses) {
            let pause = world.draw_delay(LONGEST_PAUSE.max(world.knobs().session_ttl * 2));
            let (parts, what): (&[Part], _) = match world.draw(4) {
                0 => (&[Part::Body], "does nothing of its own"),
                1 => (&[Part::Background], "does nothing in the background"),
                _ => (&[Part::Body, Part::Background], "stops"),
            };
            // A sweep that stopped removes records, but not their newest values: those are for the next.
            world.count_trouble();
            world.tell(|| format!("client {client} {what} for {pause:?}"));
            let until = Some(Instant::now() + pause);
            let mut state = self.state();
            for part in parts {
                state.stopped[*part as usize] = state.stopped[*part as usize].max(until);
            }
        }
    }
}

/// A part of a process: it lets others go first, stands still, or vanishes, wherever it waits for something.
pub(crate) struct Member<F> {
    process: Process,
    number: u64,
    part: Part,
    pause: Option<Pin<Box<Sleep>>>,
    future: Option<Pin<Box<F>>>,
}

impl<F> Member<F> {
    /// Until when it stands still, if it does.
    fn stopped(&self) -> Option<Instant> {
        self.process.state().stopped[self.part as usize].filter(|until| *until > Instant::now())
    }

    /// Registers for being woken when the process is killed. `false`: it was.
    fn is_alive(&self, cx: &Context<'_>) -> bool {
        let mut state = self.process.state();
        if !state.killed && !state.wakers.get(&self.number).is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.wakers.insert(self.number, cx.waker().clone());
        }
        !state.killed
    }
}

impl<F: Future<Output = ()>> Future for Member<F> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let mut stepped = false;
        loop {
            if !this.is_alive(cx) {
                this.future = None;
                return Poll::Ready(End::Killed);
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            if let Some(until) = this.stopped() {
                this.pause = Some(Box::pin(sleep_until(until)));
                continue;
            }
            if stepped || this.process.0.world.is_healed() {
                break;
            }
            this.process.step();
            stepped = true;
        }
        let world = &this.process.0.world;
        if stepped && world.chance(world.knobs().yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let future = this.future.as_mut().expect("a part of a process is not polled after its end");
        future.as_mut().poll(cx).map(|()| End::Done)
    }
}

impl<F> Drop for Member<F> {
    fn drop(&mut self) {
        self.process.state().wakers.remove(&self.number);
    }
}
