use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::frame::Protocol;
use super::link::{Action, Direction, Link, Trap, runtime};
use super::{Error, free_port};

/// Stands between clients and a server, and breaks their connections in a certain way at a certain moment.
///
/// It listens on a port of its own, which stays the same when it is cut and healed. It ends with its last clone.
///
/// # Examples
/// The commit is applied, and the client never hears of it:
/// ```no_run
/// use avout_conformance::servers::{Error, Redis};
///
/// # async fn f() -> Result<(), Error> {
/// let redis = Redis::single().await?;
/// let proxy = redis.proxy(0).await?;
/// let url = format!("redis://{}/shop", proxy.address());
/// // … connect there …
/// proxy.cut_on_reply_to(|request| request.windows(7).any(|word| word == b"EVALSHA"));
/// // … commit …
/// proxy.is_cut().await;
/// proxy.heal().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    address: SocketAddr,
    target: SocketAddr,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.cut();
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.0.address)
            .field("target", &self.0.target)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// One in front of a server of any protocol.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn to(target: SocketAddr) -> Result<Self, Error> {
        Self::speaking(Protocol::Any, target).await
    }

    /// One that knows where a message ends, and which reply belongs to which request.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn speaking(protocol: Protocol, target: SocketAddr) -> Result<Self, Error> {
        let mut last = None;
        // Another process may take the port first.
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let inner = Inner { link: Link::new(protocol), address, target };
            let proxy = Self(Arc::new(inner));
            match proxy.listen() {
                Ok(()) => return Ok(proxy),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::failed("proxy", "no port")))
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The server behind it.
    pub fn target(&self) -> SocketAddr {
        self.0.target
    }

    /// Resets all connections and refuses new ones. On return nothing passes any more.
    pub async fn cut(&self) {
        self.0.link.cut();
        self.ended().await;
    }

    /// Waits until it is cut, by a trap or a hook, and nothing passes any more.
    pub async fn is_cut(&self) {
        self.0.link.cut_happens().await;
        self.ended().await;
    }

    /// Lets everything through again and forgets all that was set up. If it was cut it listens again; connections that
    /// may have lost something are reset.
    ///
    /// # Errors
    /// If another process has taken the port.
    pub async fn heal(&self) -> Result<(), Error> {
        let lossy = {
            let rules = self.0.link.rules();
            rules.lose.contains(&true) || rules.hook.is_some()
        };
        if lossy || self.0.link.is_cut() {
            self.cut().await;
            self.0.link.mend();
            // A process that is being started holds a copy of the closed socket until its program begins.
            let mut tries = 0;
            while let Err(error) = self.listen() {
                tries += 1;
                if tries == 100 {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return Ok(());
        }
        self.0.link.mend();
        Ok(())
    }

    /// From now on each message takes so much longer, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.0.link.rules().delay = [delay; 2];
    }

    /// From now on requests take so much longer.
    pub fn delay_requests(&self, delay: Duration) {
        self.0.link.rules().delay[0] = delay;
    }

    /// From now on replies take so much longer.
    pub fn delay_replies(&self, delay: Duration) {
        self.0.link.rules().delay[1] = delay;
    }

    /// From now on the server gets nothing. Connections stay open.
    pub fn lose_requests(&self) {
        self.0.link.rules().lose[0] = true;
    }

    /// From now on the server gets and does everything, and clients hear nothing. Connections stay open.
    pub fn lose_replies(&self) {
        self.0.link.rules().lose[1] = true;
    }

    /// Cuts when the next request comes: it surely was not applied. See [`cut_on_request`](Self::cut_on_request).
    pub fn cut_on_next_request(&self) {
        self.cut_on_request(|_| true);
    }

    /// Cuts when the first request arrives for which `pick` holds, before the server sees it.
    ///
    /// `pick` is given whole requests, as bytes. With [`Protocol::Any`] the server may have seen a part of it.
    pub fn cut_on_request(&self, pick: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        self.0.link.rules().trap = Some(Trap::Request(Box::new(pick)));
    }

    /// Lets the next request through and cuts when its reply arrives, which is lost: the request surely was
    /// applied. A heartbeat is a request too; see [`cut_on_reply_to`](Self::cut_on_reply_to).
    pub fn cut_on_next_reply(&self) {
        self.cut_on_reply_to(|_| true);
    }

    /// Lets the first request through for which `pick` holds, and cuts when its reply arrives, which is lost.
    ///
    /// With [`Protocol::Any`] any bytes that the server sends afterwards on the same connection count as the reply, which is
    /// wrong where requests are pipelined.
    pub fn cut_on_reply_to(&self, pick: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        self.0.link.rules().trap = Some(Trap::ReplyTo(Box::new(pick)));
    }

    /// Resets the connection on which the server answers next: what was asked there was done, and the client does not hear of it.
    /// Other connections go on, and the client may connect again at once, so that nothing has to be [healed](Self::heal).
    ///
    /// It needs to know no protocol: with [`Protocol::Any`] the next bytes from the server are the answer, or a part of it.
    pub fn reset_on_next_reply(&self) {
        self.reset_beyond(Direction::Reply, 0);
    }

    /// Resets the connection whose message is the first that would go beyond `bytes` bytes in this direction, counted from now
    /// on over all connections. That message does not arrive.
    pub fn reset_beyond(&self, direction: Direction, bytes: usize) {
        self.0.link.rules().trap = Some(Trap::Beyond(direction, bytes));
    }

    /// From now on nothing arrives, in both directions, and nothing is lost: the server seems to have stopped. Connections stay
    /// open, and new ones are made.
    pub fn hold(&self) {
        self.0.link.hold(true);
    }

    /// What was held arrives now, and all later messages as they come.
    pub fn release(&self) {
        self.0.link.hold(false);
    }

    /// Asks `hook` about each message from now on. It must not block, nor call this proxy.
    pub fn hook(&self, hook: impl Fn(Direction, &[u8]) -> Action + Send + Sync + 'static) {
        self.0.link.rules().hook = Some(Arc::new(hook));
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.0.link.open()
    }

    /// How many connections were made to the server, ever.
    pub fn connections(&self) -> u64 {
        self.0.link.made()
    }

    /// Until the listener and all connections are closed.
    async fn ended(&self) {
        self.0.link.quiet().await;
    }

    fn listen(&self) -> Result<(), Error> {
        let Inner { link, address, target } = &*self.0;
        let (link, target) = (Arc::clone(link), *target);
        let accept = {
            let link = Arc::clone(&link);
            move |client| {
                let (link, at_work) = (Arc::clone(&link), link.enter());
                runtime().spawn(async move {
                    match link.dial(target).await {
                        Some(server) => link.carry(client, server).await,
                        // A listener was here, so the client's connection was made: it ends with a reset.
                        None => drop(client.set_zero_linger().map(|()| client)),
                    }
                    drop(at_work);
                });
            }
        };
        listen(*address, link, accept)
            .map_err(|error| Error::failed("proxy", format!("it cannot listen at {address}: {error}")))
    }
}

/// Hands each client that connects to `accept`, until the link is cut.
pub(super) fn listen(
    address: SocketAddr,
    link: Arc<Link>,
    accept: impl Fn(TcpStream) + Send + 'static,
) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _inside = runtime().enter();
        TcpListener::from_std(listener)?
    };
    let at_work = link.enter();
    runtime().spawn(async move {
        loop {
            let client = tokio::select! {
                biased;
                () = link.cut_happens() => break,
                client = listener.accept() => client,
            };
            match client {
                Ok((client, _)) => accept(client),
                // This process has no file left; connections that end give some back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        drop(listener);
        drop(at_work);
    });
    Ok(())
}
