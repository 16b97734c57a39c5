//! A server that takes TLS alone, and clients that may do little.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use avout_conformance::servers::shared::{self, Slot};
use avout_conformance::servers::{Certificates, Error, Mongo, Protocol};
use avout_mongo::mongodb::Client;
use avout_mongo::mongodb::bson::{Document, doc};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

use crate::pairs::pair;
use crate::rights::role;
use crate::support::Access;

const PASSWORD: &str = "correct-horse";

/// The user that the clients' certificate names.
const CLERK: &str = "CN=client";

/// Laws open clients where there is no runtime, and on those whose clock is paused. The driver needs one.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().expect("a runtime")
});

pub(crate) struct Secure;

/// Namespaces to which the clients were let in.
static ADMITTED: Mutex<Option<HashSet<String>>> = Mutex::new(None);

struct Server {
    mongo: Mongo,
    /// What clients need to connect, as options of a URL.
    tls: String,
    _files: Certificates,
}

async fn server() -> Result<&'static Server, Error> {
    static SLOT: Slot<Server> = Slot::const_new();
    shared::once(&SLOT, start).await
}

async fn start() -> Result<Server, Error> {
    let files = Certificates::make()?;
    let (server, client_pair, ca) = (pair(&files, "server")?, pair(&files, "client")?, files.file("ca.pem"));
    let tls = format!("&tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={client_pair}");
    // Those who start it talk to it in the clear.
    let arguments = ["--tlsMode", "allowTLS", "--tlsCertificateKeyFile", &server, "--tlsCAFile", &ca];
    let mongo = Mongo::builder().replica_set(1).user("admin", PASSWORD).arguments(&arguments).start().await?;
    let server = Server { mongo, tls, _files: files };
    let url = admin_url(&server);
    let prepared = RUNTIME.spawn(async move {
        let client = client(&url).await?;
        run(&client, "$external", doc! { "createUser": CLERK, "roles": [] }).await?;
        run(&client, "laws", role("reader", "reader", "laws", "")).await?;
        run(&client, "laws", doc! { "createUser": "reader", "pwd": PASSWORD, "roles": ["reader"] }).await?;
        for mode in ["preferTLS", "requireTLS"] {
            run(&client, "admin", doc! { "setParameter": 1, "tlsMode": mode }).await?;
        }
        Ok(())
    });
    prepared.await.map_err(|error| Error::failed("mongo", error))??;
    Ok(server)
}

fn admin_url(server: &Server) -> String {
    let url = server.mongo.url("laws").replacen("://", &format!("://admin:{PASSWORD}@"), 1);
    format!("{url}&authSource=admin{}", server.tls)
}

async fn client(url: &str) -> Result<Client, Error> {
    Client::with_uri_str(url).await.map_err(|error| Error::failed("mongo", error))
}

async fn run(client: &Client, database: &str, command: Document) -> Result<(), Error> {
    client.database(database).run_command(command).await.map(drop).map_err(|error| Error::failed("mongo", error))
}

fn admitted<T>(change: impl FnOnce(&mut HashSet<String>) -> T) -> T {
    change(ADMITTED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// One client for all.
async fn admin_of(url: &str) -> Result<&'static Client, Error> {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    CLIENT.get_or_try_init(|| client(url)).await
}

async fn admit(admin: String, namespace: String) -> Result<(), Error> {
    let client = admin_of(&admin).await?;
    match run(client, "laws", role("orders", &namespace, "laws", &namespace)).await {
        // Another client of the law was first.
        Err(error) if error.to_string().contains("already exists") => {}
        made => made?,
    }
    let grant = doc! { "grantRolesToUser": CLERK, "roles": [{ "role": &namespace, "db": "laws" }] };
    run(client, "$external", grant).await
}

#[async_trait]
impl Access for Secure {
    async fn set(&self) -> Result<&'static Mongo, Error> {
        Ok(&server().await?.mongo)
    }

    fn protocol(&self) -> Protocol {
        Protocol::Any
    }

    /// One who only reads has a password.
    fn user(&self, reads: bool) -> String {
        if reads { format!("reader:{PASSWORD}@") } else { String::new() }
    }

    async fn options(&self, reads: bool) -> Result<String, Error> {
        let user = if reads { "" } else { "&authMechanism=MONGODB-X509&authSource=%24external" };
        Ok(format!("{}{user}", server().await?.tls))
    }

    async fn admin(&self) -> Result<String, Error> {
        Ok(admin_url(server().await?))
    }

    async fn admit(&self, namespace: &str) -> Result<(), Error> {
        if admitted(|all| all.contains(namespace)) {
            return Ok(());
        }
        let admitting = RUNTIME.spawn(admit(self.admin().await?, namespace.to_owned()));
        admitting.await.map_err(|error| Error::failed("mongo", error))??;
        admitted(|all| all.insert(namespace.to_owned()));
        Ok(())
    }

    async fn dismiss(&self, namespace: &str) {
        if !admitted(|all| all.remove(namespace)) {
            return;
        }
        let admin = self.admin().await.expect("the set is there");
        let drop = doc! { "dropRole": namespace };
        let dropping = RUNTIME.spawn(async move { run(admin_of(&admin).await?, "laws", drop).await });
        dropping.await.expect("it does not panic").expect("there is such a role");
    }
}
