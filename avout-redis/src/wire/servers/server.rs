//! Whether a server can be used.

use std::collections::HashMap;

use avout_core::{Error, ErrorKind, Result};

use crate::options::{Options, Topology};
use crate::wire::OLD;
use crate::wire::connection::Wire;

/// After so many seconds without a word of a replica it is not counted on: a living one sends one each second.
const LAG: i64 = 2;

/// What a server says of itself.
pub(crate) struct Server<'a> {
    fields: HashMap<&'a str, &'a str>,
    /// Another one after each restart and each promotion.
    pub(crate) identity: String,
}

impl<'a> Server<'a> {
    pub(crate) fn read(info: &'a str) -> Self {
        let fields: HashMap<_, _> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let field = |name| fields.get(name).copied().unwrap_or_default();
        let identity = format!("{} {}", field("run_id"), field("master_replid"));
        Self { fields, identity }
    }

    fn field(&self, name: &str) -> &'a str {
        self.fields.get(name).copied().unwrap_or_default()
    }

    /// Another one after each restart.
    pub(crate) fn process(&self) -> &'a str {
        self.field("run_id")
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.field("role") == "slave"
    }

    /// How many replicas are connected.
    pub(crate) fn replicas(&self) -> u32 {
        self.field("connected_slaves").parse().unwrap_or(0)
    }

    /// How many replicas are connected, and have been heard of lately.
    pub(crate) fn live_replicas(&self) -> u32 {
        let lag = |line: &str| line.rsplit_once("lag=")?.1.split(',').next()?.parse::<i64>().ok();
        let is_live = |(name, value): &(&&str, &&str)| {
            let number = name.strip_prefix("slave").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
            number && value.contains("state=online") && lag(value).is_some_and(|lag| lag <= LAG)
        };
        u32::try_from(self.fields.iter().filter(is_live).count()).unwrap_or(u32::MAX)
    }

    /// Refuses a server that may remove any key.
    pub(crate) fn check_eviction(&self) -> Result<()> {
        let policy = self.field("maxmemory_policy");
        if policy.starts_with("allkeys") {
            let message = format!(
                "the server may evict any key when its memory is full (maxmemory-policy {policy}): set maxmemory-policy to noeviction"
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(())
    }

    pub(crate) fn check(&self, options: &Options) -> Result<()> {
        let version = self.field("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 7) {
            return Err(Error::new(ErrorKind::Unsupported, OLD));
        }
        if self.field("loading") == "1" {
            // It answers some commands already, and says that it keeps no log.
            return Err(Error::new(ErrorKind::Unavailable, "the server is reading its data"));
        }
        if self.is_replica() {
            return Err(Error::new(ErrorKind::Unavailable, "the server is a replica, and not the master"));
        }
        if (self.field("cluster_enabled") == "1") != (options.topology == Topology::Cluster) {
            let message = "redis+cluster:// is for a server of a cluster, and a server of a cluster needs it";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if options.wait_aof {
            return Err(Error::new(ErrorKind::Unsupported, no_wait_aof(version)));
        }
        self.check_eviction()
    }
}

fn no_wait_aof(version: &str) -> String {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let why = if (numbers.next(), numbers.next()) < (Some(7), Some(2)) {
        format!("the option wait_aof needs Redis 7.2 or later, and this server is {version}")
    } else {
        "avout does not use WAITAOF yet".to_owned()
    };
    format!("{why}: leave the option out, and set appendfsync to always if each commit is to be on a disk")
}

/// Refuses a server that keeps less than the options ask for. Gives whether it syncs each write.
pub(crate) async fn check_settings(wire: &Wire, options: &Options, server: &Server<'_>) -> Result<bool> {
    let asked = options.require_sync || options.min_replicas > 0;
    let log = server.field("aof_enabled") == "1";
    if !asked && !log {
        return Ok(false);
    }
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("appendfsync").arg("min-replicas-to-write");
    let settings: HashMap<String, String> = match wire.ask(&get).await {
        Ok(settings) => settings,
        Err(error) if asked => {
            let message = "this user may not run CONFIG GET, which the options appendfsync and min_replicas need";
            return Err(Error::new(ErrorKind::Denied, message).with_source(error));
        }
        Err(_) => return Ok(false),
    };
    let setting = |name| settings.get(name).map_or("", String::as_str);
    let synced = log && setting("appendfsync") == "always";
    if options.require_sync && !synced {
        let message = "the server does not sync each write: set appendonly to yes and appendfsync to always, or leave out \
            the option appendfsync=always";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let replicas = setting("min-replicas-to-write").parse::<u32>().unwrap_or(0);
    if replicas < options.min_replicas {
        let message = format!(
            "the server takes writes with {replicas} replicas: set min-replicas-to-write to {} or more, or lower the option min_replicas",
            options.min_replicas
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(synced)
}
