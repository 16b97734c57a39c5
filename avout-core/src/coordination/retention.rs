use std::collections::BTreeMap;

use super::buckets::{Bucket, Done, Settings, bucket_of, buckets, some};
use super::once::Once;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::handles::Tx;

/// How many buckets are looked at in one transaction.
const AT_ONCE: u64 = 16;
/// Into how many buckets one transaction moves ids.
const TARGETS: usize = 8;
/// How many ids a bucket holds at most while ids are moved into it. It comes down to 64 by use.
const MOST: usize = 512;

impl Once {
    /// Changes how many ids are remembered, while others use it, and returns a handle with the new number. From now on
    /// handles with the old number are refused.
    ///
    /// This forgets no id that the new number would remember. If the number of buckets changes, ids are moved to other
    /// buckets before this returns. If it fails or the future is dropped during that, the new number holds all the
    /// same, each use makes one read more, and setting the same number again finishes the move. With a number that is
    /// more than 64 times smaller, some ids may be forgotten early.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it remembers another number of ids than this handle.
    /// [`InvalidInput`](ErrorKind::InvalidInput): zero. [`Contended`](ErrorKind::Contended): it is being destroyed.
    /// Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync), and see above.
    pub async fn set_keep(&self, keep: u64) -> Result<Self> {
        self.manager.engine.begin("set_keep")?;
        some(keep).map_err(|error| error.at(&self.key).during("set_keep"))?;
        let change = self.manager.transact_soon(async |tx| {
            let settings = self.stored(&tx).await?.unwrap_or(Settings::Keep(self.keep));
            settings.refuse_ending().map_err(|error| error.at(&self.key))?;
            self.settings.put(&tx, settings.changed(keep)).await
        });
        change.await.map_err(|error| error.during("set_keep"))?;
        let changed = Self { keep, ..self.clone() };
        if let Err(error) = changed.move_all().await {
            tracing::warn!(key = %self.key, %error, "ids are still in their earlier buckets: set the same number again");
        }
        Ok(changed)
    }

    /// Removes it with all ids. It can then be made again, with any number. Until that is done others are refused; if
    /// it fails half-way, they stay refused until it is called again.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it remembers another number of ids than this handle. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// If the future is dropped it is left half-way: call it again.
    pub async fn destroy(&self) -> Result<()> {
        self.manager.engine.begin("destroy")?;
        let begin = self.manager.transact_soon(async |tx| {
            let Some(settings) = self.stored(&tx).await? else {
                return Ok(None);
            };
            let most = settings.past().iter().copied().fold(buckets(self.keep), u64::max);
            let past = settings.past().to_vec();
            self.settings.put(&tx, Settings::Moving { keep: self.keep, past, ending: true }).await?;
            Ok(Some(most))
        });
        let Some(most) = begin.await.map_err(|error| error.during("destroy"))? else {
            return Ok(());
        };
        let step = self.step();
        for first in (0..most).step_by(usize::try_from(step).unwrap_or(1)) {
            let remove = self.manager.transact_silently(async |tx| {
                let of_this = self.stored(&tx).await?.is_some_and(|settings| settings.is_ending());
                for number in (first..most.min(first + step)).filter(|_| of_this) {
                    self.bucket(number)?.remove(&tx).await?;
                }
                Ok(())
            });
            remove.await.map_err(|error| error.during("destroy"))?;
        }
        let end = self.manager.transact_silently(async |tx| match self.settings.get(&tx).await? {
            Some(settings) if settings.is_ending() => self.settings.remove(&tx).await,
            _ => Ok(()),
        });
        end.await.map_err(|error| error.during("destroy"))
    }

    /// Moves all ids to the buckets of the new number.
    async fn move_all(&self) -> Result<()> {
        let settings = self.manager.transact_silently(async |tx| self.stored(&tx).await).await?;
        let Some(most) = settings.as_ref().and_then(|settings| settings.past().iter().max().copied()) else {
            return Ok(());
        };
        let step = self.step();
        for first in (0..most).step_by(usize::try_from(step).unwrap_or(1)) {
            let misplaced = self.manager.transact_silently(async |tx| {
                let mut misplaced = Vec::new();
                for number in first..most.min(first + step) {
                    let bucket = self.bucket(number)?.get(&tx).await?.unwrap_or_default();
                    if bucket.done.iter().any(|done| self.place(done) != number) {
                        misplaced.push(number);
                    }
                }
                Ok(misplaced)
            });
            for number in misplaced.await? {
                while self.manager.transact_silently(async |tx| self.move_some(&tx, number).await).await? {}
            }
        }
        let end = self.manager.transact_silently(async |tx| match self.stored(&tx).await? {
            // Another change has begun, and moves the ids itself.
            now if now == settings => self.settings.put(&tx, Settings::Keep(self.keep)).await,
            _ => Ok(()),
        });
        end.await
    }

    /// Moves ids out of one bucket into those they belong to. Gives whether there are more.
    async fn move_some(&self, tx: &Tx, number: u64) -> Result<bool> {
        // If another client changes the number meanwhile, this runs again and is refused.
        self.stored(tx).await?;
        let from = self.bucket(number)?;
        let Some(Bucket { done }) = from.get(tx).await? else {
            return Ok(false);
        };
        let (mut stay, mut go) = (Vec::new(), BTreeMap::<u64, Vec<Done>>::new());
        for done in done {
            let place = self.place(&done);
            match place == number || (go.len() == TARGETS && !go.contains_key(&place)) {
                true => stay.push(done),
                false => go.entry(place).or_default().push(done),
            }
        }
        for (place, moved) in go {
            let into = self.bucket(place)?;
            let there = into.get(tx).await?.unwrap_or_default();
            let mut done = merge(there.done, moved);
            done.drain(..done.len().saturating_sub(MOST));
            into.put(tx, Bucket { done }).await?;
        }
        let more = stay.iter().any(|done| self.place(done) != number);
        match stay.is_empty() {
            true => from.remove(tx).await?,
            false => from.put(tx, Bucket { done: stay }).await?,
        }
        Ok(more)
    }

    /// The bucket that an id belongs to.
    fn place(&self, done: &Done) -> u64 {
        bucket_of(&done.id, buckets(self.keep))
    }

    /// How many buckets one transaction can read.
    fn step(&self) -> u64 {
        AT_ONCE.min(self.manager.engine.capabilities.max_keys.saturating_sub(4) as u64).max(1)
    }
}

/// Merges two lists of ids from the same time, oldest first: only their positions tell which came first.
fn merge(one: Vec<Done>, two: Vec<Done>) -> Vec<Done> {
    let (ones, twos) = (one.len().max(1), two.len().max(1));
    let one = one.into_iter().enumerate().map(|(at, done)| ((at * 2 + 1) * twos, done));
    let two = two.into_iter().enumerate().map(|(at, done)| ((at * 2 + 1) * ones, done));
    let mut all: Vec<_> = one.chain(two).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of the same time are merged by position, and nothing is lost.
    #[test]
    fn lists_are_merged_by_place() {
        let list =
            |ids: &[&str]| ids.iter().map(|id| Done { id: (*id).to_owned(), result: Vec::new() }).collect::<Vec<_>>();
        let merged = merge(list(&["a1", "a2", "a3", "a4"]), list(&["b1", "b2"]));
        let ids: Vec<&str> = merged.iter().map(|done| &*done.id).collect();
        assert_eq!(ids, ["a1", "b1", "a2", "a3", "b2", "a4"]);
    }
}
