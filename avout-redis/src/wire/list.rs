//! The names of what is there.

use avout_core::Result;
use avout_core::backend::Page;
use avout_core::protocol::Key;
use redis::{Cmd, Value};

use super::client::Client;
use super::error::foreign;

impl Client {
    /// A page of the keys with this mark that are `prefix` or lie under it. The server sorts names by their bytes, as [`Key`] does; what
    /// lies under `/a` is between `/a/` and `/a0`.
    pub(crate) async fn list(&self, mark: &str, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let folder = prefix.as_str().trim_end_matches('/');
        let mut keys = Vec::new();
        if !folder.is_empty() && after.is_none_or(|after| after < prefix) {
            let itself = format!("[{mark}{folder}");
            self.names_between(&itself, &itself, mark, &mut keys).await?;
        }
        let first = format!("{folder}/");
        let mut from = format!("({mark}{}", after.map_or(&*first, |after| after.as_str().max(&first)));
        let to = format!("({mark}{folder}0");
        loop {
            match self.names_between(&from, &to, mark, &mut keys).await? {
                Some(last) if keys.is_empty() => from = last,
                last => return Ok(Page { keys, more: last.is_some() }),
            }
        }
    }

    /// Takes in the first keys between two names; gives where the next one begins, if there may be one. The server does nothing else
    /// meanwhile, so they are not many.
    async fn names_between(&self, from: &str, to: &str, mark: &str, keys: &mut Vec<Key>) -> Result<Option<String>> {
        let mut command = Cmd::new();
        command.arg("ZRANGE").arg(&self.names.names).arg(from).arg(to).arg("BYLEX").arg("LIMIT").arg(0).arg(Page::SIZE);
        let Value::Array(members) = self.look(&command).await? else { return Err(foreign()) };
        let full = members.len() == Page::SIZE;
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
