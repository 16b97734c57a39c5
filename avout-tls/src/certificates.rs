use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avout_core::{Error, ErrorKind, Result};
use pkcs8::LineEnding;
use pkcs8::der::pem;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::key::read_key;
use crate::wrong::wrong;

/// The cryptography of all backends.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What the files hold that a [`Tls`](crate::Tls) names.
pub struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// Reads the files of authorities, adds the system's if they are asked for, and reads the client's own certificate and key, which may
    /// have a password.
    pub(crate) fn read(
        files: &[PathBuf],
        system: bool,
        own: Option<(&PathBuf, &PathBuf)>,
        password: Option<&str>,
    ) -> Result<Self> {
        let (mut authorities, mut revoked) = (Vec::new(), Vec::new());
        for path in files {
            let bytes = bytes_of(path)?;
            authorities.extend(certificates_of(path, &bytes)?);
            for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
                revoked.push(
                    list.map_err(|error| wrong(path, "has a revocation list that is no PEM").with_source(error))?,
                );
            }
        }
        if system {
            authorities.extend(of_system()?);
        }
        let own = match own {
            Some((certificate, key)) => {
                let chain = certificates_of(certificate, &bytes_of(certificate)?)?;
                Some((chain, read_key(key, &bytes_of(key)?, password)?))
            }
            None => None,
        };
        let read = Self { authorities, revoked, own };
        // What cannot be used is told when it is read.
        read.config().map(|_| read)
    }

    /// The same as a configuration of rustls, with the [`provider`]'s cryptography, and TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): the key is not the certificate's, or is of a kind that the provider does not know.
    pub fn config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        // A system's own store may have some that are of no use; those of files were looked at.
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        let unusable = |what: &'static str| {
            move |error: rustls::Error| Error::new(ErrorKind::InvalidInput, what).with_source(error)
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable("TLS cannot be used"))?;
        let builder = if self.revoked.is_empty() {
            builder.with_root_certificates(roots)
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = verifier.with_crls(self.revoked.iter().cloned()).build().map_err(|error| {
                let message = "a file of tls_ca has a revocation list that cannot be used";
                Error::new(ErrorKind::InvalidInput, message).with_source(error)
            });
            builder.with_webpki_verifier(verifier?)
        };
        let config = match &self.own {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(unusable("the key in tls_key is not the certificate's in tls_cert, or of an unknown kind"))?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    /// The authorities and revocation lists as PEM, for drivers that take that.
    #[must_use]
    pub fn authorities_pem(&self) -> String {
        let certificates = self.authorities.iter().map(|one| block("CERTIFICATE", one));
        certificates.chain(self.revoked.iter().map(|one| block("X509 CRL", one))).collect()
    }

    /// The client's certificate, with those that lead to its authority, and its key, not encrypted, as PEM. `None`: it shows none.
    #[must_use]
    pub fn identity_pem(&self) -> Option<(String, String)> {
        let (chain, key) = self.own.as_ref()?;
        let label = match key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Some((chain.iter().map(|one| block("CERTIFICATE", one)).collect(), block(label, key.secret_der())))
    }
}

/// Shows no key.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authorities", &self.authorities.len())
            .field("identity", &self.own.is_some())
            .finish_non_exhaustive()
    }
}

fn block(label: &str, bytes: &[u8]) -> String {
    pem::encode_string(label, LineEnding::LF, bytes).expect("a label without dashes, and a length that fits in memory")
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| wrong(path, "cannot be read").with_source(error))
}

fn certificates_of(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let certificate =
            certificate.map_err(|error| wrong(path, "has a certificate that is no PEM").with_source(error))?;
        let known = RootCertStore::empty().add(certificate.clone());
        known.map_err(|error| wrong(path, "has a certificate that cannot be used").with_source(error))?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err(wrong(
            path,
            "has no certificate in it: expected PEM, with a block that begins with -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(found)
}

fn of_system() -> Result<Vec<CertificateDer<'static>>> {
    let mut found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let message = "the system has no authorities to trust: install its certificates, or name a file with tls_ca";
        let error = Error::new(ErrorKind::InvalidInput, message);
        return Err(match found.errors.pop() {
            Some(source) => error.with_source(source),
            None => error,
        });
    }
    Ok(found.certs)
}
