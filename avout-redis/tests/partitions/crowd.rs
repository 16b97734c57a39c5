//! All clients of a trial.

use std::time::Duration;

use avout_core::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clients::{Client, Habit, Stop, Who};
use crate::record::Record;

/// Clients at work, until they are told to stop.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) stop: Stop,
    pub(crate) records: Vec<Record>,
    tasks: JoinSet<Who>,
}

impl Crowd {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let mut crowd = Self { records: Who::all().iter().map(|_| Record::default()).collect(), ..Self::default() };
        let mut opened = JoinSet::new();
        for who in Who::all() {
            let (url, record, stop) = (url.to_owned(), crowd.records[who.number].clone(), crowd.stop.clone());
            opened.spawn(async move { Client::open(&url, who, record, stop).await });
        }
        for client in opened.join_all().await {
            let client = client?;
            // The last one's log is made beforehand, and it comes later.
            if client.who.habit != Habit::Comes {
                crowd.begin(client);
            }
        }
        Ok(crowd)
    }

    pub(crate) fn begin(&mut self, client: Client) {
        let who = client.who;
        self.tasks.spawn_local(async move {
            client.run().await;
            who
        });
    }

    /// Whether each client has done something since then.
    pub(crate) fn goes_on(&self, since: Instant) -> bool {
        self.records.iter().all(|record| record.goes_on(since))
    }

    /// Ends all, and gives those that do not end, though their deadlines are over.
    pub(crate) async fn end(&mut self) -> Vec<Who> {
        self.stop.now();
        let mut left = Who::all();
        let wait = async {
            while let Some(ended) = self.tasks.join_next().await {
                let who = ended.expect("a client does not panic");
                left.retain(|other| *other != who);
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(45), wait).await;
        if self.tasks.is_empty() { Vec::new() } else { left }
    }
}
