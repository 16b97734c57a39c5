//! The workloads by hand: the MongoDB driver as its documentation shows it, with conditional updates in one transaction.

use std::rc::Rc;

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Database};

use crate::env::Env;
use crate::measure::{Failure, Meter, Run, tasks};
use crate::spec::{Spec, Workload};
use crate::values::{blob, bump_blob};

/// A client like the one that avout makes of a URL, and its documents.
#[derive(Clone)]
struct Cells {
    client: Client,
    database: Database,
    name: String,
}

/// What runs a spec. `None` where doing it by hand would be another workload.
pub(crate) fn run(env: &Rc<Env>, spec: Spec) -> Result<Option<Run>, Failure> {
    let (keys, tasks_) = match spec.workload {
        Workload::Hello => (2, 1),
        Workload::OneRef => (1, 1),
        Workload::Disjoint => (2, spec.tasks),
        _ => return Ok(None),
    };
    let url = env.mongo()?.ok_or("no MongoDB")?.url("bench");
    let cells = env.many.block_on(Cells::new(&url, env.new_name()))?;
    env.many.block_on(cells.fill(keys * tasks_, spec.size))?;
    let env = Rc::clone(env);
    Ok(Some(Box::new(move |pace| {
        let run = |task: usize, meter| cells.clone().alter((task * keys..(task + 1) * keys).collect(), meter);
        env.many.block_on(tasks(tasks_, pace, run))
    })))
}

impl Cells {
    async fn new(url: &str, name: String) -> Result<Self, Failure> {
        let mut options = ClientOptions::parse(url).await?;
        options.max_pool_size.get_or_insert(100);
        let client = Client::with_options(options)?;
        let database = client.database("bench");
        Ok(Self { client, database, name })
    }

    async fn fill(&self, count: usize, size: usize) -> Result<(), Failure> {
        let cell = |key| doc! { "_id": key_of(key), "r": 0_i64, "v": binary(blob(size)) };
        self.database.collection::<Document>(&self.name).insert_many((0..count).map(cell)).await?;
        Ok(())
    }

    async fn alter(self, keys: Vec<usize>, mut meter: Meter) -> Result<Meter, Failure> {
        let ids: Vec<String> = keys.into_iter().map(key_of).collect();
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let mut session = self.client.start_session().causal_consistency(false).await?;
        while meter.go_in_turn().await {
            let find = doc! {
                "find": &self.name, "filter": { "_id": { "$in": &ids } }, "singleBatch": true,
                "readConcern": { "level": "snapshot" },
            };
            let reply = self.database.run_command(find).await?;
            let mut updates = Vec::with_capacity(ids.len());
            for cell in reply.get_document("cursor")?.get_array("firstBatch")? {
                let cell = cell.as_document().ok_or("a document")?;
                let (id, revision) = (cell.get_str("_id")?, cell.get_i64("r")?);
                let mut value = cell.get_binary_generic("v")?.clone();
                bump_blob(&mut value);
                updates.push(Bson::from(doc! {
                    "q": { "_id": id, "r": revision },
                    "u": { "$set": { "r": revision + 1, "v": binary(value) } },
                }));
            }
            let count = i32::try_from(updates.len())?;
            let start = session.start_transaction();
            start.read_concern(ReadConcern::local()).write_concern(majority.clone()).await?;
            let update = doc! { "update": &self.name, "updates": updates };
            let reply = self.database.run_command(update).session(&mut session).await?;
            if reply.get_i32("n")? != count {
                return Err("nobody else writes here".into());
            }
            session.commit_transaction().await?;
        }
        Ok(meter)
    }
}

fn key_of(key: usize) -> String {
    format!("/{key:04}")
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}
