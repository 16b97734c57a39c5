//! Users and what they may do.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use avout_conformance::servers::{Certificates, ZooKeeper, free_port, shared};
use avout_core::ErrorKind;
use avout_zk::zookeeper::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use crate::support::{Outcome, client, hello, tests, two_refs};

tests![
    what_a_user_makes_is_his,
    a_wrong_password_is_refused_at_once,
    a_user_may_share,
    a_user_may_let_others_read,
    a_parent_must_let_the_user_in,
    sasl_users_are_known_to_the_server,
    no_password_is_in_the_logs,
    tls_takes_the_servers_that_it_trusts,
    tls_says_what_is_refused,
    tls_shows_the_clients_certificate,
];

fn with_user(url: &str, user: &str) -> String {
    url.replacen("zk://", &format!("zk://{user}@"), 1)
}

/// A namespace made by a user is closed to others, whether they have another password or none.
async fn what_a_user_makes_is_his() -> Outcome {
    let url = shared::zookeeper_url("users_own").await?;
    let stm = client(&with_user(&url, "me:canary")).await?;
    let (a, _) = two_refs(&stm).await?;
    stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?;
    stm.create_atom("/atom", 1_i64).await?.swap(|n| n + 1).await?;
    let begun = Instant::now();
    for other in [url.clone(), with_user(&url, "me:other"), with_user(&url, "you:canary")] {
        let error = client(&other).await.expect_err("a user that is not the creator");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        assert!(error.to_string().contains("read /users_own/meta"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "refusals took {:?}", begun.elapsed());
    assert_eq!(client(&with_user(&url, "me:canary")).await?.open_ref::<i64>("/a").await?.get().await?, 1);
    Ok(())
}

/// With `acl=open` others come in.
async fn a_user_may_share() -> Outcome {
    let url = shared::zookeeper_url("users_shared").await?;
    let stm = client(&format!("{}?acl=open", with_user(&url, "me:canary"))).await?;
    two_refs(&stm).await?;
    assert_eq!(client(&url).await?.open_ref::<i64>("/a").await?.get().await?, 0);
    Ok(())
}

/// What a user makes with grants of its own can be read by others, who are told which right they lack when they write.
async fn a_user_may_let_others_read() -> Outcome {
    let url = shared::zookeeper_url("users_mixed").await?;
    let own = client(&format!("{}?acl=auth::cdrw,world:anyone:r", with_user(&url, "me:canary"))).await?;
    let (a, _) = two_refs(&own).await?;
    let large = own.create_ref("/large", "x".repeat(100_000)).await?;
    let atom = own.create_atom("/atom", 1_i64).await?;
    let other = client(&url).await?;
    let its = (other.open_ref::<i64>("/a").await?, other.open_atom::<i64>("/atom").await?);
    assert_eq!((its.0.get().await?, its.1.get().await?), (0, 1));
    assert_eq!(other.open_ref::<String>("/large").await?.get().await?, large.get().await?);
    let commit = other.dosync(async |tx| tx.alter(&its.0, |n| n + 1).await).await;
    let made = other.create_ref("/more", 1_i64).await.map(|_| 1);
    let value = other.create_ref("/huge", "x".repeat(100_000)).await.map(|_| 1);
    for (what, result) in
        [("commit", commit), ("create", made), ("value", value), ("swap", its.1.swap(|n| n + 1).await)]
    {
        let error = result.err().ok_or(what)?;
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
        let says = if what == "value" { "create znodes below /users_mixed/values/" } else { "write /users_mixed/era" };
        assert!(error.to_string().contains(says), "{what}: {error}");
    }
    assert_eq!((a.get().await?, atom.get().await?), (0, 1));
    Ok(())
}

/// A user who may not make the namespace is told where the right is missing. One who may, and nothing else there, has all that is needed.
async fn a_parent_must_let_the_user_in() -> Outcome {
    let zk = shared::zookeeper().await?;
    let raw = Client::connector().with_auth("digest", b"admin:boss").connect(&zk.address()).await?;
    // The SHA-1 of app:secret, in Base64.
    let app = AuthId::new("digest", "app:F6Y+U5gIoCbNNoLQExmvxRFeatA=");
    let grants = [Acl::new(Permission::ALL, AuthId::authed()), Acl::new(Permission::CREATE, app)];
    raw.create("/users_parent", b"", &CreateMode::Persistent.with_acls(Acls::new(&grants))).await?;
    let url = zk.url("users_parent/own");
    let error = client(&with_user(&url, "you:canary")).await.expect_err("another user");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("create znodes below /users_parent:"), "{error}");
    two_refs(&client(&with_user(&url, "app:secret")).await?).await?;
    Ok(())
}

const JAAS: &str = r#"Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required user_me="canary" user_you="canary";
};
"#;

