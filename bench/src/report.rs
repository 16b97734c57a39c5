//! Rows of results, and how they read.

use std::fmt::Write;

use serde::Serialize;

use crate::contest::Contender;
use crate::growth::Size;
use crate::measure::{Failure, Round};
use crate::mixed;
use crate::spec::{Spec, Store, Workload};

/// All that was measured.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) growth: Vec<Size>,
}

/// What one contender made of one workload: medians of its rounds.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) store: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) tasks: usize,
    pub(crate) size: usize,
    pub(crate) name: &'static str,
    /// Nanoseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) per_second: f64,
    pub(crate) attempts: Option<f64>,
    pub(crate) worst_attempts: Option<u32>,
    pub(crate) requests: Option<f64>,
    pub(crate) beside_per_second: Option<f64>,
    pub(crate) ratio: Option<Ratio>,
    pub(crate) failed: Option<String>,
    #[serde(skip)]
    pub(crate) spec: Spec,
    #[serde(skip)]
    rounds: Vec<Summary>,
}

/// How a row compares with the floor, as the median of the ratios of rounds that ran one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ratio {
    /// Of one task: its time, as a multiple of the floor's. Less is better.
    Time(f64),
    /// Of several: their commits in a second, as a part of the floor's. More is better.
    Throughput(f64),
}

#[derive(Clone, Copy)]
struct Summary {
    p50: f64,
    p99: f64,
    per_second: f64,
    beside: Option<f64>,
    attempts: Option<f64>,
    requests: Option<f64>,
}

impl Row {
    pub(crate) fn new(contender: &Contender, result: Result<Vec<Round>, Failure>) -> Self {
        let spec = contender.spec;
        let (rounds, failed) = match result {
            Ok(rounds) => (rounds, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let worst_attempts = rounds.iter().filter_map(|round| round.effort?.worst).max();
        let rounds: Vec<Summary> = rounds
            .iter()
            .map(|round| Summary {
                p50: round.quantile(0.5),
                p99: round.quantile(0.99),
                per_second: round.per_second(),
                beside: round.beside,
                attempts: round.effort.map(|effort| effort.attempts),
                requests: round.effort.and_then(|effort| effort.requests),
            })
            .collect();
        let some = |field: fn(&Summary) -> Option<f64>| median(rounds.iter().filter_map(field).collect());
        let all = |field: fn(&Summary) -> f64| median(rounds.iter().map(field).collect()).unwrap_or(f64::NAN);
        Self {
            store: spec.store.name(),
            workload: spec.workload.name(),
            tasks: spec.tasks,
            size: spec.size,
            name: contender.name,
            p50: all(|round| round.p50),
            p99: all(|round| round.p99),
            per_second: all(|round| round.per_second),
            attempts: some(|round| round.attempts),
            worst_attempts,
            requests: some(|round| round.requests),
            beside_per_second: some(|round| round.beside),
            ratio: None,
            failed,
            spec,
            rounds,
        }
    }

    /// The throughput of this row as a multiple of another's.
    pub(crate) fn throughput_to(&self, other: &Self) -> Option<f64> {
        self.ratio_to(other, |round| round.per_second)
    }

    /// The time of an operation as a multiple of another row's, all that happens between operations included.
    pub(crate) fn time_to(&self, other: &Self) -> Option<f64> {
        self.ratio_to(other, |round| 1.0 / round.per_second)
    }

    pub(crate) fn p99_to(&self, other: &Self) -> Option<f64> {
        self.ratio_to(other, |round| round.p99)
    }

    fn ratio_to(&self, other: &Self, figure: fn(&Summary) -> f64) -> Option<f64> {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| figure(a) / figure(b)).collect())
    }
}

/// The p50 of a mixed transaction, as a multiple of that of the slowest store's write, the commit, and the read if it makes one: the
/// median of the ratios of neighbouring rounds.
pub(crate) fn to_parts(rows: &[Row], spec: Spec, name: &str) -> Option<f64> {
    let of = |name: &str| rows.iter().find(|row| row.spec == spec && row.name == name);
    let requests = if name == mixed::BLIND { &["commit"][..] } else { &["read", "commit"] };
    let (all, requests) = (of(name)?, requests.iter().map(|name| of(name)).collect::<Option<Vec<_>>>()?);
    let writes: Vec<&Row> = rows.iter().filter(|row| row.spec == spec && row.name.starts_with("write: ")).collect();
    let ratio = |(n, round): (usize, &Summary)| {
        let requests = requests.iter().map(|row| Some(row.rounds.get(n)?.p50)).sum::<Option<f64>>()?;
        let writes = writes.iter().map(|row| Some(row.rounds.get(n)?.p50)).collect::<Option<Vec<_>>>()?;
        Some(round.p50 / (writes.into_iter().reduce(f64::max)? + requests))
    };
    median(all.rounds.iter().enumerate().map(ratio).collect::<Option<_>>()?)
}

