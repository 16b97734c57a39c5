//! Sentinels: which server is the master, and being told when another one is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::{Error, ErrorKind, Result};
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::options::{Address, Source};
use crate::wire::connection::{Dialer, Wire, unreachable_at};

/// How long the others have to answer, once enough sentinels have.
const GRACE: Duration = Duration::from_millis(100);
/// How often a sentinel that tells nothing is asked.
const LOOK: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect to a sentinel again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What a sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) master: Address,
    /// Grows with each failover that the sentinels agree on. `None`: it does not tell this user.
    epoch: Option<u64>,
    /// How many replicas it knows, whether or not they are there.
    pub(crate) replicas: Option<u32>,
    /// It is about to make a replica the master.
    pub(crate) fails_over: bool,
}

impl Named {
    /// What a sentinel says of the master that it names.
    fn read((host, port): (String, u16), more: &HashMap<String, String>) -> Self {
        let number = |name: &str| more.get(name).and_then(|value| value.parse::<u64>().ok());
        // Once a replica was made the master it is named, and the failover goes on with the other replicas.
        let is_old = more.get("ip") == Some(&host) && number("port") == Some(port.into());
        Self {
            epoch: number("config-epoch"),
            replicas: number("num-slaves").and_then(|replicas| u32::try_from(replicas).ok()),
            fails_over: is_old && more.get("flags").is_some_and(|flags| flags.contains("failover_in_progress")),
            master: Address { host, port },
        }
    }

    fn is_later_than(&self, other: Option<&Self>) -> bool {
        self.epoch > other.and_then(|other| other.epoch)
    }
}

/// The sentinels of one service.
pub(crate) struct Sentinels {
    dialer: Arc<Dialer>,
    credentials: Source,
    addresses: Vec<Address>,
    service: String,
    limit: Duration,
    newest: Mutex<Option<Named>>,
    /// The connections that listen, by address.
    wires: Mutex<HashMap<Address, Arc<Wire>>>,
    /// Those that owe an answer, by their place, and since when.
    asked: Mutex<HashMap<usize, Instant>>,
}

