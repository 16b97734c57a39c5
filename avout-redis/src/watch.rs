//! Who watches what, and the connection that is told of changes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::time::from_others;
use avout_core::backend::{Wake, Watcher, tasks};
use avout_core::{Error, ErrorKind, Result};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::dial::Wire;
use crate::error::classify;
use crate::link::lost_namespace;

/// How often a connection that hears nothing is asked whether it is still one, and whether the namespace is still there and
/// its changes told.
const PING: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How many channels one command names.
const TOGETHER: usize = 256;

/// Who watches what. A task listens, from the first watch on.
pub(crate) struct Hub {
    client: Weak<Client>,
    watched: Arc<Watched>,
    listener: Mutex<Option<Listener>>,
}

struct Listener {
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
}

enum Request {
    /// To listen to these channels, and to say when it does.
    Watch(Vec<String>, oneshot::Sender<Result<()>>),
    /// Nobody watches these any more, unless somebody began to since.
    Unwatch(Vec<String>),
    /// The server is another one.
    Reconnect,
}

/// The bells by channel.
#[derive(Default)]
struct Watched(Mutex<HashMap<String, Vec<Arc<Signal>>>>);

/// One watcher's bell. It rings once for any number of changes while nobody listens.
#[derive(Default)]
struct Signal {
    bell: Notify,
    lost: AtomicBool,
    gone: AtomicBool,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Signal>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, channel: &str) {
        if let Some(signals) = self.lock().get(channel) {
            signals.iter().for_each(|signal| signal.bell.notify_one());
        }
    }

    fn ring_all(&self, mark: impl Fn(&Signal)) {
        for signal in self.lock().values().flatten() {
            mark(signal);
            signal.bell.notify_one();
        }
    }

    fn channels(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }
}

/// Channels that are watched, until it is dropped.
pub(crate) struct Watch {
    channels: Vec<String>,
    signal: Arc<Signal>,
    watched: Arc<Watched>,
    requests: mpsc::UnboundedSender<Request>,
    /// The connections end with the last of what was made of the client.
    _client: Arc<Client>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut silent = Vec::new();
        let mut watched = self.watched.lock();
        for channel in self.channels.drain(..) {
            if let Some(signals) = watched.get_mut(&channel) {
                signals.retain(|signal| !Arc::ptr_eq(signal, &self.signal));
                if signals.is_empty() {
                    watched.remove(&channel);
                    silent.push(channel);
                }
            }
        }
        drop(watched);
        if !silent.is_empty() {
            let _ = self.requests.send(Request::Unwatch(silent));
        }
    }
}

impl Watch {
    /// Waits for the next change.
    ///
    /// # Cancel safety
    /// Safe: a `Notified` that is dropped after it was woken gives the wake-up back, and nothing is awaited after it.
    pub(crate) async fn rung(&self) -> Result<Wake> {
        if !self.signal.gone.load(Ordering::Acquire) {
            from_others(self.signal.bell.notified()).await;
        }
        if self.signal.gone.load(Ordering::Acquire) {
            return Err(lost_namespace());
        }
        Ok(if self.signal.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed })
    }
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        self.rung().await
    }
}

impl Hub {
    pub(crate) fn new(client: Weak<Client>) -> Self {
        Self { client, watched: Arc::default(), listener: Mutex::default() }
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>> {
        self.client.upgrade().ok_or_else(closed)
    }

    /// Watches channels: what is published after the return rings.
    pub(crate) async fn watch(&self, mut channels: Vec<String>) -> Result<Watch> {
        let client = self.client()?;
        channels.sort_unstable();
        channels.dedup();
        let signal = Arc::<Signal>::default();
        {
            let mut watched = self.watched.lock();
            for channel in &channels {
                watched.entry(channel.clone()).or_default().push(Arc::clone(&signal));
            }
        }
        let requests = self.listener();
        let watch = Watch {
            channels: channels.clone(),
            signal,
            watched: Arc::clone(&self.watched),
            requests: requests.clone(),
            _client: Arc::clone(&client),
        };
        let limit = client.options.connect_timeout + client.options.timeout;
        let (done, answer) = oneshot::channel();
        let _ = requests.send(Request::Watch(channels, done));
        match tasks::request(async { timeout(limit, answer).await }).await {
            Ok(Ok(answer)) => answer.map(|()| watch),
            Ok(Err(_)) | Err(_) => Err(Error::new(ErrorKind::Unavailable, "the server does not answer")),
        }
    }

    /// The server is another one than before.
    pub(crate) fn reconnect(&self) {
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = listener.requests.send(Request::Reconnect);
        }
    }

    fn listener(&self) -> mpsc::UnboundedSender<Request> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have panicked.
        if let Some(listener) = listener.as_ref().filter(|listener| !listener.task.is_finished()) {
            return listener.requests.clone();
        }
        let (requests, todo) = mpsc::unbounded_channel();
        let task =
            Task { client: Weak::clone(&self.client), watched: Arc::clone(&self.watched), todo, waiting: Vec::new() };
        let task = tasks::connections().spawn(task.run()).abort_handle();
        *listener = Some(Listener { requests: requests.clone(), task });
        requests
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get_mut().unwrap_or_else(PoisonError::into_inner) {
            listener.task.abort();
        }
    }
}

/// What listens.
struct Task {
    client: Weak<Client>,
    watched: Arc<Watched>,
    todo: mpsc::UnboundedReceiver<Request>,
    /// Who waits until the server tells of their channels.
    waiting: Vec<(Vec<String>, oneshot::Sender<Result<()>>)>,
}

/// A connection that listens.
struct Ear {
    wire: Wire,
    channels: HashSet<String>,
    ended: Arc<Notify>,
}

