use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use avout_core::backend::UrlReader;
use avout_core::{Error, ErrorKind, Result};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::certificates::Certificates;

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the system's authorities.
    System,
    /// Those of the authorities in the files that [`Tls::ca`] names.
    Ca,
    /// Those of either.
    Both,
}

/// Which servers are trusted, and what the client shows of itself.
///
/// # Contract
/// It reads no file before it is asked to, so that making one cannot fail. It prints no password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    ca: Vec<PathBuf>,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    key_password: Option<String>,
    server_name: Option<String>,
    ready: Option<Ready>,
}

/// A configuration that is used as it is.
#[derive(Clone)]
struct Ready(Arc<ClientConfig>);

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Ready {}

/// The options of a URL that [`Tls::option`] takes, for the list of known ones in a backend's
/// [`UrlReader`]: `concat!("timeout=<number>ms|s, ", avout_tls::options!())`.
#[macro_export]
macro_rules! options {
    () => {
        "tls_ca=<file>, tls_roots=system|ca|both, tls_cert=<file>, tls_key=<file>, tls_key_password=<text>, \
         tls_server_name=<name>"
    };
}

impl Tls {
    /// Trusts the system's authorities, and shows no certificate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses a configuration as it is, with its own authorities, certificates and cryptography. Nothing else can be set but the
    /// [server's name](Self::server_name).
    #[must_use]
    pub fn from_config(config: Arc<ClientConfig>) -> Self {
        Self { ready: Some(Ready(config)), ..Self::default() }
    }

