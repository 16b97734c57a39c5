use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use avout_core::backend::{Backend, open_patiently};
use avout_core::{Error, ErrorKind, Result, Stm};

use crate::connect::{PATIENCE, SCHEMES, open};

/// The opening of a backend, under way.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Backend>> + Send + 'a>>;

/// Opens the URLs of a backend that is not one of avout's own. See [`Schemes`].
pub trait Scheme: Send + Sync + 'static {
    /// What its URLs begin with, up to the first colon: `["etcd", "etcds"]`.
    fn names(&self) -> &[&str];

    /// Opens the coordinator and the store that `url` names. The URL is the whole one, with its scheme.
    ///
    /// # Contract
    /// [`UrlReader`](crate::backend::UrlReader) reads hosts and options as all backends do. No error repeats a part of the URL
    /// that may be a password.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a URL that is wrong, and whatever opening gives.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the opening. A namespace may have been made.
    fn open<'a>(&'a self, url: &'a str) -> Opening<'a>;
}

/// The URLs that a program opens: those of avout's own backends, and those of other crates' that it adds.
///
/// Nothing is registered globally: whoever reads URLs from a configuration makes one of these and uses it in place of
/// [`connect`](crate::connect) and [`open`].
///
/// # Examples
/// ```
/// use avout::{Opening, Scheme, Schemes};
///
/// /// `shelf:name`, the backend of another crate.
/// struct Shelf;
///
/// impl Scheme for Shelf {
///     fn names(&self) -> &[&str] {
///         &["shelf"]
///     }
///
///     fn open<'a>(&'a self, url: &'a str) -> Opening<'a> {
///         Box::pin(async move {
///             let name = url.trim_start_matches("shelf:");
///             // … open it; a namespace in memory stands for it here …
///             avout::open(format!("mem:{name}")).await
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout::Result<()> {
/// let schemes = Schemes::builtin().with(Shelf);
/// let stm = schemes.connect("shelf:books").await?;
/// stm.create_ref("/count", 1_i64).await?;
///
/// // avout's own are there too, and an unknown one is told which there are.
/// schemes.connect("mem:").await?;
/// let error = schemes.connect("self:books").await.expect_err("nobody opens it");
/// assert!(error.to_string().contains("shelf:"));
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Schemes {
    /// What was added last comes first.
    added: Vec<Arc<dyn Scheme>>,
}

impl Schemes {
    /// The schemes of avout's own backends, as [`connect`](crate::connect) lists them.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// The same and another. It takes the place of one that has the same name.
    pub fn with(mut self, scheme: impl Scheme) -> Self {
        self.added.insert(0, Arc::new(scheme));
        self
    }

    /// What a URL may begin with, up to the first colon.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let added = self.added.iter().flat_map(|scheme| scheme.names().iter().copied());
        added.chain(SCHEMES.iter().map(|(name, _)| *name))
    }

    /// As [`connect`](crate::connect), for all of these schemes.
    ///
    /// # Errors
    /// As there, and those of the added schemes.
    pub async fn connect(&self, url: impl AsRef<str>) -> Result<Stm> {
        let Backend { coordinator, store } = self.open(url).await?;
        Ok(Stm::new(coordinator, store))
    }

    /// As [`open`], for all of these schemes.
    ///
    /// # Errors
    /// As there, and those of the added schemes.
    pub async fn open(&self, url: impl AsRef<str>) -> Result<Backend> {
        let url = url.as_ref();
        let name = url.split_once(':').map_or("", |(name, _)| name);
        if let Some(scheme) = self.added.iter().find(|scheme| scheme.names().contains(&name)) {
            let opened = open_patiently(PATIENCE, || scheme.open(url)).await;
            return opened.map_err(|error| error.during("connect"));
        }
        if !self.names().any(|known| known == name) {
            // The rest of a URL may hold credentials, so no part of it is named.
            let known: Vec<String> = self.names().map(|known| format!("{known}:")).collect();
            let message = format!("a URL begins with one of {}, and this one does not", known.join(", "));
            return Err(Error::new(ErrorKind::InvalidInput, message).during("connect"));
        }
        open(url).await
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
