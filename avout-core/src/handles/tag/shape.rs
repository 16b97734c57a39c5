use super::name::{MAPS, Name, SEQUENCES, TRANSPARENT, UNKNOWN};

/// The part of a name that matters for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An unknown type.
    Any,
    Unit,
    Bool,
    Integer,
    F32,
    F64,
    Char,
    Text,
    Bytes,
    Seq(Box<Shape>),
    Tuple(Vec<Shape>),
    Map(Box<(Shape, Shape)>),
    /// A struct or enum, and its generic parameters.
    Named(String, Vec<Shape>),
}

impl Shape {
    pub(super) fn of(name: &Name) -> Self {
        match name {
            Name::Other(text) => Self::Named(text.clone(), Vec::new()),
            Name::List(of, _) => Self::Seq(Box::new(Self::of(of))),
            Name::Tuple(of) if of.is_empty() => Self::Unit,
            Name::Tuple(of) => Self::Tuple(of.iter().map(Self::of).collect()),
            Name::Path(root, of) => Self::of_path(root, of),
        }
    }

    fn of_path(root: &str, of: &[Name]) -> Self {
        match (root, of) {
            (UNKNOWN, []) => Self::Any,
            ("bool" | "AtomicBool", []) => Self::Bool,
            ("char", []) => Self::Char,
            ("f32", []) => Self::F32,
            ("f64", []) => Self::F64,
            ("str" | "String" | "Path" | "PathBuf", []) => Self::Text,
            ("Bytes" | "ByteBuf", []) => Self::Bytes,
            (integer, []) if is_integer(integer) => Self::Integer,
            ("Option", [of]) => Self::of(of),
            (wrapper, [of, ..]) if TRANSPARENT.contains(&wrapper) => Self::of(of),
            // Types that keep a few elements in place are generic over an array.
            ("SmallVec", [Name::List(of, _)]) => Self::Seq(Box::new(Self::of(of))),
            (sequence, [of, ..]) if SEQUENCES.contains(&sequence) => Self::Seq(Box::new(Self::of(of))),
            (map, [key, value, ..]) if MAPS.contains(&map) => Self::Map(Box::new((Self::of(key), Self::of(value)))),
            _ => Self::Named(root.to_owned(), of.iter().map(Self::of).collect()),
        }
    }

    pub(super) fn agrees(&self, found: &Self) -> bool {
        let all = |these: &[Self], those: &[Self]| {
            these.len() == those.len() && these.iter().zip(those).all(|(this, that)| this.agrees(that))
        };
        match (self, found) {
            (Self::Any, _) | (_, Self::Any) => true,
            // In the other direction the number would be rounded.
            (Self::F64, Self::F32) => true,
            (Self::Seq(this), Self::Seq(that)) => this.agrees(that),
            (Self::Seq(element), Self::Tuple(elements)) | (Self::Tuple(elements), Self::Seq(element)) => {
                elements.iter().all(|other| other.agrees(element))
            }
            (Self::Seq(element), Self::Bytes) | (Self::Bytes, Self::Seq(element)) => element.agrees(&Self::Integer),
            (Self::Tuple(these), Self::Tuple(those)) => all(these, those),
            (Self::Map(this), Self::Map(that)) => this.0.agrees(&that.0) && this.1.agrees(&that.1),
            (Self::Named(this, these), Self::Named(that, those)) => this == that && all(these, those),
            (this, that) => this == that,
        }
    }
}

fn is_integer(root: &str) -> bool {
    let width = root.strip_prefix("Atomic").or(root.strip_prefix("NonZero")).unwrap_or(root).to_ascii_lowercase();
    let digits = width.strip_prefix(['i', 'u']).unwrap_or_default();
    matches!(digits, "8" | "16" | "32" | "64" | "128" | "size")
}