impl Task {
    /// Ends with the client, which aborts it.
    async fn run(mut self) {
        let mut connected_before = false;
        let mut pause = FIRST_PAUSE;
        loop {
            while self.waiting.is_empty() && self.watched.lock().is_empty() {
                let Some(request) = self.todo.recv().await else { return };
                self.put_off(request);
            }
            match self.connect().await {
                Ok(ear) => {
                    pause = FIRST_PAUSE;
                    if std::mem::replace(&mut connected_before, true) {
                        self.watched.ring_all(|signal| signal.lost.store(true, Ordering::Release));
                    }
                    self.listen(ear).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "changes cannot be listened to");
                    let (kind, message) = (error.kind(), error.to_string());
                    if kind == ErrorKind::StoreLost {
                        self.watched.ring_all(|signal| signal.gone.store(true, Ordering::Release));
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
        }
    }

    fn put_off(&mut self, request: Request) {
        if let Request::Watch(channels, done) = request {
            self.waiting.push((channels, done));
        }
    }

    /// Whether the connection works, and the server tells of changes.
    async fn is_told(&self, wire: &Wire) -> bool {
        match self.client.upgrade() {
            Some(client) => client.is_marked_watched(wire).await,
            None => false,
        }
    }

    async fn tell_if_gone(&self) -> bool {
        let Some(client) = self.client.upgrade() else { return true };
        let gone = client.is_gone().await;
        if gone {
            self.watched.ring_all(|signal| signal.gone.store(true, Ordering::Release));
        }
        gone
    }

    /// Connects to where the requests go, and listens to all that is watched.
    async fn connect(&mut self) -> Result<Ear> {
        let closed = || closed();
        let client = self.client.upgrade().ok_or_else(closed)?;
        // Whoever is told of a lost connection reads, and is to find one that works.
        let link = client.verified().await?;
        let ended = Arc::new(Notify::new());
        let (watched, end) = (Arc::clone(&self.watched), Arc::clone(&ended));
        let listener = Box::new(move |push| hear(&watched, &end, push));
        let wire = client.finder.dial(&link.address, Some(listener)).await?;
        client.finder.set_name(&wire).await;
        let mut ear = Ear { wire, channels: HashSet::new(), ended };
        // The server may have given the namespace away, and nobody have noticed.
        ear.add(self.watched.channels()).await.inspect_err(|_| link.retire())?;
        // Only now: what is committed once the mark is there is heard.
        client.mark_watched(&link, &ear.wire).await?;
        for (channels, done) in self.waiting.drain(..) {
            // Those were put into the map before they were asked for.
            debug_assert!(channels.iter().all(|channel| ear.channels.contains(channel)) || done.is_closed());
            let _ = done.send(Ok(()));
        }
        Ok(ear)
    }

    /// Returns when the connection is to be made again.
    async fn listen(&mut self, mut ear: Ear) {
        let ended = Arc::clone(&ear.ended);
        // However many requests come meanwhile.
        let mut next_look = Box::pin(sleep(PING));
        loop {
            tokio::select! {
                () = ended.notified() => return,
                request = self.todo.recv() => match request {
                    None | Some(Request::Reconnect) => return,
                    Some(Request::Watch(channels, done)) => match ear.add(channels.clone()).await {
                        Ok(()) => drop(done.send(Ok(()))),
                        Err(error) => {
                            tracing::debug!(%error, "a watch could not be made");
                            self.waiting.push((channels, done));
                            return;
                        }
                    },
                    Some(Request::Unwatch(channels)) => {
                        let unwatched = {
                            let watched = self.watched.lock();
                            channels.into_iter().filter(|channel| !watched.contains_key(channel)).collect()
                        };
                        if ear.remove(unwatched).await.is_err() {
                            return;
                        }
                    }
                },
                () = &mut next_look => {
                    if !self.is_told(&ear.wire).await || self.tell_if_gone().await {
                        return;
                    }
                    next_look.as_mut().reset(Instant::now() + PING);
                }
            }
        }
    }
}

impl Ear {
    async fn add(&mut self, channels: Vec<String>) -> Result<()> {
        let new: Vec<String> = channels.into_iter().filter(|channel| !self.channels.contains(channel)).collect();
        self.send("SSUBSCRIBE", &new).await?;
        self.channels.extend(new);
        Ok(())
    }

    async fn remove(&mut self, channels: Vec<String>) -> Result<()> {
        let old: Vec<String> = channels.into_iter().filter(|channel| self.channels.remove(channel)).collect();
        self.send("SUNSUBSCRIBE", &old).await
    }

    async fn send(&mut self, command: &str, channels: &[String]) -> Result<()> {
        for some in channels.chunks(TOGETHER) {
            // The server confirms each channel by itself, and the driver counts one answer for each command.
            let mut pipe = redis::pipe();
            for channel in some {
                pipe.cmd(command).arg(channel).ignore();
            }
            self.wire.ask_all::<()>(&pipe).await.map_err(|error| classify(error, ErrorKind::Unavailable))?;
        }
        Ok(())
    }
}

fn hear(watched: &Watched, ended: &Notify, push: PushInfo) {
    let channel = match push.data.first() {
        Some(Value::BulkString(channel)) => std::str::from_utf8(channel).unwrap_or_default(),
        _ => "",
    };
    match push.kind {
        PushKind::SMessage => watched.ring(channel),
        PushKind::Disconnection => ended.notify_one(),
        // The slot has gone to another node.
        PushKind::SUnsubscribe if watched.lock().contains_key(channel) => ended.notify_one(),
        _ => {}
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed")
}
