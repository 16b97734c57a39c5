//! What is to be said of a trial: how long each client stayed behind, what was lost, who was told, and how late reads were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use avout_core::ErrorKind;
use tokio::time::Instant;

use crate::case::{Case, Fault, Length, Mode, Shape};
use crate::clients::{Habit, Who};
use crate::log::Entry;
use crate::record::{Event, Head, What};

/// How long a client may stay behind.
const BEHIND: Duration = Duration::from_secs(2);
/// The same on a machine that does much else.
const BUSY: Duration = Duration::from_secs(30);

/// All that is known when a trial has ended.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) case: Case,
    pub(crate) length: Length,
    /// When the fault began.
    pub(crate) harmed: Instant,
    /// When the last master could take commits; `None`: there was none.
    pub(crate) ready: Option<Instant>,
    /// How late the machine woke those who slept, at worst.
    pub(crate) lag: Duration,
    pub(crate) events: Vec<Vec<Event>>,
    /// What is left of each client's log, and of the queue.
    pub(crate) logs: Vec<(Head, Vec<Entry>)>,
    pub(crate) queue: Vec<u64>,
    /// Clients that did not end when they were told to.
    pub(crate) hung: Vec<Who>,
}

/// What is said of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding {
    pub(crate) who: Who,
    /// How long after the new master was ready until it went on for good; `None`: for ever.
    pub(crate) behind: Option<Duration>,
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) told: usize,
    /// Whether something that it saw is lost.
    pub(crate) saw_lost: bool,
    pub(crate) reads: usize,
    pub(crate) stale: usize,
    pub(crate) oldest: Duration,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

impl Evidence {
    pub(crate) fn judge(&self) -> Verdict {
        let findings: Vec<Finding> = Who::all().into_iter().map(|who| self.find(who)).collect();
        let mut wrong: Vec<String> = self.hung.iter().map(|who| format!("{who}: it does not end")).collect();
        if self.ready.is_none() {
            wrong.push("no master took commits at the end".to_owned());
        }
        for finding in &findings {
            self.blame(finding, &mut wrong);
            self.check_order(finding.who, &mut wrong);
            self.check_log(finding.who, &mut wrong);
        }
        self.check_queue(&mut wrong);
        Verdict { findings, wrong }
    }

    fn events(&self, who: Who) -> &[Event] {
        &self.events[who.number]
    }

    /// Whether this entry of a log is there no more.
    fn is_lost(&self, log: usize, number: u32) -> bool {
        number > 0 && !self.logs[log].1.iter().any(|(found, _)| *found == number)
    }

    fn find(&self, who: Who) -> Finding {
        let mut finding = Finding {
            who,
            behind: self.behind(who),
            acknowledged: 0,
            lost: 0,
            told: 0,
            saw_lost: false,
            reads: 0,
            stale: 0,
            oldest: Duration::ZERO,
        };
        let acknowledged = self.acknowledged();
        for event in self.events(who) {
            finding.saw_lost |= self.seen(who, event).iter().any(|(log, head)| self.is_lost(*log, head.last));
            match &event.what {
                What::Committed(head) => {
                    finding.acknowledged += 1;
                    finding.lost += usize::from(self.is_lost(who.number, head.last));
                }
                What::Told => finding.told += 1,
                What::Read(heads) => {
                    finding.reads += 1;
                    if let Some(age) = age(&acknowledged, event.begun, heads) {
                        finding.stale += 1;
                        finding.oldest = finding.oldest.max(age);
                    }
                }
                _ => {}
            }
        }
        finding
    }

    /// The heads of logs that an event shows.
    fn seen(&self, who: Who, event: &Event) -> Vec<(usize, Head)> {
        match &event.what {
            What::Committed(head) => vec![(who.number, *head)],
            What::Read(heads) => heads.clone(),
            What::Watched(log, head) => vec![(*log, *head)],
            _ => Vec::new(),
        }
    }

    /// When each entry that is left was acknowledged, by log and number.
    fn acknowledged(&self) -> Vec<BTreeMap<u32, Instant>> {
        let of = |who: Who| {
            let number = |event: &Event| match event.what {
                What::Committed(head) => Some((head.last, event.ended)),
                What::Resolved { number, committed: true } => Some((number, event.ended)),
                _ => None,
            };
            self.events(who).iter().filter_map(number).filter(|(last, _)| !self.is_lost(who.number, *last)).collect()
        };
        Who::all().into_iter().map(of).collect()
    }

