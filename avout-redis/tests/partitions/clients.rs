//! Clients of different habits, each with a connection and a log of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avout_core::{ErrorKind, LockGuard, Queue, Ref, Resolution, Result, Stm, Tx};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::log::{Log, queue};
use crate::record::{Head, Record, What};

/// How long a client does nothing between two operations.
const PACE: Duration = Duration::from_millis(30);
/// So many commits under a lock, then it is given back.
const TURN: u32 = 3;
/// How long a session lives without a sign of life. Who waits for a lock looks after its holder four times in it.
const SESSION: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Writes,
    /// Reads the logs of all that write, in one transaction.
    Reads,
    /// Watches the log of the writer with the same deadline.
    Watches,
    /// Writes under a lock, which its commits require.
    Holds,
    /// Puts something into a queue with each commit.
    Produces,
    /// Takes something from the queue with each commit, and waits where there is nothing.
    Consumes,
    /// Writes, and comes when the new master is ready.
    Comes,
}

const HABITS: [Habit; 6] =
    [Habit::Writes, Habit::Reads, Habit::Watches, Habit::Holds, Habit::Produces, Habit::Consumes];

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) number: usize,
    pub(crate) habit: Habit,
    pub(crate) deadline: Duration,
}

impl Who {
    /// The writer that comes late is the last.
    pub(crate) fn all() -> Vec<Self> {
        let deadlines = [Duration::from_secs(2), Duration::from_secs(30)];
        let old = HABITS.into_iter().flat_map(|habit| deadlines.map(move |deadline| (habit, deadline)));
        let all = old.chain([(Habit::Comes, deadlines[0])]).enumerate();
        all.map(|(number, (habit, deadline))| Self { number, habit, deadline }).collect()
    }

    pub(crate) fn commits(self) -> bool {
        !matches!(self.habit, Habit::Reads | Habit::Watches)
    }

    /// How long it may stay behind by what it does itself.
    pub(crate) fn slack(self) -> Duration {
        if self.habit == Habit::Holds { SESSION / 4 } else { Duration::ZERO }
    }

    /// Whose log it watches.
    fn watched(self) -> usize {
        usize::from(self.deadline > Duration::from_secs(2))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} s", self.habit, self.deadline.as_secs())
    }
}

/// Tells all clients to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    fn is_now(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    async fn told(&self) {
        let mut told = std::pin::pin!(self.0.1.notified());
        told.as_mut().enable();
        if !self.is_now() {
            told.await;
        }
    }
}

/// A client at work.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) who: Who,
    pub(crate) record: Record,
    stm: Stm,
    /// Of all, for those who only read.
    heads: Vec<Ref<Head>>,
    log: Log,
    queue: Queue<u64>,
    stop: Stop,
}

impl Client {
    pub(crate) async fn open(url: &str, who: Who, record: Record, stop: Stop) -> Result<Self> {
        let backend = avout_redis::connect(url).await?;
        let builder = Stm::builder(backend.coordinator, backend.store);
        let stm = builder.deadline(Some(who.deadline)).session_ttl(SESSION).build();
        let mut heads = Vec::new();
        for other in Who::all().into_iter().filter(|_| !who.commits()) {
            heads.push(stm.create_or_open_ref(format!("/head/{}", other.number), Head::default()).await?);
        }
        let (log, queue) = (Log::open(&stm, who.number).await?, queue(&stm)?);
        Ok(Self { who, record, stm, heads, log, queue, stop })
    }

    /// Goes on until it is told to stop.
    pub(crate) async fn run(self) {
        match self.who.habit {
            Habit::Reads => self.reads().await,
            Habit::Watches => self.watches().await,
            Habit::Holds => self.holds().await,
            Habit::Writes | Habit::Comes => self.commits(async |tx, number| self.log.add(&tx, (number, 0)).await).await,
            Habit::Produces => {
                let item = |number| (self.who.number as u64) << 32 | u64::from(number);
                self.commits(async |tx, number| {
                    self.queue.push_in(&tx, item(number)).await?;
                    self.log.add(&tx, (number, 0)).await
                })
                .await;
            }
            Habit::Consumes => {
                let consume = self.commits(async |tx, number| match self.queue.pop_in(&tx).await? {
                    Some(item) => self.log.add(&tx, (number, item)).await,
                    None => Err(tx.retry()),
                });
                // At the end nobody produces any more.
                tokio::select! {
                    () = consume => {}
                    () = self.stop.told() => {}
                }
            }
        }
    }

