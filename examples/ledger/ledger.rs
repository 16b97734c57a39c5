//! The shared state: a ref for each account, and the transaction that decides a transfer.

use std::sync::Arc;
use std::time::Duration;

use avout::{Ref, Result, Stats, Stm};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::plan::{Plan, Transfer, account_name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    /// What became of the account's transfers, in the file's order: applied, or refused.
    pub(crate) decisions: Vec<bool>,
}

pub(crate) struct Ledger {
    pub(crate) plan: Arc<Plan>,
    stm: Stm,
    accounts: Vec<Ref<Account>>,
}

impl Ledger {
    /// Opens the accounts, or creates them; refuses a database that was begun with another file.
    pub(crate) async fn open(url: &str, plan: Arc<Plan>) -> Result<Self, Failure> {
        let stm = avout::connect(url).await?;
        let input = stm.create_or_open_ref("/ledger/input", plan.fingerprint.clone()).await?.get().await?;
        if input != plan.fingerprint {
            return Err(format!("this is the ledger of another file: {input}").into());
        }
        let mut accounts = Vec::with_capacity(plan.turns.len());
        for account in 0..plan.turns.len() {
            let key = format!("/ledger/accounts/{}", account_name(account));
            let opened = Account { balance: plan.opening, decisions: Vec::new() };
            let account = stm
                .create_or_open_ref(key, opened)
                .validator(|account: &Account| account.balance >= 0)
                // Nobody reads the past of an account, so its record need not carry it.
                .history(0)
                .await?;
            accounts.push(account);
        }
        Ok(Self { plan, stm, accounts })
    }

    /// Decides a transfer when its turn has come: one read and one commit. `false`: somebody else has done it.
    ///
    /// # Errors
    /// `Timeout` if its turn has not come within `patience`; `Unavailable` or `OutcomeUnknown` if the store has not answered.
    pub(crate) async fn settle(&self, transfer: &Transfer, patience: Option<Duration>) -> Result<bool> {
        let Transfer { amount, from, to } = *transfer;
        let accounts = (&self.accounts[from.account], &self.accounts[to.account]);
        let transaction = match patience {
            Some(patience) => self.stm.transaction().deadline(patience),
            None => self.stm.transaction().no_deadline(),
        };
        transaction
            .dosync(async |tx| {
                let (mut payer, mut payee) = tx.get_many(accounts).await?;
                if payer.decisions.len() > from.number {
                    return Ok(false);
                }
                if payer.decisions.len() < from.number || payee.decisions.len() < to.number {
                    return Err(tx.retry());
                }
                let covered = payer.balance >= amount;
                if covered {
                    payer.balance -= amount;
                    payee.balance += amount;
                }
                payer.decisions.push(covered);
                payee.decisions.push(covered);
                tx.set(accounts.0, payer).await?;
                tx.set(accounts.1, payee).await?;
                Ok(true)
            })
            .await
    }

    /// All accounts, as they are at one moment.
    pub(crate) async fn read(&self) -> Result<Vec<Account>> {
        self.stm.dosync(async |tx| tx.get_many(&self.accounts).await).await
    }

    /// The transfers that are not decided yet, in the order of their lines.
    pub(crate) async fn undecided(&self) -> Result<impl Iterator<Item = (usize, Transfer)>> {
        let accounts = self.read().await?;
        let all = self.plan.transfers.iter().copied().enumerate();
        Ok(all.filter(move |(_, transfer)| accounts[transfer.from.account].decisions.len() <= transfer.from.number))
    }

    /// How many transfers are decided.
    pub(crate) async fn decided(&self) -> Result<usize> {
        // Each decision is kept by two accounts.
        Ok(self.read().await?.iter().map(|account| account.decisions.len()).sum::<usize>() / 2)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stm.stats()
    }
}