    /// The time from when the new master was ready until the client did what is good, and nothing bad after it.
    fn behind(&self, who: Who) -> Option<Duration> {
        let ready = self.ready?;
        let acknowledged = self.acknowledged();
        let (mut from, mut good) = (ready, None);
        for event in self.events(who).iter().filter(|event| event.ended >= ready) {
            let (is_good, is_bad) = match &event.what {
                What::Committed(head) => {
                    let lost = self.is_lost(who.number, head.last);
                    (!lost, lost)
                }
                What::Acquired => (true, false),
                What::Read(heads) => {
                    let late = age(&acknowledged, event.begun, heads).is_some();
                    (!late && event.begun >= ready, late)
                }
                What::Watched(log, head) => {
                    // It has to wait for a commit first.
                    let since = acknowledged[*log].iter().find(|(_, at)| **at >= ready);
                    if good.is_none() && since.is_some_and(|(number, _)| head.last >= *number) {
                        from = from.max(since.map_or(ready, |(_, at)| *at));
                    }
                    (since.is_some_and(|(number, _)| head.last >= *number), self.is_lost(*log, head.last))
                }
                _ => (false, false),
            };
            if is_bad {
                good = None;
            } else if is_good && good.is_none() {
                let waited = if who.habit == Habit::Watches { from } else { ready };
                good = Some(event.ended.saturating_duration_since(waited));
            }
        }
        good
    }

    fn blame(&self, finding: &Finding, wrong: &mut Vec<String>) {
        let (who, Case { mode, fault, shape }) = (finding.who, self.case);
        // A machine that is busy with others is late by itself.
        let behind = if self.length == Length::Short { BUSY } else { BEHIND };
        let bound = behind + who.slack() + self.lag * 10;
        match finding.behind {
            Some(behind) if behind > bound => wrong.push(format!("{who}: behind for {behind:.1?}")),
            Some(_) => {}
            None => wrong.push(format!("{who}: behind for ever")),
        }
        if finding.lost > 0 && (mode != Mode::Plain || fault == Fault::Migrate) {
            wrong.push(format!("{who}: {} of {} acknowledged commits lost", finding.lost, finding.acknowledged));
        }
        if finding.saw_lost && finding.told == 0 {
            wrong.push(format!("{who}: saw what is lost and was not told"));
        }
        if finding.told > 1 {
            wrong.push(format!("{who}: told {} times", finding.told));
        }
        let may_be_late = mode != Mode::All && matches!(fault, Fault::Cut | Fault::Stop(_) | Fault::Failover);
        // In a cluster the old master refuses after the node timeout.
        let limit = if shape == Shape::Cluster { behind * 2 } else { behind };
        if finding.stale > 0 && (!may_be_late || finding.oldest > limit + self.lag * 10) {
            wrong.push(format!("{who}: {} stale reads, up to {:.1?} old", finding.stale, finding.oldest));
        }
    }

    /// No view goes back without a word, and nothing happens that must not.
    fn check_order(&self, who: Who, wrong: &mut Vec<String>) {
        let mut known: BTreeMap<usize, Head> = BTreeMap::new();
        let mut refuted = BTreeSet::new();
        for event in self.events(who) {
            match &event.what {
                What::Told => known.clear(),
                What::Wrong(what) => wrong.push(format!("{who}: {what}")),
                What::Resolved { number, committed: false } => drop(refuted.insert(*number)),
                _ => {}
            }
            for (log, head) in self.seen(who, event) {
                let before = known.insert(log, head).unwrap_or_default();
                if head.count < before.count || head.last < before.last {
                    wrong.push(format!("{who}: saw {before:?} of log {log} and then {head:?}, with no word"));
                }
            }
        }
        let found = |number: &&u32| !self.is_lost(who.number, **number);
        for number in refuted.iter().filter(found) {
            wrong.push(format!("{who}: commit {number} was told not to have happened, and has"));
        }
    }

    /// Each commit is there as a whole or not at all, and once.
    fn check_log(&self, who: Who, wrong: &mut Vec<String>) {
        let (head, entries) = &self.logs[who.number];
        let distinct: BTreeSet<u32> = entries.iter().map(|(number, _)| *number).collect();
        let last = distinct.last().copied().unwrap_or_default();
        if distinct.len() != entries.len() || head.count != entries.len() as u64 || head.last != last {
            wrong.push(format!("{who}: {head:?} with {} entries, {} of them distinct", entries.len(), distinct.len()));
        }
    }

