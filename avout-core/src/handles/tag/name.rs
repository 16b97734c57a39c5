use std::fmt;

use super::probe::Seen;
use super::shape::Shape;

/// A type's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The last part of a path, and what it is generic over.
    Path(String, Vec<Name>),
    Tuple(Vec<Name>),
    /// A slice, or an array of so many.
    List(Box<Name>, Option<String>),
    /// What is not understood, without the paths of modules.
    Other(String),
}

/// What adds nothing to what lies in it.
pub(super) const TRANSPARENT: &[&str] =
    &["Box", "Arc", "Rc", "Cow", "Cell", "RefCell", "Mutex", "RwLock", "Wrapping", "Saturating", "Reverse", "NonZero"];

/// Sequences and sets of what they are generic over.
pub(super) const SEQUENCES: &[&str] = &[
    "Vec",
    "VecDeque",
    "LinkedList",
    "HashSet",
    "BTreeSet",
    "BinaryHeap",
    "IndexSet",
    "SmallVec",
    "ThinVec",
    "ArrayVec",
    "DashSet",
    "OrdSet",
    "Vector",
];

/// Maps from the first to the second of what they are generic over.
pub(super) const MAPS: &[&str] = &["HashMap", "BTreeMap", "IndexMap", "DashMap", "OrdMap"];

/// Stands before the name of a user's type that is also the name of one of those above.
pub(super) const OWN: &str = "struct ";

/// What stands for any type.
pub(super) const UNKNOWN: &str = "_";

/// A compiler's name without the paths of modules, as earlier versions made tags.
pub(super) fn without_paths(full: &str) -> String {
    let mut tag = String::with_capacity(full.len());
    let mut path_start = 0;
    let mut rest = full.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c == ':' && full[at..].starts_with("::") {
            rest.next();
            tag.truncate(path_start);
        } else {
            tag.push(c);
            if !(c.is_alphanumeric() || c == '_') {
                path_start = tag.len();
            }
        }
    }
    tag
}

impl Name {
    /// Takes a name apart, with or without paths. What is in braces is a part of a path that has no name, such as the body of an async
    /// function, and is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut parser = Parser { rest: text, depth: 0 };
        match parser.name() {
            Some(name) if parser.rest.is_empty() => name,
            _ => Self::Other(without_paths(text)),
        }
    }

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

    /// The name of a user's type, which stays apart from what the library knows by this name.
    fn own(self) -> Self {
        match (Shape::of(&self), self) {
            (Shape::Named(..), name) => name,
            (_, Self::Path(root, of)) => Self::Path(format!("{OWN}{root}"), of),
            (_, name) => name,
        }
    }

    /// What lies in all that adds nothing.
    fn bare(&self) -> &Self {
        match self {
            Self::Path(root, of) if TRANSPARENT.contains(&root.as_str()) && !of.is_empty() => of[0].bare(),
            _ => self,
        }
    }

    /// The same name, with the names that serde knows; of a tuple it is asked for the first only. `nominal`: a type that has a name of
    /// its own, and is to serde a text, a number, a sequence or map of no kind known here, or another type, keeps its name.
    pub(super) fn seen_as(&self, seen: &Seen, nominal: bool) -> Self {
        see(Some(self), seen, nominal)
    }
}

/// The name of a struct or enum. `full`: the name of the Rust type at its place, with all that adds nothing.
fn see_named(full: Option<&Name>, serde: &str, rust: &str, nominal: bool) -> Name {
    let rust = Name::parse(rust);
    let Some(full) = full else {
        return Name::Path(serde.to_owned(), Vec::new()).own();
    };
    // A type of the user's may be called as one that adds nothing.
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
    // A type with a name of its own, and nothing that it is generic over.
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

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, names: &[Self]| {
            for (n, name) in names.iter().enumerate() {
                let comma = if n == 0 { "" } else { ", " };
                write!(f, "{comma}{name}")?;
            }
            Ok(())
        };
        match self {
            Self::Other(text) => f.write_str(text),
            Self::List(of, None) => write!(f, "[{of}]"),
            Self::List(of, Some(length)) => write!(f, "[{of}; {length}]"),
            Self::Tuple(names) => {
                f.write_str("(")?;
                list(f, names)?;
                f.write_str(if names.len() == 1 { ",)" } else { ")" })
            }
            Self::Path(root, of) if of.is_empty() => f.write_str(root),
            Self::Path(root, of) => {
                write!(f, "{root}<")?;
                list(f, of)?;
                f.write_str(">")
            }
        }
    }
}

/// How deep names are taken apart; tags that are found may be of anything.
const MAX_NESTED: usize = 64;

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn skip(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn list(&mut self, end: &str) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        while !self.skip(end) {
            names.push(self.name()?);
            if !self.skip(",") {
                return self.skip(end).then_some(names);
            }
        }
        Some(names)
    }

    /// What is up to one of these, which stays.
    fn until(&mut self, ends: &[char]) -> String {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.trim().to_owned()
    }

    fn name(&mut self) -> Option<Name> {
        self.depth += 1;
        if self.depth > MAX_NESTED {
            return None;
        }
        let name = self.name_inside();
        self.depth -= 1;
        name
    }

    fn name_inside(&mut self) -> Option<Name> {
        if self.skip("(") {
            return self.list(")").map(Name::Tuple);
        }
        if self.skip("[") {
            let of = Box::new(self.name()?);
            let length = if self.skip(";") { Some(self.until(&[']'])) } else { None };
            return self.skip("]").then_some(Name::List(of, length));
        }
        if self.skip("&") {
            self.skip("mut ");
            return self.name();
        }
        self.path()
    }

    fn path(&mut self) -> Option<Name> {
        loop {
            self.rest = self.rest.trim_start();
            while self.rest.starts_with('{') {
                self.braces()?;
                self.skip("::");
            }
            let own = self.skip(OWN);
            let mut root = self.word();
            if root.is_empty() {
                return None;
            }
            if own {
                root.insert_str(0, OWN);
            }
            let of = if self.skip("<") { self.list(">")? } else { Vec::new() };
            // Earlier versions left the colons before a brace out.
            if !self.skip("::") && !self.rest.starts_with('{') {
                return Some(Name::Path(root, of));
            }
        }
    }

    fn word(&mut self) -> String {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '.' || c == '#';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn braces(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        for (at, c) in self.rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &self.rest[at + 1..];
                return Some(());
            }
        }
        None
    }
}
