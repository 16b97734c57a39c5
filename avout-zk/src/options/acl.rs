//! Who may use what a client makes.

use std::fmt;

use avout_core::Result;
use avout_core::backend::UrlReader;
use zookeeper::{Acl as Grant, AuthId, Permission};

/// Who may use the znodes that a client makes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acl {
    /// The user that made them, and nobody else.
    Creator,
    /// Anybody.
    Open,
    /// Each of these, as far as it is granted. A client that writes needs to read, write, create and delete, and one that only reads
    /// needs to read. The scheme `auth`, without an id, stands for the user that made them.
    Grants(Vec<Grant>),
}

const PERMISSIONS: [(char, Permission); 5] = [
    ('c', Permission::CREATE),
    ('d', Permission::DELETE),
    ('r', Permission::READ),
    ('w', Permission::WRITE),
    ('a', Permission::ADMIN),
];

impl Acl {
    /// Reads `creator`, `open`, or grants as `zkCli.sh` writes them: `scheme:id:permissions`, with commas between.
    pub(super) fn parse(url: &UrlReader, value: &str) -> Result<Self> {
        match value {
            "creator" => return Ok(Self::Creator),
            "open" => return Ok(Self::Open),
            _ => {}
        }
        let text = url.decode(value, "acl")?;
        let wrong = || url.invalid("option acl: creator, open, or grants such as auth::cdrw,world:anyone:r");
        text.split(',').map(|grant| grant_of(grant).ok_or_else(wrong)).collect::<Result<_>>().map(Self::Grants)
    }

    /// Whether it means nothing without a user.
    pub(super) fn needs_user(&self) -> bool {
        match self {
            Self::Creator => true,
            Self::Open => false,
            Self::Grants(grants) => grants.iter().any(|grant| grant.scheme() == "auth"),
        }
    }
}

fn grant_of(text: &str) -> Option<Grant> {
    let (scheme, rest) = text.split_once(':')?;
    let (id, letters) = rest.rsplit_once(':')?;
    let mut granted = Permission::NONE;
    for letter in letters.chars() {
        granted = granted | PERMISSIONS.iter().find(|(known, _)| *known == letter)?.1;
    }
    // `auth` alone has no id.
    let complete = granted != Permission::NONE && !scheme.is_empty() && id.is_empty() == (scheme == "auth");
    complete.then(|| Grant::new(granted, AuthId::new(scheme, id)))
}

/// Shows no hash of a password.
impl fmt::Debug for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants = match self {
            Self::Creator => return f.write_str("Creator"),
            Self::Open => return f.write_str("Open"),
            Self::Grants(grants) => grants,
        };
        let shown = grants.iter().map(|grant| {
            let (scheme, id) = (grant.scheme(), grant.id());
            let id = if scheme == "digest" { id.split(':').next().unwrap_or_default() } else { id };
            let letters = PERMISSIONS.iter().filter(|(_, of)| grant.permission().has(*of)).map(|(letter, _)| *letter);
            format!("{scheme}:{id}:{}", letters.collect::<String>())
        });
        f.debug_list().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grants are read as ZooKeeper's shell writes them, ids with colons too, and are shown without hashes.
    #[test]
    fn grants_are_read() {
        let url = UrlReader::new("zk url", "");
        let parse = |value: &str| Acl::parse(&url, value);
        let acl = parse("auth::cdrw,digest:ops:canary=:r,ip:10.0.0.0/8:ra").expect("grants");
        assert_eq!(format!("{acl:?}"), r#"["auth::cdrw", "digest:ops:r", "ip:10.0.0.0/8:ra"]"#);
        let Acl::Grants(grants) = &acl else { panic!("{acl:?}") };
        assert_eq!(grants[1].id(), "ops:canary=");
        assert!(acl.needs_user() && !parse("world:anyone:cdrwa").expect("a grant").needs_user());
        for wrong in ["", "me", "auth::", "auth:me:r", "world::r", "world:anyone:rx", ":anyone:r", "auth::r,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
