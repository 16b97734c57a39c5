//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use crate::failure::Failure;

pub(crate) const HELP: &str = "\
Applies a file of transfers between accounts, each exactly once.

ledger [OPTIONS]
  --input FILE     the transfers, as id,from,to,amount (default: the file beside this example)
  --url URL        the database (default: sqlite:ledger.db)
  --processes M    how many processes (default: 1)
  --workers N      how many tasks in each of them (default: 1)
  --accounts A     how many accounts the bank has, named A0, A1 and so on (default: 100)
  --opening B      what each account begins with (default: 1000)
  --quiet          do not list the malformed lines
  --json           print the totals and balances as JSON

ledger --child K [OPTIONS]
                   do the work of process K of M, and print what was done as JSON

ledger --generate LINES [--seed S] [--accounts A]
                   write a file of transfers to the standard output";

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ledger/transfers.csv");

pub(crate) struct Args {
    pub(crate) input: PathBuf,
    pub(crate) url: String,
    pub(crate) processes: usize,
    pub(crate) workers: usize,
    pub(crate) accounts: usize,
    pub(crate) opening: i64,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    pub(crate) child: Option<usize>,
    pub(crate) generate: Option<usize>,
    pub(crate) seed: u64,
}

impl Args {
    /// `None`: the user asks for help.
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, Failure> {
        let mut args = Self {
            input: SHIPPED.into(),
            url: "sqlite:ledger.db".to_owned(),
            processes: 1,
            workers: 1,
            accounts: 100,
            opening: 1000,
            quiet: false,
            json: false,
            child: None,
            generate: None,
            seed: 7,
        };
        while let Some(name) = given.next() {
            let value = &mut given;
            match name.as_str() {
                "--input" => args.input = parsed(&name, value)?,
                "--url" => args.url = parsed(&name, value)?,
                "--processes" => args.processes = parsed(&name, value)?,
                "--workers" => args.workers = parsed(&name, value)?,
                "--accounts" => args.accounts = parsed(&name, value)?,
                "--opening" => args.opening = parsed(&name, value)?,
                "--child" => args.child = Some(parsed(&name, value)?),
                "--generate" => args.generate = Some(parsed(&name, value)?),
                "--seed" => args.seed = parsed(&name, value)?,
                "--quiet" => args.quiet = true,
                "--json" => args.json = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{name} is no option; see --help").into()),
            }
        }
        if args.processes == 0 || args.workers == 0 || args.accounts < 2 || args.opening < 0 {
            return Err("it takes a process, a worker, two accounts and an opening balance that is not negative".into());
        }
        if args.child.is_some_and(|child| child >= args.processes) {
            return Err("--child is less than --processes".into());
        }
        if args.processes > 1 && args.url.starts_with("mem:") {
            return Err("mem: is the memory of one process; use a store that several can share".into());
        }
        Ok(Some(args))
    }
}

fn parsed<T: FromStr>(name: &str, given: &mut impl Iterator<Item = String>) -> Result<T, Failure> {
    let value = given.next().ok_or_else(|| format!("{name} takes a value; see --help"))?;
    value.parse().map_err(|_| format!("{name} does not take {value:?}; see --help").into())
}
