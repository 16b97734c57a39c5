//! That the law about operations of closed clients knows them all.

use std::fs;
use std::path::Path;

/// Those that it need not name, and why.
const NOT_NAMED: &[(&str, &str)] = &[
    ("tx.rs", "parts of a transaction, which is refused as a whole"),
    ("resolve", "it needs the receipt of a commit whose reply was lost; it is a request like all others"),
    ("close", "it is what the law begins with"),
];

/// Each operation that handles offer is in the table of `lock::every_operation_of_a_closed_client_is_refused`, or is named above.
#[test]
fn the_law_about_closed_clients_knows_each_operation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let law = fs::read_to_string(root.join("src/lock/closing.rs")).expect("the law");
    for layer in ["handles", "coordination"] {
        let files = fs::read_dir(root.join("../avout-core/src").join(layer)).expect("a folder of sources");
        for file in files.map(|file| file.expect("an entry").path()).filter(|file| file.is_file()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&file).expect("a source file");
            let operations = text.lines().filter_map(|line| line.trim().strip_prefix("pub async fn "));
            for operation in operations.filter_map(|rest| rest.split(['(', '<']).next()) {
                let is_named =
                    [format!(".{operation}("), format!(".{operation}::<")].iter().any(|call| law.contains(call));
                let is_excepted = NOT_NAMED.iter().any(|(except, _)| *except == operation || *except == name);
                assert!(
                    is_named || is_excepted || operation.starts_with('$'),
                    "{layer}/{name}: {operation} is not in the law"
                );
            }
        }
    }
}