/// A server that knows its users by SASL.
async fn sasl_server() -> Result<(ZooKeeper, tempfile::TempDir), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let jaas = folder.path().join("jaas.conf");
    std::fs::write(&jaas, JAAS)?;
    let zk = ZooKeeper::builder()
        .config("authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider")
        .java(format!("-Djava.security.auth.login.config={}", jaas.display()))
        .start()
        .await?;
    Ok((zk, folder))
}

/// A user with his password gets in by SASL, and owns what he makes.
async fn sasl_users_are_known_to_the_server() -> Outcome {
    let (zk, _folder) = sasl_server().await?;
    let url = with_user(&zk.url("sasl"), "me:canary");
    let stm = client(&format!("{url}?auth=sasl")).await?;
    let (a, _) = two_refs(&stm).await?;
    assert_eq!(stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?, 1);
    for other in [zk.url("sasl"), format!("{}?auth=sasl", with_user(&zk.url("sasl"), "you:canary"))] {
        let error = client(&other).await.expect_err("another user, or nobody");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.to_string().contains("read /sasl/meta"), "{error}");
    }
    // Grants may name users of SASL, for those who come by it.
    let url = with_user(&zk.url("sasl_shared"), "me:canary");
    two_refs(&client(&format!("{url}?auth=sasl&acl=auth::cdrw,sasl:you:r")).await?).await?;
    let url = with_user(&zk.url("sasl_shared"), "you:canary");
    assert_eq!(client(&format!("{url}?auth=sasl")).await?.open_ref::<i64>("/a").await?.get().await?, 0);
    Ok(())
}

/// A password that the server does not accept is an error at once, not after the timeout, and is not tried for ever.
async fn a_wrong_password_is_refused_at_once() -> Outcome {
    let (zk, _folder) = sasl_server().await?;
    let url = with_user(&zk.url("sasl"), "me:wrong-canary");
    let begun = Instant::now();
    let error = client(&format!("{url}?auth=sasl&timeout=30s")).await.expect_err("a wrong password");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    Ok(())
}

/// What is logged by the whole program: whether the client's driver is heard, and each line that shows a password.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Logged>>);

