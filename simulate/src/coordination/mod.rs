//! Locks and the like under random faults, seen by observers outside of the clients.
//!
//! A [`Scene`] is one primitive, or some that belong together: what a client does with it, and what must hold. `holds` is what all
//! that can be held have in common.

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
mod stage;

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avout_core::{Result, Stm};
use futures_util::future::{Either, join_all, select};
use tokio::time::{Instant, sleep, timeout};

use super::World;
use crate::process::Process;
use crate::progress::Progress;
use stage::{Actor, Lane, Scene, Test, lock};

/// How long faults go on while clients still work.
const FAULTY: Duration = Duration::from_secs(8);
/// How long everybody may take after the last fault. That nobody waits for too long in one place is looked at besides.
const HEALED: Duration = Duration::from_secs(4 * 3600);
/// How often is looked whether somebody waits for too long.
const LOOKS: Duration = Duration::from_millis(500);

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
}
