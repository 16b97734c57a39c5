//! Locks and the like under random faults, seen by observers outside of the clients.
//!
//! A [`Scene`] is one primitive, or some that belong together: what a client does with it, and what must hold. `holds` is what all
//! that can be held have in common.

mod actor;
mod barrier;
mod condition;
mod counter;
mod election;
mod holds;
mod known;
mod latch;
mod mutex;
mod once;
mod queue;
mod rw_lock;
mod semaphore;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{Result, Stm};
use futures_util::future::{Either, join_all, select};
use tokio::time::{Instant, sleep, timeout};

use super::World;
use crate::process::Process;
use crate::progress::Progress;
use actor::{Actor, Doing};

/// How long faults go on while clients still work.
const FAULTY: Duration = Duration::from_secs(8);
/// How long everybody may take after the last fault. That nobody waits for too long in one place is looked at besides.
const HEALED: Duration = Duration::from_secs(4 * 3600);
/// How often is looked whether somebody waits for too long.
const LOOKS: Duration = Duration::from_millis(500);

/// Something to be coordinated.
#[async_trait]
trait Scene: Send + Sync {
    /// One thing that a client does with it.
    async fn step(&self, actor: &Actor);

    /// Gives those what they wait for who only can have it from others. It begins with the end of all faults, and is stopped when
    /// all clients have done their steps.
    async fn help(&self, _test: &Test, _sure: &Stm) -> Result<()> {
        Ok(())
    }

    /// What must hold when all steps are done and no request is on its way. The clients are still there.
    async fn check(&self, test: &Test, sure: &Stm) -> Result<()>;
}

/// What all clients of one schedule share.
struct Test {
    world: World,
    scenes: Vec<Arc<dyn Scene>>,
    lanes: Mutex<Vec<Lane>>,
    doing: Mutex<Doings>,
    /// Which clients have done all steps.
    done: Progress<Vec<bool>>,
    stopped: Progress<bool>,
}

/// What one client does one after the other.
#[derive(Clone)]
struct Lane {
    client: usize,
    scene: Arc<dyn Scene>,
    /// A step in which the client dies is not done again.
    steps: u64,
}

/// What everybody is about to do.
#[derive(Default)]
struct Doings {
    next: u64,
    now: BTreeMap<u64, Doing>,
}

/// avout's own test of what there is beside transactions: locks, conditions, semaphores, barriers, latches, queues, elections,
/// counters and transactions that happen once.
///
/// It checks that what one may hold alone is held by one, whose session is not lost; that tokens grow; that nothing is written
/// under a guard that was lost; that those who came first are served first; that a notification wakes one that waits, and nobody wakes
/// without; that a barrier opens for as many as it should, and a latch at zero; that of a queue each value that was pushed comes out
/// once, in order, and its capacity is kept; that an election's terms are told as they were; that what happens once does, with one
/// result; that counters have the right sum. And that after the last fault nobody waits for long, and nothing stays held or hidden.
///
/// What it finds is the failure of the schedule; it begins with the name of what is broken, or with `stuck` or `unexpected error`.
pub async fn coordination(world: World) -> Result<()> {
    schedule(world, None).await
}

/// The same with nothing but scenes of one primitive: `lock`, `rw_lock`, `semaphore`, `condition`, `barrier`, `latch`, `queue`,
/// `election`, `once` or `counter`.
///
/// # Panics
/// If there is no such primitive.
pub async fn coordination_of(world: World, primitive: &str) -> Result<()> {
    let scene = SCENES.iter().position(|name| *name == primitive);
    schedule(world, Some(scene.expect("the name of a primitive") as u64)).await
}

async fn schedule(world: World, scene: Option<u64>) -> Result<()> {
    let sure = world.stm();
    let mut scenes = vec![make_scene(&world, &sure, scene).await?];
    if world.chance(0.3) {
        scenes.push(make_scene(&world, &sure, scene).await?);
    }
    let clients = 2 + world.draw(3) as usize;
    let mut lanes = Vec::new();
    for client in 0..clients {
        for scene in &scenes {
            for _ in 0..1 + world.draw(2) {
                lanes.push(Lane { client, scene: Arc::clone(scene), steps: 1 + world.draw(4) });
            }
        }
    }
    let test = Arc::new(Test {
        world: world.clone(),
        scenes,
        lanes: Mutex::new(lanes),
        doing: Mutex::default(),
        done: Progress::new(vec![false; clients]),
        stopped: Progress::new(false),
    });
    for client in 0..clients {
        let test = Arc::clone(&test);
        world.spawn_process(move |stm, process| life(Arc::clone(&test), client, stm, process));
    }
    test.conduct(&sure).await
}

/// The scenes, by what is coordinated in them.
const SCENES: [&str; 10] =
    ["lock", "rw_lock", "semaphore", "condition", "barrier", "latch", "queue", "election", "once", "counter"];

