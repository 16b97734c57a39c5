//! The contenders that do the same work in turn.

use std::time::Duration;

use crate::env::Env;
use crate::measure::{Failure, Pace, Round, Run};
use crate::spec::{Spec, Store, Workload};
use crate::{floor_local, floor_mongo, floor_redis, floor_sql, floor_zk, library, mixed, processes};

/// One who does the work of a spec.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) spec: Spec,
    pub(crate) run: Run,
}

impl Contender {
    fn round(&mut self, time: Duration) -> Result<Round, Failure> {
        (self.run)(Pace { time, stride: self.spec.store.stride(), fair: self.spec.gives_way() })
    }
}

/// The specs that are measured, in groups whose contenders take turns. Those that targets compare are in one group.
pub(crate) fn contests() -> Vec<Vec<Spec>> {
    use Workload::*;
    let mut contests = Vec::new();
    for store in Store::EMBEDDED {
        let spec = |workload, tasks, size| Spec { store, workload, tasks, size };
        for workload in [Hello, OneRef] {
            contests.extend([16, 4 << 10, 256 << 10].map(|size| vec![spec(workload, 1, size)]));
        }
        contests.push(vec![spec(HelloByAlter, 1, 16)]);
        contests.extend([8, 64].map(|tasks| vec![spec(Disjoint, tasks, 16)]));
        contests.push([8, 64].map(|tasks| spec(Contended, tasks, 16)).into());
        contests.push(vec![spec(ReadOnly, 1, 16)]);
        contests.push(vec![spec(ReadMostly, 16, 16), spec(ReadMostlyQuiet, 15, 16)]);
        contests.push([1, 8, 64].map(|tasks| spec(Swap, tasks, 16)).into());
        contests.push(vec![spec(Commute, 64, 16)]);
        contests.push(vec![spec(Long, 9, 16)]);
        contests.push([1, 8].map(|tasks| spec(Lock, tasks, 16)).into());
        if store == Store::Sql {
            contests.extend([1, 2, 4].map(|tasks| vec![spec(Processes, tasks, 16)]));
            contests.push(vec![spec(LockProcesses, 4, 16)]);
        }
    }
    for store in [Store::Zk, Store::Redis, Store::Mongo] {
        let spec = |workload, tasks, size| Spec { store, workload, tasks, size };
        contests.extend([16, 4 << 10].map(|size| vec![spec(Hello, 1, size)]));
        contests.push(vec![spec(OneRef, 1, 16)]);
        contests.extend([8, 64].map(|tasks| vec![spec(Disjoint, tasks, 16)]));
        contests.push([8, 64].map(|tasks| spec(Contended, tasks, 16)).into());
        contests.push(vec![spec(ReadOnly, 1, 16)]);
        contests.push([1, 8].map(|tasks| spec(Swap, tasks, 16)).into());
        contests.push(vec![spec(Commute, 64, 16)]);
        contests.push([1, 8].map(|tasks| spec(Lock, tasks, 16)).into());
        contests.push(vec![spec(LockProcesses, 4, 16)]);
    }
    let spec = |size| Spec { store: Store::Zk, workload: Mixed, tasks: 1, size };
    contests.extend(mixed::SIZES.map(|size| vec![spec(size)]));
    contests
}

/// All who do the work of a spec, avout first.
pub(crate) fn contenders(env: &std::rc::Rc<Env>, spec: Spec) -> Result<Vec<Contender>, Failure> {
    let contender = |(name, run)| Contender { name, spec, run };
    let mut runs: Vec<(&'static str, Run)> = Vec::new();
    match (spec.workload, spec.store) {
        (Workload::Mixed, _) => {
            let mut all = true;
            for store in Store::ALL {
                all &= env.has(store)?;
            }
            if all {
                runs.extend(mixed::contenders(env, spec)?);
            }
        }
        (Workload::LockProcesses, store) if !env.has(store)? => {}
        (Workload::LockProcesses, _) => runs.push(("avout", processes::lock(env, spec)?)),
        (Workload::Processes, _) => runs.extend(processes::contenders(env, spec)?),
        (_, Store::Local) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_local::contenders(spec));
        }
        (_, Store::Sql) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_sql::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Zk) if env.zookeeper()?.is_none() => {}
        (_, Store::Zk) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_zk::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Redis) if env.redis()?.is_none() => {}
        (_, Store::Redis) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_redis::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Mongo) if env.mongo()?.is_none() => {}
        (_, Store::Mongo) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_mongo::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
    }
    Ok(runs.into_iter().map(contender).collect())
}

/// Runs every contender in turn, once to warm up and then `rounds` times.
///
/// They take turns so that what else happens on the machine meets all of them. The result has the rounds of each contender.
pub(crate) fn compete(contenders: &mut [Contender], rounds: usize, time: Duration) -> Vec<Result<Vec<Round>, Failure>> {
    let warm_up = (time / 2).min(Duration::from_millis(500));
    let mut results: Vec<Result<Vec<Round>, Failure>> =
        contenders.iter_mut().map(|contender| contender.round(warm_up).map(|_| Vec::new())).collect();
    for _ in 0..rounds {
        for (contender, result) in contenders.iter_mut().zip(&mut results) {
            if let Ok(done) = result {
                match contender.round(time) {
                    Ok(round) => done.push(round),
                    Err(error) => *result = Err(error),
                }
            }
        }
    }
    results
}
