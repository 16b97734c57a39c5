//! The workloads by hand: one script and one `HMGET` on one multiplexed connection, and nothing around it.
//!
//! This is what a careful programmer would write who needs no more than the workload: fields with a revision in front, read in
//! one command, and written by a script that compares the revisions. Many tasks share one connection, which puts what they
//! send together.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout::redis::redis::aio::MultiplexedConnection;
use avout::redis::redis::io::tcp::TcpSettings;
use avout::redis::redis::{Client, Cmd, IntoConnectionInfo, cmd};

use crate::env::Env;
use crate::measure::{Effort, Failure, Meter, Run, tasks};
use crate::spec::{Spec, Workload};
use crate::values::{blob, bump_blob};

const SCRIPT: &str = "#!lua
local n = tonumber(ARGV[1])
local found = redis.call('HMGET', KEYS[1], unpack(ARGV, 2, n + 1))
for i = 1, n do
  if string.sub(found[i], 1, 8) ~= ARGV[n + 1 + i] then
    return 0
  end
end
local fields = {}
for i = 1, n do
  fields[2 * i - 1], fields[2 * i] = ARGV[1 + i], ARGV[2 * n + 1 + i]
end
redis.call('HSET', KEYS[1], unpack(fields))
return 1
";

/// A connection, the hash and the script.
#[derive(Clone)]
struct Server {
    connection: MultiplexedConnection,
    hash: Arc<str>,
    script: Arc<str>,
}

/// A value with its revision in front.
type Cell = Vec<u8>;

impl Server {
    async fn open(url: &str, hash: &str) -> Result<Self, Failure> {
        let info = url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let mut connection = Client::open(info)?.get_multiplexed_async_connection().await?;
        let script: String = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
        Ok(Self { connection, hash: hash.into(), script: script.into() })
    }

    /// Makes fields of this size.
    async fn fill(&mut self, count: usize, size: usize) -> Result<Vec<String>, Failure> {
        let fields: Vec<String> = (0..count).map(|index| format!("/{index}")).collect();
        for field in &fields {
            let mut cell = vec![0; 8];
            cell.extend(blob(size));
            cmd("HSET").arg(&*self.hash).arg(field).arg(cell).exec_async(&mut self.connection).await?;
        }
        Ok(fields)
    }

    async fn read(&mut self, fields: &[String]) -> Result<Vec<Cell>, Failure> {
        let mut get = Cmd::new();
        get.arg("HMGET").arg(&*self.hash).arg(fields);
        Ok(get.query_async(&mut self.connection).await?)
    }

    /// Writes cells back with their next revision if they are as they were read.
    async fn update(&mut self, fields: &[String], cells: &[Cell]) -> Result<bool, Failure> {
        let mut run = Cmd::new();
        run.arg("EVALSHA").arg(&*self.script).arg(1).arg(&*self.hash).arg(fields.len()).arg(fields);
        for cell in cells {
            run.arg(&cell[..8]);
        }
        for cell in cells {
            let mut next = cell.clone();
            let revision = cell.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes)) + 1;
            next[..8].copy_from_slice(&revision.to_be_bytes());
            bump_blob(&mut next[8..]);
            run.arg(next);
        }
        Ok(run.query_async::<u8>(&mut self.connection).await? == 1)
    }
}

#[derive(Default)]
struct Tally {
    attempts: AtomicU64,
    done: AtomicU64,
}

/// What runs a spec. `None` where doing it by hand would be another workload.
pub(crate) fn run(env: &Rc<Env>, spec: Spec) -> Result<Option<Run>, Failure> {
    let hash = format!("bench:{}", env.new_name());
    let url = env.redis()?.ok_or("no Redis")?.url("");
    let mut server = env.many.block_on(Server::open(&url, &hash))?;
    let mut fill = |count| env.many.block_on(server.fill(count, spec.size));
    let fields: Vec<Vec<String>> = match spec.workload {
        Workload::Hello | Workload::HelloByAlter => vec![fill(2)?],
        Workload::OneRef => vec![fill(1)?],
        Workload::Swap => vec![fill(1)?; spec.tasks],
        Workload::Disjoint => fill(spec.tasks * 2)?.chunks(2).map(<[_]>::to_vec).collect(),
        Workload::Contended => vec![fill(2)?; spec.tasks],
        Workload::ReadOnly => vec![fill(10)?],
        Workload::ReadMostly
        | Workload::ReadMostlyQuiet
        | Workload::Commute
        | Workload::Long
        | Workload::Processes
        | Workload::Lock
        | Workload::LockProcesses
        | Workload::Mixed => {
            return Ok(None);
        }
    };
    let env = Rc::clone(env);
    Ok(Some(Box::new(move |pace| {
        let tally = Arc::new(Tally::default());
        let reads = spec.workload == Workload::ReadOnly;
        let run = |task: usize, meter| {
            let (server, fields, tally) = (server.clone(), fields[task].clone(), Arc::clone(&tally));
            async move {
                if reads { read_all(server, fields, meter).await } else { alter(server, fields, tally, meter).await }
            }
        };
        let mut round = env.many.block_on(tasks(fields.len(), pace, run))?;
        if !reads {
            let attempts = tally.attempts.load(Ordering::Relaxed) as f64 / tally.done.load(Ordering::Relaxed) as f64;
            round.effort = Some(Effort { attempts, worst: None, requests: Some(2.0 * attempts) });
        }
        Ok(round)
    })))
}

async fn read_all(mut server: Server, fields: Vec<String>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        std::hint::black_box(server.read(&fields).await?);
    }
    Ok(meter)
}

async fn alter(mut server: Server, fields: Vec<String>, tally: Arc<Tally>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        loop {
            tally.attempts.fetch_add(1, Ordering::Relaxed);
            let cells = server.read(&fields).await?;
            if server.update(&fields, &cells).await? {
                tally.done.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
    Ok(meter)
}
