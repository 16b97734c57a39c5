//! The command line.

use std::str::FromStr;

use crate::failure::Failure;

pub(crate) const HELP: &str = "\
Places orders that change stock, quotas and an audit list, each in a store of its own, in one transaction.

mixed [OPTIONS]
  --coordinator URL  who orders the commits (default: mem:)
  --stock URL        where the stock is (default: mem:)
  --quotas URL       where the customers' quotas are (default: mem:)
  --audit URL        where the audit list is (default: sqlite::memory:)
  --tasks N          how many tasks place orders (default: 4)
  --orders N         how many orders each task places (default: 40)
  --opening N        how many pieces of each item there are at first (default: 40)
  --quota N          how many pieces each customer may have at first (default: 30)
  --check            place no orders: look whether the sums agree

Any URL will do for each. With servers, and the feature \"full\":
  --coordinator zk://127.0.0.1:2181/shop --stock 'mongodb://127.0.0.1:27017/shop?replicaSet=rs0' \\
  --quotas redis://127.0.0.1:6379/shop --audit sqlite:audit.db";

pub(crate) struct Args {
    pub(crate) coordinator: String,
    pub(crate) stock: String,
    pub(crate) quotas: String,
    pub(crate) audit: String,
    pub(crate) tasks: usize,
    pub(crate) orders: usize,
    pub(crate) opening: u64,
    pub(crate) quota: u64,
    pub(crate) check: bool,
}

impl Args {
    /// `None`: the user asks for help.
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, Failure> {
        let mut args = Self {
            coordinator: "mem:".to_owned(),
            stock: "mem:".to_owned(),
            quotas: "mem:".to_owned(),
            audit: "sqlite::memory:".to_owned(),
            tasks: 4,
            orders: 40,
            opening: 40,
            quota: 30,
            check: false,
        };
        while let Some(name) = given.next() {
            let value = &mut given;
            match name.as_str() {
                "--coordinator" => args.coordinator = parsed(&name, value)?,
                "--stock" => args.stock = parsed(&name, value)?,
                "--quotas" => args.quotas = parsed(&name, value)?,
                "--audit" => args.audit = parsed(&name, value)?,
                "--tasks" => args.tasks = parsed(&name, value)?,
                "--orders" => args.orders = parsed(&name, value)?,
                "--opening" => args.opening = parsed(&name, value)?,
                "--quota" => args.quota = parsed(&name, value)?,
                "--check" => args.check = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{name} is no option; see --help").into()),
            }
        }
        if !in_memory(&args.coordinator)
            && [&args.stock, &args.quotas, &args.audit].into_iter().any(|url| in_memory(url))
        {
            return Err("a coordinator that outlives this process must not point at values in its memory: \
                        name a store for each of --stock, --quotas and --audit"
                .into());
        }
        Ok(Some(args))
    }
}

fn in_memory(url: &str) -> bool {
    url.starts_with("mem:") || url.starts_with("sqlite::memory:")
}

fn parsed<T: FromStr>(name: &str, given: &mut impl Iterator<Item = String>) -> Result<T, Failure> {
    let value = given.next().ok_or_else(|| format!("{name} takes a value; see --help"))?;
    // A URL may hold a password, and always parses.
    value.parse().map_err(|_| format!("{name} does not take {value:?}; see --help").into())
}
