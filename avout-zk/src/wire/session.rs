//! One session with the servers, which ends with its first connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use avout_tls::Refused;
use spawns_core::{Spawn, Task};
use zookeeper::{Client as Zk, Error as ZkError, SaslOptions, SessionState, StateWatcher};

use super::tls;
use crate::options::{Auth, Options};

/// Why there is no session.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    Zk(ZkError),
    Tls(Refused),
    /// A file that the options name, and what is wrong with it.
    File(String),
}

pub(crate) async fn connect(options: &Options) -> Result<Zk, Failed> {
    let mut connector = Zk::connector().with_session_timeout(options.session_timeout);
    if let Some((user, password)) = &options.user {
        connector = match options.auth {
            Auth::Digest => connector.with_auth("digest", format!("{user}:{password}").as_bytes()),
            Auth::Sasl => connector.with_sasl(SaslOptions::digest_md5(user.clone(), password.clone())),
        };
    }
    let Some(tls) = &options.tls else {
        return once(connector.connect(&options.servers)).await.map_err(Failed::Zk);
    };
    let certificates = tls::certificates(tls).map_err(|error| Failed::File(error.to_string()))?;
    let connecting = once(connector.with_tls(certificates).secure_connect(&options.servers));
    tokio::select! {
        connected = connecting => connected.map_err(Failed::Zk),
        // The driver tells nobody why a server is not taken, and tries until the session would have expired.
        refused = tls::refused(tls, &options.servers, options.timeout) => Err(Failed::Tls(refused)),
    }
}

/// Connects, and keeps the driver from doing so again.
///
/// The driver holds what it is asked while it has no connection, and sends it by the next one. That may lead to a server with an older
/// history, before anybody has looked at what era that is in: a commit could find what it expects there, and nobody
/// would know that it did. So the driver's task is taken from it, and dropped as soon as the connection is lost, before it
/// can make another. All that it still holds then fails.
async fn once(connecting: impl Future<Output = Result<Zk, ZkError>>) -> Result<Zk, ZkError> {
    let caught = Caught::default();
    let mut connecting = pin!(connecting);
    let zk = poll_fn(|context| {
        let _scope = spawns_core::enter(&caught);
        connecting.as_mut().poll(context)
    });
    let zk = zk.await?;
    for task in caught.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
        tokio::spawn(until_lost(Box::into_pin(task.future), zk.state_watcher()));
    }
    Ok(zk)
}

/// Takes the driver's tasks instead of running them.
#[derive(Default)]
struct Caught(Mutex<Vec<Task>>);

impl Spawn for Caught {
    fn spawn(&self, task: Task) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

/// Runs a session's task. When it has lost its connection it says so before it waits for another, and then it is not polled again.
async fn until_lost(mut task: Pin<Box<dyn Future<Output = ()> + Send>>, state: StateWatcher) {
    poll_fn(|context| {
        let ended = task.as_mut().poll(context).is_ready();
        if ended || state.peek_state() != SessionState::SyncConnected { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
