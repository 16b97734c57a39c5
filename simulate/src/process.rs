use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::World;

/// The longest that a process stops.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a process ended.
pub(crate) enum End {
    Done,
    Killed,
}

/// A client's process: it lets others go first, stops for a while, or is killed, wherever it waits for something.
pub(crate) struct Process<F> {
    world: World,
    client: usize,
    /// After how many steps it is killed.
    killed_at: Option<u64>,
    paused: Option<Pin<Box<Sleep>>>,
    life: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> Process<F> {
    pub(crate) fn new(world: &World, client: usize, killed_at: Option<u64>, life: F) -> Self {
        Self { world: world.clone(), client, killed_at, paused: None, life: Some(Box::pin(life)) }
    }
}

impl<F: Future<Output = ()>> Future for Process<F> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        if let Some(pause) = &mut this.paused {
            ready!(pause.as_mut().poll(cx));
            this.paused = None;
        } else if !this.world.is_healed() {
            let knobs = this.world.knobs();
            if let Some(left) = &mut this.killed_at {
                if *left == 0 {
                    this.killed_at = None;
                    if this.world.count_fault() {
                        this.world.count_trouble();
                        this.world.tell(|| format!("client {} is killed", this.client));
                        this.life = None;
                        return Poll::Ready(End::Killed);
                    }
                } else {
                    *left -= 1;
                }
            }
            if this.world.fault(knobs.pauses) {
                let pause = this.world.draw_delay(LONGEST_PAUSE);
                // A sweep that stopped removes records, but not their newest values: those are for the next.
                this.world.count_trouble();
                this.world.tell(|| format!("client {} stops for {pause:?}", this.client));
                let mut pause = Box::pin(sleep(pause));
                if pause.as_mut().poll(cx).is_pending() {
                    this.paused = Some(pause);
                    return Poll::Pending;
                }
            }
            if this.world.chance(knobs.yields) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let life = this.life.as_mut().expect("a process is not polled after its end");
        life.as_mut().poll(cx).map(|()| End::Done)
    }
}
