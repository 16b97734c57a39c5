//! How connections are encrypted.

use std::path::Path;
use std::sync::Arc;

use avout_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Trusts the authorities in the PEM file `ca`, or else the system's.
///
/// The cryptography is this crate's own choice: the process may install another one for itself, or none.
pub(crate) async fn connector(ca: Option<&Path>) -> Result<TlsConnector> {
    let ca = ca.map(Path::to_owned);
    let read = tokio::task::spawn_blocking(move || match ca {
        Some(path) => of_file(&path),
        None => of_system(),
    });
    let roots =
        read.await.map_err(|error| Error::new(ErrorKind::Unavailable, "nothing was read").with_source(error))??;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Unsupported, "TLS cannot be used").with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn of_file(path: &Path) -> Result<RootCertStore> {
    let invalid =
        |what: &str| Error::new(ErrorKind::InvalidInput, format!("the file of authorities {} {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| invalid("cannot be read").with_source(error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| invalid("is not in PEM form").with_source(error))?;
        roots.add(certificate).map_err(|error| invalid("has a certificate that cannot be used").with_source(error))?;
    }
    if roots.is_empty() {
        return Err(invalid("has no certificate in it: it needs a block that begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let mut found = rustls_native_certs::load_native_certs();
    // A system's own store may have some that are of no use.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let message =
            "the system has no authorities to trust: install its certificates, or name a file with the option ca";
        let error = Error::new(ErrorKind::InvalidInput, message);
        return Err(match found.errors.pop() {
            Some(source) => error.with_source(source),
            None => error,
        });
    }
    Ok(roots)
}
