//! The client's key, which may be encrypted.

use std::path::Path;

use avout_core::Result;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::wrong::wrong;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// The first key in a PEM file.
pub(crate) fn read_key(path: &Path, bytes: &[u8], password: Option<&str>) -> Result<PrivateKeyDer<'static>> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(wrong(
            path,
            "has a key that is encrypted in OpenSSL's old form: expected PKCS#8, as `openssl pkcs8 -topk8` makes of it",
        ));
    }
    let encrypted = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let Some((inner, _)) = encrypted else {
        return PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
            let message = "has no key that can be read: expected PEM, with a block of PKCS#8 (PRIVATE KEY), PKCS#1 \
                (RSA PRIVATE KEY) or SEC1 (EC PRIVATE KEY)";
            wrong(path, message).with_source(error)
        });
    };
    let Some(password) = password else {
        return Err(wrong(path, "has a key that is encrypted: give its password as tls_key_password"));
    };
    let (_, sealed) = pem::decode_vec(format!("{BEGIN}{inner}{END}").as_bytes())
        .map_err(|error| wrong(path, "has an encrypted key that is no PEM").with_source(error))?;
    let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_slice())
        .map_err(|error| wrong(path, "has an encrypted key that is no PKCS#8").with_source(error))?;
    // The source says no more than that, and is the same for a wrong password and for a form that is not known.
    let opened = sealed.decrypt(password).map_err(|error| {
        let message = "has a key that this tls_key_password does not open, or that is not encrypted by PBES2 with AES";
        wrong(path, message).with_source(error)
    })?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}
