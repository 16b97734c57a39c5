//! The servers: how they are started, harmed and mended.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::case::{Case, Fault, Shape};
use crate::net::{self, Place};
use crate::raw::{ask, ask_until, field};
use crate::scout::{PROBE, SERVICE, Scout};

/// The namespace of all clients.
const NAMESPACE: &str = "shop";

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// All servers of a trial.
#[derive(Debug)]
pub(crate) struct Fleet {
    case: Case,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    folder: PathBuf,
    arguments: Vec<String>,
    redis: Option<Child>,
    sentinel: Option<Child>,
}

impl Member {
    fn new(number: usize, case: Case, folder: &Path) -> io::Result<Self> {
        let folder = folder.join(number.to_string());
        std::fs::create_dir_all(&folder)?;
        let place = Place::new(number)?;
        let mut arguments: Vec<String> = [
            "--bind",
            &place.ip,
            "--port",
            "6379",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ]
        .map(str::to_owned)
        .into();
        if case.shape == Shape::Cluster {
            let cluster =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-announce-ip", &place.ip];
            arguments.extend(cluster.map(str::to_owned));
        }
        arguments.extend(case.mode.arguments().iter().map(|argument| (*argument).to_owned()));
        Ok(Self { place, folder, arguments, redis: None, sentinel: None })
    }

    fn address(&self) -> String {
        format!("{}:6379", self.place.ip)
    }

    fn sentinel_address(&self) -> String {
        format!("{}:26379", self.place.ip)
    }

    fn spawn(&self, log: &str, program: &str, arguments: &[String]) -> io::Result<Child> {
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join(log))?;
        self.place
            .command(program)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    fn start(&mut self) -> io::Result<()> {
        if self.redis.is_none() {
            self.redis = Some(self.spawn("redis.log", "redis-server", &self.arguments)?);
        }
        Ok(())
    }

