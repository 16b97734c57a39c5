use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::{Coordinator, Store};
use avout_core::{Result, StmBuilder};

/// One client of a namespace: what the backend offers of the two roles.
#[derive(Clone, Default)]
pub struct Backend {
    /// The client's coordinator; `None` if the backend is a store only.
    pub coordinator: Option<Arc<dyn Coordinator>>,
    /// The client's store; `None` if the backend is a coordinator only.
    pub store: Option<Arc<dyn Store>>,
}

/// How the suite gets at a backend. This is all that its author writes.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use avout_conformance::{Backend, Fixture};
/// use avout_local::Local;
///
/// struct Memory;
///
/// #[async_trait]
/// impl Fixture for Memory {
///     fn name(&self) -> &str {
///         "local"
///     }
///
///     async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
///         let local = Local::named(namespace);
///         Ok(Backend { coordinator: Some(local.coordinator()), store: Some(local.store()) })
///     }
/// }
/// # assert!(avout_conformance::run_law(Memory, "coordinator::absent_reads_as_none").is_passed());
/// ```
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// A short name, such as `zk`. It is what `AVOUT_TEST_REQUIRE` lists; `zk` there requires `zk-ensemble` too.
    fn name(&self) -> &str;

    /// Opens a new client of a namespace, with connections of its own.
    ///
    /// Each law has a namespace of its own, whose name it makes: at most 40 of `a-z`, `0-9` and `_`, with a letter first. The
    /// first client finds nothing in it. Later clients, opened while the first is alive or after it was dropped, find what it
    /// left.
    async fn open(&self, namespace: &str) -> Result<Backend>;

    /// Opens a new client of a namespace that only reads, as `readonly=true` in a URL does. `None` if the backend has no such
    /// clients, and the laws about them are skipped.
    async fn open_readonly(&self, namespace: &str) -> Option<Result<Backend>> {
        let _ = namespace;
        None
    }

    /// Whether the backend can be tested here; if not, why: "no server at localhost:2181".
    /// It is asked once, before the first law.
    async fn available(&self) -> Result<(), String> {
        Ok(())
    }

    /// Removes what the law left in its namespace. It is called after each law, whatever its
    /// outcome, when its clients are dropped.
    async fn remove(&self, namespace: &str) {
        let _ = namespace;
    }

    /// Whether what is in a namespace outlives all its clients.
    fn survives_reopen(&self) -> bool {
        true
    }

    /// Within which time a watch gives its hint.
    fn hint_delay(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// After which time a law counts as hung.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Laws that the backend is known to break, as `group::law`, each with what is missing. They are not run, and the reason is printed with
    /// their names: what a backend does not keep belongs into its documents too.
    fn breaks(&self) -> &[(&str, &str)] {
        &[]
    }

    /// How many laws run side by side; `None`: four for each processor, since laws mostly wait. Servers that are heavy want fewer.
    /// `--test-threads` on the command line counts more.
    fn side_by_side(&self) -> Option<usize> {
        None
    }

    /// Cuts all connections between the namespace's clients and the server, which goes on; the clients
    /// may connect again. `false` if the fixture does not know how, and the laws about it are skipped.
    async fn cut_connections(&self, namespace: &str) -> bool {
        let _ = namespace;
        false
    }

    /// Sees to it that one reply is lost: after the return the server does what it is asked next by any client of the
    /// namespace, and the connection is reset before the answer arrives. Nothing else is lost, and the client may connect again
    /// at once. It is of no consequence if nothing is asked any more. `false` if the fixture does not know how, and the laws
    /// about it are skipped.
    ///
    /// `servers::Proxies` do it for any protocol.
    async fn lose_reply(&self, namespace: &str) -> bool {
        let _ = namespace;
        false
    }

    /// Stops the server, as far as the namespace's clients see: after the return nothing is answered, connections stay
    /// open, and new ones are made, until [`resume`](Self::resume). `false` if the fixture does not know how, and the laws
    /// about it are skipped.
    async fn stall(&self, namespace: &str) -> bool {
        let _ = namespace;
        false
    }

    /// Ends what [`stall`](Self::stall) began.
    async fn resume(&self, namespace: &str) {
        let _ = namespace;
    }

    /// Within which time a call ends on a server that has stopped. It follows from the time limits with which
    /// [`open`](Self::open) opens clients.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// Empties the namespace under its clients, who are not told, as an operator does who deletes it. Clients that
    /// open it afterwards make it anew. `false` if the fixture does not know how, and the laws about it are skipped.
    async fn wipe(&self, namespace: &str) -> bool {
        let _ = namespace;
        false
    }

    /// Ends what the fixture has started, such as a server. It is called once, after the last law.
    async fn finish(&self) {}

    /// Opens new clients of other stores, each in its own part for this namespace, for the laws of group `mixed`. Without any
    /// those are skipped.
    async fn beside(&self, namespace: &str) -> Result<Vec<Arc<dyn Store>>> {
        let _ = namespace;
        Ok(Vec::new())
    }

    /// Sets up each client that a law of transactions opens, before the law itself does. It is for tests of the suite, which
    /// plant mistakes there.
    #[doc(hidden)]
    fn configure(&self, client: StmBuilder) -> StmBuilder {
        client
    }
}
