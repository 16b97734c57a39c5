//! The names of what is there.

use avout_core::Result;
use avout_core::protocol::Key;
use redis::{Cmd, Value};

use super::client::Client;
use super::error::foreign;

/// How many names one request lists: the server does nothing else meanwhile.
const PAGE: usize = 10_000;

impl Client {
    /// The keys with this mark that are `prefix` or lie under it, sorted. The server sorts names by their bytes, as
    /// [`Key`] does; what lies under `/a` is between `/a/` and `/a0`.
    pub(crate) async fn list(&self, mark: &str, prefix: &Key) -> Result<Vec<Key>> {
        let folder = prefix.as_str().trim_end_matches('/');
        let mut keys = Vec::new();
        if !folder.is_empty() {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&self.names.names).arg(format!("[{mark}{folder}")).arg(format!("[{mark}{folder}"));
            cmd.arg("BYLEX");
            self.page(&cmd, mark, &mut keys).await?;
        }
        let mut from = format!("({mark}{folder}/");
        let to = format!("({mark}{folder}0");
        loop {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&self.names.names).arg(&from).arg(&to).arg("BYLEX").arg("LIMIT").arg(0).arg(PAGE);
            match self.page(&cmd, mark, &mut keys).await? {
                Some(last) => from = last,
                None => return Ok(keys),
            }
        }
    }

    /// Takes in one page; gives where the next one begins, if there may be one.
    async fn page(&self, command: &Cmd, mark: &str, keys: &mut Vec<Key>) -> Result<Option<String>> {
        let Value::Array(members) = self.look(command).await? else { return Err(foreign()) };
        let full = members.len() == PAGE;
        let mut last = None;
        for member in members {
            let Value::BulkString(member) = member else { return Err(foreign()) };
            match std::str::from_utf8(&member) {
                Ok(member) => {
                    last = Some(format!("({member}"));
                    match member.strip_prefix(mark).map(Key::from_stored) {
                        Some(Ok(key)) => keys.push(key),
                        _ => tracing::warn!("a name in the namespace is none that avout wrote"),
                    }
                }
                Err(_) => tracing::warn!("a name in the namespace is none that avout wrote"),
            }
        }
        Ok(last.filter(|_| full))
    }
}
