use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::once::{Bucket, Done, Once, bucket_of, buckets};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Tx;

/// How many ids a [`Once`] remembers, and where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Settings {
    /// All ids are in the buckets that this number makes.
    Keep(u64),
    Moving {
        keep: u64,
        /// Ids may still be in the bucket that they had when there were so many.
        past: Vec<u64>,
        /// All is being removed.
        ending: bool,
    },
}

/// How many buckets are looked at in one transaction.
const AT_ONCE: u64 = 16;
/// Into how many buckets one transaction moves ids.
const TARGETS: usize = 8;
/// How many ids a bucket holds at most while ids are moved into it. It comes down to 64 by use.
const MOST: usize = 512;

impl Settings {
    fn keep(&self) -> u64 {
        match self {
            Self::Keep(keep) | Self::Moving { keep, .. } => *keep,
        }
    }

    fn past(&self) -> &[u64] {
        match self {
            Self::Keep(_) => &[],
            Self::Moving { past, .. } => past,
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self, Self::Moving { ending: true, .. })
    }

    /// The same for another number.
    fn changed(&self, keep: u64) -> Self {
        let mut past = self.past().to_vec();
        past.push(buckets(self.keep()));
        past.sort_unstable();
        past.dedup();
        past.retain(|past| *past != buckets(keep));
        if past.is_empty() { Self::Keep(keep) } else { Self::Moving { keep, past, ending: false } }
    }
}

impl Once {
    /// Changes how many ids are remembered, while others use it, and gives the handle to go on with: this one and all others of the old
    /// number are refused from now on.
    ///
    /// No id is forgotten by that which the new number would remember. Ids are moved to other buckets when the number of these
    /// changes; that goes on until the return. If it fails or the future is dropped then, the new number holds all the same, each use
    /// makes one read more, and whoever sets the same number again finishes it. With a number that is more than 64 times smaller, some
    /// ids may be forgotten early.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it remembers another number of ids than this handle. [`InvalidInput`](ErrorKind::InvalidInput): none.
    /// [`Contended`](ErrorKind::Contended): it is being destroyed. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync), and see above.
    pub async fn set_keep(&self, keep: u64) -> Result<Self> {
        self.hub.engine.begin("set_keep")?;
        some(keep).map_err(|error| error.at(&self.key).during("set_keep"))?;
        let change = self.hub.transact_soon(async |tx| {
            let settings = self.stored(&tx).await?.unwrap_or(Settings::Keep(self.keep));
            refuse_ending(&settings).map_err(|error| error.at(&self.key))?;
            self.settings.put(&tx, settings.changed(keep)).await
        });
        change.await.map_err(|error| error.during("set_keep"))?;
        let changed = Self { keep, ..self.clone() };
        if let Err(error) = changed.move_all().await {
            tracing::warn!(key = %self.key, %error, "ids are still in their earlier buckets: set the same number again");
        }
        Ok(changed)
    }

