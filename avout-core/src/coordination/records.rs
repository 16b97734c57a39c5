use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::grant_queue::own_key;
use super::raw::Unreadable;
use super::ring::{Head, Out, Place, Ruins, Tail, begin};
use super::rules::Claimant;
use super::session_manager::SessionManager;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Item, SystemRef, Tx, Value};
use crate::protocol::{Key, SessionId};

/// The records of a queue, whatever the type of its values. Each step on them is a part of a transaction.
pub(super) struct Records {
    pub(super) manager: Arc<SessionManager>,
    pub(super) key: Key,
    pub(super) capacity: u64,
    pub(super) head: SystemRef<Head>,
    pub(super) tail: SystemRef<Tail>,
    pub(super) ruins: SystemRef<Ruins>,
}

impl Records {
    /// It makes no request.
    pub(super) fn new(manager: Arc<SessionManager>, key: Key, capacity: u64) -> Result<Self> {
        if capacity == 0 {
            return Err(no_room(&key));
        }
        own_key("queues", "18446744073709551615", &key)?;
        let head = SystemRef::new(&manager.engine, own_key("queues", "head", &key)?, "head");
        let tail = SystemRef::new(&manager.engine, own_key("queues", "tail", &key)?, "tail");
        let ruins = SystemRef::new(&manager.engine, own_key("queues", "ruins", &key)?, "ruins");
        Ok(Self { manager, key, capacity, head, tail, ruins })
    }

    /// The record of the value at a place.
    pub(super) fn item(&self, place: Place) -> Result<SystemRef<Item>> {
        let part = match place.ring {
            None => place.index.to_string(),
            Some(name) => format!("{name:x}.{}", place.index),
        };
        Ok(SystemRef::item(&self.manager.engine, own_key("queues", &part, &self.key)?))
    }

    /// The head, whatever the capacity; `None`: the queue was not made.
    pub(super) async fn found(&self, tx: &Tx) -> Result<Option<Head>> {
        let head = self.head.get(tx).await?;
        match head {
            Some(head) if head.is_complete() => Ok(Some(head)),
            // An earlier version made the head when the first value was taken off, and left the capacity to the tail.
            head => Ok(self.tail.get(tx).await?.map(|tail| head.unwrap_or_default().complete(&tail))),
        }
    }

    /// The head of a queue with this handle's capacity; `None`: the queue was not made.
    pub(super) async fn head(&self, tx: &Tx) -> Result<Option<Head>> {
        let head = self.found(tx).await?;
        if let Some(head) = &head {
            self.check(head.capacity)?;
        }
        Ok(head)
    }

    fn check(&self, found: u64) -> Result<()> {
        if found == self.capacity {
            return Ok(());
        }
        let message = format!(
            "it has room for {found} values, and is used with a capacity of {}: open it with {found}",
            self.capacity
        );
        Err(Error::new(ErrorKind::Mismatch, message).at(&self.key))
    }

    /// A name for a new ring. All earlier rings of the queue were made by earlier commits, and have smaller names.
    pub(super) fn new_name(tx: &Tx) -> u64 {
        tx.0.attempt().read_point.unwrap_or_default().number()
    }

    /// Adds a value at the end.
    pub(super) async fn push(self: &Arc<Self>, tx: &Tx, item: Item) -> Result<()> {
        let mut tail = match self.tail.get(tx).await? {
            Some(tail) => tail,
            None => self.begin(tx).await?,
        };
        self.check(tail.capacity)?;
        let place = match tail.place() {
            Some(place) => place,
            None => {
                let found = self.found(tx).await?.unwrap_or_default().complete(&tail);
                let mut head = found.clone();
                let Some(place) = head.make_room(&mut tail) else {
                    let message = format!("the queue holds {} values, and has no room for more", self.capacity);
                    return Err(Error::new(ErrorKind::Full, message).at(&self.key));
                };
                if head != found {
                    self.head.put(tx, head).await?;
                }
                place
            }
        };
        self.item(place)?.put(tx, item).await?;
        tail.pushed();
        self.tail.put(tx, tail).await
    }

    /// Begins a new queue.
    async fn begin(self: &Arc<Self>, tx: &Tx) -> Result<Tail> {
        let ruins = self.ruins.get(tx).await?.unwrap_or_default();
        self.clear_later(tx, &ruins);
        // The queue was read before, so there is a read point.
        let (head, tail) = begin(self.capacity, Self::new_name(tx), ruins.next());
        self.head.put(tx, head).await?;
        Ok(tail)
    }

    /// Continues an interrupted destruction in the background, if this transaction commits.
    fn clear_later(self: &Arc<Self>, tx: &Tx, ruins: &Ruins) {
        if ruins.is_empty() {
            return;
        }
        let records = Arc::clone(self);
        tx.on_commit(move |_| {
            let manager = Arc::clone(&records.manager);
            manager.background(async move {
                if let Err(error) = records.clear_all().await {
                    tracing::debug!(key = %records.key, %error, "values of a queue that was destroyed are left");
                }
            });
        });
    }

    /// The first value that no consumer has, with the head; `None`: there is none.
    pub(super) async fn front(&self, tx: &Tx) -> Result<Option<(Head, SystemRef<Item>)>> {
        let Some(head) = self.head(tx).await? else {
            return Ok(None);
        };
        let Some(place) = head.front_place() else {
            return Ok(None);
        };
        let item = self.item(place)?;
        Ok(item.exists(tx).await?.then_some((head, item)))
    }

    /// Takes the first value off, whose head and record were found.
    pub(super) async fn pass_front(&self, tx: &Tx, mut head: Head, item: SystemRef<Item>) -> Result<()> {
        item.remove(tx).await?;
        head.pass_front();
        self.head.put(tx, head).await
    }

