use avout_core::backend::history::Era;
use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::confirmer::{Round, State};
use crate::options::Replicas;
use crate::wire::client::Client;

impl Client {
    fn waits_for_replicas(&self) -> bool {
        self.options.wait_replicas != Replicas::Number(0)
    }

    /// Waits until as many replicas as the options say have what was committed at this point.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if they do not in time. The write is there, but a failover may lose it, and its
    /// slot is not read until they have it.
    pub(crate) async fn confirm(&self, era: Era, point: u64) -> Result<()> {
        if !self.waits_for_replicas() {
            return Ok(());
        }
        self.confirmed(era, point, None).await.map_err(|source| {
            let message = "the write is done, but too few replicas have confirmed it: a failover may lose it";
            Error::new(ErrorKind::OutcomeUnknown, message).with_source(source)
        })
    }

    /// What a read has to wait for beside its reply: call it when the read begins.
    pub(crate) fn reading(&self) -> Option<Round> {
        self.options.confirmed_reads.then(|| self.confirmer.next())
    }

    /// Waits until what was read is confirmed: nothing that a failover may lose is told. `latest` is the point of the latest of it.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if too few replicas confirm it in time.
    pub(crate) async fn confirm_read(&self, era: Era, latest: u64, round: Option<Round>) -> Result<()> {
        if !self.waits_for_replicas() || (round.is_none() && self.confirmer.has(era, latest)) {
            return Ok(());
        }
        self.confirmed(era, latest, round).await
    }

    async fn confirmed(&self, era: Era, point: u64, round: Option<Round>) -> Result<()> {
        let confirmer = &self.confirmer;
        let next = confirmer.next().0;
        let round = round.map_or(0, |Round(round)| round);
        let mut state = confirmer.state.subscribe();
        let is_over = || self.history.seen(era).is_none();
        let decided = |state: &State| {
            let done = state.era == era && state.point >= point && state.good >= round;
            done || state.short >= next.max(round) || is_over()
        };
        let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message);
        let waited = tasks::request(async { timeout(self.options.timeout, state.wait_for(decided)).await });
        match waited.await {
            Ok(Ok(state)) if state.era == era && state.point >= point && state.good >= round => Ok(()),
            Ok(Ok(_)) if is_over() => {
                Err(unavailable("the server changed before replicas had confirmed it".to_owned()))
            }
            Ok(Ok(state)) => Err(unavailable(state.why.clone())),
            Ok(Err(_)) | Err(_) => {
                Err(unavailable("the server was out of reach before replicas had confirmed it".to_owned()))
            }
        }
    }
}
