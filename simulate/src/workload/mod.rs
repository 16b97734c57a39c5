mod body;
mod client;
mod end;
mod program;
mod record;
mod test;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avout_core::{Result, Stm};
use tokio::time::timeout;

use super::World;
use crate::progress::Progress;
use program::{Setting, Task};
use record::Recorder;
use test::{Phase, Test};

/// How long faults go on while clients still work.
const FAULTY: Duration = Duration::from_secs(30);
/// How long everybody may take after the last fault.
const HEALED: Duration = Duration::from_secs(600);
/// In which time watches have told everything.
const QUIET: Duration = Duration::from_secs(20);
/// As many elements as no transaction waits for.
const ENOUGH: usize = 6;

/// avout's own test: random transactions of all kinds over lists and registers in two stores, and atoms, snapshots and watches
/// beside them.
///
/// It checks that the [history](crate::history) is strictly serializable, or keeps what `Snapshot` promises where that is the
/// schedule's isolation; that every attempt saw one moment; that after the last fault everybody commits and nobody who waits
/// is forgotten; that watches tell what was committed, in order, and the last value; that every record's values are in their
/// stores; that no more values are left over than faults explain; and that sweeps leave none, and no record that is not in use.
///
/// What it finds is the failure of the schedule; it begins with the name of the [phenomenon](crate::history::Phenomenon), or
/// with `stuck`, `watch`, `unexpected error`, `dangling`, `removed`, `leftovers` or `version reused`.
pub async fn workload(world: World) -> Result<()> {
    let setting = Setting::draw(&world);
    world.tell(|| format!("{setting:?}"));
    let sure = world.stm();
    make(&world, &setting, &sure).await?;
    let clients = 2 + world.draw(3) as usize;
    let mut draw_tasks = |_| {
        let more = if setting.churn { 6 } else { 0 };
        let tasks: Vec<Task> = (0..2 + more + world.draw(5)).map(|_| setting.task(&world)).collect();
        tasks.into_iter().filter(|_| world.wants_part()).collect()
    };
    let tasks = (0..clients).map(&mut draw_tasks).collect();
    let watches =
        |world: &World| if world.chance(0.35) { vec![world.draw(setting.lists as u64) as usize] } else { vec![] };
    let test = Arc::new(Test {
        tasks: Mutex::new(tasks),
        watched: (0..clients).map(|_| watches(&world)).collect(),
        recorder: Recorder::default(),
        watches: Mutex::default(),
        lives: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        phase: Progress::new(Phase::Faulty),
        done: Progress::new(vec![(false, false); clients]),
        world,
        setting,
    });
    for number in 0..clients {
        if !test.world.wants_part() {
            test.is_done(number);
            test.has_ended(number);
            continue;
        }
        let test = Arc::clone(&test);
        test.world.clone().spawn(move |stm| client::life(Arc::clone(&test), number, stm));
    }
    for _ in 0..if test.setting.churn { 3 } else { 2 } {
        test.start_sweeper();
    }
    test.conduct(&sure).await
}

/// Makes what the clients open.
async fn make(world: &World, setting: &Setting, stm: &Stm) -> Result<()> {
    let second = world.second_store();
    let elsewhere = |place: usize| setting.elsewhere >> place & 1 == 1;
    for list in 0..setting.lists {
        let mut list_ref = stm.create_ref(format!("/l{list}"), Vec::<u64>::new()).history(setting.history);
        if elsewhere(list) {
            list_ref = list_ref.in_store(&second);
        }
        list_ref.await?;
    }
    for register in 0..setting.registers {
        let mut register_ref = stm.create_ref(format!("/r{register}"), 0_u64).history(setting.history);
        if elsewhere(3 + register) {
            register_ref = register_ref.in_store(&second);
        }
        register_ref.await?;
    }
    if setting.volatile {
        stm.create_ref("/v", 0_u64).history(setting.history).await?;
    }
    if setting.atom {
        stm.create_atom("/a", Vec::<u64>::new()).await?;
    }
    Ok(())
}

impl Test {
    /// Starts a client that sweeps now and then, in some schedules.
    fn start_sweeper(&self) {
        let (most, longest) = if self.setting.churn { (6, 150) } else { (3, 600) };
        let pauses: Vec<Duration> =
            (0..self.world.draw(most)).map(|_| self.world.draw_delay(Duration::from_millis(longest))).collect();
        if pauses.is_empty() || !self.world.wants_part() {
            return;
        }
        self.world.spawn(move |stm| {
            let pauses = pauses.clone();
            async move {
                for pause in pauses {
                    tokio::time::sleep(pause).await;
                    // It may meet a fault. Nothing is lost by that.
                    let _ = stm.sweep().await;
                }
            }
        });
    }

    /// Leads a schedule from its first fault to its last check.
    async fn conduct(&self, sure: &Stm) -> Result<()> {
        // Some wait for what only comes later.
        let _ = timeout(FAULTY, self.all(|(done, _)| *done)).await;
        self.world.heal();
        self.phase.change(|phase| *phase = Phase::Healed);
        self.satisfy(sure).await?;
        if timeout(HEALED, self.all(|(_, ended)| *ended)).await.is_err() {
            self.world.violation("stuck: not all clients end though all faults are over".to_owned());
            return Ok(());
        }
        self.world.settle().await;
        tokio::time::sleep(QUIET).await;
        self.phase.change(|phase| *phase = Phase::Stopped);
        self.world.finish().await;
        self.check(sure).await
    }

    /// Gives everybody what they wait for.
    async fn satisfy(&self, sure: &Stm) -> Result<()> {
        for list in 0..self.setting.lists {
            let key = format!("/l{list}");
            let list = sure.open_ref::<Vec<u64>>(&key).await?;
            for _ in 0..ENOUGH {
                let (handle, element) = (self.recorder.invoke(0), self.world.next_id());
                self.recorder.begin(handle);
                list.update(|elements| elements.push(element)).await?;
                self.recorder.push(handle, [crate::history::Operation::append(&*key, element)]);
                self.recorder.committed(handle);
            }
        }
        Ok(())
    }
}
