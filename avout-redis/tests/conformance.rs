//! The laws of `avout-conformance`, on one Redis server, in a namespace each.
//!
//! Clients speak TLS, show a certificate, and are users who may do what docs/backends.md lists, in the law's own namespace alone. What the
//! fixture does itself goes by the default user, in the clear. Proxies pass TLS on as it is: they cut, hold and reset connections
//! by what arrives at once, and know no replies.

mod rights;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use avout_conformance::servers::shared::{self, Slot};
use avout_conformance::servers::{Certificates, Error, Protocol, Proxies, Redis, free_port};
use avout_conformance::{Backend, Fixture};
use tokio::sync::Mutex;

/// A server that speaks TLS at a port of its own, with those who ask for it.
struct Secure {
    redis: Redis,
    address: SocketAddr,
    files: Certificates,
}

impl Secure {
    async fn start() -> Result<Self, Error> {
        let files = Certificates::make()?;
        let port = free_port();
        let (cert, key, ca) = (files.file("server.pem"), files.file("server.key"), files.file("ca.pem"));
        let text = port.to_string();
        let arguments = [
            ["--tls-port", &text],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", "yes"],
        ];
        let redis = Redis::with(&arguments.concat()).await?;
        Ok(Self { redis, address: (Ipv4Addr::LOCALHOST, port).into(), files })
    }

    async fn command(&self, words: &[&str]) -> Result<String, Error> {
        let answer = self.redis.command(0, words).await?;
        if answer.starts_with('-') { Err(Error::failed("redis", answer)) } else { Ok(answer) }
    }
}

async fn secure() -> Result<&'static Secure, Error> {
    static SLOT: Slot<Secure> = Slot::const_new();
    shared::once(&SLOT, Secure::start).await
}

/// Each namespace has a user and a proxy of its own before the server, unless that is one that runs already.
#[derive(Default)]
struct Server {
    proxies: Proxies,
    users: Mutex<HashSet<String>>,
}

const PASSWORD: &str = "a-long-secret";

impl Server {
    async fn url(&self, namespace: &str) -> Result<String, Error> {
        if std::env::var_os("AVOUT_REDIS_URL").is_some_and(|url| !url.is_empty()) {
            return shared::redis_url(namespace).await;
        }
        self.secure_url(namespace, namespace, "app").await
    }

    /// A user who may read, and nothing else.
    async fn reading(&self, namespace: &str) -> Result<String, Error> {
        if std::env::var_os("AVOUT_REDIS_URL").is_some_and(|url| !url.is_empty()) {
            let url = shared::redis_url(namespace).await?;
            return Ok(format!("{url}{}readonly=true", if url.contains('?') { '&' } else { '?' }));
        }
        let url = self.secure_url(namespace, &format!("{namespace}.reader"), "reader").await?;
        Ok(format!("{url}&readonly=true"))
    }

    async fn secure_url(&self, namespace: &str, user: &str, listed: &str) -> Result<String, Error> {
        let server = secure().await?;
        let mut users = self.users.lock().await;
        if !users.contains(user) {
            let rights = rights::of(listed, namespace, PASSWORD);
            let rights = rights.iter().map(String::as_str);
            let set: Vec<&str> = ["ACL", "SETUSER", user, "reset"].into_iter().chain(rights).collect();
            server.command(&set).await?;
            users.insert(user.to_owned());
        }
        drop(users);
        let proxies = self.proxies.of(namespace, Protocol::Any, &[server.address]).await?;
        let file = |name| server.files.file(name);
        let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("sealed.key"));
        let tls = format!("tls_ca={ca}&tls_cert={cert}&tls_key={key}&tls_key_password=secret");
        Ok(format!("rediss://{user}:{PASSWORD}@{}/{namespace}?{tls}", proxies[0].address()))
    }
}

#[async_trait]
impl Fixture for Server {
    fn name(&self) -> &str {
        "redis"
    }

    async fn available(&self) -> Result<(), String> {
        self.url("any").await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let opened = avout_redis::connect(&self.url(namespace).await?).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        let opened = async {
            let opened = avout_redis::connect(&self.reading(namespace).await?).await?;
            Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
        };
        Some(opened.await)
    }

    async fn remove(&self, namespace: &str) {
        self.proxies.remove(namespace).await;
        for user in [namespace.to_owned(), format!("{namespace}.reader")] {
            if self.users.lock().await.remove(&user)
                && let Ok(server) = secure().await
            {
                server.command(&["ACL", "DELUSER", &user]).await.expect("the server answers");
            }
        }
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        self.proxies.cut(namespace).await
    }

    async fn lose_reply(&self, namespace: &str) -> bool {
        self.proxies.lose_reply(namespace).await
    }

    async fn stall(&self, namespace: &str) -> bool {
        self.proxies.stall(namespace).await
    }

    async fn resume(&self, namespace: &str) {
        self.proxies.resume(namespace).await;
    }

    async fn wipe(&self, namespace: &str) -> bool {
        let Ok(server) = secure().await else { return false };
        let own = format!("{{{namespace}}}:*");
        let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
        server.command(&["EVAL", script, "0", &own]).await.expect("the server answers");
        true
    }
}

fn main() {
    avout_conformance::run(Server::default())
}