/// This one of the scenes, or one by chance. Two of one kind have the same keys, and each its own observers, so each has a name of its own.
async fn make_scene(world: &World, sure: &Stm, scene: Option<u64>) -> Result<Arc<dyn Scene>> {
    let name = format!("/{}", world.next_id());
    let drawn = world.draw(SCENES.len() as u64);
    Ok(match scene.unwrap_or(drawn) {
        0 => Arc::new(mutex::Mutex::make(world, sure, &name).await?),
        1 => Arc::new(rw_lock::RwLock::make(world, sure, &name).await?),
        2 => Arc::new(semaphore::Semaphore::make(world, sure, &name).await?),
        3 => Arc::new(condition::Condition::make(world, sure, &name).await?),
        4 => Arc::new(barrier::Barrier::make(world, &name)),
        5 => Arc::new(latch::Latch::make(world, &name)),
        6 => Arc::new(queue::Queue::make(world, sure, &name).await?),
        7 => Arc::new(election::Election::make(world, sure, &name).await?),
        8 => Arc::new(once::Once::make(sure, &name).await?),
        _ => Arc::new(counter::Counter::make(&name)),
    })
}

/// One life of a client: it does what is left to be done, and stays until the end.
async fn life(test: Arc<Test>, client: usize, stm: Stm, process: Process) {
    // Some have a session all along, whatever else they do.
    let kept = match test.world.chance(0.3) {
        true => stm.lock(format!("/kept/{}", test.world.next_id())).ok(),
        false => None,
    };
    let kept = match &kept {
        Some(lock) => lock.acquire_timeout(FAULTY).await.ok(),
        None => None,
    };
    let mut tasks = Vec::new();
    let own: Vec<(usize, Lane)> = lock(&test.lanes).iter().cloned().enumerate().collect();
    for (number, lane) in own.into_iter().filter(|(_, lane)| lane.client == client) {
        let actor = Actor { test: Arc::clone(&test), stm: stm.clone(), client };
        tasks.push(process.spawn(async move {
            while actor.test.takes_step(number) {
                if actor.world().wants_part() {
                    actor.rest(100).await;
                    lane.scene.step(&actor).await;
                }
            }
        }));
    }
    for task in tasks {
        if let Err(error) = task.await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
    test.done.change(|done| done[client] = true);
    test.stopped.until(|stopped| *stopped).await;
    drop(kept);
    if test.world.chance(0.5) {
        stm.close().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Test {
    /// Leads a schedule from its first fault to its last check.
    async fn conduct(&self, sure: &Stm) -> Result<()> {
        let all = || self.done.until(|done| done.iter().all(|done| *done));
        let _ = timeout(FAULTY, all()).await;
        self.world.heal();
        let healed = Instant::now();
        let help = async {
            for helped in join_all(self.scenes.iter().map(|scene| scene.help(self, sure))).await {
                helped?;
            }
            std::future::pending::<Result<()>>().await
        };
        let watch = async {
            loop {
                if let Some(stuck) = self.stuck(healed) {
                    return stuck;
                }
                sleep(LOOKS).await;
            }
        };
        let ends = timeout(HEALED, select(Box::pin(all()), Box::pin(watch)));
        match select(Box::pin(ends), Box::pin(help)).await {
            Either::Left((Ok(Either::Left(_)), _)) => {}
            Either::Left((Ok(Either::Right((stuck, _))), _)) => {
                self.world.violation(format!("stuck: {stuck}"));
                return Ok(());
            }
            Either::Left((Err(_), _)) => {
                self.world.violation("stuck: not all clients end though all faults are over".to_owned());
                return Ok(());
            }
            Either::Right((error, _)) => return error,
        }
        self.world.settle().await;
        for scene in &self.scenes {
            scene.check(self, sure).await?;
        }
        self.stopped.change(|stopped| *stopped = true);
        self.world.finish().await;
        Ok(())
    }

    fn takes_step(&self, lane: usize) -> bool {
        let steps = &mut lock(&self.lanes)[lane].steps;
        let left = *steps > 0;
        *steps = steps.saturating_sub(1);
        left
    }

    /// Who has waited for too long since all faults were over.
    fn stuck(&self, healed: Instant) -> Option<String> {
        let now = Instant::now();
        let doing = lock(&self.doing);
        let late = doing.now.values().find(|doing| now > doing.since.max(healed) + doing.limit)?;
        Some(format!(
            "client {} {} for more than {:?}, and all faults are over",
            late.client + 1,
            late.what,
            late.limit
        ))
    }

    /// How long anybody may wait after the last fault for what others have to let go of or to take over: some of them stand still
    /// for twice a time to live, or died.
    fn patience(&self) -> Duration {
        self.world.knobs().session_ttl * 6 + Duration::from_secs(15)
    }
}
