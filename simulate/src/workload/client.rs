use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use avout_core::{Error, ErrorKind, Ref, Result, Stm};
use futures_util::future::{Either, join_all, select};

use super::body::{Body, Refs};
use super::program::{Step, Task};
use super::record::Handle;
use super::test::{Phase, Test, Told};
use crate::history::Operation;
use crate::process::{End, Part, Process};

/// How long a client may take for its last transaction, when all faults are over.
const LAST: Duration = Duration::from_secs(300);

/// One life of a client: it does what is left of its program, and then one last transaction when all faults are over.
pub(super) async fn life(test: Arc<Test>, number: usize, stm: Stm) {
    let client = Client { process: test.next_process(number), number, refs: open(&test, &stm).await, stm, test };
    let watched: Vec<Ref<Vec<u64>>> =
        client.test.watched[number].iter().map(|list| client.refs.lists[*list].clone()).collect();
    let work = async {
        while let Some(task) = client.test.next_task(number) {
            client.perform(&task).await;
        }
        client.test.is_done(number);
        client.test.reach(Phase::Healed).await;
        client.last().await;
        client.test.has_ended(number);
        client.test.reach(Phase::Stopped).await;
    };
    let watches = join_all(watched.iter().map(|list| watch(&client.test, list)));
    futures_util::future::join(work, watches).await;
    client.stm.close().await;
}

