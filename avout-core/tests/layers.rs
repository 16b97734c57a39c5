//! Imports go one way: coordination -> handles -> engine -> protocol, and backend traits -> protocol.

use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may import from the crate, besides itself and `error`.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("backend", &["protocol"]),
    ("engine", &["protocol", "backend"]),
    ("handles", &["protocol", "backend", "engine"]),
    ("coordination", &["protocol", "backend", "engine", "handles"]),
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| rust_files(folder))).collect()
}

/// No file imports from a layer above its own.
#[test]
fn imports_go_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (layer, below) in LAYERS {
        for file in rust_files(&source.join(layer)) {
            let text = fs::read_to_string(&file).expect("a source file");
            for line in text.lines().map(str::trim).filter(|line| line.starts_with("use crate::")) {
                let module = line["use crate::".len()..].split([':', ';', ' ']).next().unwrap_or_default();
                let allowed = module == *layer || module == "error" || below.contains(&module);
                assert!(allowed, "{}: {layer} imports {module}: {line}", file.display());
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
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).expect("a file of the crate").to_string_lossy().replace('\\', "/");
        if ["backend/clock.rs", "backend/tasks.rs", "backend/time.rs"].contains(&&*name) || name.ends_with("/tests.rs")
        {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let found = OF_CALLERS.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{name}: use backend::tasks or backend::time: {line}");
        }
    }
}
