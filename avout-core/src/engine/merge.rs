//! Commits that are made together: see [`Merger`](super::merger::Merger).

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::{Action, Attempt, Write};
use super::cell::Function;
use super::client::Engine;
use super::contention::Turn;
use super::job::{Ended, Interest, Job};
use super::merged::{Merged, Operation, Step};
use super::merger::{Entered, Lead, Told, Waiting, lost_reply};
use super::options::Isolation;
use super::plan::CommitPlan;
use super::time::latest;
use crate::error::{ErrorKind, Result};
use crate::protocol::Shared;

impl Engine {
    /// Makes a commit, together with others where that can be.
    ///
    /// In a box of the size that each case needs: allocators are slower with more than a kilobyte.
    pub(super) fn commit_together<'a>(
        self: &'a Arc<Self>,
        mut job: Job<'a>,
        turn: &'a mut Turn,
    ) -> Pin<Box<dyn Future<Output = Result<Ended>> + Send + 'a>> {
        // In memory a commit is shorter than what it takes to merge it with others. And an error of one that has read something is
        // to be held against that.
        let alone = self.capabilities.in_process || job.attempt.known().next().is_some();
        let entered = if alone { Entered::Alone } else { self.merger.enter(&job.plan, job.deadline) };
        match entered {
            Entered::Alone => Box::pin(async move { self.drive(&mut job, turn).await }),
            Entered::Lead(lead) => Box::pin(async move {
                let ended = self.drive(&mut job, turn).await;
                self.go_on_for(lead);
                ended
            }),
            Entered::Wait(place) => Box::pin(async move {
                match place.told().await {
                    Told::Committed(point) => Ok(Ended::Committed(Some(point))),
                    Told::Failed(error) => Err(error),
                    Told::Alone => self.drive(&mut job, turn).await,
                }
            }),
        }
    }

    /// The lead's own commit is over: those who wait are committed in a task of its own, since it is many
    /// transactions' business and must not end with one of them.
    fn go_on_for(self: &Arc<Self>, lead: Lead) {
        let waiting = lead.take();
        if !waiting.is_empty() {
            let engine = Arc::clone(self);
            self.config.tasks.spawn_near(async move {
                let mut waiting = waiting;
                while !waiting.is_empty() {
                    engine.commit_merged(waiting).await;
                    waiting = lead.take();
                }
            });
        }
    }

    /// Commits transactions that have waited as one, and tells each how it ended.
    async fn commit_merged(self: &Arc<Self>, waiting: Vec<Waiting>) {
        let first = &waiting[0].cell;
        // Each waits until its own deadline, and after the last one nobody does.
        let deadline = latest(waiting.iter().map(|waiting| waiting.deadline));
        let key = first.key.clone();
        let cell = Arc::new(first.without_validator());
        let (operations, told): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .map(|waiting| {
                let Waiting { cell, functions, stage, told, .. } = waiting;
                (Operation { cell, functions, stage }, told)
            })
            .unzip();
        let merged = Merged::new(operations);
        let function: Function = Arc::new({
            let merged = Arc::clone(&merged);
            move |current: &Shared| merged.apply(current)
        });

        let action = Action::Commute { functions: vec![function], provisional: Arc::new(()) };
        let plan = CommitPlan::blind(Write { cell, action });
        let floor = self.floor.get();
        let mut attempt = Attempt { history: self.losses.count(), ..Attempt::new(None, floor.clone()) };
        let interest = Interest { wanted: None, merged: Some(Arc::clone(&merged)) };
        let capabilities = &self.capabilities;
        let mut job = Job::new(&mut attempt, plan, Isolation::Serializable, capabilities, floor, deadline, &interest);
        let ended = self.drive(&mut job, &mut Turn::new(Instant::now(), deadline)).await;

        let mut steps = merged.take_steps().into_iter();
        for told in told {
            let tell = match (&ended, steps.next()) {
                (Ok(Ended::Committed(Some(point))), Some(Step::Applied)) => Told::Committed(*point),
                (Ok(Ended::Committed(_)), Some(Step::Refused(error))) => Told::Failed(error),
                (Err(error), Some(Step::Applied)) if error.kind() == ErrorKind::OutcomeUnknown => {
                    Told::Failed(lost_reply(&key, error.receipt().cloned()))
                }
                // What it decided was decided on a value that did not come to be.
                _ => Told::Alone,
            };
            // One that no longer waits does not need to know.
            drop(told.send(tell));
        }
    }
}
