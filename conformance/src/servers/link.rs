//! What carries the bytes between a client and a server, and does them harm on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::frame::Protocol;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Reply,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Pass,
    /// It is lost; the connection stays.
    Drop,
    /// It is lost, and everything is cut.
    Cut,
    /// It is lost, and its connection is reset. The others go on, and new ones are made.
    Reset,
}

pub(super) type Pick = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;
pub(super) type Hook = Arc<dyn Fn(Direction, &[u8]) -> Action + Send + Sync>;

/// A cut that waits for one certain message.
pub(super) enum Trap {
    Request(Pick),
    ReplyTo(Pick),
    /// The connection is reset whose message is the first that goes beyond so many bytes in this direction.
    Beyond(Direction, usize),
    /// The request went through, and its reply is awaited.
    Reply {
        connection: u64,
        awaited: Awaited,
    },
}

pub(super) enum Awaited {
    Id([u8; 4]),
    /// The reply with this number on the connection.
    Number(u64),
}

#[derive(Default)]
pub(super) struct Rules {
    /// By direction.
    pub(super) delay: [Duration; 2],
    pub(super) lose: [bool; 2],
    pub(super) trap: Option<Trap>,
    pub(super) hook: Option<Hook>,
}

pub(super) struct Link {
    protocol: Protocol,
    rules: Mutex<Rules>,
    is_cut: watch::Sender<bool>,
    is_held: watch::Sender<bool>,
    /// The listener and all connections, also those that are being made.
    at_work: watch::Sender<usize>,
    open: AtomicUsize,
    made: AtomicU64,
}

/// What the link counts as at work as long as this lives.
pub(super) struct AtWork(Arc<Link>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.send_modify(|count| *count -= 1);
    }
}

/// One connection; the numbers of messages so far are by direction.
struct Connection<'a> {
    link: &'a Link,
    number: u64,
    messages: [AtomicU64; 2],
    /// Whether it is no talk in messages: then only losses and delays concern it.
    is_raw: AtomicBool,
}

/// The runtime of all proxies: they outlive the runtime of the test that made them.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("avout-proxy").enable_all();
        builder.build().expect("the operating system has two threads left")
    })
}

impl Link {
    pub(super) fn new(protocol: Protocol) -> Arc<Self> {
        let [is_cut, is_held] = [(); 2].map(|()| watch::Sender::new(false));
        let (at_work, open, made) = (watch::Sender::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { protocol, rules: Mutex::default(), is_cut, is_held, at_work, open, made })
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nothing through any more; the connections notice at their next step.
    pub(super) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        *self.is_cut.borrow()
    }

    /// Until it is cut.
    pub(super) async fn cut_happens(&self) {
        // The sender is `self`'s own.
        let _ = self.is_cut.subscribe().wait_for(|cut| *cut).await;
    }

    /// Keeps back what comes from now on, in both directions, or lets it go on.
    pub(super) fn hold(&self, hold: bool) {
        self.is_held.send_replace(hold);
    }

    /// Says that something is at work.
    pub(super) fn enter(self: &Arc<Self>) -> AtWork {
        self.at_work.send_modify(|count| *count += 1);
        AtWork(Arc::clone(self))
    }

