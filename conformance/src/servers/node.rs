use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::janitor::Janitor;
use super::{Error, Spec};
use avout_core::backend::tasks;

/// How long a server may take to start, or to stop.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One server process, at one port, with one folder of data, for as long as this value or a clone lives.
///
/// The methods wait for no async runtime in particular: a server lives on when the runtime in which it was started ends.
///
/// # Cancel safety
/// A method whose future is dropped does its work to the end all the same.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    spec: Spec,
    child: Mutex<Option<Child>>,
    paused: AtomicBool,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address()).field("pid", &self.pid()).finish()
    }
}

impl Node {
    /// A server that does not run yet.
    pub fn new(spec: Spec) -> Self {
        Self(Arc::new(Inner { spec, child: Mutex::new(None), paused: AtomicBool::new(false) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.spec.port).into()
    }

    /// The folder of its data, its configuration and its log.
    pub fn folder(&self) -> &Path {
        &self.0.spec.folder
    }

    /// Its process; `None` while it does not run. A paused one runs.
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.0.child();
        self.0.reap(&mut child);
        child.as_ref().map(Child::id)
    }

    /// Whether it is [paused](Self::pause).
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Acquire)
    }

    /// What it logged so far, of all its runs.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.0.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts it, on the port and the data that it had before, and waits until it answers. Nothing if it runs.
    ///
    /// # Errors
    /// If it ends at once or does not answer within a minute; the message has the end of its log.
    pub async fn start(&self) -> Result<(), Error> {
        self.blocking(|inner| {
            inner.spawn()?;
            inner.wait_until_it_answers()
        })
        .await
    }

    /// The same, without waiting until it answers: a member of a group may only do so once others run.
    pub(super) async fn launch(&self) -> Result<(), Error> {
        self.blocking(|inner| inner.spawn()).await
    }

    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.blocking(Inner::wait_until_it_answers).await
    }

    /// Ends it the way its operator would (SIGTERM), and waits until it has ended. Nothing if it does not run.
    ///
    /// # Errors
    /// If it has not ended after a minute.
    pub async fn stop(&self) -> Result<(), Error> {
        self.blocking(|inner| inner.end(Signal::TERM)).await
    }

    /// Ends it without notice (SIGKILL), as a crash would. What it had given to the operating system is kept: this is no
    /// power cut. Nothing if it does not run.
    ///
    /// # Errors
    /// If the operating system does not end it within a minute.
    pub async fn kill(&self) -> Result<(), Error> {
        self.blocking(|inner| inner.end(Signal::KILL)).await
    }

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// Those of [`kill`](Self::kill) and [`start`](Self::start).
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill().await?;
        self.start().await
    }

    /// Freezes it (SIGSTOP), as a long pause of its machine would: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pause(&self) -> Result<(), Error> {
        self.blocking(|inner| inner.pause()).await
    }

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resume(&self) -> Result<(), Error> {
        self.blocking(|inner| {
            inner.signal(Signal::CONT)?;
            inner.paused.store(false, Ordering::Release);
            Ok(())
        })
        .await
    }

    /// Runs something that blocks on a thread for that.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        blocking(self.0.spec.server, move || work(&inner)).await
    }
}

/// Runs something that blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    server: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // Also for a caller that runs on no runtime of tokio's.
    let done = tasks::request(async { tokio::task::spawn_blocking(work).await });
    done.await.map_err(|error| Error::failed(server, error))?
}

