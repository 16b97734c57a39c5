//! One holds a lock at a time, though processes are killed and paused.
#![cfg(unix)]

#[path = "support/contest.rs"]
mod contest;

/// One of the processes of the other test.
#[test]
fn contender() {
    contest::contend();
}

/// Over a SQLite file, tokens only grow, no two hold the lock at once, and who dies is followed.
#[tokio::test]
async fn a_lock_outlives_kills_and_pauses() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::TempDir::new()?;
    // What a killed process has acknowledged must stay, and no more is tested here.
    contest::run(&format!("sqlite:{}?synchronous=normal", folder.path().join("locks.db").display())).await
}
