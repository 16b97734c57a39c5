use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::janitor::Janitor;
use super::{Error, find, free_port};

/// What a server needs to run as a [`Node`](super::Node).
///
/// # Examples
/// One server of your own for a whole test program:
/// ```no_run
/// use avout_conformance::servers::{Error, Node, Spec, shared};
///
/// async fn etcd() -> Result<&'static Node, Error> {
///     static SLOT: shared::Slot<Node> = shared::Slot::const_new();
///     shared::once(&SLOT, || async {
///         let program = Spec::find("etcd", "AVOUT_ETCD", "etcd", "`apt-get install etcd-server` brings it")?;
///         let spec = Spec::new("etcd", program)?;
///         let url = format!("http://127.0.0.1:{}", spec.port);
///         let spec = spec.arguments(["--data-dir=data", "--listen-client-urls", &url, "--advertise-client-urls", &url]);
///         let node = Node::new(spec);
///         node.start().await?;
///         Ok(node)
///     })
///     .await
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Spec {
    /// The kind of server, as `AVOUT_TEST_REQUIRE` lists it: `zk`.
    pub server: &'static str,
    /// Where it is to listen, on 127.0.0.1.
    pub port: u16,
    /// The folder of its data, its configuration and its log, in which it runs. It is removed with the node.
    pub folder: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// What the program is given.
    pub arguments: Vec<OsString>,
    /// Whether it answers, and if not, what it said instead. It may block, for a second or so.
    pub answers: fn(SocketAddr) -> Result<(), String>,
}

impl Spec {
    /// A server that runs `program` on a free port in a new empty folder, and answers when it takes a connection.
    ///
    /// # Errors
    /// If there can be no folder for it.
    pub fn new(server: &'static str, program: impl Into<PathBuf>) -> Result<Self, Error> {
        let (port, folder) = (free_port(), folder(server)?);
        Ok(Self { server, port, folder, program: program.into(), arguments: Vec::new(), answers: takes_connections })
    }

    /// The same, with more arguments for the program.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The same, with another way to see whether it answers.
    pub fn answers(mut self, answers: fn(SocketAddr) -> Result<(), String>) -> Self {
        self.answers = answers;
        self
    }

    /// Where a server's program is: the one that the environment's `variable` names, or the first of this `name` in PATH, the
    /// usual folders and avout's cache. `how` tells how to get it.
    ///
    /// # Errors
    /// If it is not installed; the message says `how`.
    pub fn find(server: &'static str, variable: &str, name: &str, how: &'static str) -> Result<PathBuf, Error> {
        find::program(server, variable, name, how)
    }
}

fn takes_connections(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop).map_err(|error| error.to_string())
}

/// A new empty folder for a server.
pub(super) fn folder(server: &'static str) -> Result<PathBuf, Error> {
    let make = || {
        let janitor = Janitor::get()?;
        tempfile::Builder::new().prefix(&format!("{server}-")).tempdir_in(janitor.root()).map(tempfile::TempDir::keep)
    };
    make().map_err(|error: std::io::Error| Error::failed(server, format!("no folder for it: {error}")))
}
