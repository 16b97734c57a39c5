//! Which server is the master, as those see it who decide, and when clients can use it.

use avout_redis::redis::Value;
use tokio::task::JoinSet;

use crate::case::{Case, Shape};
use crate::raw::{ask, ask_all, field};

/// The name under which sentinels know the master.
pub(crate) const SERVICE: &str = "main";
/// A key in the namespace's slot, which avout does not know.
pub(crate) const PROBE: &str = "probe{shop}";

/// Looks for the master.
#[derive(Clone, Debug)]
pub(crate) struct Scout {
    case: Case,
    servers: Vec<String>,
    sentinels: Vec<String>,
}

impl Scout {
    pub(crate) fn new(case: Case, servers: Vec<String>, sentinels: Vec<String>) -> Self {
        Self { case, servers, sentinels }
    }

    /// The master, if a client could commit there now.
    pub(crate) async fn master(&self) -> Option<usize> {
        match self.case.shape {
            Shape::Sentinel => {
                let named = self.named().await?;
                self.takes_commits(named).await.map(|_| named)
            }
            Shape::Cluster => {
                let mut asked = JoinSet::new();
                for index in 0..self.servers.len() {
                    let scout = self.clone();
                    asked.spawn(async move { scout.takes_commits(index).await.map(|epoch| (epoch, index)) });
                }
                asked.join_all().await.into_iter().flatten().max().map(|(_, index)| index)
            }
        }
    }

    /// Whom the sentinels name that know of the latest failover.
    async fn named(&self) -> Option<usize> {
        let mut asked = JoinSet::new();
        for sentinel in self.sentinels.clone() {
            asked.spawn(async move {
                let known = ask(&sentinel, &["SENTINEL", "MASTER", SERVICE]).await.ok()?;
                // In a failover it names the new master before it knows it by that.
                let named = ask(&sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await.ok()?;
                Some((field(&known, "config-epoch")?.parse::<u64>().ok()?, named.lines().next()?.to_owned()))
            });
        }
        let (_, ip) = asked.join_all().await.into_iter().flatten().max()?;
        self.servers.iter().position(|server| server.starts_with(&format!("{ip}:")))
    }

    /// Whether a server takes a write, and enough replicas confirm it. Gives the number of its last promotion, in a cluster.
    async fn takes_commits(&self, index: usize) -> Option<u64> {
        let need = self.case.mode.replicas();
        let commands: [&[&str]; 3] = [
            &["SET", PROBE, "x"],
            &["WAIT", &need.to_string(), "300"],
            match self.case.shape {
                Shape::Sentinel => &["PING"],
                Shape::Cluster => &["CLUSTER", "INFO"],
            },
        ];
        let commands = if need == 0 { vec![commands[0], commands[2]] } else { commands.to_vec() };
        let answers = ask_all(&self.servers[index], &commands).await.ok()?;
        if need > 0 && !matches!(answers[1], Value::Int(confirmed) if confirmed >= i64::try_from(need).ok()?) {
            return None;
        }
        let info = match answers.last()? {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::VerbatimString { text, .. } => text.clone(),
            _ => return Some(0),
        };
        info.lines().find_map(|line| line.strip_prefix("cluster_my_epoch:")).and_then(|epoch| epoch.trim().parse().ok())
    }
}
