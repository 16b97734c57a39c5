//! A client process: random transactions and swaps, written down as they are called and as they end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout::backend::Backend;
use avout::{Atom, ErrorKind, Ref, Resolution, Stm};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::failpoints::{Failing, FailingStore, Failpoint, Hook, Wait};
use crate::record::{End, Invoke, Line, Outcome, Seen, now};

/// Names to a process what it is to do, as JSON.
pub(crate) const TASK: &str = "AVOUT_MATRIX_CLIENT";

/// How many tasks a process has.
const TASKS: u64 = 2;

/// How long a transaction may take. Faults are shorter.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a process works on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Unique among the processes of a history.
    pub(crate) number: u64,
    pub(crate) urls: Vec<(String, String)>,
    /// Which of them coordinates.
    pub(crate) coordinator: usize,
    /// How many refs lie in each store.
    pub(crate) lists: usize,
    pub(crate) record: std::path::PathBuf,
    pub(crate) seed: u64,
    /// With what probability it dies at which point.
    pub(crate) deaths: Vec<(Failpoint, f64)>,
}

/// What a process opens.
pub(crate) struct Opened {
    pub(crate) stm: Stm,
    pub(crate) lists: Vec<Ref<Vec<u64>>>,
    pub(crate) atoms: Vec<Atom<Vec<u64>>>,
    pub(crate) stores: Vec<Arc<dyn avout::Store>>,
}

/// `hook`: what happens at the points of its commits.
pub(crate) async fn open(task: &Task, hook: &Hook) -> avout::Result<Opened> {
    let mut backends = Vec::new();
    for (_, url) in &task.urls {
        let Backend { coordinator, store } = avout::open(url).await?;
        let (coordinator, store) = (Failing::new(coordinator, hook), FailingStore::new(store, hook));
        backends.push(Backend { coordinator: Arc::new(coordinator), store: Arc::new(store) });
    }
    let home = &backends[task.coordinator];
    let stm = Stm::builder(Arc::clone(&home.coordinator), Arc::clone(&home.store))
        .deadline(Some(DEADLINE))
        .sweep_every(None)
        .build();
    let (mut lists, mut atoms, mut stores) = (Vec::new(), Vec::new(), Vec::new());
    for ((name, _), backend) in task.urls.iter().zip(&backends) {
        stm.attach(&backend.store);
        for number in 0..task.lists {
            let key = format!("/lists/{name}/{number}");
            lists.push(stm.create_or_open_ref(key, Vec::new()).in_store(&backend.store).await?);
        }
        atoms.push(stm.create_or_open_atom(format!("/atoms/{name}"), Vec::new()).in_store(&backend.store).await?);
        stores.push(Arc::clone(&backend.store));
    }
    Ok(Opened { stm, lists, atoms, stores })
}

/// What the process that started this one has asked for.
#[derive(Default)]
struct Orders {
    armed: Mutex<Option<(Failpoint, String)>>,
    go_on: Notify,
    ended: std::sync::atomic::AtomicBool,
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone needs to hear nothing.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Orders {
    /// Takes orders until its input ends.
    fn listen(&self) {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("arm"), Some(point), Some(action)) => {
                    let point = point.parse().expect("a failpoint");
                    *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((point, action.to_owned()));
                }
                (Some("go"), ..) => self.go_on.notify_one(),
                (Some("end"), ..) => break,
                _ => panic!("what is {line}?"),
            }
        }
        self.ended.store(true, std::sync::atomic::Ordering::Release);
        self.go_on.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.ended.load(std::sync::atomic::Ordering::Acquire)
    }

    /// What is to be done at a point: what was ordered, once, or to die of one of the deaths.
    fn at(self: &Arc<Self>, point: Failpoint, deaths: &[(Failpoint, f64)]) -> Option<Wait> {
        if deaths.iter().any(|(at, probability)| *at == point && rand::random_bool(*probability)) {
            // Not before it is waited for: a request may be on its way by then.
            return Some(Box::pin(async {
                kill_process(getpid(), Signal::KILL).expect("a signal to itself");
            }));
        }
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, action) = armed.take_if(|(at, _)| *at == point)?;
        let orders = Arc::clone(self);
        Some(Box::pin(async move {
            say(&format!("at {point}"));
            let signal = |signal| kill_process(getpid(), signal).expect("a signal to itself");
            match action.as_str() {
                "kill" => signal(Signal::KILL),
                "stop" => signal(Signal::STOP),
                "sleep" => tokio::time::sleep(Duration::from_millis(300)).await,
                "tell" => orders.go_on.notified().await,
                other => panic!("what is {other}?"),
            }
        }))
    }
}

