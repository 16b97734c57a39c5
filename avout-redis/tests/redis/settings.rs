//! What is looked at when a namespace is opened.

use std::time::Duration;

use avout_conformance::servers::{Certificates, Redis, free_port, shared};
use avout_core::{ErrorKind, Result};
use avout_redis::{Backend, Options, Tls};

use crate::rights;
use crate::support::{Outcome, Pair, at_last, hasty, namespace, open, stm, within};

const SECRET: &str = "hush-hush";

fn refused(opened: Result<Backend>, kind: ErrorKind, help: &str) {
    let error = opened.expect_err("it is refused");
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(help), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

/// Wrong credentials, and none, are `Denied`, and no message shows them.
pub(crate) async fn credentials_are_checked_and_not_shown() -> Outcome {
    let redis = Redis::with(&["--requirepass", SECRET]).await?;
    let host = redis.node(0).address();
    let url = |credentials: &str| format!("redis://{credentials}{host}/{}", namespace());
    refused(avout_redis::connect(&url("")).await, ErrorKind::Denied, "user or password");
    refused(avout_redis::connect(&url(":wrong@")).await, ErrorKind::Denied, "user or password");
    refused(avout_redis::connect(&url(&format!("nobody:{SECRET}@"))).await, ErrorKind::Denied, "user or password");
    let backend = avout_redis::connect(&url(&format!(":{SECRET}@"))).await?;
    assert!(!format!("{backend:?}").contains(SECRET));
    let pair = Pair::open(stm(backend), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    Ok(())
}

/// A user with no more than the listed rights can do everything, and only in its namespace.
pub(crate) async fn the_listed_rights_are_enough() -> Outcome {
    let redis = Redis::single().await?;
    let rights = rights::of("app", "app", SECRET);
    let set: Vec<&str> = ["ACL", "SETUSER", "app"].into_iter().chain(rights.iter().map(String::as_str)).collect();
    assert_eq!(redis.command(0, &set).await?, "OK");
    let host = redis.node(0).address();
    let url = |namespace: &str| {
        format!("redis://app:{SECRET}@{host}/{namespace}?appendfsync=any&min_replicas=0&wait_replicas=0")
    };
    let client = open(&url("app")).await?;
    let pair = Pair::open(client.clone(), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    let large = client.create_ref("/large", vec![7_u8; 100_000]).await?;
    let mut changes = large.watch().await?;
    large.set(vec![8; 100_000]).await?;
    let change = changes.next().await.expect("a change")?;
    assert_eq!(change.new.map(|value| value[0]), Some(8));
    large.destroy().await?;
    let atom = client.create_atom("/atom", 1).await?;
    assert_eq!(atom.swap(|n| n + 1).await?, 2);
    atom.destroy().await?;
    assert_eq!(client.list("/pair").await?.len(), 2);
    client.lock("/lock")?.acquire().await?.release().await?;
    refused(avout_redis::connect(&url("other")).await, ErrorKind::Denied, "");
    Ok(())
}

/// A right that is lacking is told when the namespace is opened, and not by half of a commit.
pub(crate) async fn a_lacking_right_is_found_when_opening() -> Outcome {
    let redis = Redis::single().await?;
    let host = redis.node(0).address();
    for lacking in ["hset", "hdel", "zadd", "zrem", "unlink", "hmget"] {
        let user = format!("no-{lacking}");
        let without = format!("-{lacking}");
        let set = ["ACL", "SETUSER", &user, "on", ">hush-hush", "allkeys", "allchannels", "+@all", &without];
        assert_eq!(redis.command(0, &set).await?, "OK");
        let opened = avout_redis::connect(&format!("redis://{user}:{SECRET}@{host}/{}", namespace())).await;
        refused(opened, ErrorKind::Denied, &lacking.to_uppercase());
    }
    Ok(())
}

/// A database other than 0 needs a right of its own, which is named if it is lacking.
pub(crate) async fn a_lacking_right_to_select_is_named() -> Outcome {
    let redis = Redis::single().await?;
    let set = ["ACL", "SETUSER", "app", "on", ">hush-hush", "allkeys", "allchannels", "+@all", "-select"];
    assert_eq!(redis.command(0, &set).await?, "OK");
    let host = redis.node(0).address();
    let opened = avout_redis::connect(&format!("redis://app:{SECRET}@{host}/1/{}", namespace())).await;
    refused(opened, ErrorKind::Denied, "SELECT");
    let opened = avout_redis::connect(&format!("redis://{host}/9999/{}", namespace())).await;
    refused(opened, ErrorKind::InvalidInput, "database");
    Ok(())
}

/// A policy that evicts is noticed under clients that work, and so is that it was taken back.
pub(crate) async fn a_policy_that_comes_to_evict_is_noticed() -> Outcome {
    let redis = Redis::single().await?;
    let pair = Pair::open(hasty(avout_redis::connect(&redis.url(&namespace())).await?), "pair").await?;
    redis.command(0, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await?;
    let told = at_last("a refusal", async || pair.bump().await.err());
    let told = within(Duration::from_secs(10), "a refusal", told).await;
    assert_eq!(told.kind(), ErrorKind::Unsupported, "{told:?}");
    redis.command(0, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    pair.bump().await?;
    Ok(())
}

/// What says what the namespace is may be evicted, or deleted by mistake: a client that works makes it anew, and nothing is lost.
pub(crate) async fn a_namespace_that_lost_its_description_gets_it_back() -> Outcome {
    let redis = Redis::single().await?;
    let name = namespace();
    let url = redis.url(&name);
    let pair = Pair::open(open(&url).await?, "pair").await?;
    pair.bump().await?;
    let meta = format!("{{{name}}}:meta");
    redis.command(0, &["DEL", &meta]).await?;
    let opened = at_last("another client", async || {
        pair.bump().await.expect("it goes on");
        avout_redis::connect(&url).await.ok()
    });
    let opened = within(Duration::from_secs(10), "another client", opened).await;
    let other = Pair::open(stm(opened), "pair").await?;
    assert_eq!(other.read().await?, pair.read().await?);
    Ok(())
}

/// Times of any length are taken.
pub(crate) async fn huge_times_are_taken() -> Outcome {
    let redis = Redis::single().await?;
    let huge = format!("{}s", u64::MAX);
    let url = format!("{}?timeout={huge}&connect_timeout={huge}", redis.url(&namespace()));
    let pair = Pair::open(open(&url).await?, "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    let url = format!("{}?wait_replicas=1&wait_timeout={huge}&timeout={huge}", redis.url(&namespace()));
    assert_eq!(avout_redis::connect(&url).await.expect_err("no less than timeout").kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// A server that may evict keys is refused, with the setting to change.
pub(crate) async fn a_policy_that_evicts_is_refused() -> Outcome {
    let redis = Redis::with(&["--maxmemory-policy", "allkeys-lru"]).await?;
    let opened = avout_redis::connect(&redis.url(&namespace())).await;
    refused(opened, ErrorKind::Unsupported, "set maxmemory-policy to noeviction");
    // Keys without a time to live are safe from this one, and ours have none.
    redis.command(0, &["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await?;
    open(&redis.url(&namespace())).await?;
    Ok(())
}

/// What the options ask for is looked for on the server.
pub(crate) async fn durability_is_checked_if_asked_for() -> Outcome {
    let redis = Redis::single().await?;
    let url = |options: &str| format!("{}?{options}", redis.url("durable"));
    refused(avout_redis::connect(&url("appendfsync=always")).await, ErrorKind::Unsupported, "appendfsync to always");
    refused(avout_redis::connect(&url("min_replicas=1")).await, ErrorKind::Unsupported, "min-replicas-to-write to 1");
    let durable = |backend: &Backend| avout_core::Coordinator::capabilities(&*backend.coordinator).durable;
    assert!(!durable(&avout_redis::connect(&url("")).await?));
    redis.command(0, &["CONFIG", "SET", "appendfsync", "always"]).await?;
    assert!(durable(&avout_redis::connect(&url("appendfsync=always")).await?));
    redis.command(0, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    let backend = avout_redis::connect(&url("min_replicas=1")).await;
    // The server takes no writes now, and making a connection is one.
    refused(backend, ErrorKind::Unavailable, "min-replicas-to-write");
    Ok(())
}

/// A namespace of a newer layout is left alone.
pub(crate) async fn a_newer_format_is_refused() -> Outcome {
    let redis = shared::redis().await?;
    let name = namespace();
    let url = redis.url(&name);
    let pair = Pair::open(open(&url).await?, "pair").await?;
    pair.bump().await?;
    redis.command(0, &["HSET", &format!("{{{name}}}:meta"), "format", "3"]).await?;
    refused(avout_redis::connect(&url).await, ErrorKind::Unsupported, "format 3");
    Ok(())
}

/// Keys that something else made are no namespace, and stay as they are.
pub(crate) async fn foreign_keys_are_refused() -> Outcome {
    let redis = shared::redis().await?;
    for key in ["meta", "cells", "names"] {
        let name = namespace();
        let key = format!("{{{name}}}:{key}");
        redis.command(0, &["SET", &key, "mine"]).await?;
        refused(avout_redis::connect(&redis.url(&name)).await, ErrorKind::Mismatch, "avout did not write");
        assert_eq!(redis.command(0, &["GET", &key]).await?, "mine");
    }
    Ok(())
}

/// A replica is not written to.
pub(crate) async fn a_replica_is_refused() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let opened = avout_redis::connect(&format!("redis://{}/{}", redis.node(1).address(), namespace())).await;
    refused(opened, ErrorKind::Unavailable, "replica");
    Ok(())
}

/// A server that speaks TLS too, at a port of its own, with these files, and asks for clients' certificates or not.
async fn with_tls(file: impl Fn(&str) -> String, clients: &str) -> Outcome<(Redis, u16)> {
    let port = free_port();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let text = port.to_string();
    let arguments = [
        ["--tls-port", &text],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", clients],
    ];
    Ok((Redis::with(&arguments.concat()).await?, port))
}

/// Over TLS everything works, watches too; a certificate of another authority, or for another name, is refused.
pub(crate) async fn tls_checks_the_certificate() -> Outcome {
    let file = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (_redis, port) = with_tls(file, "no").await?;
    let ca = |name: &str| format!("{}/tests/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let url = |ca: &str| format!("rediss://127.0.0.1:{port}/{}?ca={ca}", namespace());
    let pair = Pair::open(open(&url(&ca("ca"))).await?, "pair").await?;
    let mut changes = pair.a().watch().await?;
    assert_eq!(pair.bump().await?, 1);
    assert_eq!(changes.next().await.expect("a change")?.new, Some(1));
    // The process chooses its cryptography itself.
    assert!(
        avout_tls::rustls::crypto::CryptoProvider::get_default().is_none(),
        "a provider was installed for the whole process"
    );
    refused(avout_redis::connect(&url(&ca("other"))).await, ErrorKind::Denied, "tls_ca");
    refused(avout_redis::connect(&format!("rediss://127.0.0.1:{port}/n")).await, ErrorKind::Denied, "tls_ca");
    let name = format!("rediss://[::ffff:127.0.0.1]:{port}/n?ca={}", ca("ca"));
    refused(avout_redis::connect(&name).await, ErrorKind::Denied, "for another host");
    let key = format!("rediss://127.0.0.1:{port}/n?ca={}/tests/tls/server.key", env!("CARGO_MANIFEST_DIR"));
    refused(avout_redis::connect(&key).await, ErrorKind::InvalidInput, "no certificate");
    refused(avout_redis::connect(&url("/nonexistent/ca.pem")).await, ErrorKind::InvalidInput, "/nonexistent/ca.pem");
    Ok(())
}

/// A server that asks for a certificate of the client's own takes one of its authority, with a key that is encrypted. Without one, or with one of
/// another authority, opening is refused at once, each time, with what to do.
pub(crate) async fn tls_asks_for_the_clients_certificate() -> Outcome {
    let files = Certificates::make()?;
    let (_redis, port) = with_tls(|name| files.file(name), "yes").await?;
    let tls = Tls::new().ca(files.file("ca.pem"));
    let own = tls.clone().identity(files.file("client.pem"), files.file("sealed.key")).key_password("secret");
    let at = |host: &str| Options::new(host, port).namespace(namespace());
    let pair = Pair::open(stm(at("127.0.0.1").tls(own.clone()).open().await?), "pair").await?;
    let mut changes = pair.a().watch().await?;
    assert_eq!(pair.bump().await?, 1);
    assert_eq!(changes.next().await.expect("a change")?.new, Some(1));
    for _ in 0..20 {
        let stranger = tls.clone().identity(files.file("stranger.pem"), files.file("stranger.key"));
        for (tls, user) in [(tls.clone(), false), (tls.clone(), true), (stranger, false)] {
            let options = at("127.0.0.1").tls(tls);
            let options = if user { options.credentials("app", "canary") } else { options };
            refused(options.open().await, ErrorKind::Denied, "tls_cert and tls_key");
        }
    }
    // The name that is given counts, and not the host.
    let other = at("::ffff:127.0.0.1").tls(own.clone().server_name("localhost"));
    other.open().await?;
    refused(at("127.0.0.1").tls(own.server_name("example.org")).open().await, ErrorKind::Denied, "for another host");
    // A configuration that is ready is used as it is.
    let ready = tls.identity(files.file("client.pem"), files.file("client.key")).config().await?;
    at("localhost").tls(Tls::from_config(ready)).open().await?;
    Ok(())
}

/// A server is used over a socket of the machine as over the network, also after a restart; one that is not there is an outage.
pub(crate) async fn a_socket_of_the_machine_is_used() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a server's socket");
    let path = path.to_str().expect("the path is text");
    let url = |path: &str| format!("redis+unix://{}?namespace=shop&db=2", path.replace(' ', "%20"));
    let redis = Redis::with(&["--unixsocket", path, "--appendfsync", "always"]).await?;
    let pair = Pair::open(stm(avout_redis::connect(&url(path)).await?), "pair").await?;
    let mut changes = pair.a().watch().await?;
    assert_eq!(pair.bump().await?, 1);
    assert_eq!(within(Duration::from_secs(20), "a change", changes.next()).await.expect("a change")?.new, Some(1));
    assert!(redis.command(0, &["INFO", "keyspace"]).await?.contains("db2:"));
    redis.node(0).kill().await?;
    redis.node(0).start().await?;
    assert_eq!(within(Duration::from_secs(20), "a commit after a restart", pair.bump()).await?, 2);
    refused(avout_redis::connect(&url("/no/such")).await, ErrorKind::Unavailable, "/no/such cannot be reached");
    Ok(())
}

/// What cannot be waited for is refused, and the message says what is needed.
pub(crate) async fn waiting_for_the_log_is_refused() -> Outcome {
    let redis = Redis::single().await?;
    let version = redis.command(0, &["INFO", "server"]).await?;
    let is_old = version.contains("redis_version:7.0.");
    let help = if is_old { "needs Redis 7.2 or later, and this server is 7.0." } else { "does not use WAITAOF yet" };
    let url = format!("{}?wait_aof=yes", redis.url(&namespace()));
    refused(avout_redis::connect(&url).await, ErrorKind::Unsupported, help);
    Ok(())
}
