//! What the files of a crate import from each other, as their text says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tokens::{Token, tokens};

/// A path in its parts: `super::rules::decide` has three.
type Name = Vec<String>;

/// The files of a crate, and its modules, by which a path finds the file of what it names.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) files: Vec<File>,
    modules: HashMap<Name, Module>,
}

/// A file. A test module within one counts as a file of its own: tests may import what they like.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) lines: usize,
    /// Functions with a body, and their lines.
    pub(crate) functions: Vec<(String, usize)>,
    /// The files whose items this one names, each with the first of these names.
    pub(crate) imports: BTreeMap<usize, String>,
}

#[derive(Default)]
struct Module {
    file: usize,
    /// What is defined here.
    items: BTreeSet<String>,
    /// What a `use` brings in, by its name here.
    used: HashMap<String, Name>,
    globs: Vec<Name>,
    /// Every path in the code.
    mentioned: BTreeSet<Name>,
}

/// What a path leads to: a module, or an item of a file. What is not found in a module counts as an item of its file.
enum Found {
    Module(Name),
    Item(usize),
}

/// Where the reader of the sources is: in which module, and where the files of its children are.
struct Place {
    module: Name,
    /// The folder of its file, from which `#[path]` goes.
    folder: PathBuf,
    /// The folder of its children's files.
    children: PathBuf,
}

impl Source {
    /// Reads a crate from its root file on, along its `mod` declarations.
    pub(crate) fn of(root: &Path) -> Self {
        let mut source = Self::default();
        source.read_file(root, Vec::new(), true);
        let mut imports = BTreeSet::new();
        for (name, module) in &source.modules {
            for path in &module.mentioned {
                match source.resolve(name, path, 0) {
                    Some(Found::Item(file)) if file != module.file => {
                        imports.insert((module.file, file, path.join("::")));
                    }
                    _ => {}
                }
            }
        }
        for (from, to, name) in imports {
            source.files[from].imports.entry(to).or_insert(name);
        }
        source
    }

    /// `owns_folder` says that the files of its children are beside the file, as with `mod.rs`.
    fn read_file(&mut self, path: &Path, module: Name, owns_folder: bool) {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let children = if owns_folder { folder.clone() } else { path.with_extension("") };
        self.add(path.to_owned(), text.lines().count(), &module);
        self.read(&tokens(&text), &Place { module, folder, children }, true);
    }

    fn add(&mut self, path: PathBuf, lines: usize, module: &Name) {
        let file = self.files.len();
        self.files.push(File { path, lines, functions: Vec::new(), imports: BTreeMap::new() });
        self.modules.insert(module.clone(), Module { file, ..Module::default() });
    }

