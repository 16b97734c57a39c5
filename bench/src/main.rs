//! Measures avout against code that does the same by hand.
//!
//! `cargo run --release -p avout-bench` prints a table; `-- --help` lists the options. `docs/performance.md` says how it
//! measures.

mod args;
mod contest;
mod env;
mod floor_local;
mod floor_mongo;
mod floor_redis;
mod floor_sql;
mod floor_zk;
mod growth;
mod library;
mod measure;
mod mixed;
mod page;
mod processes;
mod report;
mod spec;
mod svg;
mod targets;
mod values;

use std::path::Path;
use std::rc::Rc;

use args::Args;
use contest::{compete, contenders, contests};
use env::Env;
use measure::Failure;
use report::{Report, Row};
use spec::{Spec, Store};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [processes::CHILD, growth::GROWTH, path, store] => return growth::child(Path::new(path), store),
        [processes::CHILD, name, path, index] => return processes::child(name, Path::new(path), index),
        _ => {}
    }
    let args = Args::parse()?;
    if args.help {
        print!("{}", args::HELP);
        return Ok(());
    }
    let report = measure(&args)?;
    let targets = targets::targets(&report);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}{}", report::text(&report), targets::text(&targets));
    }
    if args.write {
        page::write(&args, &report, &targets)?;
    }
    Ok(())
}

fn measure(args: &Args) -> Result<Report, Failure> {
    // Not in the system's folder for such files, which may be in memory.
    let parent = args.dir.as_deref().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let dir = tempfile::Builder::new().prefix(".avout-bench-").tempdir_in(parent)?;
    let env = Rc::new(Env::new(dir.path())?);
    let mut report = Report::default();
    let (rounds, time) = args.rounds();
    for specs in contests() {
        let wanted = |spec: &&Spec| args.wants(spec.store.name(), spec.workload.family());
        let specs: Vec<_> = specs.iter().filter(wanted).collect();
        let mut all = Vec::new();
        for spec in specs {
            eprintln!("{}: {}, {} tasks, {} bytes", spec.store.name(), spec.workload.name(), spec.tasks, spec.size);
            all.extend(contenders(&env, *spec)?);
        }
        let results = compete(&mut all, rounds, time);
        report.add(all.iter().zip(results).map(|(contender, result)| Row::new(contender, result)).collect());
    }
    let steps = if args.quick { [2_000, 40_000] } else { [10_000, 1_000_000] };
    for store in Store::EMBEDDED {
        if args.wants(store.name(), growth::GROWTH) {
            eprintln!("{}: growth", store.name());
            report.growth.extend(growth::measure(&env, store, &steps)?);
        }
    }
    Ok(report)
}
