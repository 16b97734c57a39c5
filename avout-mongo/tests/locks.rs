//! One holds a lock at a time, though processes are killed and paused.

#[path = "../../tests/support/contest.rs"]
mod contest;

use avout_conformance::servers::{ServerTest, run_tests, shared};

/// Tokens only grow, no two hold the lock at once, and who dies is followed.
async fn a_lock_outlives_kills_and_pauses() -> Result<(), Box<dyn std::error::Error>> {
    contest::run(&shared::mongo_url("locks").await?).await
}

fn main() {
    if !contest::contend() {
        run_tests([ServerTest::new("a_lock_outlives_kills_and_pauses", a_lock_outlives_kills_and_pauses)]);
    }
}