    /// Reads code of a module. `defines` says that what is defined in these tokens is the module's, and not a block's.
    fn read(&mut self, tokens: &[Token], place: &Place, defines: bool) {
        let mut attributes = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            match (word(tokens, at), word(tokens, at + 1)) {
                (Some("mod"), Some(child)) => {
                    match tokens.get(at + 2) {
                        Some(Token::Group { inner, .. }) => self.read_inline(child, inner, place, &attributes),
                        _ => self.read_child(child, place, &attributes),
                    }
                    attributes.clear();
                    at += 3;
                }
                (Some("use"), _) if !is(tokens, at + 1, '<') => at = self.read_use(tokens, at + 1, &[], place),
                (Some(kind), Some(item)) if begins_item(tokens, at, kind) => {
                    if kind == "fn" {
                        self.measure(&tokens[at..], place);
                    }
                    if defines {
                        self.module(place).items.insert(item.to_owned());
                    }
                    at += 2;
                }
                (Some(_), _) => at = self.read_path(tokens, at, place),
                (None, _) => {
                    match &tokens[at] {
                        Token::Group { open: '[', inner, .. } if at > 0 && is(tokens, at - 1, '#') => {
                            attributes.push(&inner[..]);
                        }
                        Token::Group { open: '{', .. } | Token::Mark(';') => attributes.clear(),
                        _ => {}
                    }
                    if let Token::Group { inner, .. } = &tokens[at] {
                        self.read(inner, place, false);
                    }
                    at += 1;
                }
            }
        }
    }

    fn module(&mut self, place: &Place) -> &mut Module {
        self.modules.get_mut(&place.module).expect("a module is there before its code is read")
    }

    fn read_inline(&mut self, child: &str, body: &[Token], place: &Place, attributes: &[&[Token]]) {
        let module = join(&place.module, child);
        let file = self.module(place).file;
        if attributes.iter().any(|attribute| is_for_tests(attribute)) {
            let tested = self.files[file].path.display();
            self.add(PathBuf::from(format!("{tested} (tests)")), 0, &module);
        } else {
            self.modules.insert(module.clone(), Module { file, ..Module::default() });
        }
        let children = place.children.join(child);
        self.read(body, &Place { module, folder: children.clone(), children }, true);
    }

    fn read_child(&mut self, child: &str, place: &Place, attributes: &[&[Token]]) {
        let module = join(&place.module, child);
        let named = attributes.iter().find_map(|attribute| match attribute {
            [name, _, Token::Text(path)] if name.word() == Some("path") => Some(place.folder.join(path)),
            _ => None,
        });
        let (file, folder) = (place.children.join(format!("{child}.rs")), place.children.join(child).join("mod.rs"));
        match named {
            Some(path) => self.read_file(&path, module, true),
            None if file.exists() => self.read_file(&file, module, false),
            None => self.read_file(&folder, module, true),
        }
    }

    /// Reads what a `use` brings in, behind `before`, up to a comma or its end. Gives where to go on.
    fn read_use(&mut self, tokens: &[Token], mut at: usize, before: &[String], place: &Place) -> usize {
        let mut path = before.to_vec();
        let mut alias = None;
        while let Some(token) = tokens.get(at) {
            match token {
                Token::Word { text, .. } if text == "as" => {
                    at += 1;
                    alias = word(tokens, at);
                }
                Token::Word { text, .. } => path.push(text.clone()),
                Token::Group { inner, .. } => {
                    let mut next = 0;
                    while next < inner.len() {
                        next = self.read_use(inner, next, &path, place);
                    }
                    path.clear();
                }
                Token::Mark('*') => {
                    let module = self.module(place);
                    module.globs.push(path.clone());
                    path.push("*".to_owned());
                    module.mentioned.insert(std::mem::take(&mut path));
                }
                Token::Mark(',' | ';') => break,
                _ => {}
            }
            at += 1;
        }
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(last) = path.last() {
            let name = alias.unwrap_or(last).to_owned();
            let module = self.module(place);
            module.used.insert(name, path.clone());
            module.mentioned.insert(path);
        }
        at + 1
    }

    /// Reads a path in code, and gives where it ends. What follows a dot is a field or a method.
    fn read_path(&mut self, tokens: &[Token], mut at: usize, place: &Place) -> usize {
        let of_value = at > 0 && is(tokens, at - 1, '.') && !(at > 1 && is(tokens, at - 2, '.'));
        let mut path: Name = word(tokens, at).map(str::to_owned).into_iter().collect();
        while is(tokens, at + 1, ':')
            && is(tokens, at + 2, ':')
            && let Some(part) = word(tokens, at + 3)
        {
            path.push(part.to_owned());
            at += 3;
        }
        if !of_value {
            self.module(place).mentioned.insert(path);
        }
        at + 1
    }

    /// Notes the lines of the function that begins here, if it has a body.
    fn measure(&mut self, tokens: &[Token], place: &Place) {
        let end = tokens.iter().find(|token| matches!(token, Token::Mark(';') | Token::Group { open: '{', .. }));
        if let [Token::Word { line, .. }, Token::Word { text: name, .. }, ..] = tokens
            && let Some(Token::Group { ends, .. }) = end
        {
            let file = self.module(place).file;
            self.files[file].functions.push((name.clone(), ends - line + 1));
        }
    }

    /// What a path in a module leads to; `None` if out of the crate. `depth` ends a name that leads to itself.
    fn resolve(&self, module: &Name, path: &[String], depth: usize) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(Vec::new()),
            "self" => Found::Module(module.clone()),
            "super" => Found::Module(module.split_last()?.1.to_vec()),
            name => self.look_up(module, name, !rest.is_empty(), depth)?,
        };
        while let (Found::Module(inside), Some((next, after))) = (&found, rest.split_first()) {
            found = match next.as_str() {
                "super" => Found::Module(inside.split_last()?.1.to_vec()),
                name => {
                    let file = self.modules.get(inside)?.file;
                    self.look_up(inside, name, !after.is_empty(), depth).unwrap_or(Found::Item(file))
                }
            };
            rest = after;
        }
        Some(found)
    }

    /// A name within a module. Where a path goes on behind it, a child of the name comes before an item.
    fn look_up(&self, module: &Name, name: &str, goes_on: bool, depth: usize) -> Option<Found> {
        let here = self.modules.get(module).filter(|_| depth < 16)?;
        let child = join(module, name);
        let is_child = self.modules.contains_key(&child);
        if is_child && goes_on {
            return Some(Found::Module(child));
        }
        if here.items.contains(name) {
            return Some(Found::Item(here.file));
        }
        let used = here.used.get(name).and_then(|path| self.resolve(module, path, depth + 1));
        used.or_else(|| is_child.then_some(Found::Module(child))).or_else(|| {
            here.globs.iter().find_map(|glob| match self.resolve(module, glob, depth + 1)? {
                Found::Module(inside) if inside != *module => self.look_up(&inside, name, goes_on, depth + 1),
                _ => None,
            })
        })
    }
}

/// Whether the word here, with a name behind it, begins the definition of an item. `&'static Name`, `*const Name` and `const fn` do not.
fn begins_item(tokens: &[Token], at: usize, kind: &str) -> bool {
    let in_type = at > 0 && (is(tokens, at - 1, '\'') || is(tokens, at - 1, '*'));
    let before_fn = word(tokens, at + 1).is_some_and(|next| ["async", "extern", "fn", "unsafe"].contains(&next));
    ["const", "enum", "fn", "static", "struct", "trait", "type", "union"].contains(&kind) && !in_type && !before_fn
}

/// Whether an attribute is `cfg(test)`.
fn is_for_tests(attribute: &[Token]) -> bool {
    let is_test = |inner: &[Token]| matches!(inner, [only] if only.word() == Some("test"));
    matches!(attribute, [name, Token::Group { inner, .. }] if name.word() == Some("cfg") && is_test(inner))
}

fn join(module: &Name, child: &str) -> Name {
    module.iter().cloned().chain([child.to_owned()]).collect()
}

fn word(tokens: &[Token], at: usize) -> Option<&str> {
    tokens.get(at)?.word()
}

fn is(tokens: &[Token], at: usize, mark: char) -> bool {
    tokens.get(at).is_some_and(|token| token.is(mark))
}