    /// Removes it with all ids. It can then be made again, with any number. Others are refused while that goes on; if it fails half-way,
    /// they stay refused until it is called again.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it remembers another number of ids than this handle. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// Dropped, it is left half-way: call it again.
    pub async fn destroy(&self) -> Result<()> {
        self.hub.engine.begin("destroy")?;
        let begin = self.hub.transact_soon(async |tx| {
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
            let remove = self.hub.transact_silently(async |tx| {
                let of_this = self.stored(&tx).await?.is_some_and(|settings| settings.is_ending());
                for number in (first..most.min(first + step)).filter(|_| of_this) {
                    self.bucket(number)?.remove(&tx).await?;
                }
                Ok(())
            });
            remove.await.map_err(|error| error.during("destroy"))?;
        }
        let end = self.hub.transact_silently(async |tx| match self.settings.get(&tx).await? {
            Some(settings) if settings.is_ending() => self.settings.remove(&tx).await,
            _ => Ok(()),
        });
        end.await.map_err(|error| error.during("destroy"))
    }

    /// In a transaction that is to be done once: sees to it that the stored number is this handle's. Gives how many buckets there were
    /// before, if ids may still be in those.
    pub(super) async fn use_settings(&self, tx: &Tx) -> Result<Vec<u64>> {
        let Some(settings) = self.stored(tx).await? else {
            self.settings.put(tx, Settings::Keep(self.keep)).await?;
            return Ok(Vec::new());
        };
        refuse_ending(&settings).map_err(|error| error.at(&self.key))?;
        Ok(settings.past().to_vec())
    }

    /// What is stored, which must be this handle's number.
    async fn stored(&self, tx: &Tx) -> Result<Option<Settings>> {
        let settings = self.settings.get(tx).await?;
        match settings.as_ref().map(Settings::keep) {
            Some(keep) if keep != self.keep => {
                let message = format!("it remembers {keep} ids, and is used with {}", self.keep);
                Err(Error::new(ErrorKind::Mismatch, message).at(&self.key))
            }
            _ => Ok(settings),
        }
    }

    /// Moves all ids to where they are looked for first.
    async fn move_all(&self) -> Result<()> {
        let settings = self.hub.transact_silently(async |tx| self.stored(&tx).await).await?;
        let Some(most) = settings.as_ref().and_then(|settings| settings.past().iter().max().copied()) else {
            return Ok(());
        };
        let step = self.step();
        for first in (0..most).step_by(usize::try_from(step).unwrap_or(1)) {
            let misplaced = self.hub.transact_silently(async |tx| {
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
                while self.hub.transact_silently(async |tx| self.move_some(&tx, number).await).await? {}
            }
        }
        let end = self.hub.transact_silently(async |tx| match self.stored(&tx).await? {
            // Another change has its own way to go.
            now if now == settings => self.settings.put(&tx, Settings::Keep(self.keep)).await,
            _ => Ok(()),
        });
        end.await
    }

    /// Moves ids out of one bucket that belong into others. Whether there are more.
    async fn move_some(&self, tx: &Tx, number: u64) -> Result<bool> {
        // Whoever changes the number meanwhile makes this run again, and then it is refused.
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

    /// The bucket that an id belongs into.
    fn place(&self, done: &Done) -> u64 {
        bucket_of(&done.id, buckets(self.keep))
    }

    /// How many buckets one transaction can take.
    fn step(&self) -> u64 {
        AT_ONCE.min(self.hub.engine.capabilities.max_keys.saturating_sub(4) as u64).max(1)
    }
}

/// Two lists of one time, oldest first, as one: nothing but the places in them tells which came first.
fn merge(one: Vec<Done>, two: Vec<Done>) -> Vec<Done> {
    let (ones, twos) = (one.len().max(1), two.len().max(1));
    let one = one.into_iter().enumerate().map(|(at, done)| ((at * 2 + 1) * twos, done));
    let two = two.into_iter().enumerate().map(|(at, done)| ((at * 2 + 1) * ones, done));
    let mut all: Vec<_> = one.chain(two).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}

fn refuse_ending(settings: &Settings) -> Result<()> {
    match settings.is_ending() {
        true => Err(Error::new(ErrorKind::Contended, "it is being destroyed: if nobody does so, destroy it again")),
        false => Ok(()),
    }
}

pub(super) fn some(keep: u64) -> Result<()> {
    match keep {
        0 => Err(Error::new(ErrorKind::InvalidInput, "at least one id has to be remembered")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handles::{Codec, MessagePack};

    /// Settings are the bare number that they were in the first format, but while ids are being moved.
    #[test]
    fn settings_are_a_number() {
        let first = Codec::<u64>::encode(&MessagePack, &65_536).expect("a number");
        assert_eq!(Codec::<Settings>::encode(&MessagePack, &Settings::Keep(65_536)).expect("a number"), first);
        let read: Settings = MessagePack.decode(&first).expect("settings");
        assert_eq!(read, Settings::Keep(65_536));
        let moving = read.changed(32);
        assert_eq!(moving, Settings::Moving { keep: 32, past: vec![2048], ending: false });
        assert_eq!(moving.changed(65_536), Settings::Moving { keep: 65_536, past: vec![1], ending: false });
        let bytes = Codec::<Settings>::encode(&MessagePack, &moving).expect("settings");
        let again: Settings = MessagePack.decode(&bytes).expect("settings");
        assert_eq!(again, moving);
        assert_eq!(Settings::Keep(64).changed(40), Settings::Keep(40), "there are two buckets as before");
    }

    /// Lists of one time are merged by the places in them, and all is kept.
    #[test]
    fn lists_are_merged_by_place() {
        let list =
            |ids: &[&str]| ids.iter().map(|id| Done { id: (*id).to_owned(), result: Vec::new() }).collect::<Vec<_>>();
        let merged = merge(list(&["a1", "a2", "a3", "a4"]), list(&["b1", "b2"]));
        let ids: Vec<&str> = merged.iter().map(|done| &*done.id).collect();
        assert_eq!(ids, ["a1", "b1", "a2", "a3", "b2", "a4"]);
    }
}
