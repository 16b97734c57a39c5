//! The text of a source file in tokens, without comments.

/// A token. Literals of characters and what a number has behind its dot are of no use here, and are left out or cut.
#[derive(Debug)]
pub(crate) enum Token {
    Word {
        text: String,
        line: usize,
    },
    Text(String),
    Mark(char),
    /// What is between brackets, and the line of the closing one.
    Group {
        open: char,
        inner: Vec<Token>,
        ends: usize,
    },
}

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is(&self, mark: char) -> bool {
        matches!(self, Self::Mark(found) if *found == mark)
    }
}

/// The tokens of a file.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, line: 1 };
    lexer.until_closed().0
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    /// Takes this many bytes off.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Takes what comes before `end`, and `end`.
    fn take_through(&mut self, end: &str) -> &'a str {
        let before = self.rest.find(end).expect("what begins in a source file ends in it");
        let taken = self.take(before);
        self.take(end.len());
        taken
    }

    /// The tokens up to a closing bracket or the end, and the line of that.
    fn until_closed(&mut self) -> (Vec<Token>, usize) {
        let mut found = Vec::new();
        while let Some(next) = self.rest.chars().next() {
            let line = self.line;
            match next {
                '/' if self.rest.starts_with("//") => drop(self.take(self.rest.find('\n').unwrap_or(self.rest.len()))),
                '/' if self.rest.starts_with("/*") => self.comment(),
                '"' => found.push(Token::Text(self.string())),
                '\'' if self.is_character() => self.character(),
                '(' | '[' | '{' => {
                    self.take(1);
                    let (inner, ends) = self.until_closed();
                    found.push(Token::Group { open: next, inner, ends });
                }
                ')' | ']' | '}' => {
                    self.take(1);
                    return (found, line);
                }
                _ if next.is_alphanumeric() || next == '_' => {
                    let end = self.rest.find(|char: char| !char.is_alphanumeric() && char != '_');
                    let text = self.take(end.unwrap_or(self.rest.len()));
                    let hashes = self.rest.len() - self.rest.trim_start_matches('#').len();
                    match text.ends_with('r') && text.len() <= 2 && self.rest[hashes..].starts_with('"') {
                        true => {
                            self.take(hashes + 1);
                            let end = format!("\"{}", "#".repeat(hashes));
                            found.push(Token::Text(self.take_through(&end).to_owned()));
                        }
                        false => found.push(Token::Word { text: text.to_owned(), line }),
                    }
                }
                _ => {
                    self.take(next.len_utf8());
                    if !next.is_whitespace() {
                        found.push(Token::Mark(next));
                    }
                }
            }
        }
        (found, self.line)
    }

    fn comment(&mut self) {
        self.take(2);
        loop {
            let (open, close) = (self.rest.find("/*"), self.rest.find("*/").expect("a comment ends"));
            match open {
                Some(open) if open < close => {
                    self.take(open);
                    self.comment();
                }
                _ => {
                    self.take(close + 2);
                    return;
                }
            }
        }
    }

    fn string(&mut self) -> String {
        self.take(1);
        let mut escaped = false;
        let end = self.rest.find(|char| {
            let ends = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            ends
        });
        let text = self.take(end.expect("a string ends")).to_owned();
        self.take(1);
        text
    }

    /// Whether the quote here begins a character, and not the name of a lifetime.
    fn is_character(&self) -> bool {
        let mut chars = self.rest.chars().skip(1);
        chars.next() == Some('\\') || chars.next() == Some('\'')
    }

    fn character(&mut self) {
        let skipped = self.rest.chars().skip(1).take(if self.rest[1..].starts_with('\\') { 2 } else { 1 });
        self.take(1 + skipped.map(char::len_utf8).sum::<usize>());
        self.take_through("'");
    }
}
