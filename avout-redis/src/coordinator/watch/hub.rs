use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use avout_core::backend::{Wake, Watcher, tasks};
use avout_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::listener::{Request, Task};
use super::watched::{Signal, Watched};
use crate::wire::Client;

/// Who watches what. A task listens, from the first watch on.
pub(crate) struct Hub {
    client: Arc<Client>,
    watched: Arc<Watched>,
    listener: Mutex<Option<Listener>>,
}

struct Listener {
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
}

impl Hub {
    pub(crate) fn new(client: Arc<Client>) -> Arc<Self> {
        Arc::new(Self { client, watched: Arc::default(), listener: Mutex::default() })
    }

    /// Watches channels: what is published after the return rings.
    pub(crate) async fn watch(self: &Arc<Self>, mut channels: Vec<String>) -> Result<Watch> {
        channels.sort_unstable();
        channels.dedup();
        let signal = self.watched.register(&channels);
        let requests = self.listener();
        let watch = Watch { channels: channels.clone(), signal, hub: Arc::clone(self), requests: requests.clone() };
        let limit = self.client.options.connect_timeout + self.client.options.timeout;
        let (done, answer) = oneshot::channel();
        let _ = requests.send(Request::Watch(channels, done));
        match tasks::request(async { timeout(limit, answer).await }).await {
            Ok(Ok(answer)) => answer.map(|()| watch),
            Ok(Err(_)) | Err(_) => Err(Error::new(ErrorKind::Unavailable, "the server does not answer")),
        }
    }

    fn listener(&self) -> mpsc::UnboundedSender<Request> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have panicked.
        if let Some(listener) = listener.as_ref().filter(|listener| !listener.task.is_finished()) {
            return listener.requests.clone();
        }
        let (requests, todo) = mpsc::unbounded_channel();
        let task = Task::new(&self.client, Arc::clone(&self.watched), todo);
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

/// Channels that are watched, until it is dropped.
pub(crate) struct Watch {
    channels: Vec<String>,
    signal: Arc<Signal>,
    requests: mpsc::UnboundedSender<Request>,
    /// The connections end with the last of what was made of the client.
    hub: Arc<Hub>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let silent = self.hub.watched.remove(std::mem::take(&mut self.channels), &self.signal);
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
        self.signal.rung().await
    }
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        self.rung().await
    }
}
