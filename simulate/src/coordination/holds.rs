//! What all that can be held have in common, as an observer outside sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use avout_core::{ErrorKind, Guard, Leadership, LockGuard, Permit, ReadGuard, Result, Status, Stm, WriteGuard};
use tokio::time::timeout;

use super::stage::{Actor, Test, lock};

/// All guards.
pub(super) trait Held: Guard + Send + Sync + Sized + 'static {
    fn token(&self) -> u64;
    fn is_held(&self) -> bool;
    fn lost(&self) -> impl Future<Output = ()> + Send;
    fn release(self) -> impl Future<Output = Result<()>> + Send;
}

macro_rules! held {
    ($($guard:ident)*) => {$(
        impl Held for $guard {
            fn token(&self) -> u64 {
                $guard::token(self)
            }

            fn is_held(&self) -> bool {
                $guard::is_held(self)
            }

            async fn lost(&self) {
                $guard::lost(self).await;
            }

            async fn release(self) -> Result<()> {
                $guard::release(self).await
            }
        }
    )*};
}

held!(LockGuard ReadGuard WriteGuard Permit Leadership);

/// Whether something is held as far as its holder can tell.
trait Probe: Send + Sync {
    fn says(&self) -> bool;
}

impl<G: Held> Probe for G {
    fn says(&self) -> bool {
        self.is_held()
    }
}

/// The observer of one key.
pub(super) struct Holds {
    name: String,
    /// How much there is to be held.
    limit: u64,
    /// Nothing goes wrong, and nobody gives up: the order of the line can be seen from outside.
    pub(super) orderly: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    newest: u64,
    asking: BTreeMap<u64, Asking>,
    held: Vec<Holding>,
    /// The token of each request that was granted.
    granted: BTreeMap<u64, u64>,
    /// Tokens, and whether one has all there is by it.
    tokens: BTreeMap<u64, bool>,
    /// Requests of which the first was in the line when the second was made.
    order: BTreeSet<(u64, u64)>,
}

/// A request under way.
struct Asking {
    /// The newest token when it was made.
    newest: u64,
    /// It is in the line.
    joined: bool,
}

struct Holding {
    client: usize,
    take: u64,
    token: u64,
    guard: Weak<dyn Probe>,
}

/// A request. It is none any more when this is dropped.
pub(super) struct Request<'a> {
    holds: &'a Holds,
    number: u64,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        lock(&self.holds.seen).asking.remove(&self.number);
    }
}

impl Holds {
    /// Makes the observer, and the ref that is written under guards.
    pub(super) async fn make(sure: &Stm, name: &str, limit: u64, orderly: bool) -> Result<Self> {
        sure.create_ref(format!("{name}/fenced"), Vec::<u64>::new()).history(0).await?;
        Ok(Self { name: name.to_owned(), limit, orderly, seen: Mutex::default() })
    }

