//! The totals, and the check that they are right.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::crew::Done;
use crate::failure::Failure;
use crate::ledger::Account;
use crate::plan::{Plan, account_name};

/// What became of the file. All but the last three is the same whoever did the work.
#[derive(Serialize)]
pub(crate) struct Report {
    lines: usize,
    applied: usize,
    overdraft: usize,
    unknown_account: usize,
    malformed: usize,
    repeated: usize,
    balances: Vec<i64>,
    decided_now: u64,
    conflicts: u64,
    seconds: f64,
}

impl Report {
    /// Checks the accounts against the plan, and adds up.
    ///
    /// # Errors
    /// A failure that says what is wrong.
    pub(crate) fn new(plan: &Plan, found: &[Account], done: Done, elapsed: Duration) -> Result<Self, Failure> {
        let money = |accounts: &[Account]| accounts.iter().map(|account| i128::from(account.balance)).sum::<i128>();
        let expected = replay(plan);
        if money(found) != money(&expected) {
            return Err(format!("there is {} in all, and there was {}", money(found), money(&expected)).into());
        }
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let name = account_name(number);
            let (decisions, turns) = (found.decisions.len(), plan.turns[number]);
            if decisions != turns {
                return Err(format!("{name} has {decisions} decisions on {turns} transfers").into());
            }
            if found.balance < 0 {
                return Err(format!("{name} is overdrawn: {}", found.balance).into());
            }
            if found != expected {
                return Err(format!("{name} is not what the file, applied line by line, makes it").into());
            }
        }
        let decisions =
            || plan.transfers.iter().map(|transfer| found[transfer.from.account].decisions[transfer.from.number]);
        Ok(Self {
            lines: plan.lines,
            applied: decisions().filter(|applied| *applied).count(),
            overdraft: decisions().filter(|applied| !*applied).count(),
            unknown_account: plan.unknown_account,
            malformed: plan.malformed.len(),
            repeated: plan.repeated,
            balances: found.iter().map(|account| account.balance).collect(),
            decided_now: done.decided,
            conflicts: done.conflicts,
            seconds: elapsed.as_secs_f64(),
        })
    }
}

/// Applies the file line by line, in memory: what the accounts must be in the end.
fn replay(plan: &Plan) -> Vec<Account> {
    let mut accounts = vec![Account { balance: plan.opening, decisions: Vec::new() }; plan.turns.len()];
    for transfer in &plan.transfers {
        let (from, to) = (transfer.from.account, transfer.to.account);
        let covered = accounts[from].balance >= transfer.amount;
        if covered {
            accounts[from].balance -= transfer.amount;
            accounts[to].balance += transfer.amount;
        }
        accounts[from].decisions.push(covered);
        accounts[to].decisions.push(covered);
    }
    accounts
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let money: i128 = self.balances.iter().copied().map(i128::from).sum();
        writeln!(f, "lines     {}, not counting empty ones", self.lines)?;
        writeln!(f, "applied   {}", self.applied)?;
        writeln!(f, "refused   {} overdraft, {} unknown account", self.overdraft, self.unknown_account)?;
        writeln!(f, "skipped   {} malformed, {} repeated", self.malformed, self.repeated)?;
        writeln!(
            f,
            "this run  {} decided in {:.1} s ({:.0}/s), {} conflicts",
            self.decided_now,
            self.seconds,
            self.decided_now as f64 / self.seconds,
            self.conflicts
        )?;
        write!(
            f,
            "check     ok: {} accounts hold {money} as before; each valid id was decided once, in the file's order",
            self.balances.len()
        )
    }
}
