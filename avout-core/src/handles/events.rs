use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::select;
use futures_util::stream::{Stream, StreamExt, unfold};

use crate::backend::LostCommits;
use crate::engine::{Engine, Role};

/// An event in the life of a client's stores, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A store has lost commits that it had acknowledged and that this client had seen: after a failover or a restart,
    /// or because an older copy of its data was restored. The client continues with the present state. Its next
    /// operation and each watch get the error [`StoreLost`](crate::ErrorKind::StoreLost).
    CommitsLost(LostCommits),
    /// The first connection to a store was made, after there was none.
    Connected(Role),
    /// The last connection to a store was lost. Requests wait for a new one until their deadline.
    Disconnected(Role),
}

/// The events of a client since the stream was made, each once; made by [`Stm::events`](crate::Stm::events).
///
/// It is a [`Stream`] and also has its own [`next`](Self::next). It ends when the client is closed. It makes no
/// requests: it hears of a loss when any operation of the client comes across it, and of a lost connection when the
/// backend notices. To be told of an outage in a given time, use [`ping`](crate::Stm::ping). The last 64 connection
/// events are kept for a stream that is not read. Memory and SQLite have no connections, and neither has a store that
/// does not report them.
#[must_use = "a stream does nothing until it is read"]
pub struct Events(Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Events {
    pub(super) fn of(engine: &Arc<Engine>) -> Self {
        let listener = (Arc::clone(engine), engine.losses.now(), engine.connections.now());
        Self(Box::pin(unfold(listener, async |(engine, mut losses, mut heard)| {
            loop {
                if let Some(lost) = engine.losses.next(&mut losses) {
                    return Some((Event::CommitsLost(lost), (engine, losses, heard)));
                }
                if let Some((role, up)) = engine.connections.next(&mut heard) {
                    let event = if up { Event::Connected(role) } else { Event::Disconnected(role) };
                    return Some((event, (engine, losses, heard)));
                }
                let lost = pin!(engine.losses.reported(&losses));
                let changed = pin!(engine.connections.changed(&heard));
                engine.closing.race(select(lost, changed)).await.ok()?;
            }
        })))
    }

    /// The next event; `None`: the client was closed.
    ///
    /// # Cancel safety
    /// Safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}
