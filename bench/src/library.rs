//! The workloads with avout.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use avout::{Atom, ErrorKind, Lock, Ref, Stats, Stm};
use tokio::runtime::Runtime;

use crate::env::Env;
use crate::measure::{Effort, Failure, Meter, Pace, Round, Run, tasks};
use crate::spec::{Spec, Store, Workload};
use crate::values::{Page, Sample, Small};

/// How long a transaction over fifty refs may try to commit.
const LONG_DEADLINE: Duration = Duration::from_secs(5);

/// A client of a new namespace, and the runtime that its tasks run on.
#[derive(Clone)]
struct Client {
    env: Rc<Env>,
    spec: Spec,
    stm: Stm,
}

impl Client {
    fn open(env: &Rc<Env>, spec: Spec) -> Result<Self, Failure> {
        let stm = env.many.block_on(avout::connect(new_url(env, spec.store)?))?;
        Ok(Self { env: Rc::clone(env), spec, stm })
    }

    fn runtime(&self) -> &Runtime {
        match (self.spec.store, self.spec.tasks) {
            (Store::Local, 1) => &self.env.single,
            _ => &self.env.many,
        }
    }

    fn refs<V: Sample>(&self, count: usize) -> Result<Vec<Ref<V>>, Failure> {
        self.runtime().block_on(refs(&self.stm, "", count, self.spec.size))
    }

    fn measure(&self, round: impl Future<Output = Result<Round, Failure>>) -> Result<Round, Failure> {
        let before = self.stm.stats();
        let mut round = self.runtime().block_on(round)?;
        round.effort = effort(&before, &self.stm.stats());
        Ok(round)
    }
}

/// The URL of a namespace that nobody uses.
pub(crate) fn new_url(env: &Env, store: Store) -> Result<String, Failure> {
    Ok(match store {
        Store::Local => "mem:".to_owned(),
        Store::Sql => url(&env.new_file()),
        Store::Zk => env.zookeeper()?.ok_or("no ZooKeeper")?.url(&env.new_name()),
        Store::Redis => env.redis()?.ok_or("no Redis")?.url(&env.new_name()),
        Store::Mongo => env.mongo()?.ok_or("no MongoDB")?.url(&env.new_name()),
    })
}

/// A path as a URL that connects to it.
pub(crate) fn url(path: &std::path::Path) -> String {
    let path = path.display().to_string();
    format!("sqlite:{}", path.replace('%', "%25").replace('?', "%3F"))
}

/// `None` if there was no transaction.
pub(crate) fn effort(before: &Stats, after: &Stats) -> Option<Effort> {
    let committed = (after.committed - before.committed) as f64;
    let requests = (after.reads + after.commits) - (before.reads + before.commits);
    let attempts = after.attempts - before.attempts;
    (attempts > 0).then(|| Effort {
        attempts: attempts as f64 / committed,
        worst: None,
        requests: Some(requests as f64 / committed),
    })
}

/// Refs under a folder.
pub(crate) async fn refs<V: Sample>(
    stm: &Stm,
    folder: &str,
    count: usize,
    size: usize,
) -> Result<Vec<Ref<V>>, Failure> {
    let mut refs = Vec::with_capacity(count);
    for index in 0..count {
        refs.push(stm.create_or_open_ref(format!("{folder}/{index}"), V::of(size)).await?);
    }
    Ok(refs)
}

/// What runs a spec.
pub(crate) fn run(env: &Rc<Env>, spec: Spec) -> Result<Run, Failure> {
    let client = Client::open(env, spec)?;
    match (spec.workload, spec.size) {
        (Workload::Hello, 16) => hello::<Small>(client),
        (Workload::Hello, _) => hello::<Page>(client),
        (Workload::HelloByAlter, _) => hello_by_alter(client),
        (Workload::OneRef, 16) => one_ref::<Small>(client),
        (Workload::OneRef, _) => one_ref::<Page>(client),
        (Workload::Disjoint, _) => disjoint(client),
        (Workload::Contended, _) => contended(client),
        (Workload::ReadOnly, _) => read_only(client),
        (Workload::ReadMostly, _) => read_mostly(client, true),
        (Workload::ReadMostlyQuiet, _) => read_mostly(client, false),
        (Workload::Swap, _) => swap(client),
        (Workload::Commute, _) => commute(client),
        (Workload::Long, _) => long(client),
        (Workload::Lock, _) => lock(client),
        (Workload::Processes | Workload::LockProcesses | Workload::Mixed, _) => {
            Err("it has a module of its own".into())
        }
    }
}

