use std::fmt;

/// A type's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The last part of a path, and its generic parameters.
    Path(String, Vec<Name>),
    Tuple(Vec<Name>),
    /// A slice, or an array of this length.
    List(Box<Name>, Option<String>),
    /// A name in a form that is not understood, without the paths of modules.
    Other(String),
}

/// Types that add nothing to their content.
pub(super) const TRANSPARENT: &[&str] =
    &["Box", "Arc", "Rc", "Cow", "Cell", "RefCell", "Mutex", "RwLock", "Wrapping", "Saturating", "Reverse", "NonZero"];

/// Sequences and sets of their parameter.
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

/// Maps from their first parameter to the second.
pub(super) const MAPS: &[&str] = &["HashMap", "BTreeMap", "IndexMap", "DashMap", "OrdMap"];

/// The prefix of a user's type that has the same name as one of those above.
pub(super) const OWN: &str = "struct ";

/// The name that stands for any type.
pub(super) const UNKNOWN: &str = "_";

/// A compiler's name without the paths of modules, the tag of earlier versions.
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
    /// Parses a name, with or without paths. A part of a path in braces has no name, such as the body of an async
    /// function, and is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut parser = Parser { rest: text, depth: 0 };
        match parser.name() {
            Some(name) if parser.rest.is_empty() => name,
            _ => Self::Other(without_paths(text)),
        }
    }
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

/// How deep names are parsed; a stored tag may hold anything.
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

    /// The text up to one of these characters, which is not consumed.
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
            // Earlier versions left out the colons before a brace.
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