    /// Notes that a request is made now. `status` is how things are, looked at with no fault and no delay.
    pub(super) fn ask(&self, status: Option<Status>) -> Request<'_> {
        let mut seen = lock(&self.seen);
        seen.requests += 1;
        let (number, newest) = (seen.requests, seen.newest);
        if status.is_some_and(|status| self.orderly && status.waiting == seen.asking.len()) {
            seen.asking.values_mut().for_each(|asking| asking.joined = true);
        }
        let before: Vec<u64> =
            seen.asking.iter().filter(|(_, asking)| asking.joined).map(|(number, _)| *number).collect();
        seen.order.extend(before.into_iter().map(|before| (before, number)));
        seen.asking.insert(number, Asking { newest, joined: false });
        Request { holds: self, number }
    }

    /// Notes that a request was granted, and checks whether it may have been.
    pub(super) fn granted<G: Held>(&self, actor: &Actor, request: Request<'_>, guard: &G, take: u64) {
        let token = guard.token();
        let mut seen = lock(&self.seen);
        let before = seen.asking.get(&request.number).map_or(0, |asking| asking.newest);
        actor.tell(|| format!("has {} with token {token}", self.name));
        let world = actor.world();
        if token <= before {
            world.violation(format!("token: {} is granted by {token}, and {before} was before", self.name));
        }
        let alone = take == self.limit;
        if seen.tokens.get(&token).is_some_and(|other| *other || alone) {
            world.violation(format!("token: {} is granted by {token} to two of which one has it alone", self.name));
        }
        seen.tokens.insert(token, alone);
        seen.newest = seen.newest.max(token);
        seen.granted.insert(request.number, token);
        drop(seen);
        drop(request);
    }

    /// Notes that something is held now, and checks that there is enough of it. Not so if somebody was taken for dead who is not.
    fn note<G: Held>(&self, actor: &Actor, guard: &Arc<G>, take: u64) {
        let probe: Arc<dyn Probe> = Arc::clone(guard) as _;
        let mut seen = lock(&self.seen);
        seen.held.retain(|holding| holding.guard.strong_count() > 0);
        if guard.is_held() && !actor.world().has_clocks_ahead() {
            let others = seen.held.iter().filter(|held| held.guard.upgrade().is_some_and(|guard| guard.says()));
            let others: Vec<&Holding> = others.collect();
            if others.iter().map(|held| held.take).sum::<u64>() + take > self.limit {
                let others: Vec<String> = others
                    .iter()
                    .map(|held| format!("client {} with {} by token {}", held.client + 1, held.take, held.token))
                    .collect();
                actor.world().violation(format!(
                    "exclusion: client {} holds {take} of {} by token {}, and so do {}",
                    actor.client + 1,
                    self.name,
                    guard.token(),
                    others.join(" and ")
                ));
            }
        }
        seen.held.push(Holding { client: actor.client, take, token: guard.token(), guard: Arc::downgrade(&probe) });
    }

    /// Holds something for a while, writes under it, and gives it back in one of many ways.
    pub(super) async fn hold<G: Held>(&self, actor: &Actor, guard: G, take: u64) {
        if let Some(guard) = self.keep(actor, guard, take).await {
            self.let_go(actor, guard).await;
        }
    }

    /// Holds something for a while, and writes under it. `None`: it was lost.
    pub(super) async fn keep<G: Held>(&self, actor: &Actor, guard: G, take: u64) -> Option<G> {
        let guard = Arc::new(guard);
        self.note(actor, &guard, take);
        actor.rest(150).await;
        for _ in 0..actor.world().draw(3) {
            self.write(actor, &*guard, take == self.limit).await;
            actor.rest(100).await;
        }
        if actor.world().chance(0.15) {
            let _ = timeout(actor.world().knobs().session_ttl, guard.lost()).await;
        }
        if guard.is_held() {
            return Arc::into_inner(guard);
        }
        actor.wait(&format!("waits to be told that it lost {}", self.name), guard.lost()).await;
        actor.tell(|| format!("has lost {}", self.name));
        actor.world().chance(0.5).then(|| Arc::into_inner(guard)).flatten()
    }

    pub(super) async fn let_go<G: Held>(&self, actor: &Actor, guard: G) {
        let what = format!("releases {}", self.name);
        match actor.world().draw(6) {
            0 => actor.tell(|| format!("drops its guard of {}", self.name)),
            1 => {
                let longest = actor.draw_millis(20);
                actor.tell(|| format!("{what}, and does not wait for it"));
                let _ = timeout(longest, guard.release()).await;
            }
            _ => {
                if let Err(error) = actor.wait(&what, guard.release()).await {
                    actor.accept(&what, &error, &[ErrorKind::Lost]);
                }
            }
        }
    }

    async fn write<G: Held>(&self, actor: &Actor, guard: &G, alone: bool) {
        let what = format!("writes under {}", self.name);
        let entry = guard.token() << 1 | u64::from(alone);
        let written = actor.wait(&what, async {
            let fenced = actor.stm.open_ref::<Vec<u64>>(format!("{}/fenced", self.name)).await?;
            let fenced = &fenced;
            actor
                .stm
                .dosync(async |tx| {
                    tx.require(guard).await?;
                    tx.update(fenced, move |entries| entries.push(entry)).await
                })
                .await
        });
        if let Err(error) = written.await {
            actor.accept(&what, &error, &[ErrorKind::Lost]);
        }
    }

    /// Checks what was written under guards, and in which order they were granted.
    pub(super) async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let fenced = sure.open_ref::<Vec<u64>>(format!("{}/fenced", self.name)).await?.get().await?;
        let mut newest = 0;
        for (token, alone) in fenced.iter().map(|entry| (entry >> 1, entry & 1 == 1)) {
            if token < newest {
                let what = format!("what holds token {token} writes under {} after what had {newest} alone", self.name);
                test.world.violation(format!("stale: {what}"));
            }
            newest = if alone { token } else { newest };
        }
        let seen = lock(&self.seen);
        for (first, second) in &seen.order {
            if let (Some(one), Some(two)) = (seen.granted.get(first), seen.granted.get(second))
                && one > two
            {
                let what = format!("request {second} of {} overtook {first}, which was in the line before", self.name);
                test.world.violation(format!("order: {what}"));
            }
        }
        Ok(())
    }
}