/// The upper one of two in the middle; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Report {
    /// Takes in the rows of one contest, and compares those of avout with the floor's.
    pub(crate) fn add(&mut self, mut rows: Vec<Row>) {
        let ratios: Vec<Option<Ratio>> = rows.iter().map(|row| compare(row, &rows)).collect();
        rows.iter_mut().zip(ratios).for_each(|(row, ratio)| row.ratio = ratio);
        self.rows.extend(rows);
    }

    pub(crate) fn find(&self, store: Store, workload: Workload, tasks: usize, size: usize, name: &str) -> Option<&Row> {
        let spec = Spec { store, workload, tasks, size };
        self.rows.iter().find(|row| row.spec == spec && row.name == name)
    }
}

fn compare(row: &Row, rows: &[Row]) -> Option<Ratio> {
    if row.spec.workload == Workload::Mixed {
        let whole = ["avout", mixed::BLIND, "by hand"].contains(&row.name);
        return whole.then(|| to_parts(rows, row.spec, row.name)).flatten().map(Ratio::Time);
    }
    let floor = row.spec.store.floor();
    if row.name == floor {
        return None;
    }
    let floor = rows.iter().find(|other| other.spec == row.spec && other.name == floor)?;
    if row.tasks == 1 && row.spec.workload != Workload::Processes {
        row.time_to(floor).map(Ratio::Time)
    } else {
        row.throughput_to(floor).map(Ratio::Throughput)
    }
}

/// The columns of the table.
pub(crate) const COLUMNS: [&str; 10] =
    ["workload", "tasks", "value", "by", "p50", "p99", "per second", "attempts", "requests", "to the floor"];

/// One row as texts, in the order of [`COLUMNS`].
pub(crate) fn cells(row: &Row) -> [String; 10] {
    let tasks = match row.spec.workload {
        Workload::Processes => format!("{} x 8", row.tasks),
        Workload::LockProcesses => format!("{} x 1", row.tasks),
        Workload::ReadMostly => "1 + 15".to_owned(),
        Workload::Long => "1 + 8".to_owned(),
        _ => row.tasks.to_string(),
    };
    let number = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => format!("{value:.2}"),
        Some(_) => "no commit".to_owned(),
        None => String::new(),
    };
    let mut attempts = number(row.attempts);
    if let Some(worst) = row.worst_attempts {
        let _ = write!(attempts, ", at most {worst}");
    }
    let mut per_second = rate(row.per_second);
    if let Some(beside) = row.beside_per_second {
        let _ = write!(per_second, ", beside {}", rate(beside));
    }
    let ratio = match (&row.failed, row.ratio) {
        (Some(failed), _) => format!("failed: {failed}"),
        (None, Some(Ratio::Time(ratio))) => format!("{ratio:.2} x time"),
        (None, Some(Ratio::Throughput(ratio))) => format!("{ratio:.2} x throughput"),
        (None, None) => String::new(),
    };
    [
        row.workload.to_owned(),
        tasks,
        bytes(row.size as u64),
        row.name.to_owned(),
        time(row.p50),
        time(row.p99),
        per_second,
        attempts,
        number(row.requests),
        ratio,
    ]
}

/// The table for a terminal, a part for each store.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    for store in Store::ALL {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.spec.store == store).map(cells).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{}", store.name());
        let header = COLUMNS.map(str::to_owned);
        let width =
            |column: usize| rows.iter().chain([&header]).map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        for cells in [&header].into_iter().chain(&rows) {
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                let left = matches!(column, 0 | 3);
                let _ = if left { write!(line, "{cell}{pad}  ") } else { write!(line, "{pad}{cell}  ") };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    for size in &report.growth {
        let _ = writeln!(out, "{}", growth_line(size));
    }
    out
}

fn growth_line(size: &Size) -> String {
    format!(
        "growth, {}: after {} transactions file {}, log {}, memory {} ({:.1} s)",
        size.store,
        size.transactions,
        bytes(size.file),
        bytes(size.log),
        bytes(size.memory),
        size.seconds,
    )
}

/// Nanoseconds, to three digits.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        t if t.is_nan() => String::new(),
        t if t < 1e3 => format!("{t:.0} ns"),
        t if t < 1e6 => format!("{} µs", digits(t / 1e3)),
        t if t < 1e9 => format!("{} ms", digits(t / 1e6)),
        t => format!("{} s", digits(t / 1e9)),
    }
}

pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if r.is_nan() => String::new(),
        r if r < 1e3 => format!("{r:.0}"),
        r if r < 1e6 => format!("{} k", digits(r / 1e3)),
        r => format!("{} M", digits(r / 1e6)),
    }
}

fn digits(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
