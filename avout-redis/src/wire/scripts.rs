//! The scripts, which run on the server. They are constant; all names and values are arguments.

use redis::{Cmd, RedisResult};

use super::connection::Wire;

macro_rules! script {
    ($flags:literal, $file:literal) => {
        concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("scripts/clock.lua"),
            include_str!(concat!("scripts/", $file, ".lua"))
        )
    };
}

/// A script. Those that make no room need room: the server refuses them when its memory is full, before they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Enter,
    Commit,
    Atom,
    PutValue,
    DropValue,
    Renew,
    Watch,
    Touch,
    Look,
}

const SCRIPTS: [(Script, &str); 9] = [
    (Script::Enter, script!(" flags=allow-oom", "enter")),
    (Script::Commit, script!("", "commit")),
    (Script::Atom, script!("", "atom")),
    (Script::PutValue, script!("", "put_value")),
    (Script::DropValue, script!(" flags=allow-oom", "drop_value")),
    // A sign of life takes no room but the first time, and then very little.
    (Script::Renew, script!(" flags=allow-oom", "renew")),
    // The same: one field, once.
    (Script::Watch, script!(" flags=allow-oom", "watch")),
    (Script::Touch, script!(" flags=allow-oom", "touch")),
    (Script::Look, script!(" flags=no-writes", "look")),
];

/// The names under which a server keeps the scripts.
#[derive(Clone, Debug)]
pub(crate) struct Loaded([String; SCRIPTS.len()]);

impl Loaded {
    /// Gives the scripts to the server. One round trip.
    pub(crate) async fn load(wire: &Wire) -> RedisResult<Self> {
        let mut pipe = redis::pipe();
        for (_, text) in SCRIPTS {
            pipe.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        let names: Vec<String> = wire.ask_all(&pipe).await?;
        match names.try_into() {
            Ok(names) => Ok(Self(names)),
            Err(_) => Err((redis::ErrorKind::UnexpectedReturnType, "SCRIPT LOAD answered with no names").into()),
        }
    }

    /// The beginning of a call: the script's name and the keys. The arguments follow.
    pub(crate) fn call(&self, script: Script, keys: &[&str], arguments: usize, bytes: usize) -> Cmd {
        let sha = &self.0[script as usize];
        let names: usize = keys.iter().map(|key| key.len()).sum();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + arguments, 56 + names + bytes);
        // A user who may only read may run what only reads.
        cmd.arg(if script == Script::Look { "EVALSHA_RO" } else { "EVALSHA" }).arg(sha.as_str()).arg(keys.len());
        for key in keys {
            cmd.arg(*key);
        }
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of each script is its number.
    #[test]
    fn scripts_are_in_order() {
        for (place, (script, text)) in SCRIPTS.iter().enumerate() {
            assert_eq!(*script as usize, place);
            assert!(text.starts_with("#!lua"));
        }
    }
}
