//! The nodes of a cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::options::{Address, Source};
use crate::wire::connection::{Dialer, Wire};

/// How many nodes are remembered.
const MOST: usize = 1024;

/// Who has a slot, as a node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) master: Option<Address>,
    /// How many replicas the slot's master has, whether or not they are there.
    replicas: u32,
    nodes: Vec<Address>,
}

/// What is known of a cluster.
pub(crate) struct Cluster {
    dialer: Arc<Dialer>,
    credentials: Source,
    slot: u16,
    tls: bool,
    limit: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Had the slot when it was heard of last.
    master: Option<Address>,
    replicas: Option<u32>,
    nodes: Vec<Address>,
}

impl Cluster {
    pub(crate) fn new(dialer: Arc<Dialer>, credentials: Source, key: &str, tls: bool, limit: Duration) -> Self {
        Self { dialer, credentials, slot: slot(key), tls, limit, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask, and in which order: who had the slot, all nodes that were heard of, and the seeds.
    pub(crate) fn places(&self, seeds: impl Iterator<Item = Address>) -> Vec<Address> {
        let known = self.known();
        let mut places = Vec::new();
        for place in known.master.iter().cloned().chain(known.nodes.iter().cloned()).chain(seeds) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The slot is there.
    pub(crate) fn is_at(&self, address: &Address) {
        self.known().master = Some(address.clone());
    }

    pub(crate) fn replicas(&self) -> Option<u32> {
        self.known().replicas
    }

    /// Asks a node for all others. `None`: it does not tell, or the user may not ask.
    pub(crate) async fn ask(&self, wire: &Wire, at: &Address) -> Option<Map> {
        let shards = wire.ask::<Value>(redis::cmd("CLUSTER").arg("SHARDS")).await;
        let map = Map::read(&shards.ok()?, self.slot, at, self.tls)?;
        let mut known = self.known();
        // What was learned and is not named any more may be on the other side of a cut.
        let nodes = map.nodes.iter().chain(&known.nodes).take(MOST);
        known.nodes = nodes.fold(Vec::new(), |mut all, node| {
            if !all.contains(node) {
                all.push(node.clone());
            }
            all
        });
        known.replicas = Some(map.replicas);
        Some(map)
    }

    /// The master that most of the others name, of those that answer soon.
    pub(crate) async fn master_but_for(self: &Arc<Self>, one: &Address) -> Option<Address> {
        let mut asked = JoinSet::new();
        for node in self.known().nodes.iter().filter(|node| *node != one) {
            let (all, node) = (Arc::clone(self), node.clone());
            asked.spawn(async move {
                let ask = async {
                    let wire = all.dialer.dial(&node, &all.credentials, 0, None).await?;
                    Ok::<_, avout_core::Error>(all.ask(&wire, &node).await)
                };
                timeout(all.limit, ask).await.ok()?.ok()??.master
            });
        }
        let mut named: Vec<(Address, usize)> = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let Ok(Some(master)) = answer else { continue };
            match named.iter_mut().find(|(address, _)| *address == master) {
                Some((_, count)) => *count += 1,
                None => named.push((master, 1)),
            }
        }
        let all: usize = named.iter().map(|(_, count)| count).sum();
        named.into_iter().find(|(_, count)| 2 * count > all).map(|(master, _)| master)
    }
}

impl Map {
    /// Reads the answer to `CLUSTER SHARDS` of the node at `asked`.
    fn read(shards: &Value, slot: u16, asked: &Address, tls: bool) -> Option<Self> {
        let mut map = Self::default();
        for shard in elements(shards)? {
            let shard = fields(shard)?;
            let slots: Vec<u16> = elements(get(&shard, "slots")?)?.iter().filter_map(number).collect();
            let has = slots.chunks_exact(2).any(|range| (range[0]..=range[1]).contains(&slot));
            for node in elements(get(&shard, "nodes")?)? {
                let node = fields(node)?;
                let address = address(&node, asked, tls)?;
                let is_master = text(get(&node, "role")?).as_deref() == Some("master");
                if has && is_master {
                    map.master = Some(address.clone());
                } else if has {
                    map.replicas += 1;
                }
                map.nodes.push(address);
            }
        }
        Some(map)
    }
}

fn address(node: &[(String, Value)], asked: &Address, tls: bool) -> Option<Address> {
    let told = |name| get(node, name).and_then(text).filter(|host| !host.is_empty() && host != "?");
    let host = told("endpoint").or_else(|| told("ip")).unwrap_or_else(|| asked.host.clone());
    let port = if tls { get(node, "tls-port").or_else(|| get(node, "port")) } else { get(node, "port") };
    Some(Address { host, port: port.and_then(number)? })
}

fn elements(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(elements) => Some(elements),
        _ => None,
    }
}

fn fields(value: &Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| Some((text(name)?, value.clone()))).collect(),
        Value::Array(flat) => flat.chunks_exact(2).map(|pair| Some((text(&pair[0])?, pair[1].clone()))).collect(),
        _ => None,
    }
}

fn get<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// The slot of a key with a hash tag: CRC-16/XMODEM of the tag.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` of a server.
    #[test]
    fn slots_are_as_the_server_has_them() {
        for (key, expected) in [("123456789", 12739), ("{123456789}:cells", 12739)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(role: &str, endpoint: &str, port: i64) -> Value {
        let fields = [
            ("role", bulk(role)),
            ("endpoint", bulk(endpoint)),
            ("port", Value::Int(port)),
            ("health", bulk("online")),
        ];
        Value::Array(fields.into_iter().flat_map(|(name, value)| [bulk(name), value]).collect())
    }

    fn shard(from: i64, to: i64, nodes: Vec<Value>) -> Value {
        let slots = Value::Array(vec![Value::Int(from), Value::Int(to)]);
        Value::Array(vec![bulk("slots"), slots, bulk("nodes"), Value::Array(nodes)])
    }

    /// The master of the slot, how many replicas it has, and all nodes; a node without a host is where the one is that was asked.
    #[test]
    fn reads_who_has_the_slot() {
        let asked = Address { host: "seed".to_owned(), port: 1 };
        let shards = Value::Array(vec![
            shard(0, 99, vec![node("master", "a", 1), node("replica", "b", 2)]),
            shard(100, 200, vec![node("replica", "", 3), node("master", "c", 4), node("replica", "?", 5)]),
        ]);
        let map = Map::read(&shards, 150, &asked, false).expect("a map");
        assert_eq!(map.master, Some(Address { host: "c".to_owned(), port: 4 }));
        assert_eq!(map.replicas, 2);
        assert_eq!(
            map.nodes.iter().map(|node| node.host.as_str()).collect::<Vec<_>>(),
            ["a", "b", "seed", "c", "seed"]
        );
    }
}
