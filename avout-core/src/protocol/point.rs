use std::fmt;
use std::sync::Arc;

/// A position in a coordinator's commit order.
///
/// Points are totally ordered, each commit that changes anything has one of its own, and the
/// numbers may have gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Point(u64);

impl Point {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The point with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The point's number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Point({})", self.0)
    }
}

/// The token of one key's current record, or of a container's current state: it changes with every
/// write, and is what a commit compares.
///
/// Only the backend that made a token knows what is in it; all others compare it for equality.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Revision(Token);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Token {
    Number(u128),
    Text(Arc<str>),
}

impl Revision {
    /// A revision that is a number.
    pub const fn number(number: u128) -> Self {
        Self(Token::Number(number))
    }

    /// A revision that is a text, such as an entity tag.
    pub fn text(text: &str) -> Self {
        Self(Token::Text(text.into()))
    }

    /// The number in it, if it was made from one.
    pub fn as_number(&self) -> Option<u128> {
        match self.0 {
            Token::Number(number) => Some(number),
            Token::Text(_) => None,
        }
    }

    /// The text in it, if it was made from one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Token::Number(_) => None,
            Token::Text(text) => Some(text),
        }
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Token::Number(number) => write!(f, "Revision({number})"),
            Token::Text(text) => write!(f, "Revision({text:?})"),
        }
    }
}
