//! Several processes on one SQLite file, or over one lock: this program runs itself as a child.
//!
//! A child opens the store, says that it is ready, and then runs one round for each line on its standard input, which is the length of
//! the round in microseconds. It answers with a line of JSON.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::env::{Env, workers};
use crate::floor_sql::{self, Group};
use crate::library;
use crate::measure::{Effort, Failure, Pace, Round, Run};
use crate::spec::Spec;
use crate::values::Small;

/// The first argument of a child.
pub(crate) const CHILD: &str = "child";

const TASKS: usize = 8;
const READY: &str = "ready";

/// What a child does instead if it is told so in the place of a contender's name: its path is then a URL.
const LOCK: &str = "lock";

#[derive(Serialize, Deserialize)]
struct Answer {
    counts: Vec<(u64, u64)>,
    count: f64,
    time: Duration,
    attempts: Option<f64>,
    requests: Option<f64>,
}

/// The library and the floor, each with processes of its own on a file of its own.
pub(crate) fn contenders(env: &Rc<Env>, spec: Spec) -> Result<Vec<(&'static str, Run)>, Failure> {
    ["avout", "rusqlite"]
        .into_iter()
        .map(|name| {
            let path = env.new_file();
            let mut children = (0..spec.tasks)
                .map(|index| Process::start(&[name, &path.display().to_string(), &index.to_string()]))
                .collect::<Result<Vec<_>, _>>()?;
            let run: Run = Box::new(move |pace| round(&mut children, pace));
            Ok((name, run))
        })
        .collect()
}

/// Processes that contend for one lock.
pub(crate) fn lock(env: &Rc<Env>, spec: Spec) -> Result<Run, Failure> {
    let url = library::new_url(env, spec.store)?;
    let mut children = (0..spec.tasks).map(|_| Process::start(&[LOCK, &url, ""])).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |pace| round(&mut children, pace)))
}

fn round(children: &mut [Process], pace: Pace) -> Result<Round, Failure> {
    for child in &mut *children {
        child.tell(&pace.time.as_micros().to_string())?;
    }
    let answers = children
        .iter_mut()
        .map(|child| Ok(serde_json::from_str(&child.hear()?)?))
        .collect::<Result<Vec<Answer>, Failure>>()?;
    let rounds = answers.iter().map(|answer| Round::from_counts(&answer.counts, answer.count, answer.time));
    let mut all = rounds.reduce(|all, round| all.beside(&round)).ok_or("there is no process")?;
    let mean = |figure: fn(&Answer) -> Option<f64>| {
        let sum: Option<f64> = answers.iter().map(|answer| Some(answer.count * figure(answer)?)).sum();
        sum.map(|sum| sum / all.count)
    };
    let requests = mean(|answer| answer.requests);
    all.effort = mean(|answer| answer.attempts).map(|attempts| Effort { attempts, worst: None, requests });
    Ok(all)
}

/// A child that is running. It ends when its standard input does.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a child and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("the output of a child is a pipe")?);
        let mut process = Self { child, input, output };
        match process.hear()?.trim() {
            READY => Ok(process),
            other => Err(format!("a child process is not ready: {other}").into()),
        }
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input.as_mut().ok_or("the input of a child is a pipe")?, "{line}")?;
        Ok(())
    }

    pub(crate) fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err("a child process ended".into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Answers each line of the input, until it ends.
pub(crate) fn serve<T: Serialize>(mut answer: impl FnMut(&str) -> Result<T, Failure>) -> Result<(), Failure> {
    println!("{READY}");
    for line in stdin().lines() {
        println!("{}", serde_json::to_string(&answer(line?.trim())?)?);
    }
    Ok(())
}

/// What a child of [`contenders`] or [`lock`] does.
pub(crate) fn child(name: &str, path: &Path, index: &str) -> Result<(), Failure> {
    let runtime = workers()?;
    if name == LOCK {
        let stm = runtime.block_on(avout::connect(path.to_str().ok_or("the URL is a text")?))?;
        let lock = stm.lock("/lock")?;
        return serve(|line| runtime.block_on(library::lock_in(&stm, &lock, pace(line)?)).map(answer));
    }
    let folder = format!("/{index}");
    if name == "avout" {
        let stm = runtime.block_on(avout::connect(library::url(path)))?;
        let refs = runtime.block_on(library::refs::<Small>(&stm, &folder, TASKS * 2, 16))?;
        serve(|line| runtime.block_on(library::disjoint_in(&stm, &refs, pace(line)?)).map(answer))
    } else {
        let mut connection = floor_sql::connect(path)?;
        let keys = floor_sql::fill(&mut connection, &folder, TASKS * 2, 16)?;
        let keys: Vec<Vec<String>> = keys.chunks(2).map(<[_]>::to_vec).collect();
        let group = Group::new(path, connection);
        serve(|line| runtime.block_on(group.alter(&keys, pace(line)?)).map(answer))
    }
}

fn pace(line: &str) -> Result<Pace, Failure> {
    Ok(Pace { time: Duration::from_micros(line.parse()?), stride: 1, fair: false })
}

fn answer(round: Round) -> Answer {
    Answer {
        counts: round.counts(),
        count: round.count,
        time: round.time,
        attempts: round.effort.map(|effort| effort.attempts),
        requests: round.effort.and_then(|effort| effort.requests),
    }
}
