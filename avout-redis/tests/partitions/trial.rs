//! One trial from its beginning to its end.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::{Result, Stm};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::case::{Case, Length};
use crate::clients::{Client, Habit, Who};
use crate::crowd::Crowd;
use crate::judge::Evidence;
use crate::log::{Entry, Log, queue};
use crate::record::Head;
use crate::scout::Scout;
use crate::servers::Fleet;

/// How long it may take until all clients go on.
const PATIENCE: Duration = Duration::from_secs(60);

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs it, in namespaces of its own.
pub(crate) async fn run(case: Case, length: Length, folder: &Path) -> Outcome<Evidence> {
    let (before, after) = length.around();
    let mut fleet = Fleet::start(case, folder).await?;
    let url = fleet.url(case.mode.options());
    let scout = fleet.scout();
    let master = scout.master().await.ok_or("no server takes commits at first")?;
    let mut crowd = Crowd::open(&url).await?;
    sleep(before).await;
    let watch = Watch::begin(scout);
    let meter = Meter::begin();
    let harmed = Instant::now();
    fleet.harm(master).await?;
    let healed = harmed + length.lasts(case);
    let mut is_mended = false;
    let mut newcomer = Some(Box::pin(come(url, &crowd, &watch, harmed, case.fault.moves().then_some(master))));
    loop {
        let now = Instant::now();
        if !is_mended && now >= healed {
            fleet.mend(master).await?;
            is_mended = true;
        }
        let ready = watch.ready(harmed).unwrap_or(now).max(healed);
        let is_over = newcomer.is_none() && now >= ready + after && crowd.goes_on(ready);
        if is_over || now >= healed + PATIENCE {
            break;
        }
        let tick = sleep(Duration::from_millis(50));
        match &mut newcomer {
            Some(coming) => {
                tokio::select! {
                    client = coming => {
                        newcomer = None;
                        crowd.begin(client);
                    }
                    () = tick => {}
                }
            }
            None => tick.await,
        }
    }
    let (ready, lag) = (watch.ready(harmed), meter.end());
    let hung = crowd.end().await;
    let (logs, queue) = tokio::time::timeout(PATIENCE, look(&fleet.url(""))).await??;
    let events = crowd.records.iter().map(|record| record.events()).collect();
    Ok(Evidence { case, length, harmed, ready, lag, events, logs, queue, hung })
}

/// The client that comes when the new master is ready: any but `old`.
fn come(
    url: String,
    crowd: &Crowd,
    watch: &Watch,
    harmed: Instant,
    old: Option<usize>,
) -> impl Future<Output = Client> + use<> {
    let who = *Who::all().last().expect("there are clients");
    assert_eq!(who.habit, Habit::Comes);
    let (record, stop, watch) = (crowd.records[who.number].clone(), crowd.stop.clone(), watch.seen());
    async move {
        loop {
            sleep(Duration::from_millis(20)).await;
            let seen = watch.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
            let is_ready = seen.is_some_and(|(at, master)| at >= harmed && master.is_some() && master != old);
            if is_ready && let Ok(client) = Client::open(&url, who, record.clone(), stop.clone()).await {
                return client;
            }
        }
    }
}

/// What is left at the end.
async fn look(url: &str) -> Result<(Vec<(Head, Vec<Entry>)>, Vec<u64>)> {
    let backend = avout_redis::connect(url).await?;
    let stm = Stm::new(backend.coordinator, backend.store);
    let mut logs = Vec::new();
    for who in Who::all() {
        let log = Log::open(&stm, who.number).await?;
        logs.push(stm.dosync(async |tx| log.read(&tx).await).await?);
    }
    let mut left = Vec::new();
    while let Some(item) = queue(&stm)?.try_pop().await? {
        left.push(item);
    }
    Ok((logs, left))
}

type Seen = Arc<Mutex<Vec<(Instant, Option<usize>)>>>;

/// Looks all the time which server is the master and could take commits.
struct Watch {
    seen: Seen,
    task: JoinHandle<()>,
}

impl Watch {
    fn begin(scout: Scout) -> Self {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let master = scout.master().await;
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), master));
                sleep(Duration::from_millis(40)).await;
            }
        });
        Self { seen, task }
    }

    fn seen(&self) -> Seen {
        Arc::clone(&self.seen)
    }

    /// From when on the last master could take commits, after a fault that began then: from the last time at which another one could, or
    /// else from when it could again.
    fn ready(&self, harmed: Instant) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let after: Vec<_> = seen.iter().filter(|(at, _)| *at >= harmed).collect();
        let last = after.iter().rev().find_map(|(_, master)| *master)?;
        let other = after.iter().rposition(|(_, master)| master.is_some_and(|master| master != last));
        let gone = after.iter().position(|(_, master)| master.is_none());
        let from = other.or(gone).unwrap_or(0);
        after[from..].iter().find(|(_, master)| *master == Some(last)).map(|(at, _)| *at)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Measures how late this machine is.
struct Meter {
    worst: Arc<Mutex<Duration>>,
    task: JoinHandle<()>,
}

impl Meter {
    fn begin() -> Self {
        let worst = Arc::<Mutex<Duration>>::default();
        let noted = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                sleep(Duration::from_millis(10)).await;
                let late = begun.elapsed().saturating_sub(Duration::from_millis(10));
                let mut worst = noted.lock().unwrap_or_else(PoisonError::into_inner);
                *worst = worst.max(late);
            }
        });
        Self { worst, task }
    }

    fn end(self) -> Duration {
        self.task.abort();
        *self.worst.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