/// If this program is a client, is that until it is told to end. `false`: it is not.
pub(crate) fn run() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let task: Task = serde_json::from_str(&task).expect("a task as JSON");
    let orders = Arc::new(Orders::default());
    std::thread::spawn({
        let orders = Arc::clone(&orders);
        move || orders.listen()
    });
    let (hooked, deaths) = (Arc::clone(&orders), task.deaths.clone());
    let hook: Hook = Arc::new(move |point| hooked.at(point, &deaths));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let file = File::create(&task.record).expect("a file for what is seen");
        let opened = loop {
            match open(&task, &hook).await {
                Ok(opened) => break opened,
                // A server may be away at the very beginning.
                Err(error) => assert!(is_allowed(&error) && !orders.has_ended(), "{error:?}"),
            }
        };
        let client = Arc::new(Client { opened, file: Mutex::new(file) });
        say("ready");
        let tasks: Vec<_> = (0..TASKS)
            .map(|at| {
                let (client, orders, process) = (Arc::clone(&client), Arc::clone(&orders), task.number * TASKS + at);
                let rng = StdRng::seed_from_u64(task.seed ^ process);
                tokio::spawn(async move { client.work(process, rng, &orders).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("a client that meets only with the faults it was told of");
        }
        client.opened.stm.close().await;
    });
    true
}

/// Errors that the faults may cause.
fn is_allowed(error: &avout::Error) -> bool {
    use ErrorKind::{Contended, Full, OutcomeUnknown, Timeout, Unavailable};
    matches!(error.kind(), Contended | Full | OutcomeUnknown | Timeout | Unavailable)
}

struct Client {
    opened: Opened,
    file: Mutex<File>,
}

impl Client {
    /// In one write: a process that is killed leaves whole lines, but for the last.
    fn write(&self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("lines as JSON");
        text.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).expect("room for what is seen");
    }

    async fn work(&self, process: u64, mut rng: StdRng, orders: &Orders) {
        let mut element = process << 32;
        while !orders.has_ended() {
            element += 16;
            if rng.random_bool(0.2) {
                self.swap(process, &mut rng, element).await;
            } else {
                self.transact(process, &mut rng, element).await;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..8))).await;
        }
    }

    async fn transact(&self, process: u64, rng: &mut StdRng, first: u64) {
        let Opened { stm, lists, .. } = &self.opened;
        let mut steps: VecDeque<(usize, Option<u64>)> = VecDeque::new();
        for step in 0..rng.random_range(1..=4) {
            let list = rng.random_range(0..lists.len());
            steps.push_back((list, rng.random_bool(0.6).then_some(first + step)));
        }
        let appends = steps.iter().filter_map(|(list, element)| Some((lists[*list].key().to_string(), (*element)?)));
        self.write(&Line::Invoke(Invoke { id: first, process, at: now(), appends: appends.collect() }));
        let attempts: Mutex<Vec<(u64, Vec<Seen>)>> = Mutex::default();
        let attempts = &attempts;
        let steps = &steps;
        let see = |seen| {
            let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let (ended, last) = attempts.last_mut().expect("an attempt has begun");
            *ended = now();
            last.push(seen);
        };
        let see = &see;
        let done = stm
            .dosync(async |tx| {
                attempts.lock().unwrap_or_else(PoisonError::into_inner).push((now(), Vec::new()));
                for (list, element) in steps {
                    let list = &lists[*list];
                    let mut found = tx.get(list).await?;
                    see(Seen::Read(list.key().to_string(), found.clone()));
                    if let Some(element) = element {
                        found.push(*element);
                        tx.set(list, found).await?;
                        see(Seen::Append(list.key().to_string(), *element));
                    }
                }
                Ok(())
            })
            .await;
        let outcome = self.outcome(done).await;
        let attempts = std::mem::take(&mut *attempts.lock().unwrap_or_else(PoisonError::into_inner));
        self.write(&Line::End(End { id: first, at: now(), outcome, attempts }));
    }

    async fn swap(&self, process: u64, rng: &mut StdRng, element: u64) {
        let atom = &self.opened.atoms[rng.random_range(0..self.opened.atoms.len())];
        let key = || format!("atom:{}", atom.key());
        self.write(&Line::Invoke(Invoke { id: element, process, at: now(), appends: vec![(key(), element)] }));
        let swapped = atom.swap(|mut list| {
            list.push(element);
            list
        });
        let (seen, done) = match swapped.await {
            Ok(mut list) => {
                assert_eq!(list.pop(), Some(element), "a swap that does not end with its own");
                (vec![(now(), vec![Seen::Read(key(), list), Seen::Append(key(), element)])], Ok(()))
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let outcome = self.outcome(done).await;
        self.write(&Line::End(End { id: element, at: now(), outcome, attempts: seen }));
    }

    /// What became of it; what is unknown is found out if there is a receipt.
    async fn outcome(&self, done: avout::Result<()>) -> Outcome {
        let Err(error) = done else {
            say("ok");
            return Outcome::Committed;
        };
        assert!(is_allowed(&error), "{error:?}");
        if error.kind() != ErrorKind::OutcomeUnknown {
            return Outcome::Aborted;
        }
        let Some(receipt) = error.receipt() else { return Outcome::Unknown };
        loop {
            match self.opened.stm.resolve(receipt).await {
                Ok(Resolution::Committed(_)) => return Outcome::Committed,
                Ok(Resolution::NotCommitted) => return Outcome::Aborted,
                Err(error) if error.kind() == ErrorKind::Unsupported => return Outcome::Unknown,
                Err(error) => assert!(is_allowed(&error), "{error:?}"),
            }
        }
    }
}
