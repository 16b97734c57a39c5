//! Nothing is left behind, and what is missing is said.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use avout_conformance::servers::{Error, Redis, ZooKeeper};

use super::support::{Outcome, connect, eventually, runs, tests};

tests![
    a_dropped_server_is_gone,
    a_killed_process_leaves_nothing,
    a_process_that_exits_leaves_nothing,
    a_missing_server_is_said,
    a_missing_server_is_no_failure_unless_required,
    a_server_that_does_not_start_shows_its_log,
];

/// With its value end the process, the port and the folder, also of a paused one.
async fn a_dropped_server_is_gone() -> Outcome {
    for paused in [false, true] {
        let redis = Redis::single().await?;
        let (address, folder) = (redis.node(0).address(), redis.node(0).folder().to_owned());
        let pid = redis.node(0).pid().ok_or("it runs")?;
        assert!(folder.exists() && runs(pid));
        if paused {
            redis.node(0).pause().await?;
        }
        drop(redis);
        assert!(!folder.exists() && !runs(pid));
        assert!(connect(address).is_err());
    }
    Ok(())
}

/// What this program does as a child of its own tests.
pub(crate) fn child(task: &str) -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    let redis = match runtime.block_on(Redis::single()) {
        Ok(redis) => redis,
        Err(error) => {
            println!("missing={} {error}", error.is_missing());
            return Ok(());
        }
    };
    let stopped = runtime.block_on(Redis::single())?;
    let paused = runtime.block_on(Redis::single())?;
    runtime.block_on(async {
        stopped.node(0).kill().await?;
        paused.node(0).pause().await
    })?;
    for redis in [&redis, &paused] {
        let (pid, root) = (redis.node(0).pid().ok_or("it runs")?, redis.node(0).folder().parent().ok_or("a root")?);
        println!("{pid} {}", root.display());
    }
    match task {
        // As a shared server is, in a static.
        "exit" => std::mem::forget((redis, stopped, paused)),
        _ => loop {
            std::thread::park();
        },
    }
    Ok(())
}

fn as_child(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program is a file"));
    command.env("AVOUT_SERVERS_CHILD", task).stdout(Stdio::piped());
    command
}

/// A process that ends by SIGKILL leaves no server and no folder.
async fn a_killed_process_leaves_nothing() -> Outcome {
    ends_clean("wait").await
}

/// So does one that exits without a drop, as `std::process::exit` does.
async fn a_process_that_exits_leaves_nothing() -> Outcome {
    ends_clean("exit").await
}

async fn ends_clean(task: &str) -> Outcome {
    // If it is missing, this test is ignored.
    drop(Redis::single().await?);
    let mut child = as_child(task).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
    let mut left = Vec::new();
    for _ in 0..2 {
        let line = lines.next().ok_or("it started")??;
        let (pid, root) = line.split_once(' ').ok_or(line.clone())?;
        left.push((pid.parse::<u32>()?, std::path::PathBuf::from(root)));
    }
    if task == "wait" {
        assert!(left.iter().all(|(pid, root)| runs(*pid) && root.exists()));
        child.kill()?;
    }
    child.wait()?;
    eventually("the servers end", || left.iter().all(|(pid, _)| !runs(*pid))).await;
    eventually("the folder is removed", || left.iter().all(|(_, root)| !root.exists())).await;
    Ok(())
}

/// The error names the variable, and what to install.
async fn a_missing_server_is_said() -> Outcome {
    let output = as_child("wait").env("AVOUT_REDIS_SERVER", "/nowhere/redis-server").output()?;
    let text = String::from_utf8(output.stdout)?;
    for part in
        ["missing=true", "AVOUT_REDIS_SERVER names /nowhere/redis-server, which is not there", "apt-get install"]
    {
        assert!(text.contains(part), "{text}");
    }
    Ok(())
}

/// A test whose server is missing is ignored, with the reason, and fails if the server is required.
async fn a_missing_server_is_no_failure_unless_required() -> Outcome {
    let run = |required: &str| -> std::io::Result<Output> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "redis_keeps_its_data"]).env("AVOUT_REDIS_SERVER", "/nowhere/redis-server");
        command.env("AVOUT_TEST_REQUIRE", required).output()
    };
    let output = run("zk,mongo")?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && text.contains("1 ignored") && text.contains("/nowhere"), "{text}");
    let output = run("zk,redis")?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    assert!(!output.status.success() && text.contains("AVOUT_TEST_REQUIRE names it"), "{text}");
    Ok(())
}

/// A server that ends at once is told with the end of its log, soon.
async fn a_server_that_does_not_start_shows_its_log() -> Outcome {
    let refused = |error: Error| {
        if error.is_missing() { Err(error) } else { Ok(error.to_string()) }
    };
    let error = refused(Redis::with(&["--no-such-option", "1"]).await.expect_err("it is refused"))?;
    assert!(error.contains("did not start") && error.contains("no-such-option"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", taken))?;
    let error = refused(Redis::with(&["--port", &taken.to_string()]).await.expect_err("it is refused"))?;
    assert!(error.contains("its ports were taken"), "{error}");
    drop(listener);
    let error = refused(ZooKeeper::builder().config("tickTime=soon").start().await.expect_err("it is refused"))?;
    assert!(error.contains("did not start") && error.contains("soon"), "{error}");
    Ok(())
}
