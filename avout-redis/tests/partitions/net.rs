//! Network namespaces: one for each server, on one bridge, which the clients are on too.
//!
//! All is made inside a network and process namespace of the trial's own, so that it ends with the trial, whatever ends that.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first three numbers of all addresses, which nobody sees outside.
const SUBNET: &str = "10.77.0";
/// An address that no device on the bridge has: what is sent there is lost.
const NOWHERE: &str = "02:00:00:00:00:01";

/// How the trial's own namespaces are entered.
pub(crate) fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--mount-proc", "--fork", "--kill-child"]);
    command
}

/// Whether such namespaces can be made here.
pub(crate) fn works() -> Result<(), String> {
    let script = "ip link add br0 type bridge && unshare --net true";
    let made = unshare().args(["sh", "-c", script]).stdin(Stdio::null()).output();
    match made {
        Ok(made) if made.status.success() => Ok(()),
        Ok(made) => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// The bridge that all are on.
pub(crate) fn bridge() -> io::Result<()> {
    for words in
        ["link set lo up", "link add br0 type bridge", &format!("addr add {SUBNET}.1/24 dev br0"), "link set br0 up"]
    {
        run(Command::new("ip").args(words.split(' ')))?;
    }
    Ok(())
}

/// A namespace with one server's processes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ip: String,
    /// Does nothing but keep the namespace.
    holder: Child,
}

impl Place {
    pub(crate) fn new(number: usize) -> io::Result<Self> {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn()?;
        let place = Self { ip: format!("{SUBNET}.{}", 11 + number), holder };
        place.wait()?;
        let (pid, outer) = (place.holder.id().to_string(), format!("server{number}"));
        run(Command::new("ip").args(["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pid]))?;
        run(Command::new("ip").args(["link", "set", &outer, "master", "br0", "up"]))?;
        place.ip(&["link", "set", "lo", "up"])?;
        place.ip(&["addr", "add", &format!("{}/24", place.ip), "dev", "eth0"])?;
        place.ip(&["link", "set", "eth0", "up"])?;
        Ok(place)
    }

    /// Until the namespace is there.
    fn wait(&self) -> io::Result<()> {
        let of = |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net"));
        let (own, begun) = (of("self")?, Instant::now());
        while of(&self.holder.id().to_string())? == own {
            if begun.elapsed() > Duration::from_secs(30) {
                return Err(io::Error::other("no network namespace within 30 s"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", program]);
        command
    }

    fn ip(&self, words: &[&str]) -> io::Result<()> {
        run(self.command("ip").args(words))
    }

    /// Loses all that the two send to each other.
    pub(crate) fn cut(&self, other: &Self) -> io::Result<()> {
        for (from, to) in [(self, other), (other, self)] {
            from.ip(&["neigh", "replace", &to.ip, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0"])?;
        }
        Ok(())
    }

    pub(crate) fn heal(&self, other: &Self) -> io::Result<()> {
        for (from, to) in [(self, other), (other, self)] {
            from.ip(&["neigh", "del", &to.ip, "dev", "eth0"])?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim())))
}
