use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::precedence::First;
use super::queue::{Ticket, find_left, hand_over, hold_all, leave};
use super::reserve::Reserved;
use crate::engine::attempt::Primed;
use crate::engine::client::Engine;
use crate::engine::handover::Lost;
use crate::engine::job::{Job, Obstacle};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Holder, Key};

/// From this loss on a transaction queues for all keys that it touches, and not only for those that it lost on.
const ESCALATES: u32 = 3;

/// From this loss on it asks the transactions of all processes to wait for it.
const RESERVES: u32 = 8;

/// In memory a transaction queues only from this loss on.
const QUEUES_IN_MEMORY: u32 = 8;

/// And only from this one on it reserves.
const RESERVES_IN_MEMORY: u32 = 12;

/// How one transaction takes its turn among those that want the same keys, from attempt to attempt.
pub(in crate::engine) struct Turn {
    pub(in crate::engine) begun: Instant,
    pub(in crate::engine) deadline: Option<Instant>,
    /// How many of its attempts were lost to others. Waiting is no loss.
    losses: u32,
    /// The keys that it lost on, the last one at the end.
    lost_on: Vec<Key>,
    /// When the attempt began, if one was lost before.
    attempt_begun: Option<Instant>,
    /// How long the longest of the attempts took that were lost.
    longest: Duration,
    /// Its places in the queues of keys that it lost on.
    tickets: Vec<Ticket>,
    /// Who it is in reservations of its own.
    holder: Option<Holder>,
    reserved: Vec<Reserved>,
    /// In memory: that others hold their commits back for it.
    first: Option<First>,
}

/// An attempt that was lost.
pub(in crate::engine) struct Loss {
    pub(in crate::engine) key: Key,
    /// What the next attempt need not read.
    pub(in crate::engine) primed: Option<Box<Primed>>,
    /// All keys that it touched.
    pub(in crate::engine) touched: Vec<Key>,
    /// It wanted to change something, as far as it got.
    pub(in crate::engine) wrote: bool,
}

impl Turn {
    pub(in crate::engine) fn new(begun: Instant, deadline: Option<Instant>) -> Self {
        Self {
            begun,
            deadline,
            losses: 0,
            lost_on: Vec::new(),
            attempt_begun: None,
            longest: Duration::ZERO,
            tickets: Vec::new(),
            holder: None,
            reserved: Vec::new(),
            first: None,
        }
    }

    /// An attempt begins.
    pub(in crate::engine) fn attempt(&mut self) {
        self.attempt_begun = (self.losses > 0).then(Instant::now);
    }

    /// How many attempts were lost.
    pub(in crate::engine) fn losses(&self) -> u32 {
        self.losses
    }

    /// Whether the next loss is one after which all keys count that the attempt has touched.
    pub(in crate::engine) fn escalates(&self) -> bool {
        self.losses + 1 >= ESCALATES
    }

