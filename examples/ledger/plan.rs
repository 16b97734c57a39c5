//! What is to be done: the file, read and sorted out. Every process reads it and comes to the same plan.

use std::collections::HashSet;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};

use crate::failure::Failure;

/// The file's transfers in the order of its lines, and what else was in it.
pub(crate) struct Plan {
    /// Those that are to be decided: well-formed, of a new id, and between accounts that exist.
    pub(crate) transfers: Vec<Transfer>,
    /// How many transfers each account takes part in.
    pub(crate) turns: Vec<usize>,
    /// What each account begins with.
    pub(crate) opening: i64,
    /// How many lines there are below the header, not counting empty ones.
    pub(crate) lines: usize,
    pub(crate) malformed: Vec<(u64, String)>,
    pub(crate) repeated: usize,
    pub(crate) unknown_account: usize,
    /// Tells this file and these accounts from others.
    pub(crate) fingerprint: String,
}

#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) amount: i64,
    pub(crate) from: Turn,
    pub(crate) to: Turn,
}

/// The place of a transfer among those of one of its accounts.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) account: usize,
    pub(crate) number: usize,
}

/// A well-formed line.
struct Line<'a> {
    id: u64,
    from: &'a str,
    to: &'a str,
    amount: i64,
}

impl Plan {
    pub(crate) fn read(path: &Path, accounts: usize, opening: i64) -> Result<Self, Failure> {
        let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut plan = Self {
            transfers: Vec::new(),
            turns: vec![0; accounts],
            opening,
            lines: 0,
            malformed: Vec::new(),
            repeated: 0,
            unknown_account: 0,
            fingerprint: format!(
                "{:08x}, {} bytes, {accounts} accounts of {opening}",
                crc32fast::hash(&file),
                file.len()
            ),
        };
        let mut ids = HashSet::new();
        // Without quoting a line is a line: a stray quotation mark cannot swallow those that follow.
        let mut reader = ReaderBuilder::new().flexible(true).quoting(false).trim(Trim::All).from_reader(&file[..]);
        for record in reader.byte_records() {
            let record = record?;
            plan.lines += 1;
            match parse(&record) {
                Err(reason) => plan.malformed.push((line_number(&file, &record), reason)),
                Ok(line) if !ids.insert(line.id) => plan.repeated += 1,
                Ok(line) => match (account(line.from, accounts), account(line.to, accounts)) {
                    (Some(from), Some(to)) => plan.add(from, to, line.amount),
                    _ => plan.unknown_account += 1,
                },
            }
        }
        Ok(plan)
    }

    fn add(&mut self, from: usize, to: usize, amount: i64) {
        let mut turn = |account: usize| {
            let number = self.turns[account];
            self.turns[account] += 1;
            Turn { account, number }
        };
        let (from, to) = (turn(from), turn(to));
        self.transfers.push(Transfer { amount, from, to });
    }
}

/// The number of a record's line. Empty lines before it count as lines, though the reader passes over them.
fn line_number(file: &[u8], record: &ByteRecord) -> u64 {
    let Some(position) = record.position() else { return 0 };
    let rest = usize::try_from(position.byte()).ok().and_then(|start| file.get(start..)).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| b"\r\n".contains(byte)).filter(|byte| **byte == b'\n');
    position.line() + blank.count() as u64
}

fn parse(record: &ByteRecord) -> Result<Line<'_>, String> {
    if record.len() != 4 {
        return Err(format!("{} columns, not 4", record.len()));
    }
    let text = |column: usize| std::str::from_utf8(&record[column]).map_err(|_| "not UTF-8".to_owned());
    let (id, from, to, amount) = (text(0)?, text(1)?, text(2)?, text(3)?);
    let line = Line {
        id: id.parse().map_err(|_| format!("{id:?} is no id"))?,
        from,
        to,
        amount: amount.parse().map_err(|_| format!("{amount:?} is no amount"))?,
    };
    if line.amount <= 0 {
        return Err(format!("the amount {} is not positive", line.amount));
    }
    if from == to {
        return Err(format!("from {from:?} to itself"));
    }
    Ok(line)
}

pub(crate) fn account_name(account: usize) -> String {
    format!("A{account}")
}

fn account(name: &str, accounts: usize) -> Option<usize> {
    let account = name.strip_prefix('A')?.parse().ok()?;
    (account < accounts && account_name(account) == name).then_some(account)
}
