use std::path::Path;

use avout_core::{Error, ErrorKind};

/// The file is wrong, in these words.
pub(crate) fn wrong(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the file {} {what}", path.display()))
}
