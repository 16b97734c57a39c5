use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use avout_core::Result;

/// A user's name and password. It prints neither.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.password.is_some() { "given" } else { "none" })
    }
}

/// Gives the credentials of the moment. It prints none.
#[derive(Clone)]
pub(crate) struct Provider(Arc<dyn Fn() -> Giving + Send + Sync>);

type Giving = Pin<Box<dyn Future<Output = Result<(String, String)>> + Send>>;

impl Provider {
    pub(crate) fn new<F: Future<Output = Result<(String, String)>> + Send + 'static>(
        give: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(give())))
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("provided")
    }
}

/// The same one, whatever it gives.
impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Provider {}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Fixed(Credentials),
    Provided(Provider),
}

impl Source {
    /// The credentials of the moment.
    ///
    /// # Errors
    /// Those of the provider.
    pub(crate) async fn get(&self) -> Result<Credentials> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::Provided(Provider(give)) => {
                let (user, password) = give().await?;
                Ok(Credentials { user: Some(user).filter(|user| !user.is_empty()), password: Some(password) })
            }
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Fixed(Credentials::default())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credentials) => credentials.fmt(f),
            Self::Provided(provider) => provider.fmt(f),
        }
    }
}
