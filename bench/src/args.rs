//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Measures avout against code that does the same by hand.

  --store NAME,...      only these stores: local, sql, zk, redis, mongo
  --only NAME,...       only these workloads: hello, one-ref, disjoint, contended, read-only, read-mostly, swap,
                        commute, long, processes, lock, growth, mixed (of all stores: counts as zk's)
  --quick               short rounds: shows that it works, the figures are rough
  --seconds N           how long each row is measured, in all its rounds (5; with --quick 0.6)
  --dir PATH            where database files go (a new directory in the current one, removed at the end)
  --json                print the rows as JSON
  --write               write docs/performance.md and its plots
";

/// What to measure and what to do with it.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) stores: Vec<String>,
    pub(crate) only: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) seconds: Option<f64>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) write: bool,
    pub(crate) help: bool,
}

impl Args {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        let mut args = Self {
            stores: Vec::new(),
            only: Vec::new(),
            quick: false,
            seconds: None,
            dir: None,
            json: false,
            write: false,
            help: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("store") => args.stores = list(&parser.value()?.string()?),
                Long("only") => args.only = list(&parser.value()?.string()?),
                Long("quick") => args.quick = true,
                Long("seconds") => args.seconds = Some(parser.value()?.parse()?),
                Long("dir") => args.dir = Some(parser.value()?.into()),
                Long("json") => args.json = true,
                Long("write") => args.write = true,
                Long("help") | Short('h') => args.help = true,
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(args)
    }

    /// How many rounds a row is measured in, and how long each is.
    pub(crate) fn rounds(&self) -> (usize, Duration) {
        let (rounds, seconds) = if self.quick { (3, 0.6) } else { (5, 5.0) };
        let seconds = self.seconds.unwrap_or(seconds);
        (rounds, Duration::from_secs_f64(seconds / rounds as f64))
    }

    pub(crate) fn wants(&self, store: &str, workload: &str) -> bool {
        let among = |list: &[String], name| list.is_empty() || list.iter().any(|wanted| wanted == name);
        among(&self.stores, store) && among(&self.only, workload)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}
