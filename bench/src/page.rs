//! Writes `docs/performance.md` and its plots.

use std::fmt::Write;
use std::path::Path;

use crate::args::Args;
use crate::measure::Failure;
use crate::report::{COLUMNS, Report, Row, bytes, cells, rate, time};
use crate::spec::{Store, Workload};
use crate::svg::{Bar, Group, chart};
use crate::targets::{Target, title};

const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Replaces what is between the markers of the page, and keeps what people wrote around it.
pub(crate) fn write(args: &Args, report: &Report, targets: &[Target]) -> Result<(), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the bench lies in the workspace")?;
    let page = std::fs::read_to_string(root.join(PAGE))?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no marker where figures begin")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no marker where figures end")?;
    let plots = root.join(PLOTS);
    std::fs::create_dir_all(&plots)?;
    let mut links = Vec::new();
    for store in Store::ALL {
        for (name, alone) in [("time", true), ("throughput", false)] {
            let groups = groups(report, store, alone);
            if groups.is_empty() {
                continue;
            }
            let file = format!("{}-{name}.svg", store.name());
            let (what, subtitle) = if alone {
                ("one task", "Time of an operation, as a multiple of the floor's: shorter is better.")
            } else {
                ("many tasks", "Operations in a second, as a multiple of the floor's: longer is better.")
            };
            let heading = format!("{}: {what}", title(store));
            std::fs::write(plots.join(&file), chart(&heading, subtitle, &groups))?;
            links.push(format!("![{heading}](performance/{file})"));
        }
    }
    let figures = figures(args, report, targets, &links);
    std::fs::write(root.join(PAGE), format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))?;
    Ok(())
}

fn groups(report: &Report, store: Store, alone: bool) -> Vec<Group> {
    let rows = || report.rows.iter().filter(|row| row.spec.store == store && row.failed.is_none());
    let wanted =
        |row: &&Row| row.name == "avout" && alone == (row.tasks == 1 && row.spec.workload != Workload::Processes);
    let group = |ours: &Row| {
        let all: Vec<&Row> = rows().filter(|row| row.spec == ours.spec).collect();
        let floor = all.iter().find(|row| row.name == store.floor())?;
        let bar = |row: &&Row| {
            let ratio = if alone { row.time_to(floor) } else { row.throughput_to(floor) };
            let text = if alone { time(1e9 / row.per_second) } else { format!("{}/s", rate(row.per_second)) };
            ratio.map(|value| Bar { name: row.name, value, text: format!("{value:.2}  ({text})") })
        };
        let cells = cells(ours);
        let label = if alone { format!("{}, {}", cells[0], cells[2]) } else { format!("{}, {}", cells[0], cells[1]) };
        Some(Group { label, bars: all.iter().filter_map(bar).collect() })
    };
    rows().filter(wanted).filter_map(group).collect()
}

fn figures(args: &Args, report: &Report, targets: &[Target], links: &[String]) -> String {
    let mut out = String::new();
    let (rounds, length) = args.rounds();
    let _ = writeln!(out, "Taken on {}, in {rounds} rounds of {} each.\n", machine(), time(length.as_nanos() as f64),);
    let _ = writeln!(out, "### Targets\n\n| target | limit | measured | |\n| --- | --- | ---: | --- |");
    for target in targets {
        let _ = writeln!(out, "| {} | {} | {} | {} |", target.what, target.limit(), target.figure(), target.verdict());
    }
    let _ = writeln!(out, "\n{}", links.join("\n\n"));
    for store in Store::ALL {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.spec.store == store).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n### {}\n\n| {} |", title(store), COLUMNS.join(" | "));
        let _ = writeln!(out, "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        for row in rows {
            let _ = writeln!(out, "| {} |", cells(row).join(" | "));
        }
    }
    if !report.growth.is_empty() {
        let _ = writeln!(
            out,
            "\n### Growth\n\n| store | transactions | file | log | memory |\n| --- | ---: | ---: | ---: | ---: |"
        );
        for size in &report.growth {
            let (file, log, memory) = (bytes(size.file), bytes(size.log), bytes(size.memory));
            let _ = writeln!(out, "| {} | {} | {file} | {log} | {memory} |", size.store, size.transactions);
        }
    }
    out
}

/// The processor and how many of it there are.
fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    format!("{processors} processors ({model}, {})", std::env::consts::OS)
}
