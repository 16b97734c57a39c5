//! The small examples do what they say.

mod support;

use support::{example, output};
use tempfile::TempDir;
use tokio::process::Command;

async fn printed(command: &mut Command) -> String {
    String::from_utf8(output(command).await.stdout).expect("text")
}

fn folder() -> TempDir {
    TempDir::new().expect("a folder for the test")
}

/// `hello` counts on where its last run stopped.
#[tokio::test]
async fn hello_counts_its_runs() {
    let folder = folder();
    let url = format!("sqlite:{}", folder.path().join("hello.db").display());
    assert_eq!(printed(example("hello").arg(&url)).await, "count 1, log [1]\n");
    assert_eq!(printed(example("hello").arg(&url)).await, "count 2, log [1, 2]\n");
}

fn ten_changes(text: &str) {
    let changes: Vec<&str> = text.lines().collect();
    assert_eq!(changes.len(), 10, "{text}");
    for (number, change) in changes.iter().enumerate() {
        assert!(change.starts_with(&format!("{number} -> {} at point ", number + 1)), "{text}");
        assert!(change.ends_with("skipped: false"), "{text}");
    }
}

/// `watch` shows every change of its own tasks.
#[tokio::test]
async fn watch_shows_all_changes() {
    ten_changes(&printed(&mut example("watch")).await);
}

/// `job_queue` does each job once, in memory and, twice on the same queue, in a file.
#[tokio::test]
async fn job_queue_does_each_job_once() {
    let folder = folder();
    let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
    for url in ["mem:", &url, &url] {
        let text = printed(example("job_queue").arg(url)).await;
        assert!(text.starts_with("100 jobs done") && text.ends_with("each exactly once\n"), "{text}");
    }
}

/// `own_store` changes refs of two stores together, and finds its files again.
#[tokio::test]
async fn own_store_changes_two_stores_together() {
    let once = "stock 7, orders [\"3 pieces, 7 left\"]\nrefused: sold out\nrun 1 on these files\n";
    assert_eq!(printed(&mut example("own_store")).await, once);

    let folder = folder();
    let url = format!("sqlite:{}", folder.path().join("points.db").display());
    let run = || {
        let mut command = example("own_store");
        command.arg(folder.path().join("values")).arg(&url);
        command
    };
    assert_eq!(printed(&mut run()).await, once);
    let again =
        "stock 4, orders [\"3 pieces, 7 left\", \"3 pieces, 4 left\"]\nrefused: sold out\nrun 2 on these files\n";
    assert_eq!(printed(&mut run()).await, again);
}

/// `leader` has one leader at a time, and each candidate leads once.
#[tokio::test]
async fn leader_lets_each_candidate_lead() {
    let text = printed(&mut example("leader")).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    for (number, line) in lines[..6].iter().enumerate() {
        assert!(line.ends_with(&format!("made decision {}", number + 1)), "{text}");
    }
    // A term's two decisions follow each other.
    assert!(lines[..6].chunks(2).all(|term| term[0].split(' ').next() == term[1].split(' ').next()), "{text}");
    assert_eq!(lines[6], "6 decisions");
}

/// `rate_limit` serves all and never more than three at a time.
#[tokio::test]
async fn rate_limit_keeps_its_limit() {
    let text = printed(&mut example("rate_limit")).await;
    assert_eq!(text, "12 requests served, at most 3 at a time\n");
}

/// `mixed` needs no server, and finds its state again in files; it refuses values that would be lost before their pointers.
#[tokio::test]
async fn mixed_keeps_the_sums_of_its_stores() {
    let text = printed(&mut example("mixed")).await;
    assert!(text.contains(" orders placed, ") && text.contains("the sums agree: "), "{text}");

    let folder = folder();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let run = |options: &[&str]| {
        let mut command = example("mixed");
        for part in ["--coordinator", "--stock", "--quotas", "--audit"] {
            command.args([part, &url(&part[2..])]);
        }
        command.args(options);
        command
    };
    let first = printed(&mut run(&[])).await;
    assert_eq!(printed(&mut run(&["--check"])).await, first.lines().nth(1).expect("two lines").to_owned() + "\n");

    let refused = example("mixed").args(["--coordinator", &url("coordinator")]).output().await.expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("must not point at values in its memory"), "{said}");
}
