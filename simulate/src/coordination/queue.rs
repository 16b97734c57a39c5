use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{Delivery, ErrorKind, LockGuard, Result, Stm};
use tokio::time::{Instant, sleep, timeout};

use super::known::{DROPPED_COMES_BACK, OUT_COUNTS_ONCE};
use super::stage::{Actor, Scene, Test, lock};
use crate::World;

/// How values are taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By transactions only, so in the order in which they came.
    Popped,
    Received,
    Both,
}

/// One queue: some push, some take off.
pub(super) struct Queue {
    name: String,
    capacity: u64,
    way: Way,
    hidden: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    pushes: BTreeMap<u64, Push>,
    /// What came out surely.
    out: Vec<u64>,
    /// How many more did in transactions that wrote it down.
    out_in: u64,
    /// What came out or not: its consumer asked for it to be taken off.
    perhaps_out: BTreeSet<u64>,
    /// How many values may have come out, and it is not known which.
    lost: usize,
    /// How many requests are under way that may take a value off.
    taking: usize,
    held: Vec<Holding>,
}

#[derive(Clone, Copy, Debug)]
struct Push {
    begun: Instant,
    /// When it was acknowledged, or refused.
    ended: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unclear,
    Done,
    Refused,
}

/// That somebody has a value and has not lost its session.
struct Holding {
    value: u64,
    client: usize,
    until: Instant,
    /// Held in the same session.
    alive: Weak<LockGuard>,
}

/// A request that takes off a value, which nobody knows of if this is dropped before it is over.
struct Taking<'a> {
    queue: &'a Queue,
    /// Which one, if that is known.
    value: Option<u64>,
    over: bool,
}

impl<'a> Taking<'a> {
    fn begin(queue: &'a Queue, value: Option<u64>) -> Self {
        queue.seen().taking += 1;
        Self { queue, value, over: false }
    }

