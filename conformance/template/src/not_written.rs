use avout_core::{Error, ErrorKind, Result};

/// What a method answers until it is written.
pub(crate) fn not_written<T>(method: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "it is not written yet").during(method))
}
