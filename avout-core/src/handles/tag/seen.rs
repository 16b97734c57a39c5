//! The name of a type as serde and the compiler know it.

use super::name::{MAPS, Name, OWN, SEQUENCES, TRANSPARENT, UNKNOWN};
use super::probe::Seen;
use super::shape::Shape;

impl Name {
    fn unknown() -> Self {
        Self::Path(UNKNOWN.to_owned(), Vec::new())
    }

    /// The last part of a path.
    fn root(&self) -> Option<&str> {
        match self {
            Self::Path(root, _) => Some(root),
            _ => None,
        }
    }

    /// The name of a user's type, marked to differ from a type that the library knows by the same name.
    fn own(self) -> Self {
        match (Shape::of(&self), self) {
            (Shape::Named(..), name) => name,
            (_, Self::Path(root, of)) => Self::Path(format!("{OWN}{root}"), of),
            (_, name) => name,
        }
    }

    /// The content of all types around it that add nothing.
    fn bare(&self) -> &Self {
        match self {
            Self::Path(root, of) if TRANSPARENT.contains(&root.as_str()) && !of.is_empty() => of[0].bare(),
            _ => self,
        }
    }

    /// The same name, with the names that serde knows; of a tuple serde is asked for the first element only. `nominal`:
    /// a type with a name of its own keeps it, even if it is to serde a text, a number, another type, or an unknown
    /// kind of sequence or map.
    pub(super) fn seen_as(&self, seen: &Seen, nominal: bool) -> Self {
        see(Some(self), seen, nominal)
    }
}

/// The name of a struct or enum. `full`: the Rust name at its position, with all types around it that add nothing.
fn see_named(full: Option<&Name>, serde: &str, rust: &str, nominal: bool) -> Name {
    let rust = Name::parse(rust);
    let Some(full) = full else {
        return Name::Path(serde.to_owned(), Vec::new()).own();
    };
    // A user's type may have the same name as one that adds nothing.
    let mut name = full;
    while name.root() != rust.root() {
        match name {
            Name::Path(root, of) if TRANSPARENT.contains(&root.as_str()) && !of.is_empty() => name = &of[0],
            _ => break,
        }
    }
    match name {
        _ if nominal && name.root() != rust.root() => name.clone().own(),
        Name::Path(root, of) if name.root() == rust.root() || !is_std_container(root) => {
            Name::Path(serde.to_owned(), of.clone()).own()
        }
        _ => Name::Path(serde.to_owned(), Vec::new()).own(),
    }
}

fn see(name: Option<&Name>, seen: &Seen, nominal: bool) -> Name {
    if let Seen::Named { serde, rust } = seen {
        return see_named(name, serde, rust, nominal);
    }
    let name = name.map(Name::bare);
    // A type with a name of its own, without generic parameters.
    let own = name.filter(|name| nominal && matches!(name, Name::Path(_, of) if of.is_empty())).cloned().map(Name::own);
    let path = |root: &str, of| Name::Path(root.to_owned(), of);
    match (seen, name) {
        (Seen::Any, Some(name @ Name::Path(_, of))) if of.is_empty() => name.clone().own(),
        (Seen::Nothing | Seen::Any | Seen::Named { .. }, Some(name)) => name.clone(),
        (Seen::Nothing | Seen::Any | Seen::Named { .. }, None) => Name::unknown(),
        (Seen::Option(inner), Some(Name::Path(root, of))) if root == "Option" && of.len() == 1 => {
            path(root, vec![see(Some(&of[0]), inner, nominal)])
        }
        (Seen::Option(inner), _) => path("Option", vec![see(None, inner, nominal)]),
        (Seen::Scalar(scalar), Some(name)) if nominal => {
            let is_scalar = Shape::of(name) == Shape::of(&path(scalar, Vec::new()));
            if is_scalar { name.clone() } else { name.clone().own() }
        }
        (Seen::Scalar(scalar), _) => path(scalar, Vec::new()),
        (Seen::Seq(inner), Some(Name::List(of, length))) => {
            Name::List(Box::new(see(Some(of), inner, nominal)), length.clone())
        }
        (Seen::Seq(inner), Some(Name::Path(root, of))) if SEQUENCES.contains(&root.as_str()) && !of.is_empty() => {
            let element = match &of[0] {
                Name::List(of, length) => Name::List(Box::new(see(Some(of), inner, nominal)), length.clone()),
                element => see(Some(element), inner, nominal),
            };
            path(root, std::iter::once(element).chain(of[1..].iter().cloned()).collect())
        }
        (Seen::Seq(inner), _) => own.unwrap_or_else(|| path("Vec", vec![see(None, inner, nominal)])),
        (Seen::Map(key, value), Some(Name::Path(root, of))) if MAPS.contains(&root.as_str()) && of.len() >= 2 => {
            let entry = [see(Some(&of[0]), key, nominal), see(Some(&of[1]), value, nominal)];
            path(root, entry.into_iter().chain(of[2..].iter().cloned()).collect())
        }
        (Seen::Map(key, value), _) => {
            own.unwrap_or_else(|| path("HashMap", vec![see(None, key, nominal), see(None, value, nominal)]))
        }
        (Seen::Tuple(_, first), Some(Name::List(of, length))) => {
            Name::List(Box::new(see(Some(of), first, nominal)), length.clone())
        }
        (Seen::Tuple(_, first), Some(Name::Tuple(of))) => {
            let first = of.first().map(|name| see(Some(name), first, nominal));
            Name::Tuple(first.into_iter().chain(of.iter().skip(1).cloned()).collect())
        }
        (Seen::Tuple(length, _), _) => own.unwrap_or_else(|| Name::Tuple(vec![Name::unknown(); *length])),
    }
}

fn is_std_container(root: &str) -> bool {
    root == "Option" || SEQUENCES.contains(&root) || MAPS.contains(&root) || TRANSPARENT.contains(&root)
}
