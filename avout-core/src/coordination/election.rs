use std::time::Duration;

use super::claim::{Hold, Patience};
use super::grant_queue::{GrantQueue, Request};
use super::guard::guard;
use super::lock::timed_out;
use super::rules::Holders;
use super::session_manager::SessionManager;
use crate::backend::Watcher;
use crate::engine::{Position, lost_commits};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Stm;
use crate::protocol::Key;

/// The choice of one leader among all processes; made by [`Stm::election`](crate::Stm::election).
///
/// Candidates wait in the order in which they came. Each term has a number, its leader's [token](Leadership::token),
/// which only grows. An election is a [`Lock`](crate::Lock) whose holder has a public name, and what its page says of
/// sessions and of [`Tx::require`](crate::Tx::require) holds here too. A leader that was paused may believe itself in
/// office when it is not, so bind its writes to its term.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let election = stm.election("/scheduler")?;
/// let term = election.campaign("node 1").await?;
/// let leader = election.leader().await?.expect("it has just been elected");
/// assert_eq!((&*leader.name, leader.term), ("node 1", term.token()));
/// term.resign().await?;
/// assert_eq!(election.leader().await?, None);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Election(GrantQueue);

/// A term of office. It ends when this is dropped, in the background, or surely by [`resign`](Self::resign).
#[must_use = "the term ends when this is dropped"]
pub struct Leadership(Hold);

guard!(Leadership);

/// The leader at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The name that it campaigned with.
    pub name: String,
    /// The number of its term.
    pub term: u64,
}

/// The leaders, one after the other; made by [`Election::observe`]. A leader with a short term may be skipped.
#[must_use = "it does nothing until it is asked for the next"]
pub struct Leaders {
    queue: GrantQueue,
    watcher: Option<Box<dyn Watcher>>,
    losses: Position,
    told: Option<Option<Leader>>,
}

/// The longest name of a candidate, in bytes.
const MAX_NAME: usize = 256;

impl Stm {
    /// The election with this name. It makes no request.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, or one of more than 480 bytes.
    pub fn election(&self, key: impl AsRef<str>) -> Result<Election> {
        let mut queue = GrantQueue::new(SessionManager::of(self), "elections", key, 1)?;
        queue.standby = true;
        Ok(Election(queue))
    }
}

impl Election {
    /// The election's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Waits until this candidate is elected, for as long as it takes. Others see its name, of at most 256 bytes.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped the candidate is withdrawn.
    pub async fn campaign(&self, name: impl Into<String>) -> Result<Leadership> {
        match self.ask(name.into(), Patience::Unlimited).await? {
            Some(term) => Ok(term),
            None => unreachable!("whoever waits without limit does not give up"),
        }
    }

    /// The same with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`campaign`](Self::campaign).
    ///
    /// # Cancel safety
    /// As [`campaign`](Self::campaign).
    pub async fn campaign_timeout(&self, name: impl Into<String>, timeout: Duration) -> Result<Leadership> {
        self.ask(name.into(), Patience::within(timeout)).await?.ok_or_else(|| timed_out(&self.0.key))
    }

    /// The leader, as far as the store knows: a leader that has died counts until its session is found to have ended.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn leader(&self) -> Result<Option<Leader>> {
        self.0.manager.engine.begin("leader")?;
        let queue = &self.0;
        queue.manager.transact_soon(async |tx| queue.holders().get(&tx).await).await.map(leader)
    }

    /// Follows the leaders, beginning with the present one.
    pub fn observe(&self) -> Leaders {
        Leaders { queue: self.0.clone(), watcher: None, losses: self.0.manager.engine.losses.now(), told: None }
    }

    async fn ask(&self, name: String, patience: Patience) -> Result<Option<Leadership>> {
        let queue = &self.0;
        if name.len() > MAX_NAME {
            let message = "a candidate's name has at most 256 bytes";
            return Err(Error::new(ErrorKind::InvalidInput, message).at(&queue.key).during("campaign"));
        }
        let request = Request { label: name, ..Request::of(1) };
        let hold = queue.acquire(request, patience).await.map_err(|error| error.during("campaign"))?;
        Ok(hold.map(Leadership))
    }
}

impl Leadership {
    /// Ends the term, and returns when another candidate can be elected.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the term had ended before.
    ///
    /// # Cancel safety
    /// It goes on in the background when the future is dropped.
    pub async fn resign(self) -> Result<()> {
        self.release().await
    }
}

impl Leaders {
    /// Waits until the leader is another than was told last, or there is none (`None`), and tells it. It waits through
    /// outages.
    ///
    /// # Errors
    /// Errors of the store that do not pass. [`StoreLost`](ErrorKind::StoreLost) with
    /// [`LostCommits`](crate::LostCommits) as its source tells once that the store has lost commits; ask again.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<Leader>> {
        let engine = &self.queue.manager.engine;
        let keys = [self.queue.holders().key().clone()];
        loop {
            let watcher = match &mut self.watcher {
                Some(watcher) => watcher,
                none => none.insert(engine.watch(&keys, None).await?),
            };
            let now = leader(self.queue.manager.transact(async |tx| self.queue.holders().get(&tx).await).await?);
            if let Some(lost) = engine.losses.next(&mut self.losses) {
                return Err(lost_commits(lost).at(&self.queue.key));
            }
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Ok(now);
            }
            watcher.changed().await?;
        }
    }
}

fn leader(holders: Option<Holders>) -> Option<Leader> {
    let held = holders?.held.into_iter().next()?;
    Some(Leader { name: held.label, term: held.token })
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Election").field(&self.0.key).finish()
    }
}

impl std::fmt::Debug for Leaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaders").field("key", &self.queue.key).field("told", &self.told).finish_non_exhaustive()
    }
}
