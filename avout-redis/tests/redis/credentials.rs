//! Credentials that change while clients run.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::{Error, ErrorKind, Result};
use avout_redis::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;

use crate::support::{Outcome, Pair, at_last, hasty, namespace, within};

const SOON: Duration = Duration::from_secs(20);

/// The credentials of the moment, and how often they were asked for.
#[derive(Clone, Default)]
struct Vault {
    current: Arc<Mutex<Option<(String, String)>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn keep(&self, user: &str, password: &str) {
        *self.current() = Some((user.to_owned(), password.to_owned()));
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<(String, String)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn options(&self, server: SocketAddr) -> Options {
        let vault = self.clone();
        let give = move || {
            vault.asked.fetch_add(1, Ordering::Relaxed);
            let current = vault.current().clone();
            async move { current.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the vault is sealed")) }
        };
        Options::new(server.ip().to_string(), server.port()).namespace(namespace()).credentials_from(give)
    }
}

async fn set_user(redis: &Redis, user: &str, password: &str) -> Outcome {
    let password = format!(">{password}");
    let set = ["ACL", "SETUSER", user, "on", "resetpass", &password, "allkeys", "allchannels", "+@all"];
    assert_eq!(redis.command(0, &set).await?, "OK");
    Ok(())
}

fn refused<T>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    error
}

/// Each connection asks for the credentials of its moment; those that are open get them when they are told to, and stay as they are
/// when the server refuses them. None of them is shown.
pub(crate) async fn credentials_that_change_are_asked_for() -> Outcome {
    let redis = Redis::single().await?;
    let vault = Vault::default();
    let options = vault.options(redis.node(0).address());
    assert!(format!("{options:?}").contains("provided"), "{options:?}");
    refused(options.clone().open().await, ErrorKind::Unavailable);
    vault.keep("app", "canary-0");
    refused(options.clone().open().await, ErrorKind::Denied);
    set_user(&redis, "app", "canary-1").await?;
    vault.keep("app", "canary-1");
    let backend = options.open().await?;
    let pair = Pair::open(hasty(backend.clone()), "pair").await?;
    let mut changes = pair.a().watch().await?;
    assert_eq!(pair.bump().await?, 1);
    assert!(!format!("{backend:?}").contains("canary"));

    // The server wants others, and ends what is open.
    set_user(&redis, "app", "canary-2").await?;
    vault.keep("app", "canary-2");
    redis.command(0, &["CLIENT", "KILL", "USER", "app"]).await?;
    let bumped = at_last("a commit with other credentials", async || pair.bump().await.ok());
    assert_eq!(within(SOON, "a commit", bumped).await, 2);

    // Those that are open get another user's.
    set_user(&redis, "next", "canary-3").await?;
    vault.keep("next", "canary-3");
    within(SOON, "a change", async {
        while changes.next().await.expect("a change").is_ok_and(|change| change.new != Some(2)) {}
    })
    .await;
    let users = async || {
        let clients = redis.command(0, &["CLIENT", "LIST"]).await?;
        let own = clients.lines().filter(|line| line.contains("name=avout:"));
        Ok::<_, Box<dyn std::error::Error>>(own.map(|line| line.contains(" user=next ")).collect::<Vec<_>>())
    };
    // One that is being made meanwhile has those that were asked for before.
    at_last("the next user on all connections", async || {
        backend.reauthenticate().await.ok()?;
        let all = users().await.ok()?;
        (all.len() >= 2 && all.iter().all(|next| *next)).then_some(())
    })
    .await;
    vault.keep("next", "canary-4");
    refused(backend.reauthenticate().await, ErrorKind::Denied);
    assert_eq!(pair.bump().await?, 3);

    // Without credentials there is no connection, and what failed is tried again.
    *vault.current() = None;
    refused(backend.reauthenticate().await, ErrorKind::Unavailable);
    redis.command(0, &["CLIENT", "KILL", "USER", "next"]).await?;
    let error = pair.bump().await.expect_err("there are no credentials");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    vault.keep("next", "canary-3");
    assert_eq!(within(SOON, "a read", pair.read_at_last()).await, 3);
    Ok(())
}

/// A connection whose user the server has forgotten is made anew, and no caller is told.
pub(crate) async fn a_connection_without_its_user_is_made_anew() -> Outcome {
    let redis = Redis::single().await?;
    let vault = Vault::default();
    set_user(&redis, "app", "canary").await?;
    vault.keep("app", "canary");
    let between = Between::before(redis.node(0).address()).await?;
    let pair = Pair::open(hasty(vault.options(between.address).open().await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    assert_eq!(redis.command(0, &["ACL", "SETUSER", "default", "off"]).await?, "OK");
    for number in 2..=3 {
        let asked = vault.asked();
        between.reset_all().await;
        assert_eq!(pair.bump().await?, number);
        assert!(vault.asked() > asked);
    }
    Ok(())
}

/// What leads to a server, and says something of its own to it.
struct Between {
    address: SocketAddr,
    say: broadcast::Sender<mpsc::Sender<()>>,
    listener: AbortHandle,
}

impl Between {
    async fn before(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (say, _) = broadcast::channel(4);
        let told = say.clone();
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, told.subscribe()));
            }
        });
        Ok(Self { address, say, listener: accept.abort_handle() })
    }

    /// Makes the server forget who is at each connection. It answers nothing to that.
    async fn reset_all(&self) {
        let (done, mut said) = mpsc::channel(1);
        self.say.send(done).expect("a connection");
        while said.recv().await.is_some() {}
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut told: broadcast::Receiver<mpsc::Sender<()>>,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut bytes = vec![0; 64 << 10];
    loop {
        tokio::select! {
            read = from_client.read(&mut bytes) => match read {
                Ok(count @ 1..) => to_server.write_all(&bytes[..count]).await?,
                _ => break,
            },
            Ok(_done) = told.recv() => to_server.write_all(b"CLIENT REPLY SKIP\r\nRESET\r\n").await?,
        }
    }
    back.abort();
    Ok(())
}
