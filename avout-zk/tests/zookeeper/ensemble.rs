//! Three servers, of which one dies, sleeps or is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use avout_conformance::servers::{Action, Direction, ZooKeeper};
use avout_core::backend::Coordinator as _;
use avout_core::{Error, Key, Ref, Result, Stm};
use tokio::task::JoinHandle;

use crate::support::{Outcome, PATIENCE, client, eventually, is_commit, tests, two_refs, within};

tests![
    leaders_are_killed_under_load,
    a_follower_sleeps_and_is_cut_off,
    a_leader_is_cut_off,
    all_are_restarted,
    the_suite_of_reads_is_current_on_every_server,
    one_host_of_an_ensemble_reads_by_a_majority,
];

/// Clients that add to two refs at once, and count what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicI64>,
    workers: Vec<JoinHandle<Result<()>>>,
    auditor: JoinHandle<Result<()>>,
    stm: Stm,
    refs: (Ref<i64>, Ref<i64>),
}

impl Load {
    async fn start(url: &str) -> Result<Self> {
        let stm = client(url).await?;
        let refs = two_refs(&stm).await?;
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let mut workers = Vec::new();
        for _ in 0..4 {
            let stm = client(url).await?;
            let (a, b) = two_refs(&stm).await?;
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            workers.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    add(&stm, &a, &b).await?;
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            }));
        }
        let auditor = tokio::spawn(audit(client(url).await?, Arc::clone(&stop), Arc::clone(&acknowledged)));
        Ok(Self { stop, acknowledged, workers, auditor, stm, refs })
    }

    fn count(&self) -> i64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many more are done.
    async fn goes_on(&self, more: i64) {
        let goal = self.count() + more;
        eventually("transactions go on", || async {
            self.count() >= goal || self.workers.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    /// Ends it: all that was acknowledged is there, and nothing else.
    async fn end(self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            within("a worker's end", worker).await??;
        }
        within("the auditor's end", self.auditor).await??;
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let (a, b) = (&self.refs.0, &self.refs.1);
        let found = self.stm.transaction().deadline(PATIENCE).dosync(async |tx| tx.get_many((a, b)).await).await?;
        assert_eq!(found, (acknowledged, acknowledged));
        Ok(())
    }
}

async fn add(stm: &Stm, a: &Ref<i64>, b: &Ref<i64>) -> Result<()> {
    stm.transaction()
        .deadline(PATIENCE)
        .dosync(async |tx| {
            let (x, y) = tx.get_many((a, b)).await?;
            assert_eq!(x, y, "half of a transaction");
            tx.set(a, x + 1).await?;
            tx.set(b, y + 1).await
        })
        .await
}

/// Reads all the time: never half of a transaction, never less than was acknowledged before or read before.
async fn audit(stm: Stm, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicI64>) -> Result<()> {
    let (a, b) = two_refs(&stm).await?;
    let mut last = 0;
    while !stop.load(Ordering::SeqCst) {
        let least = acknowledged.load(Ordering::SeqCst).max(last);
        let read = stm.transaction().deadline(PATIENCE).dosync(async |tx| tx.get_many((&a, &b)).await);
        let (x, y) = read.await?;
        assert_eq!(x, y, "half of a transaction");
        assert!(x >= least, "{x} was read after {least} was acknowledged");
        last = x;
        tokio::task::yield_now().await;
    }
    Ok::<_, Error>(())
}

const SHORT: &str = "?session_timeout=2s";

/// The leader is killed three times while transactions run: nothing acknowledged is lost, nothing is done twice, nobody is stuck.
async fn leaders_are_killed_under_load() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let load = Load::start(&format!("{}{SHORT}", zk.url("leaders"))).await?;
    for _ in 0..3 {
        load.goes_on(50).await;
        let leader = zk.leader().await?;
        zk.node(leader).kill().await?;
        load.goes_on(50).await;
        zk.node(leader).start().await?;
    }
    load.end().await
}

/// A follower is stopped for longer than sessions live and goes on; another is cut off from all and comes back.
async fn a_follower_sleeps_and_is_cut_off() -> Outcome {
    let zk = ZooKeeper::builder().nodes(3).behind_proxies().start().await?;
    let load = Load::start(&format!("{}{SHORT}", zk.url("follower"))).await?;
    load.goes_on(50).await;
    let follower = (zk.leader().await? + 1) % 3;
    zk.node(follower).pause().await?;
    load.goes_on(200).await;
    zk.node(follower).resume().await?;
    load.goes_on(50).await;
    let follower = (zk.leader().await? + 2) % 3;
    zk.isolate(follower).await?;
    load.goes_on(200).await;
    zk.rejoin(follower).await?;
    load.goes_on(50).await;
    load.end().await
}

/// The leader is cut off from the others and from clients: another one takes over, and nothing that was acknowledged is lost.
async fn a_leader_is_cut_off() -> Outcome {
    let zk = ZooKeeper::builder().nodes(3).behind_proxies().start().await?;
    let load = Load::start(&format!("{}{SHORT}", zk.url("cut_leader"))).await?;
    load.goes_on(50).await;
    let leader = zk.leader().await?;
    zk.isolate(leader).await?;
    load.goes_on(100).await;
    zk.rejoin(leader).await?;
    load.goes_on(50).await;
    load.end().await
}

/// All servers are killed at once and started again.
async fn all_are_restarted() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let load = Load::start(&format!("{}{SHORT}", zk.url("all"))).await?;
    for _ in 0..2 {
        load.goes_on(50).await;
        zk.kill_all().await?;
        zk.start_all().await?;
        load.goes_on(50).await;
    }
    load.end().await
}

/// A client of any server reads what a client of any other has just been told is committed: by `sync`, and by a quorum where
/// `sync` does nothing, which is on the leader.
async fn the_suite_of_reads_is_current_on_every_server() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let leader = zk.leader().await?;
    let mut clients = Vec::new();
    for (n, node) in zk.nodes().iter().enumerate() {
        let reads = if n == leader { "quorum" } else { "sync" };
        let stm = client(&format!("zk://{}/current?reads={reads}", node.address())).await?;
        let refs = two_refs(&stm).await?;
        clients.push((stm, refs));
    }
    for round in 0..200 {
        let (writer, (a, b)) = &clients[round % 3];
        add(writer, a, b).await?;
        for (stm, (a, b)) in &clients {
            let found = stm.dosync(async |tx| tx.get_many((a, b)).await).await?;
            assert_eq!(found, (round as i64 + 1, round as i64 + 1));
        }
    }
    Ok(())
}

/// A URL that names one host asks a majority when it reads, if that host's server belongs to an ensemble; a server that stands alone has
/// nobody to ask.
async fn one_host_of_an_ensemble_reads_by_a_majority() -> Outcome {
    for (nodes, majority) in [(3, true), (1, false)] {
        let zk = ZooKeeper::builder().nodes(nodes).start().await?;
        let proxy = zk.proxy(0).await?;
        let backend = avout_zk::connect(&format!("zk://{}/one_host?connections=1", proxy.address())).await?;
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        proxy.hook(move |direction, message| {
            if direction == Direction::Request && is_commit(message) {
                seen.store(true, Ordering::SeqCst);
            }
            Action::Pass
        });
        backend.coordinator.read(&[Key::new("/a")?], None).await?;
        assert_eq!(asked.load(Ordering::SeqCst), majority, "{nodes} nodes");
    }
    Ok(())
}
