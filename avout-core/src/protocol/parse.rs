//! How the texts of keys, ids and receipts are read. An error holds some of these, so they are defined without it, and checked here.

use std::str::FromStr;

use super::{ClientId, Key, MAX_KEY_BYTES, Realm, Receipt, SessionId};
use crate::error::{Error, ErrorKind, Result};

impl Key {
    /// Checks a name that a user gives.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] says which rule it breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let key = Self::from_stored(name)?;
        if key.is_reserved() {
            return Err(invalid(key.as_str(), "names under /.avout are kept for avout itself"));
        }
        Ok(key)
    }

    /// Checks a name that was read from a store, where the engine's own keys occur too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] says which rule it breaks.
    pub fn from_stored(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        match broken_rule(name) {
            Some(rule) => Err(invalid(name, rule)),
            None => Ok(Self::of(name.into())),
        }
    }

    /// Checks a name to list under: a key, or `/` for all.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] says which rule it breaks.
    pub fn prefix(name: impl AsRef<str>) -> Result<Self> {
        if name.as_ref() == "/" { Ok(Self::root()) } else { Self::new(name) }
    }
}

fn broken_rule(name: &str) -> Option<&'static str> {
    let Some(rest) = name.strip_prefix('/') else {
        return Some("a key starts with /");
    };
    if name.len() > MAX_KEY_BYTES {
        return Some("a key has at most 512 bytes");
    }
    if name.chars().any(char::is_control) {
        return Some("a key has no control characters");
    }
    for part in rest.split('/') {
        match part {
            "" => return Some("a key has no empty part"),
            "." | ".." => return Some("a key has no part . or .."),
            _ => {}
        }
    }
    None
}

fn invalid(name: &str, rule: &'static str) -> Error {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let dots = if name.chars().count() > 80 { "…" } else { "" };
    Error::new(ErrorKind::InvalidInput, format!("\"{shown}{dots}\" is no key: {rule}"))
}

macro_rules! id {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match u128::from_str_radix(text, 16) {
                    Ok(number) if text.len() == 32 && !text.starts_with('+') => Ok(Self::new(number)),
                    _ => Err(Error::new(ErrorKind::InvalidInput, "an id has 32 hexadecimal digits")),
                }
            }
        }
    };
}

id!(Realm);
id!(ClientId);
id!(SessionId);

impl FromStr for Receipt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let mut parts = text.split(':');
            let receipt = match parts.next()? {
                "slot" => Self::Slot {
                    client: parts.next()?.parse().ok()?,
                    slot: parts.next()?.parse().ok()?,
                    sequence: parts.next()?.parse().ok()?,
                    epoch: parts.next()?.parse().ok()?,
                },
                "native" => {
                    let digits = parts.next()?.as_bytes();
                    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                    if digits.len() % 2 != 0 {
                        return None;
                    }
                    Self::Native(digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?.into())
                }
                _ => return None,
            };
            parts.next().is_none().then_some(receipt)
        };
        parse().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not the text of a receipt"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A name that breaks a rule is refused, with the rule named.
    #[test]
    fn refuses_names_that_break_a_rule() {
        let long = format!("/{}", "x".repeat(512));
        for (name, rule) in [
            ("", "starts with /"),
            ("a", "starts with /"),
            ("/", "empty part"),
            ("/a/", "empty part"),
            ("/a//b", "empty part"),
            ("/../a", ". or .."),
            ("/a/.", ". or .."),
            ("/a\0b", "control characters"),
            ("/a\r\nb", "control characters"),
            (&long, "512 bytes"),
            ("/.avout/floor", "kept for avout"),
        ] {
            let error = Key::new(name).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(rule), "{name:?}: {error}");
        }
        for name in ["/a", "/a/b.c", "/...", "/$where", "/{}", "/'; --", "/ü", "/.avout2"] {
            assert!(Key::new(name).is_ok(), "{name:?}");
        }
    }

    /// A receipt comes back from its text; other text is refused.
    #[test]
    fn a_receipt_has_a_text() {
        let slot = Receipt::Slot { client: ClientId::new(3), slot: 1, sequence: 77, epoch: 2 };
        for receipt in [slot, Receipt::Native(Bytes::from_static(&[0, 255])), Receipt::Native(Bytes::new())] {
            assert_eq!(receipt.to_string().parse::<Receipt>().expect("its text"), receipt);
        }
        for text in ["", "slot:1:2:3:4", "native:0", "native:zz", "native:00:", "other:"] {
            assert!(text.parse::<Receipt>().is_err(), "{text}");
        }
    }
}