    /// The value in a record that exists.
    pub(super) async fn load(&self, tx: &Tx, number: u64, item: &SystemRef<Item>) -> Result<Item> {
        let missing = || Error::new(ErrorKind::Corrupt, format!("value {number} is missing")).at(&self.key);
        match item.get(tx).await {
            Ok(value) => value.ok_or_else(missing),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch) => {
                let message = format!("value {number} cannot be read");
                Err(Error::new(error.kind(), message).at(&self.key).with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The same, decoded as this type.
    pub(super) async fn read<T>(&self, tx: &Tx, number: u64, item: &SystemRef<Item>) -> Result<T>
    where
        T: Value + Serialize + DeserializeOwned,
    {
        let item = self.load(tx, number, item).await?;
        item.open().map_err(|cause| Unreadable::of::<T>(number, &item, cause).at(&self.key))
    }

    /// Takes off a value that was handed out. `false`: it was redelivered since, or taken off.
    pub(super) async fn settle(&self, tx: &Tx, who: Claimant) -> Result<bool> {
        // Received values can be acknowledged whatever the capacity is by now.
        let Some(mut head) = self.found(tx).await? else {
            return Ok(false);
        };
        let Some(Out { number, .. }) = head.held_by(who).copied() else {
            return Ok(false);
        };
        self.take_off(tx, &mut head, number).await?;
        self.head.put(tx, head).await?;
        Ok(true)
    }

    /// Removes a value that is out from the head, and its record.
    pub(super) async fn take_off(&self, tx: &Tx, head: &mut Head, number: u64) -> Result<()> {
        if let Some(place) = head.place(number) {
            self.item(place)?.remove(tx).await?;
        }
        head.settle(number);
        Ok(())
    }

    /// The claimants whose values were out for too long, or which have died; and when to look for more of them.
    pub(super) async fn overdue(&self) -> Result<(Vec<Claimant>, Option<Instant>)> {
        let head = self.manager.transact(async |tx| self.found(&tx).await).await?.unwrap_or_default();
        let mut sessions: Vec<SessionId> = head.out.iter().map(|out| out.who.session()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let (dead, tick) = self.manager.look_at(&sessions).await?;
        let dead: Vec<SessionId> = dead.into_iter().map(|dead| dead.session).collect();
        let (overdue, next) = self.manager.sights.look(&self.key, &head.out, &dead);
        let tick = (!head.out.is_empty()).then(|| Instant::now() + tick);
        Ok((overdue, next.into_iter().chain(tick).min()))
    }

    /// Changes the capacity, whatever it was.
    pub(super) async fn resize(self: &Arc<Self>, tx: &Tx, capacity: u64) -> Result<()> {
        tx.0.see(&[self.head.key(), self.tail.key(), self.ruins.key()]).await?;
        let ruins = self.ruins.get(tx).await?.unwrap_or_default();
        self.clear_later(tx, &ruins);
        let (Some(mut head), Some(mut tail)) = (self.found(tx).await?, self.tail.get(tx).await?) else {
            return Ok(());
        };
        if head.capacity == capacity {
            return Ok(());
        }
        head.resize(&mut tail, capacity, Self::new_name(tx));
        self.head.put(tx, head).await?;
        self.tail.put(tx, tail).await
    }

    /// Destroys the queue, and notes where its values lie.
    pub(super) async fn ruin(&self, tx: &Tx) -> Result<()> {
        let (Some(head), Some(tail)) = (self.head(tx).await?, self.tail.get(tx).await?) else {
            return Ok(());
        };
        let mut ruins = self.ruins.get(tx).await?.unwrap_or_default();
        ruins.add(head.ruins(&tail));
        self.head.remove(tx).await?;
        self.tail.remove(tx).await?;
        self.ruins.put(tx, ruins).await
    }

    /// Removes what was left when the queue was destroyed, except the number from which values go on to be counted.
    pub(super) async fn clear_all(&self) -> Result<()> {
        while self.manager.transact_silently(async |tx| self.clear(&tx).await).await? {}
        Ok(())
    }

    /// Removes some of it. `false`: nothing is left.
    async fn clear(&self, tx: &Tx) -> Result<bool> {
        /// How many records are removed in one commit.
        const AT_ONCE: usize = 64;
        let Some(mut ruins) = self.ruins.get(tx).await?.filter(|ruins| !ruins.is_empty()) else {
            return Ok(false);
        };
        // The commit also has the ruins, the slot and the floor.
        let most = AT_ONCE.min(self.manager.engine.capabilities.max_keys.saturating_sub(4)).max(1);
        let items = ruins.take(most).into_iter().map(|place| self.item(place)).collect::<Result<Vec<_>>>()?;
        tx.0.see(&items.iter().map(SystemRef::key).collect::<Vec<_>>()).await?;
        for item in &items {
            item.remove(tx).await?;
        }
        let more = !ruins.is_empty();
        self.ruins.put(tx, ruins).await?;
        Ok(more)
    }

    /// Lets others have a value at once.
    pub(super) async fn expose(&self, who: Claimant) -> Result<()> {
        self.manager
            .transact(async |tx| {
                let Some(mut head) = self.found(&tx).await? else {
                    return Ok(());
                };
                match head.held_by(who) {
                    None => return Ok(()),
                    Some(out) => out.hidden = 0,
                }
                self.head.put(&tx, head).await
            })
            .await
    }
}

pub(super) fn no_room(key: &Key) -> Error {
    Error::new(ErrorKind::InvalidInput, "a queue has room for at least one value").at(key)
}
