//! The task that listens, and makes its connection again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use avout_core::backend::Bells;
use avout_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::ear::Ear;
use crate::wire::connection::{Link, Wire};
use crate::wire::{Client, closed, lost_namespace};

/// How often a connection that hears nothing is asked whether it is still one, and whether the namespace is still there and
/// its changes told.
const PING: Duration = Duration::from_secs(2);
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

    /// Connects to where the requests go, and listens to all that is watched.
    async fn connect(&mut self) -> Result<Ear> {
        let client = self.client.upgrade().ok_or_else(closed)?;
        // Whoever is told of a lost connection reads, and is to find one that works.
        let link = client.verified().await?;
        tokio::select! {
            made = client.doubting(Duration::ZERO, self.connect_at(&client, &link)) => made,
            () = link.left() => Err(Error::new(ErrorKind::Unavailable, "the server was left before changes were listened to")),
        }
    }

    async fn connect_at(&mut self, client: &Client, link: &Link) -> Result<Ear> {
        let mut ear = Ear::open(client, link, &self.bells).await?;
        // The server may have given the namespace away, and nobody have noticed.
        ear.add(self.bells.keys()).await.inspect_err(|_| link.retire())?;
        // Only now: what is committed once the mark is there is heard.
        ear.told = client.mark_watched(link, &ear.wire).await?;
        for (channels, done) in self.waiting.drain(..) {
            // Those were registered before they were asked for.
            debug_assert!(channels.iter().all(|channel| ear.channels.contains(channel)) || done.is_closed());
            let _ = done.send(Ok(()));
        }
        Ok(ear)
    }

    /// Returns when the connection is to be made again. Nothing that is asked of the server keeps it from hearing of another one.
    async fn listen(&mut self, mut ear: Ear) {
        let (ended, wire) = (Arc::clone(&ear.ended), Arc::clone(&ear.wire));
        let told = ear.told;
        let Self { client, bells, todo, server, waiting } = self;
        tokio::select! {
            () = ended.notified() => {}
            _ = server.changed() => {}
            () = serve(&mut ear, bells, todo, waiting) => {}
            () = look(client, bells, &wire, told) => {}
        }
    }
}

/// Listens to what is watched from now on, and no more to what is not. Returns when the server does not answer.
async fn serve(
    ear: &mut Ear,
    bells: &Bells<String>,
    todo: &mut mpsc::UnboundedReceiver<Request>,
    waiting: &mut Vec<(Vec<String>, oneshot::Sender<Result<()>>)>,
) {
    while let Some(request) = todo.recv().await {
        match request {
            Request::Watch(channels, done) => {
                // It waits, should this end before the server has answered.
                waiting.push((channels.clone(), done));
                if let Err(error) = ear.add(channels).await {
                    tracing::debug!(%error, "a watch could not be made");
                    return;
                }
                waiting.drain(..).for_each(|(_, done)| drop(done.send(Ok(()))));
            }
            Request::Unwatch(channels) => {
                let unwatched = channels.into_iter().filter(|channel| !bells.is_watched(channel)).collect();
                if ear.remove(unwatched).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Looks now and then, and returns when the connection does not work, the server tells no more of changes, or the namespace is gone.
async fn look(client: &Weak<Client>, bells: &Bells<String>, wire: &Wire, mut told: bool) {
    loop {
        // However many requests come meanwhile.
        sleep(if told { PING } else { LOOK }).await;
        let Some(client) = client.upgrade() else { return };
        match client.doubting(Duration::ZERO, client.is_marked_watched(wire)).await {
            None => return,
            Some(false) if told => return,
            Some(now) if !told => {
                bells.ring_lost();
                told = now;
            }
            Some(_) => {}
        }
        if client.is_gone().await {
            return bells.end(&lost_namespace());
        }
    }
}
