//! The workloads by hand: ZooKeeper with the client that avout uses, and nothing around it.
//!
//! This is what it costs at least: one request that reads the values, with nothing that makes it current, and one `multi` that
//! writes as many znodes as avout's commit does. Each task has its own values, so nothing is compared and nothing is lost.

use std::rc::Rc;
use std::sync::Arc;

use avout::zk::zookeeper::{Acls, Client, CreateMode, MultiReadResult};

use crate::env::Env;
use crate::measure::{Failure, Meter, Run, tasks};
use crate::spec::{Spec, Workload};
use crate::values::{blob, bump_blob};

/// Requests of many tasks are spread over as many connections as avout has.
const CONNECTIONS: usize = 2;

/// What runs a spec. `None` where doing it by hand would be another workload.
pub(crate) fn run(env: &Rc<Env>, spec: Spec) -> Result<Option<Run>, Failure> {
    let (tasks, values) = match spec.workload {
        Workload::Hello | Workload::Disjoint => (spec.tasks, 2),
        Workload::OneRef => (spec.tasks, 1),
        Workload::ReadOnly => (spec.tasks, 10),
        _ => return Ok(None),
    };
    let zk = env.zookeeper()?.ok_or("no ZooKeeper")?;
    let all = env.many.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS.min(tasks) {
            clients.push(Arc::new(Client::connect(&zk.address()).await?));
        }
        let mut all = Vec::new();
        for task in 0..tasks {
            all.push(Task::new(&clients[task % clients.len()], &env.new_name(), values, spec.size).await?);
        }
        Ok::<_, Failure>(all)
    })?;
    let (env, writes) = (Rc::clone(env), spec.workload != Workload::ReadOnly);
    Ok(Some(Box::new(move |pace| {
        env.many.block_on(self::tasks(tasks, pace, |index, meter| all[index].clone().run(writes, meter)))
    })))
}

/// A task's own znodes: its values, and as many more as a commit of avout writes (its slot, the clock) and checks (the floor).
#[derive(Clone)]
struct Task {
    client: Arc<Client>,
    values: Vec<String>,
    slot: String,
    clock: String,
    floor: String,
}

impl Task {
    async fn new(client: &Arc<Client>, name: &str, count: usize, size: usize) -> Result<Self, Failure> {
        let path = |part: &str| format!("/{name}-{part}");
        let values = (0..count).map(|index| path(&index.to_string())).collect();
        let task =
            Self { client: Arc::clone(client), values, slot: path("slot"), clock: path("clock"), floor: path("floor") };
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        for path in &task.values {
            client.create(path, &blob(size), &options).await?;
        }
        for path in [&task.slot, &task.clock, &task.floor] {
            client.create(path, &[0; 60], &options).await?;
        }
        Ok(task)
    }

    async fn run(self, writes: bool, mut meter: Meter) -> Result<Meter, Failure> {
        while meter.go_in_turn().await {
            let values = self.read().await?;
            if writes {
                self.write(values).await?;
            } else {
                std::hint::black_box(values);
            }
        }
        Ok(meter)
    }

    async fn read(&self) -> Result<Vec<(Vec<u8>, i32)>, Failure> {
        if let [path] = &self.values[..] {
            let (data, stat) = self.client.get_data(path).await?;
            return Ok(vec![(data, stat.version)]);
        }
        let mut reader = self.client.new_multi_reader();
        self.values.iter().try_for_each(|path| reader.add_get_data(path))?;
        let values = reader.commit().await?.into_iter().map(|value| match value {
            MultiReadResult::Data { data, stat } => Ok((data, stat.version)),
            other => Err(format!("{other:?} was read").into()),
        });
        values.collect()
    }

    async fn write(&self, values: Vec<(Vec<u8>, i32)>) -> Result<(), Failure> {
        let mut writer = self.client.new_multi_writer();
        writer.add_check_version(&self.floor, 0)?;
        for (path, (mut data, version)) in self.values.iter().zip(values) {
            bump_blob(&mut data);
            writer.add_set_data(path, &data, Some(version))?;
        }
        writer.add_set_data(&self.slot, &[0; 60], None)?;
        writer.add_set_data(&self.clock, b"", None)?;
        writer.commit().await?;
        Ok(())
    }
}