impl Sentinels {
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        credentials: Source,
        addresses: Vec<Address>,
        service: String,
        limit: Duration,
    ) -> Self {
        let (newest, wires, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { dialer, credentials, addresses, service, limit, newest, wires, asked }
    }

    /// The master.
    ///
    /// Of three sentinels or more a majority is asked, so that one that was cut off together with an old master is not believed. What
    /// is known already is believed rather than a minority that knows less.
    pub(crate) async fn master(self: &Arc<Self>) -> Result<Address> {
        let told = self.ask_all().await?;
        self.believe(&told).ok_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no sentinel"))
    }

    /// The master, after what some sentinels said.
    pub(crate) fn believe(&self, told: &[Named]) -> Option<Address> {
        let latest = told.iter().map(|named| named.epoch).max()?;
        let mut latest = told.iter().filter(|named| named.epoch == latest);
        let mut newest = self.newest();
        let known = newest.as_ref();
        if known.is_some_and(|known| known.is_later_than(latest.clone().next()) && told.len() < self.enough()) {
            return known.map(|known| known.master.clone());
        }
        // Sentinels may have several names for one server.
        let same = latest.clone().find(|named| known.is_some_and(|known| known.master == named.master));
        let named = same.or_else(|| latest.next())?;
        Some(newest.insert(named.clone()).master.clone())
    }

    /// The master, after what one sentinel said by itself.
    fn hear(&self, named: Named) -> Address {
        let mut newest = self.newest();
        match &*newest {
            // Only a failover makes another server the master.
            Some(known) if named.epoch.is_some() && !named.is_later_than(Some(known)) => known.master.clone(),
            _ => newest.insert(named).master.clone(),
        }
    }

    fn newest(&self) -> MutexGuard<'_, Option<Named>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many replicas the master has, as the sentinels know.
    pub(crate) fn replicas(&self) -> Option<u32> {
        self.newest().as_ref()?.replicas
    }

    fn enough(&self) -> usize {
        if self.addresses.len() < 3 { 1 } else { self.addresses.len() / 2 + 1 }
    }

    /// What all say that answer soon.
    ///
    /// # Errors
    /// That of the last one, if none answers.
    pub(crate) async fn ask_all(self: &Arc<Self>) -> Result<Vec<Named>> {
        let mut asked = JoinSet::new();
        let (silent, others) = (0..self.addresses.len()).partition::<Vec<_>, _>(|at| self.is_silent(*at));
        let mut silent = Some(silent);
        others.into_iter().for_each(|at| self.ask_one(at, &mut asked));
        let (mut told, mut failed) = (Vec::new(), None);
        let mut end = Instant::now() + self.limit;
        while let Ok(answer) = timeout_at(end, asked.join_next()).await {
            let Some(answer) = answer else {
                // The others are not enough to go by.
                let Some(silent) = silent.take().filter(|_| told.len() < self.enough()) else { break };
                silent.into_iter().for_each(|at| self.ask_one(at, &mut asked));
                continue;
            };
            match answer {
                Ok(Ok(named)) => told.push(named),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => {}
            }
            if told.len() == self.enough() {
                end = end.min(Instant::now() + GRACE);
            }
        }
        // One that is silent is not asked again before this ends: else each that asks would wait for it, and connect to it.
        asked.detach_all();
        let late = || Error::new(ErrorKind::Unavailable, "no sentinel answers");
        if told.is_empty() { Err(failed.unwrap_or_else(late)) } else { Ok(told) }
    }

    fn ask_one(self: &Arc<Self>, at: usize, asked: &mut JoinSet<Result<Named>>) {
        let asking = Asking::begin(self, at);
        asked.spawn(async move {
            let answer = asking.all.ask(&asking.all.addresses[at]).await;
            if answer.is_ok() {
                asking.all.answered(at);
            }
            answer
        });
    }

    /// Whether a sentinel owes an answer for longer than it has.
    fn is_silent(&self, at: usize) -> bool {
        self.asked().get(&at).is_some_and(|since| since.elapsed() > GRACE)
    }

    /// It owes nothing.
    fn answered(&self, at: usize) {
        self.asked().remove(&at);
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<usize, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, sentinel: &Address) -> Result<Named> {
        let ask = async {
            // Many may ask, again and again: they need no connections of their own.
            let kept = self.wires().get(sentinel).cloned();
            if let Some(wire) = kept
                && let Ok(named) = self.ask_with(&wire).await
            {
                return Ok(named);
            }
            let wire = self.dialer.dial(sentinel, &self.credentials, 0, None).await?;
            self.ask_with(&wire).await.map_err(unreachable_at(sentinel))
        };
        let late = |_| Error::new(ErrorKind::Unavailable, format!("the sentinel at {sentinel} does not answer"));
        timeout(self.limit, ask).await.map_err(late)??.ok_or_else(|| {
            let message = format!("the sentinel at {sentinel} knows no service of this name that has a master");
            Error::new(ErrorKind::Unavailable, message)
        })
    }

    fn wires(&self) -> MutexGuard<'_, HashMap<Address, Arc<Wire>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_with(&self, wire: &Wire) -> RedisResult<Option<Named>> {
        let command = |name: &str| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(name).arg(&self.service);
            command
        };
        let address = async || wire.ask::<Option<(String, u16)>>(&command("GET-MASTER-ADDR-BY-NAME")).await;
        let Some(mut before) = address().await? else { return Ok(None) };
        loop {
            // A user who may not ask for more goes on without.
            let more = wire.ask::<HashMap<String, String>>(&command("MASTER")).await.unwrap_or_default();
            let Some(after) = address().await? else { return Ok(None) };
            // The number of a failover is not to be believed of the master before it: all that is said later would be no later than that.
            if before == after {
                return Ok(Some(Named::read(before, &more)));
            }
            before = after;
        }
    }

    /// Listens to each sentinel, and says again and again which server is the master.
    pub(crate) async fn follow(self: Arc<Self>, tell: impl Fn(&Address) + Clone + Send + Sync + 'static) {
        let mut listening = JoinSet::new();
        for at in 0..self.addresses.len() {
            let (all, tell) = (Arc::clone(&self), tell.clone());
            listening.spawn(async move {
                let mut pause = FIRST_PAUSE;
                loop {
                    if let Err(error) = all.listen(at, &tell, &mut pause).await {
                        tracing::debug!(%error, "a sentinel cannot be listened to");
                    }
                    sleep(pause / 2 + pause.mul_f64(rand::random::<f64>() / 2.0)).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            });
        }
        listening.join_all().await;
    }

    /// Returns when the connection has ended.
    async fn listen(&self, at: usize, tell: impl Fn(&Address), pause: &mut Duration) -> Result<()> {
        let sentinel = &self.addresses[at];
        let told = Arc::new(Notify::new());
        let wake = Arc::clone(&told);
        let listener = move |push: PushInfo| {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                wake.notify_one();
            }
        };
        let wire = Arc::new(self.dialer.dial(sentinel, &self.credentials, 0, Some(Box::new(listener))).await?);
        let _kept = Kept::keep(self, sentinel, &wire);
        // The sentinel that promotes a replica tells of that first, and the others of the new master. A user who may not hear of
        // it asks now and then.
        for channel in ["+switch-master", "+promoted-slave"] {
            if let Err(error) = wire.ask::<Value>(redis::cmd("SUBSCRIBE").arg(channel)).await {
                tracing::debug!(%error, %sentinel, channel, "a sentinel does not tell of failovers");
            }
        }
        loop {
            // First what happened before it was listened to.
            let named = timeout(LOOK, self.ask_with(&wire)).await.map_err(|_| silent())?;
            self.answered(at);
            if let Some(named) = named.map_err(unreachable_at(sentinel))? {
                *pause = FIRST_PAUSE;
                let master = self.hear(named);
                tell(&master);
            }
            tokio::select! {
                () = told.notified() => {}
                () = sleep(LOOK.mul_f64(0.75 + rand::random::<f64>() / 2.0)) => {}
            }
        }
    }
}