/// Tries until the store answers.
async fn insist<T, Fut: Future<Output = Result<T>>>(f: impl Fn() -> Fut) -> Result<T> {
    loop {
        match f().await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

async fn open(test: &Test, stm: &Stm) -> Refs {
    let expected = "the refs were made before any client came";
    let mut refs = Refs { lists: Vec::new(), registers: Vec::new(), volatile: OnceLock::new(), atom: None };
    for list in 0..test.setting.lists {
        refs.lists.push(insist(|| stm.open_ref(format!("/l{list}")).into_future()).await.expect(expected));
    }
    for register in 0..test.setting.registers {
        refs.registers.push(insist(|| stm.open_ref(format!("/r{register}")).into_future()).await.expect(expected));
    }
    if test.setting.volatile {
        refs.volatile = insist(|| stm.open_ref("/v").into_future()).await.map(OnceLock::from).unwrap_or_default();
    }
    if test.setting.atom {
        refs.atom = Some(insist(|| stm.open_atom("/a").into_future()).await.expect(expected));
    }
    refs
}

/// Writes down what a watch tells, until it is told to stop.
async fn watch(test: &Test, list: &Ref<Vec<u64>>) {
    let Ok(mut changes) = insist(|| list.watch()).await else {
        test.world.violation(format!("watch: {} cannot be watched", list.key()));
        return;
    };
    let watch = test.new_watch(list.key());
    let slow = test.world.chance(0.3);
    loop {
        let next = {
            let (next, stop) = (pin!(changes.next()), pin!(test.reach(Phase::Stopped)));
            match select(next, stop).await {
                Either::Left((next, _)) => next,
                Either::Right(_) => break,
            }
        };
        match next {
            Some(Ok(change)) => {
                test.told(
                    watch,
                    Told { old: change.old, new: change.new, point: change.point, skipped: change.skipped },
                );
            }
            Some(Err(error)) => test.world.violation(format!("watch: {error}")),
            None => test.world.violation("watch: it ended".to_owned()),
        }
        if slow {
            tokio::time::sleep(test.world.draw_delay(Duration::from_millis(200))).await;
        }
    }
    test.watched_to_the_end(watch);
}

struct Client {
    test: Arc<Test>,
    stm: Stm,
    process: u64,
    number: usize,
    refs: Refs,
}

impl Client {
    async fn perform(&self, task: &Task) {
        let handle = self.test.recorder.invoke(self.process);
        self.test.world.tell(|| format!("client {}: {handle} is called: {task:?}", self.number + 1));
        match task {
            Task::Transaction { steps, cancelled_at: None } => self.transaction(handle, steps, None).await,
            Task::Transaction { steps, cancelled_at } => {
                let transaction = self.transaction(handle, steps, None);
                let process = Process::new(&self.test.world, self.number + 1, *cancelled_at);
                if let End::Killed = process.run(Part::Body, transaction).await {
                    self.test.world.tell(|| format!("client {} lives on: its {handle} was given up", self.number + 1));
                }
            }
            Task::Snapshot => {
                let done = self.snapshot(handle).await;
                if let Err(error) = done {
                    self.settle(handle, Err(error), &[ErrorKind::TooOld]);
                }
            }
            Task::Create(value) => {
                self.test.recorder.begin(handle);
                self.test.recorder.push(handle, [Operation::write("/v", *value)]);
                let created = self.stm.create_ref("/v", *value).await;
                let created = created.map(|volatile| drop(self.refs.volatile.set(volatile)));
                self.settle(handle, created, &[ErrorKind::AlreadyExists]);
            }
            Task::Swap(element) => {
                let atom = self.refs.atom.as_ref().expect("swaps are drawn where there is an atom");
                self.test.recorder.begin(handle);
                self.test.recorder.push(handle, [Operation::append("/a", *element)]);
                let swapped = atom.swap(|mut elements| {
                    elements.push(*element);
                    elements
                });
                let swapped = swapped.await;
                if let Ok(elements) = &swapped {
                    self.test.recorder.push(handle, [Operation::read_list("/a", elements.clone())]);
                }
                self.settle(handle, swapped.map(drop), &[]);
            }
        }
    }

    async fn transaction(&self, handle: Handle, steps: &[Step], deadline: Option<Duration>) {
        let Test { recorder, setting, .. } = &*self.test;
        let body = Body { refs: &self.refs, setting, recorder, handle };
        let mut transaction = self.stm.transaction().isolation(setting.isolation);
        if let Some(deadline) = deadline {
            transaction = transaction.deadline(deadline);
        }
        let body = &body;
        let done = transaction
            .dosync(async |tx| {
                recorder.begin(handle);
                let test = Arc::clone(&self.test);
                tx.on_commit(move |point| test.recorder.at_point(handle, point.number()));
                body.run(&tx, steps).await
            })
            .await;
        let vanishes = |step: &Step| matches!(step, Step::SetVolatile(_) | Step::Destroy | Step::GetVolatile);
        let allowed: &[ErrorKind] = if steps.iter().any(vanishes) { &[ErrorKind::NotFound] } else { &[] };
        self.settle(handle, done, allowed);
    }

    /// Writes down how it ended. Errors other than those of faults and `allowed` must not be.
    fn settle(&self, handle: Handle, done: Result<(), Error>, allowed: &[ErrorKind]) {
        let Err(error) = done else {
            self.test.recorder.committed(handle);
            self.test.world.tell(|| format!("client {}: {handle} committed", self.number + 1));
            return;
        };
        let kind = error.kind();
        let faults = [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown, ErrorKind::Contended];
        if !faults.contains(&kind) && !allowed.contains(&kind) {
            self.test.world.violation(format!("unexpected error: {kind:?}: {error}"));
        }
        if kind == ErrorKind::OutcomeUnknown {
            // It may be found out later that it committed, and what it has trimmed stays.
            self.test.world.count_trouble();
        }
        self.test.world.tell(|| format!("client {}: {handle} ended: {kind:?}: {error}", self.number + 1));
        self.test.recorder.failed(handle, &error);
    }

    async fn snapshot(&self, handle: Handle) -> Result<()> {
        let Test { recorder, world, .. } = &*self.test;
        let snapshot = self.stm.snapshot().await?;
        recorder.begin(handle);
        // It took effect by now, however long the reads take.
        recorder.push(handle, []);
        let mut reads = Vec::new();
        for list in &self.refs.lists {
            reads.push(Operation::read_list(list.key().as_str(), snapshot.get(list).await?));
            tokio::time::sleep(world.draw_delay(world.knobs().latency)).await;
        }
        recorder.push(handle, reads);
        recorder.at_point(handle, snapshot.point().number());
        recorder.committed(handle);
        Ok(())
    }

    /// After the last fault everybody gets a transaction through.
    async fn last(&self) {
        let Test { recorder, world, setting, .. } = &*self.test;
        let handle = recorder.invoke(self.process);
        let steps = [Step::Append(self.number % setting.lists, world.next_id())];
        self.transaction(handle, &steps, Some(LAST)).await;
        if !recorder.has_committed(handle) {
            world.violation(format!("stuck: client {} cannot commit though all faults are over", self.number));
        }
    }
}