    /// Until nothing is at work any more.
    pub(super) async fn quiet(&self) {
        let _ = self.at_work.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Lets through again, all rules forgotten. To be called when it is quiet.
    pub(super) fn mend(&self) {
        *self.rules() = Rules::default();
        self.hold(false);
        self.is_cut.send_replace(false);
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Connects to the server; `None` if it is down, or the link is cut.
    pub(super) async fn dial(&self, target: SocketAddr) -> Option<TcpStream> {
        tokio::select! {
            biased;
            () = self.cut_happens() => None,
            server = TcpStream::connect(target) => server.ok(),
        }
    }

    /// Carries all that goes between two sockets until one of them ends, or the link is cut.
    pub(super) async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let connection =
            Connection { link: self, number, messages: Default::default(), is_raw: AtomicBool::new(false) };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ended = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let both = async {
                tokio::try_join!(
                    connection.pump(Direction::Request, from_client, to_server),
                    connection.pump(Direction::Reply, from_server, to_client),
                )
            };
            tokio::select! {
                biased;
                () = self.cut_happens() => false,
                ended = both => ended.is_ok(),
            }
        };
        if !ended {
            // With no time to linger the system sends a reset in place of an orderly end.
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection<'_> {
    async fn pump(&self, direction: Direction, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        // Between the two a delayed message waits while the next are read: a delay is no lower throughput.
        let (queue, waiting) = mpsc::channel(1024);
        tokio::try_join!(self.receive(direction, from, queue), self.send(to, waiting))?;
        Ok(())
    }

    async fn receive(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        queue: mpsc::Sender<(Instant, Bytes)>,
    ) -> io::Result<()> {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        let mut protocol = self.link.protocol;
        while from.read_buf(&mut bytes).await? > 0 {
            if protocol.is_foreign(&bytes) {
                self.is_raw.store(true, Ordering::Release);
            }
            if self.is_raw.load(Ordering::Acquire) {
                protocol = Protocol::Any;
            }
            while let Some(length) = protocol.message(&bytes) {
                let message = bytes.split_to(length).freeze();
                let (action, delay) = self.decide(direction, protocol, &message);
                match action {
                    Action::Pass => {
                        // It can only fail if the other end is gone; `send` has the error.
                        let _ = queue.send((Instant::now() + delay, message)).await;
                    }
                    Action::Drop => {}
                    Action::Cut => {
                        self.link.cut();
                        return std::future::pending().await;
                    }
                    Action::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                }
            }
        }
        // What is left of a message goes as it is: the other end has to deal with half a message.
        let _ = queue.send((Instant::now(), bytes.freeze())).await;
        Ok(())
    }

    fn decide(&self, direction: Direction, protocol: Protocol, message: &[u8]) -> (Action, Duration) {
        let mut rules = self.link.rules();
        let way = usize::from(direction == Direction::Reply);
        let delay = rules.delay[way];
        if rules.lose[way] {
            return (Action::Drop, delay);
        }
        if self.is_raw.load(Ordering::Acquire) {
            return (Action::Pass, delay);
        }
        if direction == Direction::Request && protocol.is_last(message) {
            self.is_raw.store(true, Ordering::Release);
        }
        let hook = rules.hook.clone();
        let action = self.spring(&mut rules.trap, direction, protocol, message);
        drop(rules);
        if action != Action::Pass {
            return (action, delay);
        }
        (hook.map_or(Action::Pass, |hook| hook(direction, message)), delay)
    }

    async fn send(&self, mut to: WriteHalf<'_>, mut waiting: mpsc::Receiver<(Instant, Bytes)>) -> io::Result<()> {
        let mut held = self.link.is_held.subscribe();
        while let Some((due, message)) = waiting.recv().await {
            tokio::time::sleep_until(due).await;
            // The sender is the link's own, which outlives its connections.
            let _ = held.wait_for(|held| !held).await;
            to.write_all(&message).await?;
        }
        to.shutdown().await
    }

    /// What the trap makes of a message.
    fn spring(&self, trap: &mut Option<Trap>, direction: Direction, protocol: Protocol, message: &[u8]) -> Action {
        let way = usize::from(direction == Direction::Reply);
        let pushed = direction == Direction::Reply && protocol.is_push(message);
        let mut number = self.messages[way].fetch_add(u64::from(!pushed), Ordering::Relaxed);
        if matches!(protocol, Protocol::Any) && direction == Direction::Request {
            // Nothing tells where a reply ends. The next thing that is heard counts as the one.
            number = self.messages[1].load(Ordering::Relaxed);
        }
        match (trap.as_mut(), direction) {
            (Some(Trap::Beyond(way, left)), _) if *way == direction && !pushed => {
                if let Some(rest) = left.checked_sub(message.len()) {
                    *left = rest;
                    return Action::Pass;
                }
                *trap = None;
                Action::Reset
            }
            (Some(Trap::Request(pick)), Direction::Request) if pick(message) => {
                *trap = None;
                Action::Cut
            }
            (Some(Trap::ReplyTo(pick)), Direction::Request) if pick(message) => {
                let awaited = protocol.request_id(message).map_or(Awaited::Number(number), Awaited::Id);
                *trap = Some(Trap::Reply { connection: self.number, awaited });
                Action::Pass
            }
            (Some(Trap::Reply { connection, awaited }), Direction::Reply) if *connection == self.number && !pushed => {
                let here = match awaited {
                    Awaited::Id(id) => protocol.reply_id(message) == Some(*id),
                    Awaited::Number(awaited) => number >= *awaited,
                };
                if here {
                    *trap = None;
                    return Action::Cut;
                }
                Action::Pass
            }
            _ => Action::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(link: &Link) -> Connection<'_> {
        Connection { link, number: 0, messages: Default::default(), is_raw: AtomicBool::new(false) }
    }

    fn trap(link: &Link) {
        link.rules().trap = Some(Trap::ReplyTo(Box::new(|message| message.contains(&b'!'))));
    }

    /// Of pipelined requests the reply to the one that was picked is cut, and none before it, nor one on another connection.
    #[test]
    fn redis_replies_are_counted() {
        let link = Link::new(Protocol::Redis);
        let (ours, other) = (connection(&link), Connection { number: 1, ..connection(&link) });
        let decide = |connection: &Connection<'_>, direction, message: &[u8]| {
            connection.decide(direction, link.protocol, message).0
        };
        assert_eq!(decide(&ours, Direction::Request, b"GET a\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Reply, b"+a\r\n"), Action::Pass);
        trap(&link);
        assert_eq!(decide(&other, Direction::Request, b"GET a\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Request, b"GET b\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Request, b"SET b!\r\n"), Action::Pass);
        assert_eq!(decide(&other, Direction::Reply, b"+a\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Reply, b"+b\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Reply, b">1\r\n+pushed\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Reply, b"+OK\r\n"), Action::Cut);
        // Once only.
        assert_eq!(decide(&ours, Direction::Request, b"SET c!\r\n"), Action::Pass);
        assert_eq!(decide(&ours, Direction::Reply, b"+OK\r\n"), Action::Pass);
    }

    /// Where replies name their request the order does not matter.
    #[test]
    fn numbered_replies_are_known() {
        let zookeeper = |id: u8| [0, 0, 0, 5, 0, 0, 0, id, b'!'];
        let link = Link::new(Protocol::ZooKeeper);
        let ours = connection(&link);
        trap(&link);
        let decide = |direction, id| ours.decide(direction, link.protocol, &zookeeper(id)).0;
        assert_eq!(decide(Direction::Request, 7), Action::Pass);
        assert_eq!(decide(Direction::Request, 8), Action::Pass);
        assert_eq!(decide(Direction::Reply, 8), Action::Pass);
        assert_eq!(decide(Direction::Reply, 7), Action::Cut);

        // A header of length, number, and the number that is answered.
        let link = Link::new(Protocol::Mongo);
        let ours = connection(&link);
        trap(&link);
        let decide =
            |direction, id, to| ours.decide(direction, link.protocol, &[17, 0, 0, 0, id, 0, 0, 0, to, 0, 0, 0, b'!']).0;
        assert_eq!(decide(Direction::Request, 7, 0), Action::Pass);
        assert_eq!(decide(Direction::Reply, 7, 1), Action::Pass);
        assert_eq!(decide(Direction::Reply, 1, 7), Action::Cut);
    }

    /// What a master sends to a replica is no talk in messages.
    #[test]
    fn a_replica_gets_its_copy() {
        let link = Link::new(Protocol::Redis);
        let ours = connection(&link);
        link.rules().hook = Some(Arc::new(|_, _| Action::Drop));
        let psync = b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n";
        assert_eq!(ours.decide(Direction::Request, link.protocol, b"PING\r\n").0, Action::Drop);
        ours.decide(Direction::Request, link.protocol, psync);
        assert!(ours.is_raw.load(Ordering::Relaxed));
        assert_eq!(ours.decide(Direction::Reply, link.protocol, b"$9\r\nREDIS").0, Action::Pass);
    }
}
