use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task;
use tokio::time::Instant;

use super::rules::{Claimant, Holders};
use crate::backend::time::sleep;
use crate::protocol::Key;

/// The locks and values that this client holds.
#[derive(Default)]
pub(super) struct Holdings(Mutex<HashMap<Claimant, Holding>>);

struct Holding {
    /// The record that names the holder.
    key: Key,
    since: Instant,
    /// The task that asked for it. The guard may have been moved to another task since.
    task: Option<task::Id>,
    back: Weak<dyn GiveBack>,
}

/// A holding that can be given back without its guard.
pub(super) trait GiveBack: Send + Sync {
    /// Gives it back in the background, unless it was given back before.
    fn give_back(&self);

    /// Whether it is still held, as far as this process can tell.
    fn is_held(&self) -> bool;
}

/// How many holders a message names.
const NAMED: usize = 3;

impl Holdings {
    fn all(&self) -> MutexGuard<'_, HashMap<Claimant, Holding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, key: &Key, who: Claimant, task: Option<task::Id>, back: Weak<dyn GiveBack>) {
        self.all().insert(who, Holding { key: key.clone(), since: Instant::now(), task, back });
    }

    pub(super) fn remove(&self, who: Claimant) {
        self.all().remove(&who);
    }

    /// Gives back all that is held.
    pub(super) fn give_back(&self) {
        let all: Vec<Holding> = self.all().drain().map(|(_, holding)| holding).collect();
        for back in all.iter().filter_map(|holding| holding.back.upgrade()) {
            back.give_back();
        }
    }

    /// Describes the holders in a record: this client's own guards as they are now, and others as they were seen last.
    /// Gives also whether this client's own are among them.
    pub(super) fn describe(&self, key: &Key, seen: Option<&Holders>, asks: Option<task::Id>) -> (String, bool) {
        let all = self.all();
        // A guard that was lost holds up nobody.
        let is_own = |own: &Holding| own.key == *key && own.back.upgrade().is_some_and(|back| back.is_held());
        let mut named: Vec<String> = all.values().filter(|own| is_own(own)).map(|own| own.describe(asks)).collect();
        let own = !named.is_empty();
        let others = seen.into_iter().flat_map(|seen| &seen.held);
        let others = others.filter(|held| !all.get(&held.who).is_some_and(is_own));
        named.extend(others.map(|held| match &*held.label {
            "" => format!("session {}", held.who.session()),
            label => format!("{label:?}, session {}", held.who.session()),
        }));
        let more = named.len().saturating_sub(NAMED);
        named.truncate(NAMED);
        let named = match (named.is_empty(), seen) {
            (false, _) => named.join("; "),
            (true, Some(_)) => "nobody any more".to_owned(),
            (true, None) => "not known, the store has not answered".to_owned(),
        };
        (if more == 0 { named } else { format!("{named}; and {more} more") }, own)
    }
}

impl Holding {
    fn describe(&self, asks: Option<task::Id>) -> String {
        let by = match (self.task, asks) {
            (Some(task), Some(asks)) if task == asks => " by this very task",
            _ => "",
        };
        format!("a guard of this same client, acquired {:.1?} ago{by}", self.since.elapsed())
    }
}

/// How long a wait is silent.
const SILENT: Duration = Duration::from_secs(1);

/// Waits, and calls `say` after a second, and then each time that the wait has become twice as long.
pub(super) async fn told<T, Fut>(wait: impl Future<Output = T>, say: impl Fn(Duration) -> Fut) -> T
where
    Fut: Future<Output = ()>,
{
    let (begun, mut silent) = (Instant::now(), SILENT);
    let mut wait = std::pin::pin!(wait);
    loop {
        let saying = async {
            sleep(silent.saturating_sub(begun.elapsed())).await;
            say(begun.elapsed()).await;
        };
        tokio::select! {
            biased;
            done = &mut wait => return done,
            () = saying => silent *= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait is told of after one second, two, four and so on, and no more once it has ended.
    #[tokio::test(start_paused = true)]
    async fn long_waits_are_told_of() {
        let said = Mutex::new(Vec::new());
        let wait = tokio::time::sleep(Duration::from_millis(9500));
        told(wait, async |waited| said.lock().expect("no panic").push(waited.as_secs())).await;
        assert_eq!(*said.lock().expect("no panic"), [1, 2, 4, 8]);
    }
}
