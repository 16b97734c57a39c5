use std::fmt;

/// Why a server could not be used.
#[derive(Clone, Debug)]
pub struct Error {
    server: &'static str,
    cause: Cause,
}

#[derive(Clone, Debug)]
enum Cause {
    Missing { what: String, how: &'static str },
    PortTaken(String),
    Failed(String),
}

impl Error {
    /// The server is not installed: what is missing, and how to get it.
    pub fn missing(server: &'static str, what: impl Into<String>, how: &'static str) -> Self {
        Self { server, cause: Cause::Missing { what: what.into(), how } }
    }

    /// The server could not be used, for this reason.
    pub fn failed(server: &'static str, what: impl fmt::Display) -> Self {
        Self { server, cause: Cause::Failed(what.to_string()) }
    }

    pub(super) fn port_taken(server: &'static str, log: String) -> Self {
        Self { server, cause: Cause::PortTaken(log) }
    }

    pub(super) fn is_port_taken(&self) -> bool {
        matches!(self.cause, Cause::PortTaken(_))
    }

    /// Whether the server is not installed here. The message says how to get it.
    pub fn is_missing(&self) -> bool {
        matches!(self.cause, Cause::Missing { .. })
    }

    /// The short name of the kind of server, as `AVOUT_TEST_REQUIRE` lists it: `zk`, `redis`, `mongo`.
    pub fn server(&self) -> &'static str {
        self.server
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Missing { what, how } => write!(f, "{what}; {how}"),
            Cause::PortTaken(log) => {
                write!(f, "{}: its ports were taken by others, each time; its log ends:\n{log}", self.server)
            }
            Cause::Failed(what) => write!(f, "{}: {what}", self.server),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for avout_core::Error {
    fn from(error: Error) -> Self {
        Self::new(avout_core::ErrorKind::Unavailable, "a server for tests cannot be used").with_source(error)
    }
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}
