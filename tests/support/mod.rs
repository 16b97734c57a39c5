//! Running the examples, which `cargo test` builds.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// An example's program.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let program: PathBuf =
        [profile, "examples".as_ref(), format!("{name}{}", std::env::consts::EXE_SUFFIX).as_ref()].iter().collect();
    assert!(program.exists(), "{} is not built: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

/// Runs a program to its end, which must be a success within two minutes.
pub(crate) async fn output(command: &mut Command) -> Output {
    let output = timeout(Duration::from_secs(120), command.output()).await.expect("an end within two minutes");
    let output = output.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {}: {said}", command.as_std(), output.status);
    output
}

/// Whether `AVOUT_TEST_REQUIRE` names this server.
#[cfg(feature = "redis")]
pub(crate) fn is_required(server: &str) -> bool {
    std::env::var("AVOUT_TEST_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name.trim() == server))
}