    /// What was put into the queue was taken from it once, or is there yet.
    fn check_queue(&self, wrong: &mut Vec<String>) {
        let (mut put, mut taken) = (BTreeSet::new(), self.queue.clone());
        for who in Who::all() {
            let entries = self.logs[who.number].1.iter();
            match who.habit {
                Habit::Produces => {
                    put.extend(entries.map(|(number, _)| (who.number as u64) << 32 | u64::from(*number)));
                }
                Habit::Consumes => taken.extend(entries.map(|(_, item)| *item)),
                _ => {}
            }
        }
        let distinct: BTreeSet<u64> = taken.iter().copied().collect();
        if distinct.len() != taken.len() || distinct != put {
            wrong.push(format!(
                "queue: {} put, {} taken or left, {} of them distinct",
                put.len(),
                taken.len(),
                distinct.len()
            ));
        }
    }
}

/// How old the oldest commit is that was acknowledged before a read began and is missing from it.
fn age(acknowledged: &[BTreeMap<u32, Instant>], begun: Instant, heads: &[(usize, Head)]) -> Option<Duration> {
    let missing = heads.iter().filter_map(|(log, head)| {
        let (_, at) = acknowledged[*log].range(head.last + 1..).next()?;
        (*at < begun).then(|| begun - *at)
    });
    missing.max()
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// The heading of the table.
pub(crate) const HEADING: &str = "| case | new master ready after | behind: write | read | watch | hold | produce | consume | come | \
    acknowledged | lost | told / had to be | stale reads | of | oldest | verdict |\n\
    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

impl Evidence {
    /// A line of the table: times in seconds, those of clients with deadlines of 2 and 30 s after each other.
    pub(crate) fn row(&self, verdict: &Verdict) -> String {
        let seconds =
            |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
        let ready = seconds(self.ready.map(|ready| ready.saturating_duration_since(self.harmed)));
        let mut row = format!("| {} | {ready} |", self.case);
        for habit in
            [Habit::Writes, Habit::Reads, Habit::Watches, Habit::Holds, Habit::Produces, Habit::Consumes, Habit::Comes]
        {
            let of = verdict.findings.iter().filter(|finding| finding.who.habit == habit);
            let times: Vec<String> = of.map(|finding| seconds(finding.behind)).collect();
            row.push_str(&format!(" {} |", times.join(", ")));
        }
        let sum = |of: fn(&Finding) -> usize| verdict.findings.iter().map(of).sum::<usize>();
        let oldest = verdict.findings.iter().map(|finding| finding.oldest).max();
        row.push_str(&format!(
            " {} | {} | {} / {} | {} | {} | {} | {} |",
            sum(|finding| finding.acknowledged),
            sum(|finding| finding.lost),
            sum(|finding| usize::from(finding.told > 0)),
            sum(|finding| usize::from(finding.saw_lost)),
            sum(|finding| finding.stale),
            sum(|finding| finding.reads),
            seconds(oldest),
            if verdict.is_good() { "good" } else { "BAD" },
        ));
        row
    }

    /// A line for each client.
    pub(crate) fn details(&self, verdict: &Verdict) -> String {
        let mut text = format!("  slept too long by up to {:.2?}\n", self.lag);
        for finding in &verdict.findings {
            let mut failed: BTreeMap<String, usize> = BTreeMap::new();
            for event in self.events(finding.who) {
                let kind = match &event.what {
                    What::Failed(kind) => format!("{kind:?}"),
                    What::Unknown => format!("{:?}", ErrorKind::OutcomeUnknown),
                    What::Told => "told".to_owned(),
                    _ => continue,
                };
                *failed.entry(kind).or_default() += 1;
            }
            let longest = self.events(finding.who).iter().map(|event| event.ended - event.begun).max();
            text.push_str(&format!(
                "  {}: behind {:.2?}, {} acknowledged, {} lost, saw lost {}, {} of {} reads stale up to {:.2?}, \
                 longest {:.1?}, {failed:?}\n",
                finding.who,
                finding.behind,
                finding.acknowledged,
                finding.lost,
                finding.saw_lost,
                finding.stale,
                finding.reads,
                finding.oldest,
                longest.unwrap_or_default(),
            ));
        }
        for wrong in &verdict.wrong {
            text.push_str(&format!("  WRONG {wrong}\n"));
        }
        text
    }
}
