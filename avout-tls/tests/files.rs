//! Certificates and keys as files, in handshakes with a server of rustls that asks for a client's certificate.

use std::error::Error as StdError;
use std::process::Command;
use std::sync::Arc;

use avout_conformance::servers::Certificates;
use avout_core::ErrorKind;
use avout_tls::rustls::pki_types::pem::PemObject;
use avout_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use avout_tls::rustls::server::WebPkiClientVerifier;
use avout_tls::rustls::{self, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use avout_tls::{Refused, Roots, Tls, provider};

type Outcome<T = ()> = Result<T, Box<dyn StdError>>;

/// A server that takes only clients of its own authority.
fn server(files: &Certificates) -> Outcome<Arc<ServerConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.file("ca.pem"))?)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let chain = vec![CertificateDer::from_pem_file(files.file("server.pem"))?];
    let key = PrivateKeyDer::from_pem_file(files.file("server.key"))?;
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_client_cert_verifier(clients).with_single_cert(chain, key)?))
}

/// Lets both sides talk until they agree. What the client says of it, and whatever it is told after.
async fn shake(tls: &Tls, host: &str, server: &Arc<ServerConfig>) -> Outcome<Result<(), rustls::Error>> {
    let mut client = ClientConnection::new(tls.config().await?, tls.name_at(host)?)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..10 {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there)?;
        }
        server.read_tls(&mut &*there)?;
        let _ = server.process_new_packets();
        while server.wants_write() {
            server.write_tls(&mut back)?;
        }
        client.read_tls(&mut &*back)?;
        if let Err(error) = client.process_new_packets() {
            return Ok(Err(error));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Ok(()))
}

fn openssl(arguments: &[&str]) -> Outcome {
    let output = Command::new("openssl").args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// A client shows its certificate with a key in any of the usual forms, encrypted or not, and in the certificate's file too.
#[tokio::test]
async fn keys_of_all_forms_are_read() -> Outcome {
    let files = Certificates::make()?;
    let server = server(&files)?;
    let (plain, old) = (files.file("client.key"), files.file("sec1.key"));
    openssl(&["ec", "-in", &plain, "-out", &old])?;
    let both = files.file("both.pem");
    std::fs::write(&both, [std::fs::read(files.file("client.pem"))?, std::fs::read(&plain)?].concat())?;
    let known = Tls::new().ca(files.file("ca.pem"));
    for tls in [
        known.clone().identity(files.file("client.pem"), &plain),
        known.clone().identity(files.file("client.pem"), &old),
        known.clone().identity(&both, &both),
        known.clone().identity(files.file("client.pem"), files.file("sealed.key")).key_password("secret"),
    ] {
        shake(&tls, "localhost", &server).await?.map_err(|error| format!("{tls:?}: {error}"))?;
        // The same for a driver that takes PEM.
        let (certificate, key) = tls.read()?.identity_pem().expect("a certificate");
        let (c, k) = (files.file("again.pem"), files.file("again.key"));
        std::fs::write(&c, certificate)?;
        std::fs::write(&k, key)?;
        shake(&known.clone().identity(c, k), "localhost", &server).await??;
    }
    Ok(())
}

/// What is wrong with a file is said, with its name and what was expected, and no password.
#[tokio::test]
async fn wrong_files_are_named() -> Outcome {
    let files = Certificates::make()?;
    let file = |name: &str| files.file(name);
    std::fs::write(file("empty.pem"), "no certificate")?;
    std::fs::write(file("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    openssl(&["ec", "-in", &file("client.key"), "-aes128", "-passout", "pass:x", "-out", &file("old.key")])?;
    let own = |key: &str| Tls::new().ca(file("ca.pem")).identity(file("client.pem"), file(key));
    for (tls, name, says) in [
        (Tls::new().ca("/nowhere.pem"), "/nowhere.pem", "cannot be read"),
        (Tls::new().ca(file("empty.pem")), "empty.pem", "BEGIN CERTIFICATE"),
        (Tls::new().ca(file("client.key")), "client.key", "BEGIN CERTIFICATE"),
        (Tls::new().ca(file("bad.pem")), "bad.pem", "cannot be used"),
        (own("empty.pem"), "empty.pem", "PKCS#8"),
        (own("client.pem"), "client.pem", "PKCS#8"),
        (own("sealed.key"), "sealed.key", "tls_key_password"),
        (own("sealed.key").key_password("canary"), "sealed.key", "does not open"),
        (own("old.key").key_password("canary"), "old.key", "openssl pkcs8 -topk8"),
        (own("server.key"), "", "not the certificate's"),
    ] {
        let error = tls.config().await.expect_err(says);
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.contains(name) && text.contains(says), "{name}, {says}: {text}");
        assert!(!format!("{error:?} {tls:?}").contains("canary"), "{error:?}");
    }
    Ok(())
}

/// Each side's refusal is told, by what is wrong.
#[tokio::test]
async fn each_sides_refusal_is_told() -> Outcome {
    let files = Certificates::make()?;
    let server = server(&files)?;
    let known = Tls::new().ca(files.file("ca.pem"));
    let own = known.clone().identity(files.file("client.pem"), files.file("client.key"));
    for (tls, host, says) in [
        (Tls::new().ca(files.file("other.pem")), "localhost", "tls_ca"),
        (own.clone(), "example.org", "another host"),
        (own.clone().server_name("example.org"), "localhost", "another host"),
        (known.clone(), "localhost", "tls_cert"),
        (known.clone().identity(files.file("stranger.pem"), files.file("stranger.key")), "localhost", "tls_cert"),
    ] {
        let error = shake(&tls, host, &server).await?.expect_err(says);
        let told = Refused::of(&error).ok_or_else(|| format!("{error} is no refusal"))?.told();
        assert_eq!(told.kind(), ErrorKind::Denied);
        assert!(told.to_string().contains(says), "{says}: {told}");
    }
    // The name that was given is the one that counts.
    shake(&own.server_name("localhost"), "10.0.0.1", &server).await??;
    Ok(())
}

/// A server whose authority is one of the system's is trusted with `system` and `both`; one whose authority is in a file with `ca`
/// and `both`.
#[tokio::test]
async fn files_and_the_system_are_trusted_as_asked() -> Outcome {
    const INSIDE: &str = "AVOUT_TEST_TLS_FILES";
    let Some(folder) = std::env::var_os(INSIDE) else {
        // The variable that names the system's authorities is for a process of its own.
        let files = Certificates::make()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", "files_and_the_system_are_trusted_as_asked", "--nocapture"])
            .env("SSL_CERT_FILE", files.file("other.pem"))
            .env_remove("SSL_CERT_DIR")
            .env(INSIDE, files.file(""))
            .output()?;
        let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return Ok(());
    };
    let ca = std::path::Path::new(&folder).join("ca.pem");
    let count = |tls: &Tls| Ok::<_, avout_core::Error>(tls.read()?.authorities_pem().matches("BEGIN").count());
    let file = Tls::new().ca(&ca);
    let (own, system) = (std::fs::read_to_string(&ca)?, std::fs::read_to_string(ca.with_file_name("other.pem"))?);
    assert_eq!(file.read()?.authorities_pem(), own);
    assert_eq!(Tls::new().read()?.authorities_pem(), system);
    assert_eq!(file.clone().roots(Roots::Both).read()?.authorities_pem(), own + &system);
    assert_eq!(count(&file.roots(Roots::Both))?, 2);
    Ok(())
}
