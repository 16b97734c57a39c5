//! The connection that listens.

use std::collections::HashSet;
use std::sync::Arc;

use avout_core::backend::Bells;
use avout_core::{ErrorKind, Result};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::wire::connection::{Link, Wire};
use crate::wire::{Client, classify};

/// How many channels one command names.
const TOGETHER: usize = 256;

/// A connection that listens.
pub(super) struct Ear {
    pub(super) wire: Arc<Wire>,
    pub(super) channels: HashSet<String>,
    pub(super) ended: Arc<Notify>,
    /// The server tells of changes.
    pub(super) told: bool,
}

impl Ear {
    /// Connects. Nothing is listened to yet.
    pub(super) async fn open(client: &Client, link: &Link, bells: &Arc<Bells<String>>) -> Result<Self> {
        let ended = Arc::new(Notify::new());
        let (bells, end) = (Arc::clone(bells), Arc::clone(&ended));
        let listener = Box::new(move |push| hear(&bells, &end, push));
        let wire = client.finder.dial_beside(link, Some(listener)).await?;
        client.finder.set_name(&wire).await;
        Ok(Self { wire: Arc::new(wire), channels: HashSet::new(), ended, told: true })
    }

    pub(super) async fn add(&mut self, channels: Vec<String>) -> Result<()> {
        let new: Vec<String> = channels.into_iter().filter(|channel| !self.channels.contains(channel)).collect();
        self.send("SSUBSCRIBE", &new).await?;
        self.channels.extend(new);
        Ok(())
    }

    pub(super) async fn remove(&mut self, channels: Vec<String>) -> Result<()> {
        let old: Vec<String> = channels.into_iter().filter(|channel| self.channels.remove(channel)).collect();
        self.send("SUNSUBSCRIBE", &old).await
    }

    async fn send(&mut self, command: &str, channels: &[String]) -> Result<()> {
        for some in channels.chunks(TOGETHER) {
            // The server confirms each channel by itself, and the driver counts one answer for each command.
            let mut pipe = redis::pipe();
            for channel in some {
                pipe.cmd(command).arg(channel).ignore();
            }
            self.wire.ask_all::<()>(&pipe).await.map_err(|error| classify(error, ErrorKind::Unavailable))?;
        }
        Ok(())
    }
}

fn hear(bells: &Bells<String>, ended: &Notify, push: PushInfo) {
    let channel = match push.data.first() {
        Some(Value::BulkString(channel)) => std::str::from_utf8(channel).unwrap_or_default(),
        _ => "",
    };
    match push.kind {
        PushKind::SMessage => bells.ring(channel),
        PushKind::Disconnection => ended.notify_one(),
        // The slot has gone to another node.
        PushKind::SUnsubscribe if bells.is_watched(channel) => ended.notify_one(),
        _ => {}
    }
}
