//! Certificates, and why a server is not taken for the right one.

use std::io::{self, ErrorKind as IoKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use avout_core::{Error, ErrorKind, Result};
use avout_tls::rustls::crypto::CryptoProvider;
use avout_tls::rustls::pki_types::ServerName;
use avout_tls::rustls::{ClientConfig, ClientConnection};
use avout_tls::{Refused, Tls};
use zookeeper::{Error as ZkError, TlsOptions};

/// A connection that takes longer is looked at.
const SLOW: Duration = Duration::from_millis(300);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a server may take to refuse the client's certificate after the handshake. It says nothing if it takes it.
const REFUSAL: Duration = Duration::from_millis(300);

/// Reads the files that the options name, for the driver.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) names the file; [`Unsupported`](ErrorKind::Unsupported): the driver cannot be given it.
pub(crate) fn certificates(tls: &Tls) -> Result<TlsOptions> {
    tls.check_without_config()?;
    // The driver takes the process's own provider, and panics if there is none and several are built in. Installing fails
    // if one was chosen meanwhile, which is as good.
    if CryptoProvider::get_default().is_none() {
        let _ = CryptoProvider::clone(&avout_tls::provider()).install_default();
    }
    let read = tls.read()?;
    let wrong = |error: ZkError| {
        let message = "the driver takes none of these certificates, or not the key";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    };
    let certificates = TlsOptions::new().with_pem_ca(&read.authorities_pem()).map_err(wrong)?;
    match read.identity_pem() {
        Some((certificate, key)) => certificates.with_pem_identity(&certificate, &key).map_err(wrong),
        None => Ok(certificates),
    }
}

/// Waits until it is known that all servers which can be reached are refused, or refuse, for their certificates.
pub(super) async fn refused(tls: &Tls, servers: &str, limit: Duration) -> Refused {
    tokio::time::sleep(SLOW).await;
    loop {
        let (tls, servers) = (tls.clone(), servers.to_owned());
        let looked = tokio::task::spawn_blocking(move || look(&tls, &servers, limit)).await;
        if let Ok(Some(refused)) = looked {
            return refused;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn look(tls: &Tls, servers: &str, limit: Duration) -> Option<Refused> {
    let config = tls.read().and_then(|read| read.config()).ok()?;
    let mut refused = None;
    for server in servers.split(',') {
        match handshake(&config, server, limit) {
            Ok(()) => return None,
            Err(error) => refused = refused.or_else(|| Refused::of(&error)),
        }
    }
    refused
}

fn handshake(config: &Arc<ClientConfig>, server: &str, limit: Duration) -> io::Result<()> {
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(2181)),
        _ => (server, 2181),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port).to_socket_addrs()?.next().ok_or(IoKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    stream.set_read_timeout(Some(REFUSAL))?;
    let refused =
        connection.read_tls(&mut stream).and_then(|_| connection.process_new_packets().map_err(io::Error::other));
    match refused {
        Err(error) if Refused::of(&error).is_some() => Err(error),
        _ => Ok(()),
    }
}
