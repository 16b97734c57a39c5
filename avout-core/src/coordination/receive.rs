use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::Instant;

use super::delivery::{Delivery, Ticket};
use super::records::Records;
use super::ring::Out;
use super::rules::Claimant;
use super::session::Session;
use super::session_manager::Claim;
use crate::backend::Watcher;
use crate::backend::time::sleep_until;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Tx, Value};
use crate::protocol::Key;

/// Gets the first value that no other consumer has, and waits for it.
///
/// It is a task of its own, so that a commit is never dropped in flight. If the caller goes away, a value that was got
/// for it is handed back.
pub(super) async fn receive<T>(records: Arc<Records>, hidden: Duration) -> Result<Delivery<T>>
where
    T: Value + Serialize + DeserializeOwned,
{
    let (reply, received) = oneshot::channel();
    let (manager, task) = (Arc::clone(&records.manager), task::try_id());
    manager.spawn(drive(Arc::clone(&records), hidden, task, reply));
    let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it was waited for");
    let received = manager
        .wait_for(received, |waited| {
            tell(&records, task, waited);
            std::future::ready(())
        })
        .await;
    received.and_then(|received| received.map_err(closed)?).map_err(|error| error.at(&records.key).during("receive"))
}

/// Says in the log that this client itself may have the awaited values, received and not acknowledged. Waiting for the
/// next value is what consumers do, so nothing else is logged.
fn tell(records: &Records, task: Option<task::Id>, waited: Duration) {
    let (holder, own) = records.manager.holdings.describe(records.head.key(), None, task);
    if own {
        let key = &records.key;
        tracing::warn!(%key, %holder, ?waited, "waits for a value, and this client has some that it has not acknowledged");
    }
}

type Reply<T> = oneshot::Sender<Result<Delivery<T>>>;

async fn drive<T>(records: Arc<Records>, hidden: Duration, task: Option<task::Id>, mut reply: Reply<T>)
where
    T: Value + Serialize + DeserializeOwned,
{
    let hidden = u64::try_from(hidden.as_millis()).unwrap_or(u64::MAX);
    let request = Request { claim: records.manager.claim(), records, hidden, task };
    if let Some(answer) = request.obtain(&mut reply).await {
        // If the caller has gone the delivery is dropped, and so handed back.
        drop(reply.send(answer));
    }
}

/// Does work that may be dropped, until the caller gives up. `None`: it gave up.
async fn wanted<T, R>(reply: &mut Reply<T>, what: impl Future<Output = R>) -> Option<R> {
    tokio::select! {
        biased;
        () = reply.closed() => None,
        done = what => Some(done),
    }
}

/// The watcher of some keys.
struct Watched {
    keys: Vec<Key>,
    watcher: Box<dyn Watcher>,
}

struct Request {
    records: Arc<Records>,
    claim: Claim,
    /// In milliseconds.
    hidden: u64,
    /// The task that asks.
    task: Option<task::Id>,
}

/// The outcome of a try to get a value.
enum Taken<T> {
    Got {
        out: Out,
        value: T,
    },
    /// There is no value. One of these keys changes when there is.
    None(Vec<Key>),
    /// The session has ended.
    Ended,
    /// The caller gave up.
    Unwanted,
}

impl Request {
    /// Tries, and waits for a change, in turn. `None`: the caller gave up.
    async fn obtain<T>(self, reply: &mut Reply<T>) -> Option<Result<Delivery<T>>>
    where
        T: Value + Serialize + DeserializeOwned,
    {
        let records = Arc::clone(&self.records);
        let failed = |error: Error| Some(Err(error.at(&records.key).during("receive")));
        let mut watched = None;
        loop {
            let look = async { Ok((records.manager.session().await?, records.overdue().await?)) };
            let (session, (overdue, look_again)) = match wanted(reply, look).await? {
                Ok(looked) => looked,
                Err(error) => return failed(error),
            };
            let who = Claimant::new(session.id, self.claim.ticket);
            let keys = match self.take(reply, &session, who, &overdue).await {
                Err(error) => return failed(error),
                Ok(Taken::Unwanted) => return None,
                Ok(Taken::Ended) => {
                    records.manager.lose(&session);
                    continue;
                }
                Ok(Taken::Got { out, value }) => {
                    let ticket = Ticket::new(records, self.claim, session, who, self.task);
                    return Some(Ok(Delivery::new(ticket, out.number, out.times, value)));
                }
                Ok(Taken::None(keys)) => keys,
            };
            watched = match wanted(reply, self.wait(watched, keys, look_again)).await? {
                Ok(watched) => Some(watched),
                Err(error) => return failed(error),
            };
        }
    }

