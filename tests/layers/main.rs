//! The shape of the code: which files may import each other, and how long files and functions are.

mod source;
mod tokens;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use source::{File, Source};

/// What each layer of `avout-core` may import, besides itself and `error`.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("backend", &["protocol"]),
    ("engine", &["protocol", "backend"]),
    ("handles", &["protocol", "backend", "engine"]),
    ("coordination", &["protocol", "backend", "engine", "handles"]),
];

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 60;

/// All that the workspace is built of: libraries, programs, tests, examples.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| roots().iter().map(|root| Source::of(root)).collect());

fn roots() -> Vec<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(top());
    let told = cargo.output().expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&told.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages").iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().expect("a list of targets"));
    targets.map(|target| PathBuf::from(target["src_path"].as_str().expect("a path"))).collect()
}

/// The repository's folder.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's path from the repository's folder.
fn shown(file: &File) -> String {
    file.path.strip_prefix(top()).unwrap_or(&file.path).display().to_string().replace('\\', "/")
}

/// The files under a folder of the repository.
fn files_under(folder: &str) -> impl Iterator<Item = (String, &'static File)> {
    let files = SOURCES.iter().flat_map(|source| &source.files).map(|file| (shown(file), file));
    files.filter(move |(path, _)| path.starts_with(folder))
}

/// The shortest way along imports from a file back to it, if there is one.
fn circle(source: &Source, start: usize) -> Option<Vec<usize>> {
    let (mut came_from, mut next) = (HashMap::new(), VecDeque::from([start]));
    while let Some(from) = next.pop_front() {
        for &to in source.files[from].imports.keys() {
            if let Entry::Vacant(entry) = came_from.entry(to) {
                entry.insert(from);
                next.push_back(to);
            }
        }
        if came_from.contains_key(&start) {
            let back = std::iter::successors(Some(came_from[&start]), |file| (*file != start).then(|| came_from[file]));
            let mut way: Vec<_> = back.collect();
            way.reverse();
            return Some(way);
        }
    }
    None
}

/// No two files import each other, directly or over others. To declare a module is no import; to re-export from it is one.
#[test]
fn no_files_import_each_other() {
    let mut found = BTreeSet::new();
    for source in &*SOURCES {
        for start in 0..source.files.len() {
            let Some(mut way) = circle(source, start) else { continue };
            // From whichever of its files a circle is found, it is told once.
            let first = way.iter().enumerate().min_by_key(|(_, file)| **file).map_or(0, |(at, _)| at);
            way.rotate_left(first);
            let arrows = way.iter().zip(way.iter().cycle().skip(1)).map(|(&from, &to)| {
                let name = &source.files[from].imports[&to];
                format!("  {} imports {name} of {}", shown(&source.files[from]), shown(&source.files[to]))
            });
            found.insert(arrows.collect::<Vec<_>>().join("\n"));
        }
    }
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.is_empty(), "files import each other in a circle:\n{}", found.join("\n\n"));
}

/// No file of `avout-core` imports from a layer above its own.
#[test]
fn imports_go_one_way() {
    let layer = |file: &File| -> Option<String> {
        let path = shown(file);
        let (layer, _) = path.strip_prefix("avout-core/src/")?.split_once('/')?;
        Some(layer.to_owned())
    };
    for source in &*SOURCES {
        for file in &source.files {
            let Some(own) = layer(file) else { continue };
            let (_, below) = LAYERS.iter().find(|(name, _)| *name == own).expect("each folder is a layer");
            for (to, name) in &file.imports {
                let to = &source.files[*to];
                let allowed = layer(to).is_none_or(|layer| layer == own || below.contains(&&*layer));
                assert!(allowed, "{} imports {name} of {}", shown(file), shown(to));
            }
        }
    }
}

/// Tasks and timers are made in `backend/tasks.rs`, `backend/time.rs` and `backend/clock.rs`, so that none ends with a caller's runtime, or panics without one.
#[test]
fn tasks_and_timers_are_of_no_caller() {
    const OF_CALLERS: &[&str] = &[
        "tokio::spawn",
        "task::spawn",
        "Handle::current()",
        "time::{Instant, ",
        "tokio::time::sleep",
        "tokio::time::timeout",
    ];
    for (path, file) in files_under("avout-core/src/") {
        let makes_them =
            ["clock.rs", "tasks.rs", "time.rs"].iter().any(|name| path.ends_with(&format!("backend/{name}")));
        if makes_them || path.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file.path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let found = OF_CALLERS.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{path}: use backend::tasks or backend::time: {line}");
        }
    }
}

/// No file is longer than 500 lines.
#[test]
fn no_file_is_too_long() {
    let long = files_under("").filter(|(_, file)| file.lines > LONGEST_FILE);
    let long: Vec<_> = long.map(|(path, file)| format!("{path}: {}", file.lines)).collect();
    assert!(long.is_empty(), "more than {LONGEST_FILE} lines: {long:#?}");
}

/// No function of the engine is longer than 60 lines.
#[test]
fn no_function_of_the_engine_is_too_long() {
    let functions = files_under("avout-core/src/engine/")
        .flat_map(|(path, file)| file.functions.iter().map(move |(name, lines)| (format!("{path}: {name}"), *lines)));
    let long: Vec<_> = functions.filter(|(_, lines)| *lines > LONGEST_FUNCTION).collect();
    assert!(long.is_empty(), "more than {LONGEST_FUNCTION} lines: {long:#?}");
}

/// Mistakes that tests plant are patches in `mutants/`: no branch of the library serves tests only.
#[test]
fn no_branch_of_the_library_is_for_tests() {
    let words = ["mutant(", "planted", "Bug::", "cfg!(test)"];
    for (path, file) in files_under("avout-") {
        if !path.contains("/src/") || path.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file.path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            assert!(!words.iter().any(|word| line.contains(word)), "{path}: make it a patch in mutants/: {line}");
        }
    }
}
