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