    /// Waits for a change of these keys, or until it is time to look. Keys that were not watched before the last look
    /// may have changed since, so then it only begins to watch them.
    async fn wait(&self, watched: Option<Watched>, keys: Vec<Key>, until: Option<Instant>) -> Result<Watched> {
        let Some(mut watched) = watched.filter(|watched| watched.keys == keys) else {
            let watcher = self.records.manager.engine.watch(&keys, None).await?;
            return Ok(Watched { keys, watcher });
        };
        let look = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = look => {}
            hint = watched.watcher.changed() => drop(hint?),
        }
        Ok(watched)
    }

    /// Tries once.
    async fn take<T>(
        &self,
        reply: &mut Reply<T>,
        session: &Arc<Session>,
        who: Claimant,
        overdue: &[Claimant],
    ) -> Result<Taken<T>>
    where
        T: Value + Serialize + DeserializeOwned,
    {
        let manager = &self.records.manager;
        let begun = session.has_begun();
        let sent = Mutex::new(Instant::now());
        let (want, wanted) = watch::channel(());
        let taking = manager.transact_wanted(&wanted, async |tx| {
            *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            self.take_in(&tx, (session, begun), who, overdue).await
        });
        let (mut taking, mut want) = (std::pin::pin!(taking), Some(want));
        let taken = loop {
            tokio::select! {
                biased;
                taken = &mut taking => break taken.map(|taken| taken.unwrap_or(Taken::Unwanted)),
                // A commit that was sent is waited for: if it were dropped, it might take effect without anybody
                // knowing.
                () = reply.closed(), if want.is_some() => want = None,
            }
        };
        match &taken {
            Ok(Taken::Got { .. }) => {
                manager.entered(session, *sent.lock().unwrap_or_else(PoisonError::into_inner));
            }
            // A value may be out without anybody knowing: the session ends, and others get what is out in it.
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => manager.lose(session),
            _ => {}
        }
        taken
    }

    /// Hands out a value: an overdue one, or the first.
    async fn take_in<T>(
        &self,
        tx: &Tx,
        (session, begun): (&Session, bool),
        who: Claimant,
        overdue: &[Claimant],
    ) -> Result<Taken<T>>
    where
        T: Value + Serialize + DeserializeOwned,
    {
        let records = &self.records;
        let head_key = records.head.key().clone();
        let Some(mut head) = records.head(tx).await? else {
            return Ok(Taken::None(vec![head_key, records.tail.key().clone()]));
        };
        let again = head.out.iter().filter(|out| overdue.contains(&out.who)).map(|out| out.number).min();
        let Some(place) = again.map_or_else(|| head.front_place(), |number| head.place(number)) else {
            return Ok(Taken::None(vec![head_key]));
        };
        let item = records.item(place)?;
        if again.is_none() && !item.exists(tx).await? {
            return Ok(Taken::None(vec![head_key, item.key().clone()]));
        }
        let value = records.read(tx, again.unwrap_or(head.front), &item).await?;
        if !records.manager.enter(session, begun, tx).await? {
            return Ok(Taken::Ended);
        }
        let out = match again.and_then(|number| head.hand_on(number, who, self.hidden)) {
            Some(out) => out,
            None => head.hand_out_front(who, self.hidden),
        };
        records.head.put(tx, head).await?;
        Ok(Taken::Got { out, value })
    }
}
