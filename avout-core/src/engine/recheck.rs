use super::client::Engine;
use super::floor::KnownFloor;
use super::job::{Ended, Job};
use crate::error::{ErrorKind, Result};
use crate::protocol::{Entry, Floor, Key, Revision};

impl Engine {
    /// Ends an attempt with an error of its commit, if there was a moment that had both what the error rests on and what the body
    /// came to know. That was at the read point if the body saw all of it; else both are looked at once more, together, and
    /// if anything has changed the attempt is lost instead.
    pub(super) async fn recheck(&self, job: &mut Job<'_>) -> Result<Ended> {
        let (error, deadline) = (job.take_error(), job.deadline);
        let (plan, attempt) = (&job.plan, &*job.attempt);
        let unseen: Vec<_> = plan.unseen(&error).collect();
        let mut expected: Vec<(Key, Option<Revision>)> = Vec::new();
        for (key, seen) in attempt.known() {
            if seen.past.is_some() && !unseen.is_empty() {
                return Ok(Ended::Lost { key: key.clone(), primed: None });
            }
            expected.push((key.clone(), seen.revision().cloned()));
        }
        let revision = |(key, entry): (&Key, Option<&Entry>)| (key.clone(), entry.map(|entry| entry.revision.clone()));
        expected.extend(plan.known().map(revision));
        let of_one_moment = unseen.is_empty() || (expected.is_empty() && unseen.len() == 1);
        if of_one_moment || error.kind() == ErrorKind::Unavailable {
            return Err(error);
        }
        expected.extend(unseen.into_iter().map(revision));
        // Where revisions come again one tells nothing under a later floor.
        if !self.capabilities.unique_revisions {
            let floor = job.floor();
            expected.push((Floor::key(), floor.revision.clone()));
        }
        let (keys, revisions): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
        let now = self.read(&keys, deadline).await?.entries;
        let differs = |at: &usize| now[*at].as_ref().map(|now| &now.revision) != revisions[*at].as_ref();
        let Some(changed) = (0..keys.len()).find(differs) else { return Err(error) };
        if let Some(floor) = keys.iter().position(|key| *key == Floor::key()) {
            self.floor.correct(&KnownFloor::from_entry(now[floor].as_ref())?);
        }
        Ok(Ended::Lost { key: keys[changed].clone(), primed: None })
    }
}