/// A sentinel owes an answer to this, until it is dropped.
struct Asking {
    all: Arc<Sentinels>,
    at: usize,
    since: Instant,
}

impl Asking {
    fn begin(all: &Arc<Sentinels>, at: usize) -> Self {
        let since = Instant::now();
        all.asked().entry(at).or_insert(since);
        Self { all: Arc::clone(all), at, since }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asked = self.all.asked();
        if asked.get(&self.at) == Some(&self.since) {
            asked.remove(&self.at);
        }
    }
}

/// A connection that others may ask with, until this is dropped.
struct Kept<'a>(&'a Sentinels, &'a Address);

impl<'a> Kept<'a> {
    fn keep(sentinels: &'a Sentinels, sentinel: &'a Address, wire: &Arc<Wire>) -> Self {
        sentinels.wires().insert(sentinel.clone(), Arc::clone(wire));
        Self(sentinels, sentinel)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.wires().remove(self.1);
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, "the sentinel does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn named(port: u16, epoch: u64) -> Named {
        Named { master: Address { host: "h".to_owned(), port }, epoch: Some(epoch), replicas: None, fails_over: false }
    }

    async fn sentinels(count: u16) -> Sentinels {
        let addresses: Vec<(String, u16)> = (0..count).map(|port| ("s".to_owned(), port)).collect();
        let options = Options::sentinel(addresses, "main");
        let dialer = Arc::new(Dialer::new(&options).await.expect("no TLS"));
        Sentinels::new(dialer, Source::default(), options.addresses, "main".to_owned(), LOOK)
    }

    fn port(master: Option<Address>) -> Option<u16> {
        master.map(|master| master.port)
    }

    /// A sentinel that fails over to the master that it names already has no other in mind.
    #[test]
    fn a_failover_is_over_when_the_new_master_is_named() {
        let more = |flags: &str| {
            let fields = [("ip", "old"), ("port", "1"), ("flags", flags), ("config-epoch", "7"), ("num-slaves", "2")];
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        let at = |host: &str| (host.to_owned(), 1);
        let begun = Named::read(at("old"), &more("master,o_down,failover_in_progress"));
        assert_eq!((begun.epoch, begun.replicas, begun.fails_over), (Some(7), Some(2), true));
        assert!(!Named::read(at("new"), &more("master,o_down,failover_in_progress")).fails_over);
        assert!(!Named::read(at("old"), &more("master")).fails_over);
        assert_eq!(Named::read(at("old"), &HashMap::new()).epoch, None);
    }

    /// The latest failover is believed. A sentinel that was cut off with the old master leads nobody back; a majority does.
    #[tokio::test]
    async fn the_latest_failover_is_believed() {
        let three = sentinels(3).await;
        assert_eq!(port(three.believe(&[named(1, 0)])), Some(1), "it is all that is known");
        assert_eq!(port(three.believe(&[named(1, 0), named(2, 1), named(1, 0)])), Some(2));
        assert_eq!(port(three.believe(&[named(1, 0)])), Some(2), "one that knows less");
        assert_eq!(port(three.believe(&[named(1, 0), named(1, 0)])), Some(1), "sentinels that were set up anew");
        assert_eq!(port(three.believe(&[])), None);
        assert_eq!((three.hear(named(3, 0)).port, three.hear(named(3, 1)).port), (1, 3), "a failover is told by one");
        let two = sentinels(2).await;
        assert_eq!((port(two.believe(&[named(2, 1)])), port(two.believe(&[named(1, 0)]))), (Some(2), Some(1)));
    }
}
