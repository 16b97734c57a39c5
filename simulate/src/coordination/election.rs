use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{Leader, Leadership, Result, Stm};
use tokio::time::{Instant, sleep, timeout};

use super::holds::Holds;
use super::known::OUTAGES_UNSEEN;
use super::stage::{Actor, Scene, Test, lock};
use crate::World;

/// How often a leader's end is looked for.
const LOOKS: Duration = Duration::from_millis(100);

/// One election: candidates, and others who only look.
pub(super) struct Election {
    key: String,
    sure: Stm,
    holds: Holds,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The candidates, and the terms of those who know that they were elected.
    candidates: BTreeMap<String, Option<u64>>,
    /// What was told.
    told: Vec<Leader>,
}

impl Election {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        let key = format!("{name}/election");
        let orderly = world.knobs().are_calm() && world.chance(0.7);
        let holds = Holds::make(sure, &key, 1, orderly).await?;
        Ok(Self { key, sure: sure.clone(), holds, seen: Mutex::default() })
    }

    async fn ask(&self, actor: &Actor, name: &str) -> Result<Option<Leadership>> {
        let election = actor.stm.election(&self.key)?;
        if self.holds.orderly {
            return election.campaign(name).await.map(Some);
        }
        match actor.world().draw(4) {
            0 => election.campaign_timeout(name, actor.draw_millis(2500)).await.map(Some),
            1 => timeout(actor.draw_millis(1500), election.campaign(name)).await.ok().transpose(),
            _ => election.campaign(name).await.map(Some),
        }
    }

    async fn campaign(&self, actor: &Actor) {
        let name = format!("candidate {}", actor.world().next_id());
        let what = format!("campaigns for {} as {name}", self.key);
        lock(&self.seen).candidates.insert(name.clone(), None);
        let request = self.holds.ask(None);
        match actor.wait(&what, self.ask(actor, &name)).await {
            Ok(Some(term)) => {
                lock(&self.seen).candidates.insert(name, Some(term.token()));
                self.holds.granted(actor, request, &term, 1);
                self.holds.hold(actor, term, 1).await;
            }
            Ok(None) => actor.tell(|| "campaigns no more".to_owned()),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    /// Looks for a while who leads.
    async fn observe(&self, actor: &Actor) {
        let Ok(election) = actor.stm.election(&self.key) else { return };
        let mut leaders = election.observe();
        let (mut before, mut newest) = (None, 0);
        for _ in 0..1 + actor.world().draw(6) {
            let Ok(told) = timeout(actor.draw_millis(3000), leaders.next()).await else { continue };
            let told = match told {
                Ok(told) => told,
                Err(error) if OUTAGES_UNSEEN => {
                    let what = format!("observes {}, which waits through outages", self.key);
                    return actor.world().violation(format!("unexpected error: {what}: {:?}: {error}", error.kind()));
                }
                Err(error) => return actor.accept("observes", &error, &[]),
            };
            actor.tell(|| format!("is told that {told:?} leads"));
            let world = actor.world();
            if before.as_ref() == Some(&told) {
                world.violation(format!("leaders: {told:?} is told twice"));
            }
            if let Some(leader) = &told {
                if leader.term <= newest {
                    world.violation(format!("leaders: {told:?} is told after term {newest}"));
                }
                newest = leader.term;
                lock(&self.seen).told.push(leader.clone());
            }
            before = Some(told);
        }
    }
}

#[async_trait]
impl Scene for Election {
    async fn step(&self, actor: &Actor) {
        match actor.world().chance(0.3) {
            true => self.observe(actor).await,
            false => self.campaign(actor).await,
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        match sure.election(&self.key)?.campaign_timeout("the last", test.patience()).await {
            Ok(term) => term.resign().await?,
            Err(_) => test.world.violation(format!("left: {} has a leader, and all have resigned", self.key)),
        }
        let election = self.sure.election(&self.key)?;
        let begun = Instant::now();
        while election.leader().await?.is_some() && begun.elapsed() < test.patience() {
            sleep(LOOKS).await;
        }
        if let Some(leader) = election.leader().await? {
            test.world.violation(format!("left: {leader:?} leads, and has resigned"));
        }
        {
            let seen = lock(&self.seen);
            let mut terms: BTreeMap<u64, &str> = BTreeMap::new();
            for leader in &seen.told {
                let what = match (seen.candidates.get(&leader.name), terms.insert(leader.term, &leader.name)) {
                    (None, _) => format!("{leader:?} was no candidate"),
                    // It may have been elected before, and have lost that term before it knew.
                    (Some(Some(term)), _) if *term < leader.term => format!("{leader:?} was elected for {term}"),
                    (_, Some(other)) if other != leader.name => {
                        format!("{leader:?} was told, and {other} in that term")
                    }
                    _ => continue,
                };
                test.world.violation(format!("leaders: {what}"));
            }
        }
        self.holds.check(test, sure).await
    }
}
