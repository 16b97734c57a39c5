use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::Error;

/// Certificates for tests of TLS, of an authority that nobody else has, as PEM files in a folder that is removed with this value.
///
/// | file | |
/// | --- | --- |
/// | `ca.pem` | the authority |
/// | `server.pem`, `server.key` | of a server at `localhost` or 127.0.0.1 |
/// | `client.pem`, `client.key` | of a client, whose common name is `client` |
/// | `sealed.key` | the client's key, encrypted with the password `secret` |
/// | `other.pem` | another authority |
/// | `stranger.pem`, `stranger.key` | of a client, signed by that one |
#[derive(Debug)]
pub struct Certificates(TempDir);

const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
";

impl Certificates {
    /// Makes them, with the program `openssl`. They hold for two days.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]), or refuses.
    pub fn make() -> Result<Self, Error> {
        let made = Self(TempDir::new().map_err(|error| Error::failed("openssl", error))?);
        std::fs::write(made.0.path().join("config"), CONFIG).map_err(|error| Error::failed("openssl", error))?;
        let openssl = |arguments: &str| run(made.0.path(), arguments);
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config config";
        for authority in ["ca", "other"] {
            let files = format!("-keyout {authority}.key -out {authority}.pem -extensions authority");
            openssl(&format!("req -x509 {key} -days 2 -subj /CN={authority} {files}"))?;
        }
        for (name, of, kind) in
            [("server", "ca", "server"), ("client", "ca", "client"), ("stranger", "other", "client")]
        {
            openssl(&format!("req -new {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"))?;
            let signed = format!("-CA {of}.pem -CAkey {of}.key -CAcreateserial -extfile config -extensions {kind}");
            openssl(&format!("x509 -req -in {name}.csr -out {name}.pem -days 2 {signed}"))?;
        }
        openssl("pkcs8 -topk8 -in client.key -out sealed.key -passout pass:secret")?;
        Ok(made)
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn run(folder: &Path, arguments: &str) -> Result<(), Error> {
    let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = ran.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::missing("openssl", "the program openssl is not installed", "install the package openssl")
        }
        _ => Error::failed("openssl", error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::failed("openssl", format!("openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr))))
}
