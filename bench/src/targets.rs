//! What avout sets itself, and whether it holds.

use crate::mixed;
use crate::report::{Report, Row, bytes, to_parts};
use crate::spec::{Spec, Store, Workload};

/// One goal. `measured` is `None` where its rows were not run, or failed.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) limit: Limit,
    pub(crate) measured: Option<f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// `None`: not measured.
    pub(crate) fn passed(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.limit {
            Limit::AtLeast(least) => measured >= least,
            Limit::AtMost(most) => measured <= most,
        })
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.passed() {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "not measured",
        }
    }

    pub(crate) fn limit(&self) -> String {
        match self.limit {
            Limit::AtLeast(least) => format!("at least {least}"),
            Limit::AtMost(most) => format!("at most {most}"),
        }
    }

    pub(crate) fn figure(&self) -> String {
        self.measured.map_or_else(String::new, |measured| format!("{measured:.2}"))
    }
}

const SIZE: usize = 16;

/// All targets, with what was measured.
pub(crate) fn targets(report: &Report) -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    use Store::{Local, Mongo, Redis, Sql, Zk};
    let row = |store, workload, tasks, name| report.find(store, workload, tasks, SIZE, name);
    let ours = |store, workload, tasks| row(store, workload, tasks, "avout");
    let to = |ratio: fn(&Row, &Row) -> Option<f64>, a: Option<&Row>, b: Option<&Row>| ratio(a?, b?);
    let (time, throughput) = (Row::time_to as fn(&Row, &Row) -> _, Row::throughput_to as fn(&Row, &Row) -> _);
    let by_hand = |store, workload, tasks| row(store, workload, tasks, Store::floor(store));

    let mut targets = Vec::new();
    let mut target = |what: &str, limit, measured| targets.push(Target { what: what.to_owned(), limit, measured });
    target(
        "SQLite, hello: time, as a multiple of the same by hand",
        AtMost(1.3),
        to(time, ours(Sql, Workload::Hello, 1), by_hand(Sql, Workload::Hello, 1)),
    );
    target(
        "SQLite, 64 disjoint tasks: throughput, as a part of a group commit by hand",
        AtLeast(0.6),
        to(throughput, ours(Sql, Workload::Disjoint, 64), by_hand(Sql, Workload::Disjoint, 64)),
    );
    target(
        "Redis, hello: time, as a multiple of the same by hand",
        AtMost(1.4),
        to(time, ours(Redis, Workload::Hello, 1), by_hand(Redis, Workload::Hello, 1)),
    );
    target(
        "Redis, 64 disjoint tasks: throughput, as a part of the bare script's on one connection",
        AtLeast(0.6),
        to(throughput, ours(Redis, Workload::Disjoint, 64), by_hand(Redis, Workload::Disjoint, 64)),
    );
    target(
        "MongoDB, hello: time, as a multiple of the same by hand",
        AtMost(1.3),
        to(time, ours(Mongo, Workload::Hello, 1), by_hand(Mongo, Workload::Hello, 1)),
    );
    target(
        "MongoDB, 64 disjoint tasks: throughput, as a part of the same by hand",
        AtLeast(0.7),
        to(throughput, ours(Mongo, Workload::Disjoint, 64), by_hand(Mongo, Workload::Disjoint, 64)),
    );
    for processes in [2, 4] {
        target(
            &format!("SQLite, {processes} processes: throughput, as a part of the same by hand"),
            AtLeast(0.6),
            to(throughput, ours(Sql, Workload::Processes, processes), by_hand(Sql, Workload::Processes, processes)),
        );
    }
    target(
        "SQLite: readers' p99 beside a busy writer, as a multiple of that without",
        AtMost(2.0),
        to(Row::p99_to, ours(Sql, Workload::ReadMostly, 16), ours(Sql, Workload::ReadMostlyQuiet, 15)),
    );
    target(
        "local, hello: time, as a multiple of fast-stm's",
        AtMost(8.0),
        to(time, ours(Local, Workload::Hello, 1), by_hand(Local, Workload::Hello, 1)),
    );
    for (workload, tasks, what) in
        [(Workload::Contended, 8, "8 contended tasks"), (Workload::ReadMostly, 16, "15 readers beside a writer")]
    {
        for name in ["fast-stm", "stm"] {
            target(
                &format!("local, {what}: throughput, as a multiple of {name}'s"),
                AtLeast(1.0),
                to(throughput, ours(Local, workload, tasks), row(Local, workload, tasks, name)),
            );
        }
    }
    target(
        "SQLite, 64 tasks that swap: throughput, as a multiple of one's",
        AtLeast(10.0),
        to(throughput, ours(Sql, Workload::Swap, 64), ours(Sql, Workload::Swap, 1)),
    );
    target(
        "ZooKeeper, hello: time, as a multiple of one read and one multi by hand",
        AtMost(1.5),
        to(time, ours(Zk, Workload::Hello, 1), by_hand(Zk, Workload::Hello, 1)),
    );
    target(
        "ZooKeeper, 64 disjoint tasks: throughput, as a part of that by hand",
        AtLeast(0.5),
        to(throughput, ours(Zk, Workload::Disjoint, 64), by_hand(Zk, Workload::Disjoint, 64)),
    );
    target(
        "ZooKeeper, 8 contended tasks: transactions in a second (Avout made 4.3)",
        AtLeast(860.0),
        ours(Zk, Workload::Contended, 8).map(|row| row.per_second),
    );
    for size in mixed::SIZES {
        let spec = Spec { store: Zk, workload: Workload::Mixed, tasks: 1, size };
        for (name, how, parts) in [
            (mixed::BLIND, "set without a read", "the slowest store's write and the commit"),
            ("avout", "read and set", "the read, the slowest store's write and the commit"),
        ] {
            target(
                &format!("five stores, {}, {how}: time, as a multiple of that of {parts}", bytes(size as u64)),
                AtMost(1.3),
                to_parts(&report.rows, spec, name),
            );
        }
    }
    for store in Store::ALL {
        target(
            &format!("{}, 64 contended tasks: throughput, as a multiple of that of 8", title(store)),
            AtLeast(1.0),
            to(throughput, ours(store, Workload::Contended, 64), ours(store, Workload::Contended, 8)),
        );
    }
    for store in Store::EMBEDDED {
        let worst = ours(store, Workload::Long, 9).and_then(|row| {
            let commits = row.attempts.is_some_and(f64::is_finite);
            row.worst_attempts.map(|worst| if commits { f64::from(worst) } else { f64::INFINITY })
        });
        target(
            &format!("{}, 50 refs beside 8 tasks: the most attempts until a commit", title(store)),
            AtMost(20.0),
            worst,
        );
    }
    for store in Store::EMBEDDED {
        let sizes: Vec<_> = report.growth.iter().filter(|size| size.store == store.name()).collect();
        let grown = |figure: fn(&crate::growth::Size) -> u64| {
            let (first, last) = (figure(sizes.first()?), figure(sizes.last()?));
            (first > 0).then_some(last as f64 / first as f64)
        };
        let what =
            |what| format!("{}, growth: {what} after all transactions, as a multiple of that after few", title(store));
        if store == Sql {
            target(&what("file and log"), AtMost(1.2), grown(|size| size.file + size.log));
        }
        target(&what("memory"), AtMost(1.2), grown(|size| size.memory));
    }
    targets
}

/// The name of a store in a text.
pub(crate) fn title(store: Store) -> &'static str {
    match store {
        Store::Local => "local",
        Store::Mongo => "MongoDB",
        Store::Sql => "SQLite",
        Store::Zk => "ZooKeeper",
        Store::Redis => "Redis",
    }
}

/// The targets for a terminal.
pub(crate) fn text(targets: &[Target]) -> String {
    let line = |target: &Target| {
        format!("{:<12}  {:>8}  {:<12}  {}\n", target.verdict(), target.figure(), target.limit(), target.what)
    };
    format!("\ntargets\n{}", targets.iter().map(line).collect::<String>())
}