    /// Trusts the authorities in this PEM file, and not the system's unless [`roots`](Self::roots) says so. Each call adds a file.
    /// Where a file holds revocation lists (`X509 CRL`), each certificate of a server must be known as not revoked.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca.push(file.into());
        self
    }

    /// Whose certificates are trusted. [`Roots::Ca`] with a [file](Self::ca) and [`Roots::System`] without, unless set.
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Shows servers this certificate, with those that lead from it to its authority. Both files are PEM, and may be the same
    /// one. The key is PKCS#8, PKCS#1 or SEC1; a PKCS#8 one may be [encrypted](Self::key_password).
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self.key = Some(key.into());
        self
    }

    /// The password of the key, where its file says `ENCRYPTED PRIVATE KEY`: PKCS#8 with PBES2, as OpenSSL 1.1 and later write it.
    #[must_use]
    pub fn key_password(mut self, password: impl Into<String>) -> Self {
        self.key_password = Some(password.into());
        self
    }

    /// The name that the servers' certificates must be for, where it is not the host's.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Takes one option of a URL, and tells whether it was one of TLS: `tls_ca` (may be repeated), `tls_roots`, `tls_cert`, `tls_key`
    /// (the certificate's file, unless given), `tls_key_password`, and `tls_server_name`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): the value is none that the option takes.
    pub fn option(&mut self, url: &UrlReader, name: &str, value: &str) -> Result<bool> {
        const ROOTS: [(&str, Roots); 3] = [("system", Roots::System), ("ca", Roots::Ca), ("both", Roots::Both)];
        let known = ["tls_ca", "tls_roots", "tls_cert", "tls_key", "tls_key_password", "tls_server_name"];
        if !known.contains(&name) {
            return Ok(false);
        }
        let text = url.decode(value, name)?;
        if text.is_empty() && name != "tls_key_password" {
            return Err(url.wrong_value(name));
        }
        match name {
            "tls_ca" => self.ca.push(text.into()),
            "tls_roots" => self.roots = Some(url.choice(name, value, &ROOTS)?),
            "tls_cert" => self.certificate = Some(text.into()),
            "tls_key" => self.key = Some(text.into()),
            "tls_key_password" => self.key_password = Some(text),
            _ => self.server_name = Some(text),
        }
        Ok(true)
    }

    /// Looks whether what was set goes together. It reads no file.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) says what does not.
    pub fn check(&self) -> Result<()> {
        let files = !self.ca.is_empty();
        let set = files || self.roots.is_some() || self.certificate.is_some() || self.key.is_some();
        let wrong = match self.roots {
            _ if self.ready.is_some() && (set || self.key_password.is_some()) => {
                "a configuration of rustls that is passed in has its own authorities, certificates and keys: give only that"
            }
            Some(Roots::Ca | Roots::Both) if !files => "tls_roots=ca and tls_roots=both need a file: tls_ca=<file>",
            Some(Roots::System) if files => {
                "tls_roots=system makes no use of tls_ca: leave one out, or say tls_roots=both"
            }
            _ if self.certificate.is_none() && (self.key.is_some() || self.key_password.is_some()) => {
                "a key is of no use without its certificate: give tls_cert=<file> too"
            }
            _ => return self.server_name.as_deref().map_or(Ok(()), |name| named(name).map(drop)),
        };
        Err(Error::new(ErrorKind::InvalidInput, wrong))
    }

    /// Reads the files. It blocks: [`config`](Self::config) does it beside.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names the file, and says what is wrong with it and what was expected; or it says
    /// what does not [go together](Self::check).
    pub fn read(&self) -> Result<Certificates> {
        self.check()?;
        Certificates::read(&self.ca, self.trusts_system(), self.own_files(), self.key_password.as_deref())
    }

    /// What rustls takes: the configuration that was [passed in](Self::from_config), or one of the files, which are read now.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`InvalidInput`](ErrorKind::InvalidInput) if the key is not the certificate's.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub async fn config(&self) -> Result<Arc<ClientConfig>> {
        self.check()?;
        if let Some(Ready(config)) = &self.ready {
            return Ok(Arc::clone(config));
        }
        let own = self.clone();
        let read = tokio::task::spawn_blocking(move || own.read()?.config());
        read.await.map_err(|error| Error::new(ErrorKind::Unavailable, "no file was read").with_source(error))?
    }

    /// The name that the certificate of the server at `host` must be for.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): no certificate can have it.
    pub fn name_at(&self, host: &str) -> Result<ServerName<'static>> {
        named(self.server_name.as_deref().unwrap_or(host))
    }

    /// Whether all that is set can be given to a driver that makes its configuration itself, of certificates.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) names what such a driver cannot be given.
    pub fn check_without_config(&self) -> Result<()> {
        let message = match self {
            Self { ready: Some(_), .. } => {
                "this store's driver takes no configuration of rustls: name the files instead"
            }
            Self { server_name: Some(_), .. } => {
                "this store's driver checks each host's own name: leave tls_server_name out, and name hosts as the certificates do"
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    fn trusts_system(&self) -> bool {
        match self.roots {
            Some(roots) => roots != Roots::Ca,
            None => self.ca.is_empty(),
        }
    }

    /// The certificate's file and the key's.
    fn own_files(&self) -> Option<(&PathBuf, &PathBuf)> {
        let certificate = self.certificate.as_ref()?;
        Some((certificate, self.key.as_ref().unwrap_or(certificate)))
    }
}

fn named(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|error| {
        let message = "the server's name is none that a certificate can have: expected a host's name, or an address";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })
}

/// Shows no password, and of a configuration only that there is one.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca)
            .field("roots", &self.roots)
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .field("server_name", &self.server_name)
            .field("ready", &self.ready.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: UrlReader = UrlReader::new("shelf url", concat!("floors=1..9, ", crate::options!()));

    fn of_url(query: &str) -> Result<Tls> {
        let mut tls = Tls::new();
        for (name, value) in UrlReader::pairs(query) {
            if !tls.option(&URL, name, value)? {
                return Err(URL.unknown(name));
            }
        }
        tls.check().map(|()| tls)
    }

    /// A URL says what the builder says.
    #[test]
    fn reads_urls() {
        let both = Tls::new().ca("/a b").ca("c").roots(Roots::Both);
        assert_eq!(of_url("tls_ca=/a%20b&tls_ca=c&tls_roots=both").expect("options"), both);
        let own = Tls::new().identity("c", "k").key_password("p&q").server_name("redis.local");
        let url = "tls_cert=c&tls_key=k&tls_key_password=p%26q&tls_server_name=redis.local";
        assert_eq!(of_url(url).expect("options"), own);
        assert_eq!(of_url("tls_roots=system").expect("options"), Tls::new().roots(Roots::System));
    }

    /// What does not go together is refused, and the message says what to do.
    #[test]
    fn refuses_what_does_not_go_together() {
        for (query, says) in [
            ("tls_roots=ca", "tls_ca=<file>"),
            ("tls_roots=both", "tls_ca=<file>"),
            ("tls_roots=none", "tls_roots=system|ca|both"),
            ("tls_roots=system&tls_ca=x", "tls_roots=both"),
            ("tls_key=canary", "tls_cert=<file>"),
            ("tls_ca=", "tls_ca=<file>"),
            ("tls_server_name=a%20b", "a host's name"),
            ("tls=1", "did you mean tls_"),
        ] {
            let error = of_url(query).expect_err(query);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{query}");
            assert!(error.to_string().contains(says), "{query}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    /// A configuration that is passed in is used as it is, and nothing beside it is.
    #[tokio::test]
    async fn takes_a_configuration_that_is_ready() {
        let config = Tls::new().config().await;
        let Ok(config) = config else { return };
        let ready = Tls::from_config(Arc::clone(&config)).server_name("other");
        assert!(Arc::ptr_eq(&ready.config().await.expect("the same"), &config));
        assert_eq!(ready.name_at("host").expect("a name"), ServerName::try_from("other").expect("a name"));
        assert_eq!(ready.check_without_config().expect_err("none").kind(), ErrorKind::Unsupported);
        for more in [ready.clone().ca("x"), ready.clone().identity("c", "k"), ready.roots(Roots::System)] {
            assert_eq!(more.config().await.expect_err("two of them").kind(), ErrorKind::InvalidInput);
        }
    }

    /// The password of the key is in no text.
    #[test]
    fn shows_no_password() {
        let tls = Tls::new().identity("c", "k").key_password("canary");
        assert!(!format!("{tls:?} {tls:#?}").contains("canary"));
    }
}