    fn start_sentinel(&mut self) -> io::Result<()> {
        if self.sentinel.is_none() {
            let arguments = ["sentinel.conf", "--sentinel"].map(str::to_owned);
            self.sentinel = Some(self.spawn("sentinel.log", "redis-server", &arguments)?);
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        for child in [&self.redis, &self.sentinel].into_iter().flatten() {
            kill_process(Pid::from_child(child), signal)?;
        }
        Ok(())
    }

    fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        for child in [self.redis.take(), self.sentinel.take()].into_iter().flatten() {
            let mut child = child;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Fleet {
    /// Starts them, and waits until all know each other.
    pub(crate) async fn start(case: Case, folder: &Path) -> Outcome<Self> {
        net::bridge()?;
        let count = match case.shape {
            Shape::Sentinel => 3,
            Shape::Cluster => 6,
        };
        let mut members = Vec::new();
        for number in 0..count {
            let mut member = Member::new(number, case, folder)?;
            member.start()?;
            members.push(member);
        }
        let mut fleet = Self { case, members };
        for member in &fleet.members {
            ask_until(&member.address(), &["PING"], |answer| answer == "PONG").await?;
        }
        match case.shape {
            Shape::Sentinel => fleet.form_sentinels().await?,
            Shape::Cluster => fleet.form_cluster().await?,
        }
        Ok(fleet)
    }

    async fn form_sentinels(&mut self) -> Outcome {
        let master = self.members[0].place.ip.clone();
        for member in &self.members[1..] {
            ask(&member.address(), &["REPLICAOF", &master, "6379"]).await?;
        }
        for member in &self.members[1..] {
            caught_up(&member.address()).await?;
        }
        for member in &mut self.members {
            let ip = &member.place.ip;
            let config = format!(
                "bind {ip}\nport 26379\nprotected-mode no\n\
                 sentinel monitor {SERVICE} {master} 6379 2\n\
                 sentinel down-after-milliseconds {SERVICE} 1000\n\
                 sentinel failover-timeout {SERVICE} 6000\n"
            );
            std::fs::write(member.folder.join("sentinel.conf"), config)?;
            member.start_sentinel()?;
        }
        for member in &self.members {
            let both = |answer: &str, name: &str| field(answer, name) == Some("2");
            let knows = |answer: &str| both(answer, "num-slaves") && both(answer, "num-other-sentinels");
            ask_until(&member.sentinel_address(), &["SENTINEL", "MASTER", SERVICE], knows).await?;
        }
        Ok(())
    }

    async fn form_cluster(&self) -> Outcome {
        let address = |index: usize| self.members[index].address();
        for index in 0..6 {
            ask(&address(index), &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
            if index < 3 {
                let (from, to) = (16384 * index / 3, 16384 * (index + 1) / 3 - 1);
                ask(&address(index), &["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await?;
            }
            ask(&address(0), &["CLUSTER", "MEET", &self.members[index].place.ip, "6379"]).await?;
        }
        for index in 0..6 {
            ask_until(&address(index), &["CLUSTER", "INFO"], |info| info.contains("cluster_known_nodes:6")).await?;
        }
        for index in 3..6 {
            let master = ask(&address(index - 3), &["CLUSTER", "MYID"]).await?;
            ask_until(&address(index), &["CLUSTER", "REPLICATE", &master], |answer| answer == "OK").await?;
        }
        for index in 3..6 {
            caught_up(&address(index)).await?;
        }
        for index in 0..6 {
            ask_until(&address(index), &["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok")).await?;
            let replicas = |nodes: &str| nodes.lines().filter(|line| line.contains("slave")).count() == 3;
            ask_until(&address(index), &["CLUSTER", "NODES"], replicas).await?;
        }
        Ok(())
    }

    /// For clients.
    pub(crate) fn url(&self, options: &str) -> String {
        let hosts = |port: u16| {
            self.members.iter().map(|member| format!("{}:{port}", member.place.ip)).collect::<Vec<_>>().join(",")
        };
        match self.case.shape {
            Shape::Sentinel => format!("redis+sentinel://{}/{SERVICE}/{NAMESPACE}{options}", hosts(26379)),
            Shape::Cluster => format!("redis+cluster://{}/{NAMESPACE}{options}", hosts(6379)),
        }
    }

    /// Asks who is the master, as those see it who decide, and whether a client could commit there now.
    pub(crate) fn scout(&self) -> Scout {
        let of = |address: fn(&Member) -> String| self.members.iter().map(address).collect();
        Scout::new(self.case, of(Member::address), of(Member::sentinel_address))
    }

    /// Begins the fault of the master.
    pub(crate) async fn harm(&mut self, master: usize) -> Outcome {
        match self.case.fault {
            Fault::Kill => self.members[master].kill()?,
            Fault::Stop(_) => self.members[master].signal(Signal::STOP)?,
            Fault::Cut => self.around(master, Place::cut)?,
            Fault::Failover => self.fail_over(master).await?,
            Fault::Migrate => self.migrate(master, (master + 1) % 3).await?,
        }
        Ok(())
    }

    /// Ends it.
    pub(crate) async fn mend(&mut self, master: usize) -> Outcome {
        match self.case.fault {
            Fault::Kill => {
                self.members[master].start()?;
                if self.case.shape == Shape::Sentinel {
                    self.members[master].start_sentinel()?;
                }
            }
            Fault::Stop(_) => self.members[master].signal(Signal::CONT)?,
            Fault::Cut => self.around(master, Place::heal)?,
            Fault::Failover | Fault::Migrate => {}
        }
        Ok(())
    }

    fn around(&self, one: usize, each: fn(&Place, &Place) -> io::Result<()>) -> io::Result<()> {
        let mut others = self.members.iter().enumerate().filter(|(other, _)| *other != one);
        others.try_for_each(|(_, other)| each(&self.members[one].place, &other.place))
    }

    async fn fail_over(&self, master: usize) -> Outcome {
        match self.case.shape {
            Shape::Sentinel => {
                let sentinel = self.members[(master + 1) % 3].sentinel_address();
                ask(&sentinel, &["SENTINEL", "FAILOVER", SERVICE]).await?;
            }
            Shape::Cluster => drop(ask(&self.members[master + 3].address(), &["CLUSTER", "FAILOVER"]).await?),
        }
        Ok(())
    }

    /// Moves the slot as `redis-cli --cluster reshard` does, with a pause between keys.
    async fn migrate(&self, from: usize, to: usize) -> Outcome {
        let address = |index: usize| self.members[index].address();
        let (from_id, to_id) =
            (ask(&address(from), &["CLUSTER", "MYID"]).await?, ask(&address(to), &["CLUSTER", "MYID"]).await?);
        let slot = ask(&address(from), &["CLUSTER", "KEYSLOT", PROBE]).await?;
        ask(&address(to), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
        ask(&address(from), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
        loop {
            let keys = ask(&address(from), &["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await?;
            let Some(key) = keys.lines().next().filter(|key| !key.is_empty()) else { break };
            ask(&address(from), &["MIGRATE", &self.members[to].place.ip, "6379", key, "0", "5000"]).await?;
            sleep(Duration::from_millis(200)).await;
        }
        for index in [to, from] {
            ask(&address(index), &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
        }
        Ok(())
    }
}

async fn caught_up(address: &str) -> Result<(), String> {
    ask_until(address, &["INFO", "replication"], |info| info.contains("master_link_status:up")).await
}