#[derive(Default)]
struct Logged {
    hears_driver: bool,
    shown: Vec<String>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.hears_driver |= text.contains("DEBUG") && text.contains("zookeeper_client");
        logged.shown.extend(text.lines().filter(|line| line.contains("canary")).map(str::to_owned));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whatever is logged, by avout and by the client's driver, on whatever thread, shows no password.
async fn no_password_is_in_the_logs() -> Outcome {
    let (zk, _folder) = sasl_server().await?;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Connections live on a thread of the library's own.
    tracing::subscriber::set_global_default(subscriber)?;
    for (auth, user) in [("digest", "me:canary"), ("sasl", "me:canary"), ("sasl", "me:wrong-canary")] {
        let url = format!("{}?auth={auth}&timeout=5s", with_user(&zk.url(&format!("log_{auth}")), user));
        if let Ok(stm) = client(&url).await {
            let (a, _) = two_refs(&stm).await?;
            stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?;
        }
    }
    let logged = log.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(logged.hears_driver, "not all was logged");
    assert!(logged.shown.is_empty(), "{:?}", logged.shown);
    Ok(())
}

fn keytool(arguments: &[&str]) -> Outcome {
    let output = Command::new("keytool").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() { Ok(()) } else { Err(format!("keytool {arguments:?}: {said}").into()) }
}

/// A key in a store for the server, and its certificate as PEM for clients.
fn certificate(
    folder: &Path,
    name: &str,
    names: &str,
    from: &str,
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let path = |ending: &str| folder.join(format!("{name}.{ending}")).display().to_string();
    let (store, pem) = (path("jks"), path("pem"));
    let common = ["-alias", "zk", "-keystore", &store, "-storepass", "password"];
    let make = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=zk"];
    let names = ["-keypass", "password", "-ext", names, "-startdate", from, "-validity", "2"];
    keytool(&[&make[..], &names, &common].concat())?;
    keytool(&[&["-exportcert", "-rfc", "-file", &pem][..], &common].concat())?;
    Ok((store, pem))
}

/// A server that speaks TLS, and its port.
async fn tls_server(store: &str, client: &str) -> Result<(ZooKeeper, u16), Box<dyn std::error::Error>> {
    let port = free_port();
    let mut builder = ZooKeeper::builder();
    // Debian's ZooKeeper does not name all parts of Netty that TLS needs.
    let parts = ["buffer", "codec", "common", "handler", "resolver", "transport", "transport-native-unix-common"];
    let jars = parts.map(|part| format!("/usr/share/java/netty-{part}.jar"));
    if jars.iter().all(|jar| Path::new(jar).exists()) {
        builder = builder.java(format!("-Xbootclasspath/a:{}", jars.join(":")));
    }
    builder = builder
        .config(format!("secureClientPort={port}"))
        .config("serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory")
        .config(format!("ssl.keyStore.location={store}"))
        .config(format!("ssl.clientAuth={client}"));
    // A file in PEM is no encrypted store, and has the authority beside it.
    builder = match store.strip_suffix("pair.pem") {
        Some(folder) => builder.config(format!("ssl.trustStore.location={folder}ca.pem")),
        None => builder.config("ssl.keyStore.password=password"),
    };
    Ok((builder.start().await?, port))
}

/// With TLS a server is taken whose certificate is signed by a trusted one for its name. Another one is an error at once, which says
/// what is wrong with it.
async fn tls_takes_the_servers_that_it_trusts() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (store, pem) = certificate(folder.path(), "own", "san=dns:localhost", "-1d")?;
    let (_, other) = certificate(folder.path(), "other", "san=dns:localhost", "-1d")?;
    let (_zk, port) = tls_server(&store, "none").await?;
    let stm = client(&format!("zk://localhost:{port}/tls?tls_ca={pem}")).await?;
    let (a, b) = two_refs(&stm).await?;
    assert_eq!(hello(&stm, &a, &b).await?, 1);
    let begun = Instant::now();
    for (url, says) in [
        (format!("zk://localhost:{port}/tls?tls_ca={other}"), "signed by no authority"),
        (format!("zk://127.0.0.1:{port}/tls?tls_ca={pem}"), "for another host"),
    ] {
        let error = client(&url).await.expect_err("no trusted server");
        assert_eq!(error.kind(), ErrorKind::Denied, "{url}: {error:?}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "refusals took {:?}", begun.elapsed());
    let plain = client(&format!("zk://localhost:{port}/tls?timeout=2s")).await.expect_err("no TLS");
    assert_eq!(plain.kind(), ErrorKind::Unavailable);
    let empty = folder.path().join("empty.pem").display().to_string();
    std::fs::write(&empty, "no certificate")?;
    let own = format!("tls_ca={pem}");
    for files in [
        "tls_ca=/nowhere.pem".to_owned(),
        format!("tls_ca={empty}"),
        format!("{own}&tls_cert={empty}&tls_key={empty}"),
        format!("{own}&tls_cert={pem}&tls_key={empty}"),
    ] {
        let error = client(&format!("zk://localhost:{port}/tls?{files}")).await.expect_err("no such files");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{files}: {error:?}");
        assert!(error.to_string().contains(".pem"), "{files}: {error}");
    }
    Ok(())
}

/// An expired certificate, and a client that must show one and has none, are errors at once that say so.
async fn tls_says_what_is_refused() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (store, pem) = certificate(folder.path(), "old", "san=dns:localhost", "-9d")?;
    let (_zk, port) = tls_server(&store, "none").await?;
    let error = client(&format!("zk://localhost:{port}/tls?tls_ca={pem}")).await.expect_err("an old certificate");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("expired"), "{error}");
    let (store, pem) = certificate(folder.path(), "asks", "san=dns:localhost", "-1d")?;
    let (_zk, port) = tls_server(&store, "need").await?;
    let error = client(&format!("zk://localhost:{port}/tls?tls_ca={pem}")).await.expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("tls_cert"), "{error}");
    Ok(())
}

/// A server that asks for a certificate of the client's own takes one of its authority, with a key that is encrypted, and refuses one of another
/// authority at once. What the driver cannot be given is refused before anything is sent.
async fn tls_shows_the_clients_certificate() -> Outcome {
    let files = Certificates::make()?;
    let pair = files.file("pair.pem");
    std::fs::write(
        &pair,
        [std::fs::read(files.file("server.key"))?, std::fs::read(files.file("server.pem"))?].concat(),
    )?;
    let (_zk, port) = tls_server(&pair, "need").await?;
    let ca = files.file("ca.pem");
    let url = |name: &str, key: &str| {
        let (cert, key) = (files.file(name), files.file(key));
        format!("zk://localhost:{port}/tls?tls_ca={ca}&tls_cert={cert}&tls_key={key}")
    };
    let stm = client(&format!("{}&tls_key_password=secret", url("client.pem", "sealed.key"))).await?;
    let (a, b) = two_refs(&stm).await?;
    assert_eq!(hello(&stm, &a, &b).await?, 1);
    for (url, kind, says) in [
        (url("stranger.pem", "stranger.key"), ErrorKind::Denied, "tls_cert and tls_key"),
        (url("client.pem", "sealed.key"), ErrorKind::InvalidInput, "sealed.key"),
        (format!("{}&tls_server_name=zk", url("client.pem", "client.key")), ErrorKind::Unsupported, "tls_server_name"),
    ] {
        let error = client(&url).await.expect_err(says);
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    Ok(())
}
