//! The cells of the matrix: what fails, how, and when.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use crate::failpoints::Failpoint;
use crate::world::{Failure, Group, PLACES, World};

/// How long a server is away. Transactions last longer.
const AWAY: Duration = Duration::from_millis(700);

const SQL: usize = 0;
const REDIS: usize = 1;
const MONGO: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Client,
    /// The coordinator, or another store.
    Place(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Paused,
    CutOff,
    Slow,
    Full,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    coordinator: usize,
    victim: Victim,
    fault: Fault,
    moment: Failpoint,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victim = match self.victim {
            Victim::Client => "client",
            Victim::Place(place) => PLACES[place],
        };
        write!(f, "{}, {victim} {:?} {}", PLACES[self.coordinator], self.fault, self.moment)
    }
}

/// All cells that there can be.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for coordinator in 0..PLACES.len() {
        for victim in std::iter::once(Victim::Client).chain((0..PLACES.len()).map(Victim::Place)) {
            for fault in [Fault::Killed, Fault::Paused, Fault::CutOff, Fault::Slow, Fault::Full] {
                for moment in Failpoint::ALL {
                    let cell = Cell { coordinator, victim, fault, moment };
                    if cell.exists() {
                        cells.push(cell);
                    }
                }
            }
        }
    }
    cells
}

impl Cell {
    fn exists(self) -> bool {
        match (self.victim, self.fault) {
            // It keeps nothing.
            (Victim::Client, Fault::Full) => false,
            // There is no connection to a file, and the driver of MongoDB goes where the members say.
            (Victim::Client, Fault::CutOff) => self.coordinator != SQL && self.coordinator != MONGO,
            // A file has no process of its own but the clients. Another process can hold it for a while.
            (Victim::Place(SQL), fault) => fault == Fault::Paused,
            (Victim::Place(place), Fault::Full) => place == REDIS,
            _ => true,
        }
    }

    /// Has three processes work, and lets it happen twice.
    pub(crate) async fn run(self, world: &World, seed: u64) -> Result<(), Failure> {
        let name = self.to_string();
        let mut group = Group::new(world, self.coordinator, 1, seed).await?;
        let own = match (self.victim, self.fault) {
            (Victim::Client, Fault::CutOff) => Some(world.own_proxy(self.coordinator).await?),
            _ => None,
        };
        let own = own.as_ref().map(|proxy| (self.coordinator, proxy));
        let mut processes = vec![group.start(own).await?, group.start(None).await?, group.start(None).await?];
        for process in &mut processes {
            process.says("ready").await?;
        }
        let action = match (self.victim, self.fault) {
            (Victim::Client, Fault::Killed) => "kill",
            (Victim::Client, Fault::Paused) => "stop",
            (Victim::Client, Fault::Slow) => "sleep",
            _ => "tell",
        };
        for _ in 0..2 {
            let first = &mut processes[0];
            first.order(&format!("arm {} {action}", self.moment)).await?;
            first.says("at ").await.map_err(|error| format!("{name}: {error}"))?;
            match (self.victim, self.fault) {
                (Victim::Client, Fault::Killed) => {
                    first.killed().await?;
                    *first = group.start(None).await?;
                    first.says("ready").await?;
                }
                (Victim::Client, Fault::Paused) => {
                    first.stopped().await?;
                    sleep(AWAY).await;
                    first.go_on()?;
                }
                (Victim::Client, Fault::CutOff) => {
                    let (_, proxy) = own.ok_or("a proxy")?;
                    proxy.cut().await;
                    first.order("go").await?;
                    sleep(AWAY).await;
                    proxy.heal().await?;
                }
                (Victim::Client, _) => {}
                (Victim::Place(SQL), _) => {
                    let path = group.task.urls[SQL].1.trim_start_matches("sqlite:").to_owned();
                    let other = avout::sql::rusqlite::Connection::open(path)?;
                    other.busy_timeout(Duration::from_secs(30))?;
                    other.execute_batch("BEGIN IMMEDIATE")?;
                    first.order("go").await?;
                    sleep(AWAY).await;
                    other.execute_batch("ROLLBACK")?;
                }
                (Victim::Place(place), fault) => {
                    begin(world, place, fault).await?;
                    first.order("go").await?;
                    sleep(AWAY).await;
                    end(world, place, fault).await?;
                }
            }
        }
        for process in processes {
            process.end().await.map_err(|error| format!("{name}: {error}"))?;
        }
        group.check(&name).await
    }
}

async fn begin(world: &World, place: usize, fault: Fault) -> Result<(), Failure> {
    match fault {
        Fault::Killed => world.node(place).kill().await?,
        Fault::Paused => world.node(place).pause().await?,
        Fault::CutOff => world.proxy(place).cut().await,
        Fault::Slow => world.proxy(place).delay(Duration::from_millis(40)),
        Fault::Full => drop(world.redis.command(0, &["CONFIG", "SET", "maxmemory", "1"]).await?),
    }
    Ok(())
}

async fn end(world: &World, place: usize, fault: Fault) -> Result<(), Failure> {
    match fault {
        Fault::Killed => world.node(place).start().await?,
        Fault::Paused => world.node(place).resume().await?,
        Fault::CutOff | Fault::Slow => world.proxy(place).heal().await?,
        Fault::Full => drop(world.redis.command(0, &["CONFIG", "SET", "maxmemory", "0"]).await?),
    }
    Ok(())
}
