//! The clean-up that works whatever happens to this process.
//!
//! A shell of its own process group holds the list of servers. It reads from a pipe whose other end only this process has. When
//! this process ends in any way, a SIGKILL included, the pipe ends: the shell then kills what is on the list and removes the
//! folder.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Each line is answered once it is on the list. Names of folders never go over the pipe.
const SCRIPT: &str = r#"
trap '' INT TERM HUP PIPE
pids=
while read -r what pid; do
    case $what in
        +) pids="$pids $pid" ;;
        -) left=
           for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done
           pids=$left ;;
    esac
    echo
done
for p in $pids; do kill -KILL "$p"; done
tries=0
while rm -rf "$1"; [ -e "$1" ] && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

pub(super) struct Janitor {
    root: PathBuf,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// Never waited for: it outlives this process.
    _shell: Child,
}

impl Janitor {
    /// The one of this process, started at first use.
    pub(super) fn get() -> io::Result<&'static Self> {
        static JANITOR: OnceLock<Result<Janitor, String>> = OnceLock::new();
        let janitor = JANITOR.get_or_init(|| Self::start().map_err(|error| error.to_string()));
        janitor.as_ref().map_err(|error| io::Error::other(format!("the clean-up for servers could not start: {error}")))
    }

    fn start() -> io::Result<Self> {
        let root = tempfile::Builder::new().prefix("avout-servers-").tempdir()?.keep();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "avout-servers"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let (Some(input), Some(output)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(io::Error::other("no pipe to the shell"));
        };
        Ok(Self { root, talk: Mutex::new((input, BufReader::new(output))), _shell: shell })
    }

    /// The folder that it removes at the end.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a process on the list; it is there on return.
    pub(super) fn watch(&self, pid: u32) -> io::Result<()> {
        self.tell('+', pid)
    }

    /// Takes it off, once it has ended.
    pub(super) fn forget(&self, pid: u32) {
        // Without the shell there is no list to take it off.
        let _ = self.tell('-', pid);
    }

    fn tell(&self, what: char, pid: u32) -> io::Result<()> {
        let mut talk = self.talk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (input, output) = &mut *talk;
        writeln!(input, "{what} {pid}")?;
        if output.read_line(&mut String::new())? == 0 {
            return Err(io::Error::other("the shell that cleans up after servers is gone"));
        }
        Ok(())
    }
}
