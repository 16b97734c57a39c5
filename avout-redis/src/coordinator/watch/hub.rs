use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use avout_core::backend::{Bell, Bells, Wake, Watcher, tasks};
use avout_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::listener::{Request, Task};
use crate::wire::Client;

/// Who watches what. A task listens, from the first watch on.
pub(crate) struct Hub {
    client: Arc<Client>,
    bells: Arc<Bells<String>>,
    listener: Mutex<Option<Listener>>,
}

struct Listener {
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
}

impl Hub {
    pub(crate) fn new(client: Arc<Client>) -> Arc<Self> {
        Arc::new_cyclic(|hub| {
            let hub: std::sync::Weak<Self> = hub.clone();
            let unwatched = move |channels| {
                if let Some(hub) = hub.upgrade() {
                    let _ = hub.listener().send(Request::Unwatch(channels));
                }
            };
            Self { client, bells: Bells::telling(unwatched), listener: Mutex::default() }
        })
    }

    /// Watches channels: what is published after the return rings.
    pub(crate) async fn watch(self: &Arc<Self>, channels: Vec<String>) -> Result<Watch> {
        let watch = Watch { bell: self.bells.register(channels), _hub: Arc::clone(self) };
        let limit = self.client.options.connect_timeout + self.client.options.timeout;
        let (done, answer) = oneshot::channel();
        let _ = self.listener().send(Request::Watch(watch.bell.keys().to_vec(), done));
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
        let task = Task::new(&self.client, Arc::clone(&self.bells), todo);
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
    bell: Bell<String>,
    /// The connections end with the last of what was made of the client.
    _hub: Arc<Hub>,
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        self.bell.rung().await
    }
}
