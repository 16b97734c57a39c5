//! The shared state: what lies in which store, and the transaction that places an order.

use std::fmt;
use std::sync::Arc;

use avout::backend::Store;
use avout::{Error, Ref, Result, Stm};
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::failure::Failure;

pub(crate) const ITEMS: [&str; 3] = ["chair", "desk", "lamp"];
pub(crate) const CUSTOMERS: [&str; 4] = ["ann", "bob", "cy", "dot"];

/// What there was of something, and what is gone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Supply {
    pub(crate) opening: u64,
    pub(crate) used: u64,
}

impl Supply {
    fn new(opening: u64) -> Self {
        Self { opening, used: 0 }
    }

    pub(crate) fn left(&self) -> u64 {
        self.opening.saturating_sub(self.used)
    }
}

/// An order, and a line of the audit list.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Their numbers in [`ITEMS`] and [`CUSTOMERS`].
    pub(crate) item: usize,
    pub(crate) customer: usize,
    pub(crate) pieces: u64,
}

/// Why an order was not placed. Whatever it is, nothing has changed, unless `State` says that the outcome is unknown.
#[derive(Debug)]
pub(crate) enum Refusal {
    OutOfStock { item: &'static str, left: u64 },
    OverQuota { customer: &'static str, left: u64 },
    State(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::State(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfStock { item, left } => write!(f, "there are {left} of {item} left"),
            Self::OverQuota { customer, left } => write!(f, "{customer} may have {left} more"),
            Self::State(_) => f.write_str("the shop's state is out of reach"),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(error) => Some(error),
            Self::OutOfStock { .. } | Self::OverQuota { .. } => None,
        }
    }
}

pub(crate) struct Shop {
    stm: Stm,
    stock: Vec<Ref<Supply>>,
    quotas: Vec<Ref<Supply>>,
    audit: Ref<Vec<Order>>,
}

impl Shop {
    /// Connects to all, and opens the shop or makes it.
    pub(crate) async fn open(args: &Args) -> Result<Self, Failure> {
        let stm = avout::connect(&args.coordinator).await.map_err(|error| unreached("coordinator", error))?;
        let stock_store = store("stock", &args.stock).await?;
        let quota_store = store("quotas", &args.quotas).await?;
        let audit_store = store("audit", &args.audit).await?;

        let mut stock = Vec::new();
        for item in ITEMS {
            let made = stm.create_or_open_ref(format!("/shop/stock/{item}"), Supply::new(args.opening));
            stock.push(made.in_store(&stock_store).await?);
        }
        let mut quotas = Vec::new();
        for customer in CUSTOMERS {
            let made = stm.create_or_open_ref(format!("/shop/quotas/{customer}"), Supply::new(args.quota));
            quotas.push(made.in_store(&quota_store).await?);
        }
        // Nobody reads the list's past, so its store keeps one version of it.
        let made = stm.create_or_open_ref("/shop/audit", Vec::new()).history(0);
        let audit = made.in_store(&audit_store).await?;
        Ok(Self { stm, stock, quotas, audit })
    }

    /// Places an order, or changes nothing: one read, three values written at once, and one commit.
    pub(crate) async fn place(&self, order: Order) -> Result<(), Refusal> {
        let (stock, quota) = (&self.stock[order.item], &self.quotas[order.customer]);
        self.stm
            .transaction()
            .label("place an order")
            .dosync(async |tx| {
                tx.prefetch((stock, quota, &self.audit)).await?;
                let (mut supply, mut allowed) = tx.get_many((stock, quota)).await?;
                if supply.left() < order.pieces {
                    return Err(Refusal::OutOfStock { item: ITEMS[order.item], left: supply.left() });
                }
                if allowed.left() < order.pieces {
                    return Err(Refusal::OverQuota { customer: CUSTOMERS[order.customer], left: allowed.left() });
                }
                supply.used += order.pieces;
                allowed.used += order.pieces;
                tx.set(stock, supply).await?;
                tx.set(quota, allowed).await?;
                // The body does not depend on the list, so an order that came between is no reason to run it again.
                tx.commute(&self.audit, move |mut lines: Vec<Order>| {
                    lines.push(order);
                    lines
                })
                .await?;
                Ok(())
            })
            .await
    }

    /// All sums, as they are at one moment.
    pub(crate) async fn sums(&self) -> Result<Sums> {
        self.stm
            .dosync(async |tx| {
                let stock = tx.get_many(&self.stock).await?;
                let quotas = tx.get_many(&self.quotas).await?;
                Ok(Sums { stock, quotas, audit: tx.get(&self.audit).await? })
            })
            .await
    }

    pub(crate) async fn close(&self) {
        self.stm.close().await;
    }
}

/// What the three stores say.
pub(crate) struct Sums {
    stock: Vec<Supply>,
    quotas: Vec<Supply>,
    audit: Vec<Order>,
}

impl Sums {
    /// How many pieces were sold, if all three agree on it, for each item and each customer too.
    pub(crate) fn agreed(&self) -> Result<u64, String> {
        let listed = |of: &dyn Fn(&Order) -> bool| -> u64 {
            self.audit.iter().filter(|line| of(line)).map(|line| line.pieces).sum()
        };
        let supplies = |kind, names: &[&str], supplies: &[Supply], number: fn(&Order) -> usize| {
            for (n, (name, supply)) in names.iter().zip(supplies).enumerate() {
                let listed = listed(&|line| number(line) == n);
                if supply.used != listed || supply.used > supply.opening {
                    let Supply { opening, used } = supply;
                    return Err(format!("{kind} {name}: {used} of {opening} are used, and {listed} are on the list"));
                }
            }
            Ok(supplies.iter().map(|supply| supply.used).sum::<u64>())
        };
        let sold = supplies("stock of", &ITEMS, &self.stock, |line| line.item)?;
        let allowed = supplies("quota of", &CUSTOMERS, &self.quotas, |line| line.customer)?;
        if sold != allowed {
            return Err(format!("{sold} pieces were sold, and {allowed} are off the quotas"));
        }
        Ok(sold)
    }

    pub(crate) fn orders(&self) -> usize {
        self.audit.len()
    }
}

async fn store(part: &'static str, url: &str) -> Result<Arc<dyn Store>, Failure> {
    Ok(avout::open(url).await.map_err(|error| unreached(part, error))?.store)
}

/// The URL may hold a password, so it is named by its option.
fn unreached(part: &'static str, error: Error) -> Failure {
    Box::new(Unreached { part, error })
}

#[derive(Debug)]
struct Unreached {
    part: &'static str,
    error: Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} cannot be used; without options everything is in memory and no server is needed", self.part)
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