/// Changes two refs in a transaction that reads both in one request.
pub(crate) async fn change_two<V: Sample>(stm: Stm, a: Ref<V>, b: Ref<V>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        stm.dosync(async |tx| {
            let (old_a, old_b) = tx.get_many((&a, &b)).await?;
            tx.set(&a, old_a.bump()).await?;
            tx.set(&b, old_b.bump()).await
        })
        .await?;
    }
    Ok(meter)
}

/// The same, one ref after the other, as the first example of the library does.
async fn alter_two<V: Sample>(stm: Stm, a: Ref<V>, b: Ref<V>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        stm.dosync(async |tx| {
            tx.alter(&a, V::bump).await?;
            tx.alter(&b, V::bump).await
        })
        .await?;
    }
    Ok(meter)
}

async fn alter_one<V: Sample>(stm: Stm, a: Ref<V>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        stm.dosync(async |tx| tx.alter(&a, V::bump).await).await?;
    }
    Ok(meter)
}

async fn read_all<V: Sample>(stm: Stm, refs: Vec<Ref<V>>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        let values = stm.dosync(async |tx| tx.get_many(&refs).await).await?;
        std::hint::black_box(values);
    }
    Ok(meter)
}

async fn swap_one<V: Sample>(atom: Atom<V>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        atom.swap(V::bump).await?;
    }
    Ok(meter)
}

async fn commute_one<V: Sample>(stm: Stm, a: Ref<V>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        stm.dosync(async |tx| tx.commute(&a, V::bump).await).await?;
    }
    Ok(meter)
}

async fn acquire(lock: Lock, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        lock.acquire().await?.release().await?;
    }
    Ok(meter)
}

fn lock(client: Client) -> Result<Run, Failure> {
    let lock = client.stm.lock("/lock")?;
    Ok(Box::new(move |pace| client.measure(tasks(client.spec.tasks, pace, |_, meter| acquire(lock.clone(), meter)))))
}

fn hello<V: Sample>(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<V>(2)?;
    Ok(Box::new(move |pace| {
        let run = |_, meter| change_two(client.stm.clone(), refs[0].clone(), refs[1].clone(), meter);
        client.measure(tasks(1, pace, run))
    }))
}

fn hello_by_alter(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(2)?;
    Ok(Box::new(move |pace| {
        let run = |_, meter| alter_two(client.stm.clone(), refs[0].clone(), refs[1].clone(), meter);
        client.measure(tasks(1, pace, run))
    }))
}

fn one_ref<V: Sample>(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<V>(1)?;
    Ok(Box::new(move |pace| {
        client.measure(tasks(1, pace, |_, meter| alter_one(client.stm.clone(), refs[0].clone(), meter)))
    }))
}

fn disjoint(client: Client) -> Result<Run, Failure> {
    let count = client.spec.tasks;
    let refs = client.refs::<Small>(count * 2)?;
    Ok(Box::new(move |pace| {
        let run = |task: usize, meter| {
            change_two(client.stm.clone(), refs[task * 2].clone(), refs[task * 2 + 1].clone(), meter)
        };
        client.measure(tasks(count, pace, run))
    }))
}

fn contended(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(2)?;
    Ok(Box::new(move |pace| {
        let run = |_, meter| change_two(client.stm.clone(), refs[0].clone(), refs[1].clone(), meter);
        client.measure(tasks(client.spec.tasks, pace, run))
    }))
}

fn read_only(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(10)?;
    Ok(Box::new(move |pace| {
        client.measure(tasks(1, pace, |_, meter| read_all(client.stm.clone(), refs.clone(), meter)))
    }))
}

fn read_mostly(client: Client, busy: bool) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(10)?;
    Ok(Box::new(move |pace| {
        let readers = tasks(15, pace, |_, meter| read_all(client.stm.clone(), refs.clone(), meter));
        let writers = tasks(usize::from(busy), pace, |_, meter| {
            change_two(client.stm.clone(), refs[0].clone(), refs[1].clone(), meter)
        });
        client.measure(async {
            let (readers, writers) = tokio::join!(readers, writers);
            Ok(Round { beside: busy.then_some(writers?.per_second()), ..readers? })
        })
    }))
}