    async fn reads(&self) {
        while !self.stop.is_now() {
            let begun = Instant::now();
            let read = self.stm.dosync(async |tx| {
                // All in one request.
                let heads = tx.get_many(&self.heads[..]).await?;
                let seen = Who::all().into_iter().zip(heads).filter(|(who, _)| who.commits());
                Ok(seen.map(|(who, head)| (who.number, head)).collect())
            });
            match read.await {
                Ok(seen) => self.record.note(begun, What::Read(seen)),
                Err(error) => self.record.note_error(begun, &error),
            }
            sleep(PACE).await;
        }
    }

    async fn watches(&self) {
        let (begun, watched) = (Instant::now(), self.who.watched());
        let mut changes = match self.heads[watched].watch().await {
            Ok(changes) => changes,
            Err(error) => return self.record.note_error(begun, &error),
        };
        loop {
            let begun = Instant::now();
            let change = tokio::select! {
                change = changes.next() => change,
                () = self.stop.told() => return,
            };
            match change {
                Some(Ok(change)) => match change.new {
                    Some(head) => self.record.note(begun, What::Watched(watched, head)),
                    None => self.record.note(begun, What::Wrong("a watch told of no value".to_owned())),
                },
                Some(Err(error)) => self.record.note_error(begun, &error),
                None => return self.record.note(begun, What::Wrong("a watch ended".to_owned())),
            }
        }
    }

    async fn commits(&self, body: impl AsyncFn(Tx, u32) -> Result<Head>) {
        let mut number = 0;
        while !self.stop.is_now() {
            number += 1;
            self.commit(number, async |tx| body(tx, number).await).await;
            sleep(PACE).await;
        }
    }

    async fn holds(&self) {
        let mut number = 0;
        while !self.stop.is_now() {
            let begun = Instant::now();
            let acquired = async { self.stm.lock("/lock")?.acquire_timeout(self.who.deadline).await }.await;
            match acquired {
                Ok(guard) => {
                    self.record.note(begun, What::Acquired);
                    number = self.hold(guard, number).await;
                }
                Err(error) => self.record.note_error(begun, &error),
            }
            sleep(PACE).await;
        }
    }

    /// Commits some times under the lock, and gives it back. Gives the number of the last entry.
    async fn hold(&self, guard: LockGuard, mut number: u32) -> u32 {
        for _ in 0..TURN {
            number += 1;
            let body = async |tx: Tx| {
                tx.require(&guard).await?;
                self.log.add(&tx, (number, guard.token())).await
            };
            if !self.commit(number, body).await {
                break;
            }
            sleep(PACE).await;
        }
        let begun = Instant::now();
        if let Err(error) = guard.release().await {
            self.record.note_error(begun, &error);
        }
        number
    }

    /// Whether it was acknowledged. An outcome that is not known is asked for.
    async fn commit(&self, number: u32, body: impl AsyncFn(Tx) -> Result<Head>) -> bool {
        let begun = Instant::now();
        let error = match self.stm.dosync(async |tx| body(tx).await).await {
            Ok(head) => {
                self.record.note(begun, What::Committed(head));
                return true;
            }
            Err(error) => error,
        };
        if error.kind() != ErrorKind::OutcomeUnknown {
            self.record.note_error(begun, &error);
            return false;
        }
        self.record.note(begun, What::Unknown);
        let Some(receipt) = error.receipt() else { return false };
        let begun = Instant::now();
        match self.stm.resolve(receipt).await {
            Ok(resolution) => {
                let committed = matches!(resolution, Resolution::Committed(_));
                self.record.note(begun, What::Resolved { number, committed });
            }
            Err(error) => self.record.note_error(begun, &error),
        }
        false
    }
}