    fn is_in_time(&self) -> bool {
        self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Whether a commit need not wait for this.
    pub(in crate::engine) fn may_pass(&self, engine: &Engine, job: &Job<'_>, obstacle: Obstacle) -> bool {
        match obstacle {
            Obstacle::Queues => {
                if engine.capabilities.in_process && self.first.is_none() {
                    engine.precedence.wait();
                }
                self.is_awaited() || !engine.queues.any()
            }
            Obstacle::Reservations => !self.is_reserved(engine, job),
            // In memory it is tried once more at once.
            Obstacle::Winners(0) if engine.capabilities.in_process => {
                engine.stats.reapplied();
                true
            }
            Obstacle::Winners(_) | Obstacle::Outage(_) => false,
        }
    }

    /// Waits for what a commit must wait for, which is to be made, or made again. The job is told to go on, or that it is lost.
    pub(in crate::engine) async fn before_commit(
        &mut self,
        engine: &Engine,
        job: &mut Job<'_>,
        obstacle: Obstacle,
    ) -> Result<()> {
        let lost = match obstacle {
            Obstacle::Queues => self.queue_if_hot(engine, job).await,
            Obstacle::Reservations => engine.yield_to_reservations(&mut job.plan, self.holder, self.deadline).await?,
            Obstacle::Winners(repeated) => self.let_winners_go(engine, job, repeated).await,
            Obstacle::Outage(tries) => {
                let in_time = engine.pause(engine.backoff.outage(tries), self.deadline).await;
                if let Some(reason) = job.take_outage()
                    && (!in_time || !job.interest.is_wanted())
                {
                    return Err(reason);
                }
                None
            }
        };
        match lost {
            Some((key, primed)) => job.lose(key, primed),
            None => job.go_on(obstacle),
        }
        Ok(())
    }

    /// After others came first with a commit that did not change what the body had relied on: those of this process on the same keys
    /// are waited for, and those of other processes are given way to.
    async fn let_winners_go(&mut self, engine: &Engine, job: &mut Job<'_>, repeated: u32) -> Option<Lost> {
        engine.stats.reapplied();
        let in_time = if self.tickets.is_empty() && repeated > u32::from(engine.capabilities.in_process) {
            let keys = job.plan.keys().cloned().collect();
            if let Some(lost) = self.queue_up(engine, keys, job).await {
                return Some(lost);
            }
            self.is_in_time()
        } else {
            engine.yield_or_pause(repeated, self.deadline).await
        };
        (!in_time).then(|| (job.plan.writes[0].write.cell.key.clone(), None))
    }

    /// Waits in the queues of the commit's keys, where there are any. In memory those who have not lost often only give way: if they all
    /// took turns nobody would race any more.
    async fn queue_if_hot(&mut self, engine: &Engine, job: &mut Job<'_>) -> Option<Lost> {
        let hot = engine.queues.hot(job.plan.keys());
        if hot.is_empty() {
            return None;
        }
        if engine.capabilities.in_process {
            engine.queues.give_way(&hot, self.deadline, &engine.closing).await;
            return None;
        }
        self.queue_up(engine, hot, job).await
    }

    /// Waits in the queues of these keys of a commit. What was read may have changed meanwhile: `Some` if the attempt is lost.
    async fn queue_up(&mut self, engine: &Engine, keys: Vec<Key>, job: &mut Job<'_>) -> Option<Lost> {
        self.line_up(engine, keys).await;
        // An older one tells nothing of what was read since.
        let read_point = job.attempt.read_point;
        let left = find_left(&self.tickets, self.begun, engine.losses.count())
            .filter(|left| read_point.is_none_or(|read| read < left.point))?;
        job.learn_floor(left.floor.as_ref());
        let key = job.plan.stale_by(&left)?;
        Some((key, Some(left.primed())))
    }

    /// Waits for its turn at these keys. It holds no tickets meanwhile.
    async fn line_up(&mut self, engine: &Engine, keys: Vec<Key>) {
        self.tickets.clear();
        let commit_time = engine.backoff.commit_time();
        self.tickets = engine.queues.wait_for(keys, commit_time, self.deadline, &engine.closing).await;
    }

    /// Whether others may wait for it in its queues.
    pub(in crate::engine) fn is_awaited(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Whether others have reserved something that is about to be written.
    fn is_reserved(&self, engine: &Engine, job: &Job<'_>) -> bool {
        job.plan.bases().any(|(key, entry)| engine.leases.until(key, entry, self.holder).is_some())
    }

    /// Tells those who wait in its queues what it has committed.
    pub(in crate::engine) fn tell_next(&self, engine: &Engine, job: &mut Job<'_>) {
        if let (true, Some(landed)) = (self.is_awaited(), job.landed.take())
            && let Some(sent) = landed.sent
        {
            let (floor, history) = (job.floor().clone(), job.attempt.history);
            let plan = std::mem::take(&mut job.plan);
            leave(&self.tickets, plan.hand_over((sent, history), floor, landed, &*engine.coordinator));
        }
    }

    /// An attempt was lost: waits until another one has a chance. Gives what that one need not read. `history` is how many losses
    /// the stores had had when the attempt began.
    pub(in crate::engine) async fn after_loss(
        &mut self,
        engine: &Engine,
        loss: Loss,
        history: u64,
    ) -> Result<Option<Box<Primed>>> {
        let (wrote, primed) = (loss.wrote, self.note(loss));
        // Nobody queues for the floor or reserves it: it is raised seldom, and every commit compares it.
        let contended: Vec<Key> = self.lost_on.iter().filter(|key| !key.is_bookkeeping()).cloned().collect();
        let (queues, reserves) = match engine.capabilities.in_process {
            true => (QUEUES_IN_MEMORY, RESERVES_IN_MEMORY),
            false => (1, RESERVES),
        };
        if contended.is_empty() {
            return match engine.yield_or_pause(self.losses - 1, self.deadline).await {
                true => Ok(primed),
                false => Err(self.timeout()),
            };
        }
        if self.losses < queues {
            return Ok(self.race(engine, primed, wrote));
        }
        if self.losses >= reserves
            && let Some(primed) = self.reserve(engine, &contended).await?
        {
            return Ok(primed);
        }
        // It may stand at the head of them already, and others came first all the same.
        let waits = !hold_all(&self.tickets, contended.iter());
        let (primed, in_time) = match waits {
            true => (self.queue(engine, contended, primed, history).await, self.is_in_time()),
            false => (primed, false),
        };
        if in_time || engine.yield_or_pause(self.losses - 1, self.deadline).await {
            return Ok(primed);
        }
        Err(self.timeout())
    }

    /// Takes in that an attempt was lost. Gives what the next one need not read.
    fn note(&mut self, loss: Loss) -> Option<Box<Primed>> {
        let Loss { key, primed, touched, .. } = loss;
        self.first = None;
        self.losses += 1;
        self.longest = self.longest.max(self.attempt_begun.map_or(Duration::ZERO, |begun| begun.elapsed()));
        if self.losses >= ESCALATES {
            self.lost_on = touched;
        }
        self.lost_on.retain(|other| *other != key);
        self.lost_on.push(key);
        primed
    }

    /// In memory, tries again at once: the first time with the entries that came with the conflict. If that is lost too, others race for
    /// the same.
    fn race(&mut self, engine: &Engine, primed: Option<Box<Primed>>, wrote: bool) -> Option<Box<Primed>> {
        if !engine.precedence.lost() || self.losses < 2 {
            return primed;
        }
        engine.backoff.stand_aside(wrote);
        self.first = if wrote { First::take(&engine.precedence) } else { None };
        // The entries are stale by now.
        None
    }

    /// Asks all others to wait. `None`: they did not get to hear of it.
    async fn reserve(&mut self, engine: &Engine, keys: &[Key]) -> Result<Option<Option<Box<Primed>>>> {
        let number = engine.sequence.fetch_add(1, Ordering::Relaxed);
        let holder = *self.holder.get_or_insert(Holder { client: engine.client, number });
        tracing::debug!(losses = self.losses, "lost again and again, reserving");
        let reserved = engine.reserve(keys, holder, self.longest, self.deadline).await?;
        Ok(reserved.map(|(reserved, primed)| {
            reserved.join(&mut self.reserved);
            primed
        }))
    }

    /// Waits in the queues of these keys, and stays there. Gives what the next attempt need not read.
    async fn queue(
        &mut self,
        engine: &Engine,
        keys: Vec<Key>,
        primed: Option<Box<Primed>>,
        history: u64,
    ) -> Option<Box<Primed>> {
        self.line_up(engine, keys).await;
        let newest = primed.as_ref().map(|primed| primed.point);
        match find_left(&self.tickets, self.begun, history) {
            Some(left) if newest.is_none_or(|point| point < left.point) => Some(left.primed()),
            _ => primed,
        }
    }

    pub(in crate::engine) fn timeout(&self) -> Error {
        let error = Error::new(ErrorKind::Timeout, "the deadline passed before the transaction could commit");
        match self.lost_on.last() {
            Some(key) => error.at(key),
            None => error,
        }
    }

    /// An attempt is over with a commit, which has `written` these keys: others have their turn.
    pub(in crate::engine) async fn after_commit(&mut self, engine: &Engine, written: &[Key]) {
        if !self.tickets.is_empty() {
            Box::pin(hand_over(std::mem::take(&mut self.tickets))).await;
        }
        self.release(engine, written).await;
    }

    /// Whether it has reserved anything.
    pub(in crate::engine) fn reserves(&self) -> bool {
        !self.reserved.is_empty()
    }

    /// Leaves all queues, to wait for something else.
    pub(in crate::engine) async fn stand_back(&mut self, engine: &Engine) {
        self.tickets.clear();
        self.first = None;
        self.release(engine, &[]).await;
    }

    /// Ends what it has reserved, but for what it has `written`: nobody is to wait for that any more.
    pub(in crate::engine) async fn release(&mut self, engine: &Engine, written: &[Key]) {
        if !self.reserved.is_empty() {
            Box::pin(engine.release(&mut self.reserved, written)).await;
        }
    }

    /// What it had reserved and has not released.
    pub(in crate::engine) fn take_reserved(&mut self) -> Vec<Reserved> {
        std::mem::take(&mut self.reserved)
    }
}

impl Engine {
    /// Waits as long as losing for the `lost`-th time calls for. `false`: the deadline would pass meanwhile.
    pub(crate) async fn yield_or_pause(&self, lost: u32, deadline: Option<Instant>) -> bool {
        let pause = self.backoff.contention(lost);
        if pause.is_zero() {
            tokio::task::yield_now().await;
            return deadline.is_none_or(|deadline| Instant::now() < deadline);
        }
        self.pause(pause, deadline).await
    }
}
