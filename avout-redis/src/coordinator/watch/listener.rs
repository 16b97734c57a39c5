//! The task that listens, and makes its connection again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use avout_core::backend::Bells;
use avout_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::ear::Ear;
use crate::wire::connection::Wire;
use crate::wire::{Client, closed, lost_namespace};

/// How often a connection that hears nothing is asked whether it is still one, and whether the namespace is still there and
/// its changes told.
const PING: Duration = Duration::from_secs(5);
/// How often those who watch look by themselves, where nobody has the server tell of changes who may write.
const LOOK: Duration = Duration::from_millis(250);
/// Pauses between attempts to connect again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What is asked of it.
pub(super) enum Request {
    /// To listen to these channels, and to say when it does.
    Watch(Vec<String>, oneshot::Sender<Result<()>>),
    /// Nobody watches these any more, unless somebody began to since.
    Unwatch(Vec<String>),
}

/// What listens.
pub(super) struct Task {
    client: Weak<Client>,
    bells: Arc<Bells<String>>,
    todo: mpsc::UnboundedReceiver<Request>,
    /// Told when requests go to another server.
    server: watch::Receiver<()>,
    /// Who waits until the server tells of their channels.
    waiting: Vec<(Vec<String>, oneshot::Sender<Result<()>>)>,
}

impl Task {
    pub(super) fn new(client: &Arc<Client>, bells: Arc<Bells<String>>, todo: mpsc::UnboundedReceiver<Request>) -> Self {
        Self { client: Arc::downgrade(client), bells, todo, server: client.server_changes(), waiting: Vec::new() }
    }

    /// Ends with the hub, which aborts it.
    pub(super) async fn run(mut self) {
        let mut connected_before = false;
        let mut pause = FIRST_PAUSE;
        loop {
            while self.waiting.is_empty() && self.bells.is_empty() {
                let Some(request) = self.todo.recv().await else { return };
                self.put_off(request);
            }
            match self.connect().await {
                Ok(ear) => {
                    pause = FIRST_PAUSE;
                    if std::mem::replace(&mut connected_before, true) {
                        self.bells.ring_lost();
                    }
                    self.listen(ear).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "changes cannot be listened to");
                    let (kind, message) = (error.kind(), error.to_string());
                    if kind == ErrorKind::StoreLost {
                        self.bells.end(&lost_namespace());
                    }
                    for (_, done) in self.waiting.drain(..) {
                        let _ = done.send(Err(Error::new(kind, message.clone())));
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
            while let Ok(request) = self.todo.try_recv() {
                self.put_off(request);
            }
            self.server.mark_unchanged();
        }
    }

    fn put_off(&mut self, request: Request) {
        if let Request::Watch(channels, done) = request {
            self.waiting.push((channels, done));
        }
    }

    /// Whether the server tells of changes; `None`: the connection does not work.
    async fn is_told(&self, wire: &Wire) -> Option<bool> {
        self.client.upgrade()?.is_marked_watched(wire).await
    }

    async fn tell_if_gone(&self) -> bool {
        let Some(client) = self.client.upgrade() else { return true };
        let gone = client.is_gone().await;
        if gone {
            self.bells.end(&lost_namespace());
        }
        gone
    }

    /// Connects to where the requests go, and listens to all that is watched.
    async fn connect(&mut self) -> Result<Ear> {
        let client = self.client.upgrade().ok_or_else(closed)?;
        // Whoever is told of a lost connection reads, and is to find one that works.
        let link = client.verified().await?;
        let mut ear = Ear::open(&client, &link, &self.bells).await?;
        // The server may have given the namespace away, and nobody have noticed.
        ear.add(self.bells.keys()).await.inspect_err(|_| link.retire())?;
        // Only now: what is committed once the mark is there is heard.
        ear.told = client.mark_watched(&link, &ear.wire).await?;
        for (channels, done) in self.waiting.drain(..) {
            // Those were registered before they were asked for.
            debug_assert!(channels.iter().all(|channel| ear.channels.contains(channel)) || done.is_closed());
            let _ = done.send(Ok(()));
        }
        Ok(ear)
    }

    /// Returns when the connection is to be made again.
    async fn listen(&mut self, mut ear: Ear) {
        let ended = Arc::clone(&ear.ended);
        // However many requests come meanwhile.
        let pause = |ear: &Ear| if ear.told { PING } else { LOOK };
        let mut next_look = Box::pin(sleep(pause(&ear)));
        loop {
            tokio::select! {
                () = ended.notified() => return,
                _ = self.server.changed() => return,
                request = self.todo.recv() => match request {
                    None => return,
                    Some(Request::Watch(channels, done)) => match ear.add(channels.clone()).await {
                        Ok(()) => drop(done.send(Ok(()))),
                        Err(error) => {
                            tracing::debug!(%error, "a watch could not be made");
                            self.waiting.push((channels, done));
                            return;
                        }
                    },
                    Some(Request::Unwatch(channels)) => {
                        let unwatched = channels.into_iter().filter(|channel| !self.bells.is_watched(channel)).collect();
                        if ear.remove(unwatched).await.is_err() {
                            return;
                        }
                    }
                },
                () = &mut next_look => {
                    match self.is_told(&ear.wire).await {
                        None => return,
                        Some(false) if ear.told => return,
                        Some(told) if !ear.told => {
                            self.watched.ring_all(|_| ());
                            ear.told = told;
                        }
                        Some(_) => {}
                    }
                    if self.tell_if_gone().await {
                        return;
                    }
                    next_look.as_mut().reset(Instant::now() + pause(&ear));
                }
            }
        }
    }
}
