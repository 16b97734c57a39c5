//! Certificates as MongoDB takes them: with the key in the same file.

use avout_conformance::servers::{Certificates, Error};

/// Makes the file of a certificate and its key, and gives its path.
pub(crate) fn pair(files: &Certificates, name: &str) -> Result<String, Error> {
    let read = |end: &str| std::fs::read_to_string(files.file(&format!("{name}.{end}")));
    let path = files.file(&format!("{name}.pair.pem"));
    let written = read("pem").and_then(|certificate| std::fs::write(&path, certificate + &read("key")?));
    written.map(|()| path).map_err(|error| Error::failed("mongo", error))
}