fn swap(client: Client) -> Result<Run, Failure> {
    let atom = client.runtime().block_on(client.stm.create_atom("/atom", Small::of(16)).into_future())?;
    Ok(Box::new(move |pace| client.measure(tasks(client.spec.tasks, pace, |_, meter| swap_one(atom.clone(), meter)))))
}

fn commute(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(1)?;
    Ok(Box::new(move |pace| {
        let run = |_, meter| commute_one(client.stm.clone(), refs[0].clone(), meter);
        client.measure(tasks(client.spec.tasks, pace, run))
    }))
}

fn long(client: Client) -> Result<Run, Failure> {
    let refs = client.refs::<Small>(50)?;
    Ok(Box::new(move |pace| {
        client.runtime().block_on(async {
            let stop = Arc::new(AtomicBool::new(false));
            let mut busy = tokio::task::JoinSet::new();
            for task in 0..8 {
                busy.spawn(alter_until(client.stm.clone(), refs.clone(), task, Arc::clone(&stop)));
            }
            let tried = Arc::new(Tried::default());
            let begun = Instant::now();
            let round =
                tasks(1, pace, |_, meter| alter_all(client.stm.clone(), refs.clone(), Arc::clone(&tried), meter)).await;
            stop.store(true, Ordering::Relaxed);
            let mut round = round?;
            let mut commits = 0;
            while let Some(done) = busy.join_next().await {
                commits += done??;
            }
            round.beside = Some(commits as f64 / begun.elapsed().as_secs_f64());
            round.effort = Some(tried.effort());
            Ok(round)
        })
    }))
}

/// The attempts that long transactions made.
#[derive(Default)]
struct Tried {
    attempts: AtomicU64,
    worst: AtomicU64,
    commits: AtomicU64,
}

impl Tried {
    fn note(&self, attempts: u64) {
        self.attempts.fetch_add(attempts, Ordering::Relaxed);
        self.worst.fetch_max(attempts, Ordering::Relaxed);
    }

    fn effort(&self) -> Effort {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Effort {
            attempts: load(&self.attempts) as f64 / load(&self.commits) as f64,
            worst: u32::try_from(load(&self.worst)).ok(),
            requests: None,
        }
    }
}

/// Changes all refs in one transaction. One that does not commit in time counts with the attempts that it made.
async fn alter_all(stm: Stm, refs: Vec<Ref<Small>>, tried: Arc<Tried>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        let done = stm.transaction().deadline(LONG_DEADLINE).dosync(async |tx| {
            for r in &refs {
                tx.alter(r, Small::bump).await?;
            }
            Ok::<_, avout::Error>(u64::from(tx.attempt()))
        });
        match done.await {
            Ok(attempts) => {
                tried.note(attempts);
                tried.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Timeout => tried.note(error.attempts().unwrap_or(0).into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(meter)
}

/// Changes two refs at a time, going through all of them, until it is told to stop.
async fn alter_until(stm: Stm, refs: Vec<Ref<Small>>, task: usize, stop: Arc<AtomicBool>) -> Result<u64, Failure> {
    let mut commits = 0;
    let mut at = task * 7;
    while !stop.load(Ordering::Relaxed) {
        at += 11;
        let (a, b) = (&refs[at % refs.len()], &refs[(at + 17) % refs.len()]);
        stm.dosync(async |tx| {
            tx.alter(a, Small::bump).await?;
            tx.alter(b, Small::bump).await
        })
        .await?;
        commits += 1;
        tokio::task::yield_now().await;
    }
    Ok(commits)
}

/// For a child process: eight tasks that change their own refs, and the client's statistics.
pub(crate) async fn disjoint_in(stm: &Stm, refs: &[Ref<Small>], pace: Pace) -> Result<Round, Failure> {
    let before = stm.stats();
    let run = |task: usize, meter| change_two(stm.clone(), refs[task * 2].clone(), refs[task * 2 + 1].clone(), meter);
    let mut round = tasks(refs.len() / 2, pace, run).await?;
    round.effort = effort(&before, &stm.stats());
    Ok(round)
}

/// For a child process: one task that acquires and releases a lock, and the client's statistics.
pub(crate) async fn lock_in(stm: &Stm, lock: &Lock, pace: Pace) -> Result<Round, Failure> {
    let before = stm.stats();
    let mut round = tasks(1, pace, |_, meter| acquire(lock.clone(), meter)).await?;
    round.effort = effort(&before, &stm.stats());
    Ok(round)
}