    fn end(mut self, taken: Result<Option<u64>, ErrorKind>) {
        self.over = !matches!(taken, Err(ErrorKind::OutcomeUnknown));
        if let Ok(Some(value)) = taken {
            self.queue.seen().out.push(value);
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut seen = self.queue.seen();
        seen.taking -= 1;
        match self.value {
            _ if self.over => {}
            Some(value) => {
                seen.perhaps_out.insert(value);
            }
            None => seen.lost += 1,
        }
    }
}

impl Queue {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        let way = [Way::Popped, Way::Received, Way::Both][world.draw(3) as usize];
        let longest = if DROPPED_COMES_BACK { 600_000 } else { 3000 };
        let hidden = Duration::from_millis([500, 3000, longest][world.draw(3) as usize]);
        sure.create_ref(format!("{name}/out"), Vec::<u64>::new()).history(0).await?;
        let capacity = 1 + world.draw(6);
        world.note(format!("a queue for {capacity}, whose values are {way:?}, and hidden for {hidden:?}"));
        Ok(Self { name: name.to_owned(), capacity, way, hidden, seen: Mutex::default() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn open(&self, stm: &Stm) -> avout_core::Queue<u64> {
        stm.queue(format!("{}/queue", self.name), self.capacity).expect("it is a key")
    }

    async fn push(&self, actor: &Actor) {
        let value = actor.world().next_id();
        let what = format!("pushes {value}");
        let most = self.most_inside();
        let begun = Instant::now();
        self.seen().pushes.insert(value, Push { begun, ended: None, state: State::Unclear });
        let pushed = actor.wait(&what, self.open(&actor.stm).push(value)).await;
        actor.tell(|| format!("{what}: {pushed:?}"));
        let state = match &pushed {
            Ok(()) => State::Done,
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => State::Unclear,
            Err(_) => State::Refused,
        };
        self.seen().pushes.insert(value, Push { begun, ended: Some(Instant::now()), state });
        if let Err(error) = pushed {
            // Others may have pushed since.
            let since =
                self.seen().pushes.values().filter(|push| push.ended.is_none_or(|ended| ended >= begun)).count();
            let most = most + since as u64 - 1;
            if error.kind() == ErrorKind::Full && most < self.capacity && (OUT_COUNTS_ONCE || self.way == Way::Popped) {
                let what = format!("{value} is refused as one too many, and there are {most} of {}", self.capacity);
                actor.world().violation(format!("queue: {what} at most"));
            }
            actor.accept(&what, &error, &[ErrorKind::Full]);
        }
    }

    /// How many values are inside at most.
    fn most_inside(&self) -> u64 {
        let seen = self.seen();
        let pushed = seen.pushes.values().filter(|push| push.state != State::Refused).count();
        (pushed as u64).saturating_sub(seen.out.len() as u64 + seen.out_in)
    }

    async fn pop(&self, actor: &Actor) {
        let queue = self.open(&actor.stm);
        let what = format!("pops from {}", self.name);
        let taking = Taking::begin(self, None);
        let popped = actor.wait(&what, async {
            match actor.world().draw(3) {
                0 => queue.try_pop().await,
                _ => queue.pop_timeout(actor.draw_millis(1500)).await.map(Some),
            }
        });
        let popped = popped.await;
        actor.tell(|| format!("{what}: {popped:?}"));
        taking.end(popped.as_ref().map(|popped| *popped).map_err(avout_core::Error::kind));
        if let Err(error) = popped {
            actor.accept(&what, &error, &[]);
        }
    }

    /// Takes a value off in the transaction that writes down that it came out.
    async fn pop_in(&self, actor: &Actor) {
        let queue = self.open(&actor.stm);
        let what = format!("pops from {} in a transaction", self.name);
        let popped = actor.wait(&what, async {
            let out = actor.stm.open_ref::<Vec<u64>>(format!("{}/out", self.name)).await?;
            let (out, queue) = (&out, &queue);
            actor
                .stm
                .dosync(async |tx| {
                    let popped = queue.pop_in(&tx).await?;
                    if let Some(value) = popped {
                        tx.update(out, move |values| values.push(value)).await?;
                    }
                    Ok(popped)
                })
                .await
        });
        let popped = popped.await;
        actor.tell(|| format!("{what}: {popped:?}"));
        match popped {
            Ok(popped) => self.seen().out_in += u64::from(popped.is_some()),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    /// Gets a value, and acknowledges it, or not, or too late.
    async fn receive(&self, actor: &Actor) {
        let what = format!("receives from {}", self.name);
        // What is held in the same session tells whether the session is alive.
        let probe = actor.stm.lock(format!("{}/probe {}", self.name, actor.world().next_id())).expect("a key");
        let Ok(probe) = actor.wait("makes sure of its session", probe.acquire_timeout(Duration::from_secs(2))).await
        else {
            return;
        };
        let probe = Arc::new(probe);
        let begun = Instant::now();
        let queue = self.open(&actor.stm);
        let longest = if actor.world().chance(0.3) { 100 } else { 2000 };
        let received = timeout(actor.draw_millis(longest), queue.receive(self.hidden));
        match actor.wait(&what, received).await {
            Err(_) => actor.tell(|| "receives nothing".to_owned()),
            Ok(Err(error)) => actor.accept(&what, &error, &[]),
            Ok(Ok(delivery)) => {
                actor.tell(|| format!("receives {delivery:?} with {}", delivery.value()));
                self.note(actor, begun, &probe, *delivery.value());
                self.handle(actor, delivery).await;
            }
        }
    }

    /// Notes that somebody has a value, and checks that nobody else has it whose time is not over.
    fn note(&self, actor: &Actor, begun: Instant, probe: &Arc<LockGuard>, value: u64) {
        let now = Instant::now();
        // It may have been handed out at any time since it was asked for, long ago if the client was stopped.
        let until = begun + self.hidden;
        let mut seen = self.seen();
        seen.held.retain(|held| held.until > now && held.alive.strong_count() > 0);
        let has = |held: &&Holding| held.value == value && held.alive.upgrade().is_some_and(|probe| probe.is_held());
        if let Some(other) = seen.held.iter().find(has)
            && probe.is_held()
            && until > now
            && !actor.world().has_clocks_ahead()
        {
            let what = format!("client {} and client {} have {value}", other.client + 1, actor.client + 1);
            actor.world().violation(format!("hidden: {what}, and neither's time is over"));
        }
        seen.held.push(Holding { value, client: actor.client, until, alive: Arc::downgrade(probe) });
    }

    async fn handle(&self, actor: &Actor, delivery: Delivery<u64>) {
        let value = *delivery.value();
        match actor.world().draw(5) {
            0 => actor.rest(50).await,
            1 if self.hidden < Duration::from_secs(60) => sleep(self.hidden).await,
            _ => actor.rest(200).await,
        }
        let release = || self.seen().held.retain(|held| held.value != value || held.client != actor.client);
        match actor.world().draw(4) {
            0 => {
                release();
                actor.tell(|| format!("drops {value}"));
            }
            1 => {
                let what = format!("acknowledges {value} in a transaction");
                let acked = actor.wait(&what, async {
                    let out = actor.stm.open_ref::<Vec<u64>>(format!("{}/out", self.name)).await?;
                    let (out, delivery) = (&out, &delivery);
                    actor
                        .stm
                        .dosync(async |tx| {
                            delivery.ack_in(&tx).await?;
                            tx.update(out, move |values| values.push(value)).await
                        })
                        .await
                });
                let acked = acked.await;
                release();
                actor.tell(|| format!("{what}: {acked:?}"));
                match acked {
                    Ok(()) => self.seen().out_in += 1,
                    Err(error) => actor.accept(&what, &error, &[ErrorKind::Lost]),
                }
            }
            _ => {
                let what = format!("acknowledges {value}");
                let taking = Taking::begin(self, Some(value));
                let acked = actor.wait(&what, delivery.ack()).await;
                release();
                actor.tell(|| format!("{what}: {acked:?}"));
                taking.end(acked.as_ref().map(|value| Some(*value)).map_err(avout_core::Error::kind));
                if let Err(error) = acked {
                    actor.accept(&what, &error, &[ErrorKind::Lost]);
                }
            }
        }
    }

    /// Takes everything out that is left.
    async fn drain(&self, test: &Test, sure: &Stm) -> Result<Vec<u64>> {
        let queue = self.open(sure);
        let mut drained = Vec::new();
        loop {
            let left = queue.len().await?;
            if left > self.capacity {
                test.world.violation(format!("queue: {left} values in a queue for {}", self.capacity));
            }
            if left == 0 {
                return Ok(drained);
            }
            match timeout(test.patience(), queue.receive(Duration::from_secs(1))).await {
                Ok(delivery) => drained.push(delivery?.ack().await?),
                Err(_) => {
                    let what = format!("{left} values of {} do not come out, and nobody has them", self.name);
                    test.world.violation(format!("left: {what}"));
                    return Ok(drained);
                }
            }
        }
    }

    /// Whether values came out in the order in which they were pushed, where that is known.
    fn check_order(&self, test: &Test, out: &[u64]) {
        let seen = self.seen();
        for (at, later) in out.iter().enumerate() {
            for earlier in &out[..at] {
                if let (Some(first), Some(second)) = (seen.pushes.get(later), seen.pushes.get(earlier))
                    && first.state == State::Done
                    && first.ended.is_some_and(|ended| ended < second.begun)
                {
                    test.world.violation(format!("order: {later} was pushed before {earlier}, and came out after it"));
                }
            }
        }
    }
}

#[async_trait]
impl Scene for Queue {
    async fn step(&self, actor: &Actor) {
        match (actor.world().draw(10), self.way) {
            (0..5, _) => {
                self.push(actor).await;
                if actor.world().chance(0.5) {
                    self.push(actor).await;
                }
            }
            (5..7, Way::Both) | (5..10, Way::Received) => self.receive(actor).await,
            (7, _) => self.pop(actor).await,
            _ => self.pop_in(actor).await,
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let drained = self.drain(test, sure).await?;
        let mut out = sure.open_ref::<Vec<u64>>(format!("{}/out", self.name)).await?.get().await?;
        if self.way == Way::Popped {
            out.extend(&drained);
            self.check_order(test, &out);
        } else {
            out.extend(&drained);
        }
        let seen = self.seen();
        out.extend(&seen.out);
        let mut missing = Vec::new();
        for (value, push) in &seen.pushes {
            let times = out.iter().filter(|out| *out == value).count();
            let most = usize::from(push.state != State::Refused);
            if times > most {
                test.world
                    .violation(format!("queue: {value} came out {times} times, and its push is {:?}", push.state));
            }
            if times == 0 && push.state == State::Done && !seen.perhaps_out.contains(value) {
                missing.push(*value);
            }
        }
        if missing.len() > seen.lost {
            let what = format!("{missing:?} did not come out, and {} requests may have taken one", seen.lost);
            test.world.violation(format!("queue: {what}"));
        }
        Ok(())
    }
}