/// Asks `check` until it has an answer. At the end of `limit` the last refusal is the error.
pub(super) fn poll<T>(limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(answer) => return Ok(answer),
            Err(why) if start.elapsed() > limit => return Err(format!("{why}, for {limit:?}")),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Inner {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_file(&self) -> PathBuf {
        self.spec.folder.join("log")
    }

    fn failed(&self, what: impl std::fmt::Display) -> Error {
        Error::failed(self.spec.server, what)
    }

    /// The last lines of the log.
    fn log_end(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(self.log_file()) {
            let length = file.metadata().map_or(0, |meta| meta.len());
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(20_000)));
            let _ = file.read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Forgets the process if it has ended by itself.
    fn reap(&self, child: &mut Option<Child>) -> Option<std::process::ExitStatus> {
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        if let (Some(child), Ok(janitor)) = (child.take(), Janitor::get()) {
            janitor.forget(child.id());
        }
        Some(status)
    }

    fn spawn(&self) -> Result<(), Error> {
        let mut slot = self.child();
        self.reap(&mut slot);
        if slot.is_some() {
            return Ok(());
        }
        let io = |error: std::io::Error| self.failed(format!("cannot start {}: {error}", self.spec.program.display()));
        let janitor = Janitor::get().map_err(io)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).map_err(io)?;
        // The shell becomes the server only once the janitor knows its pid; if this process dies before that, it reads the end
        // of its input and ends too.
        let mut child = Command::new("sh")
            .args(["-c", r#"read -r go && exec "$@" </dev/null"#, "avout-server"])
            .arg(&self.spec.program)
            .args(&self.spec.arguments)
            .current_dir(&self.spec.folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(io)?;
        let go = janitor.watch(child.id()).and_then(|()| match child.stdin.take() {
            Some(mut input) => input.write_all(b"go\n"),
            None => Err(std::io::Error::other("no pipe to the shell")),
        });
        if let Err(error) = go {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io(error));
        }
        self.paused.store(false, Ordering::Release);
        *slot = Some(child);
        Ok(())
    }

    fn wait_until_it_answers(&self) -> Result<(), Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.spec.port));
        let mut ended = None;
        let answer = poll(PATIENCE, || {
            let mut child = self.child();
            if let Some(status) = self.reap(&mut child) {
                ended = Some(status.to_string());
            }
            if child.is_none() {
                return Ok(false);
            }
            drop(child);
            (self.spec.answers)(address).map(|()| true)
        });
        let log = self.log_end();
        match answer {
            Ok(true) => Ok(()),
            Ok(false) if log.contains("ddress already in use") || log.contains("Failed to bind") => {
                Err(Error::port_taken(self.spec.server, log))
            }
            Ok(false) => {
                let ended = ended.as_deref().unwrap_or("ended");
                Err(self.failed(format!("it did not start ({ended}); its log ends:\n{log}")))
            }
            Err(why) => Err(self.failed(format!("it does not answer: {why}; its log ends:\n{log}"))),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let mut child = self.child();
        self.reap(&mut child);
        let child = child.as_ref().ok_or_else(|| self.failed("it does not run"))?;
        // Nobody has waited for the child, so the pid is still its own.
        kill_process(Pid::from_child(child), signal).map_err(|error| self.failed(error))
    }

    fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        self.paused.store(true, Ordering::Release);
        // The signal takes effect in each thread by itself; where the system tells, wait for the last.
        poll(PATIENCE, || {
            let pid = self.child().as_ref().map(Child::id).ok_or("it ended")?;
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(()) };
            let running = tasks.flatten().any(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // The state follows the command's name, which is in parentheses and may hold any.
                !matches!(
                    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()),
                    Some('T' | 't') | None
                )
            });
            if running { Err("its threads still run".to_owned()) } else { Ok(()) }
        })
        .map_err(|why| self.failed(why))
    }

    fn end(&self, signal: Signal) -> Result<(), Error> {
        let mut slot = self.child();
        self.reap(&mut slot);
        let Some(child) = slot.as_mut() else { return Ok(()) };
        let pid = Pid::from_child(child);
        kill_process(pid, signal).map_err(|error| self.failed(error))?;
        if signal != Signal::KILL {
            // A paused one hears only this.
            let _ = kill_process(pid, Signal::CONT);
        }
        poll(PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.signal()),
            Ok(None) => Err("it goes on".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .map_err(|why| self.failed(format!("it does not end: {why}")))?;
        self.forget(&mut slot);
        Ok(())
    }

    fn forget(&self, slot: &mut Option<Child>) {
        if let (Some(child), Ok(janitor)) = (slot.take(), Janitor::get()) {
            janitor.forget(child.id());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.end(Signal::KILL);
        let _ = std::fs::remove_dir_all(&self.spec.folder);
    }
}
