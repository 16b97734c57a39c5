//! Certificates, and why a server is not taken for the right one.

use std::fs;
use std::io::{self, ErrorKind as IoKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use avout_core::{Error, ErrorKind, Result};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use zookeeper::{Error as ZkError, TlsOptions};

use crate::options::Tls;

/// A connection that takes longer is looked at.
const SLOW: Duration = Duration::from_millis(300);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a server may take to refuse the client's certificate after the handshake. It says nothing if it takes it.
const REFUSAL: Duration = Duration::from_millis(300);

/// Why no server's certificate was taken, or no server took the client's.
#[derive(Clone, Debug)]
pub(crate) struct Refused(rustls::Error);

impl Refused {
    /// What the user is told.
    pub(crate) fn told(&self) -> Error {
        let message = match &self.0 {
            // A signature that does not fit is one of another authority with the same name.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "the server's certificate is signed by none of those in tls_ca: give the file with the servers' authority"
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "the server's certificate is for another host: name the servers as their certificates do",
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => "the server's certificate is expired or not valid yet: renew it, or set the clock",
            rustls::Error::InvalidCertificate(_) => "the server's certificate is not valid",
            rustls::Error::AlertReceived(_) => {
                "the server refuses the client: give it a certificate of its own that the servers trust (tls_cert, tls_key)"
            }
            _ => "the server and the client have no way to speak TLS with each other",
        };
        Error::new(ErrorKind::Denied, message).with_source(self.0.clone())
    }
}

/// Reads the files that the options name, for the driver.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) names the file.
pub(crate) fn certificates(tls: &Tls) -> Result<TlsOptions> {
    // The driver takes the process's own provider, and panics if there is none and several are built in. Installing fails
    // if one was chosen meanwhile, which is as good.
    if CryptoProvider::get_default().is_none() {
        let _ = aws_lc_rs::default_provider().install_default();
    }
    let wrong = |path: &Path| {
        let message = format!("the file {} has no certificate or key that can be read, in PEM", path.display());
        move |error: ZkError| Error::new(ErrorKind::InvalidInput, message).with_source(error)
    };
    let mut certificates = TlsOptions::new().with_pem_ca(&read(&tls.ca)?).map_err(wrong(&tls.ca))?;
    if let Some((certificate, key)) = &tls.identity {
        let (text, key_text) = (read(certificate)?, read(key)?);
        if CertificateDer::pem_slice_iter(text.as_bytes()).flatten().next().is_none() {
            return Err(wrong(certificate)(ZkError::BadArguments(&"no certificate")));
        }
        certificates = certificates.with_pem_identity(&text, &key_text).map_err(wrong(key))?;
    }
    config(tls)?;
    Ok(certificates)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("the file {} cannot be read", path.display());
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })
}

/// The same files, for a look of our own.
fn config(tls: &Tls) -> Result<ClientConfig> {
    let invalid = |error: rustls::Error| {
        let message = "tls_cert and tls_key do not go together, or rustls takes them not";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(read(&tls.ca)?.as_bytes()).flatten());
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(invalid)?.with_root_certificates(roots);
    let Some((certificate, key)) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(read(certificate)?.as_bytes()).flatten().collect();
    let key_of = PrivateKeyDer::from_pem_slice(read(key)?.as_bytes()).map_err(|error| {
        let message = format!("the file {} has no key that can be read, in PEM", key.display());
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })?;
    builder.with_client_auth_cert(chain, key_of).map_err(invalid)
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
    let config = Arc::new(config(tls).ok()?);
    let mut refused = None;
    for server in servers.split(',') {
        match handshake(&config, server, limit) {
            Ok(()) => return None,
            Err(error) => refused = refused.or_else(|| of_certificates(&error)),
        }
    }
    refused.map(Refused)
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
        Err(error) if of_certificates(&error).is_some() => Err(error),
        _ => Ok(()),
    }
}

/// The error, if both sides can be reached and do not take each other.
fn of_certificates(error: &io::Error) -> Option<rustls::Error> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let refused = matches!(
        error,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::AlertReceived(_)
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::NoCertificatesPresented
    );
    refused.then(|| error.clone())
}
