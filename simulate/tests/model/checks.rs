//! The model as the checker sees it, and what must hold.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use super::setup::{Kind, REFS, Setup};
use super::state::{Client, Content, Effect, FIRST, Name, RefEntry, Request, State, Step, Sweeper, Verdict};
use super::sweeper::Sweep;

pub(crate) const TRUE_REPORTS: &str = "what a client reports is so, and stays so";
pub(crate) const ONCE: &str = "a transaction takes effect at most once";
pub(crate) const READABLE: &str = "each record's value is in its store";
pub(crate) const SERIAL: &str = "commits in the order of points explain all that was read, and what is there";
pub(crate) const OPAQUE: &str = "a body sees only what was current together";
pub(crate) const KNOWN: &str = "an outcome is found out, but for a floor that was raised meanwhile";

pub(crate) const BOTH_COMMIT: &str = "both clients commit";
pub(crate) const CONFLICT: &str = "a commit loses to another";
pub(crate) const FLOOR_CONFLICT: &str = "a commit loses to a raised floor";
pub(crate) const FENCE_WINS: &str = "a fence comes before its commit";
pub(crate) const FENCE_LOSES: &str = "a commit comes before its fence";
pub(crate) const FOUND: &str = "a lost reply is found in the slot";
pub(crate) const SWEPT: &str = "a sweep deletes something";
pub(crate) const UNKNOWN: &str = "an outcome stays unknown";
pub(crate) const LATE: &str = "a commit of a client that is gone takes effect";
pub(crate) const MADE_AGAIN: &str = "a ref is made again after its tombstone was removed";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read(usize),
    WriteValue(usize, usize),
    Send(usize),
    /// A request arrives; whether the reply gets back.
    Arrive(Request, bool),
    TimeOut(usize),
    LookAtSlot(usize),
    Crash(usize),
    Sweep(Sweep),
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let clients = [0, 1].map(|id: u8| {
            let step = if self.scripts[usize::from(id)].is_empty() { Step::Done } else { Step::Begin };
            Client { step, ..Client::new(id, 0) }
        });
        let first = RefEntry { revision: 0, point: 0, content: Content::Value(FIRST) };
        vec![State {
            point: 0,
            refs: [Some(first); REFS],
            slots: BTreeMap::new(),
            floor: 0,
            store: if self.stored { (0..REFS).map(|k| (k, FIRST)).collect() } else { BTreeSet::new() },
            net: BTreeSet::new(),
            clients,
            next_id: 2,
            crashes: self.crashes,
            sweeper: Sweeper { left: self.sweeps, ..Sweeper::default() },
            removals: BTreeSet::new(),
            turn: 0,
            effects: Vec::new(),
            verdicts: BTreeMap::new(),
            swept: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (c, client) in state.clients.iter().enumerate() {
            match client.step {
                Step::Begin | Step::Half { .. } => actions.push(Action::Read(c)),
                Step::Prewrite { left, .. } if left.contains(&true) => {
                    actions.extend((0..REFS).filter(|k| left[*k]).map(|k| Action::WriteValue(c, k)));
                }
                Step::Prewrite { .. } => actions.push(Action::Send(c)),
                Step::Await(_) | Step::AwaitFence(_) => actions.push(Action::TimeOut(c)),
                Step::Settle { .. } => actions.push(Action::LookAtSlot(c)),
                Step::Done => {}
            }
            if c == 0 && state.crashes > 0 && !matches!(client.step, Step::Begin | Step::Done) {
                actions.push(Action::Crash(c));
            }
        }
        for request in &state.net {
            let awaited = state.clients.iter().any(|client| client.awaits(request));
            if awaited {
                actions.push(Action::Arrive(request.clone(), true));
            }
            // That the reply is lost is the same as a client that gave up just before.
            if !state.stale(request).any() && (!awaited || self.sent_again) {
                actions.push(Action::Arrive(request.clone(), false));
            }
        }
        let mut sweeps = Vec::new();
        state.sweeps(self, &mut sweeps);
        actions.extend(sweeps.into_iter().map(Action::Sweep));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Read(c) => state.read(self, c),
            Action::WriteValue(c, k) => state.prewrite(c, k),
            Action::Send(c) => {
                let view = *state.clients[c].step.view()?;
                state.send(self, c, view);
            }
            Action::Arrive(request, replied) => {
                let waiting = state.clients.iter().position(|client| client.awaits(&request));
                let stale = state.stale(&request);
                if !stale.any() {
                    state.apply(self, &request);
                }
                match waiting {
                    Some(c) if replied => state.reply(self, c, &stale),
                    _ => {}
                }
            }
            Action::TimeOut(c) => state.time_out(c),
            Action::LookAtSlot(c) => {
                let Step::Settle { view, fenced } = state.clients[c].step else {
                    return None;
                };
                state.settle(self, c, view, fenced);
            }
            Action::Crash(c) => state.crash(c),
            Action::Sweep(sweep) => state.sweep(self, sweep),
        }
        state.prune(self);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TRUE_REPORTS, |_, state| true_reports(state)),
            Property::always(ONCE, |_, state| once(state)),
            Property::always(READABLE, |setup, state| !setup.stored || readable(state)),
            Property::always(SERIAL, |_, state| serial(state)),
            Property::always(OPAQUE, |_, state| opaque(state)),
            Property::always(KNOWN, |_, state| known(state)),
            Property::sometimes(BOTH_COMMIT, |_, state| both_commit(state)),
            Property::sometimes(CONFLICT, |_, state| has(state, |v| v == Verdict::Conflict)),
            Property::sometimes(FLOOR_CONFLICT, |_, state| has(state, |v| v == Verdict::FloorConflict)),
            Property::sometimes(FENCE_WINS, |_, state| has(state, |v| v == Verdict::Fenced)),
            Property::sometimes(FENCE_LOSES, |_, state| {
                has(state, |v| matches!(v, Verdict::Found { fenced: true, .. }))
            }),
            Property::sometimes(FOUND, |_, state| has(state, |v| matches!(v, Verdict::Found { fenced: false, .. }))),
            Property::sometimes(SWEPT, |_, state: &State| state.swept),
            Property::sometimes(UNKNOWN, |_, state| has(state, |v| v == Verdict::Unknown)),
            Property::sometimes(LATE, |_, state| late(state)),
            Property::sometimes(MADE_AGAIN, made_again),
        ]
    }
}

fn has(state: &State, is: impl Fn(Verdict) -> bool) -> bool {
    state.verdicts.values().any(|verdict| is(*verdict))
}

fn both_commit(state: &State) -> bool {
    let by = |c: u8| state.verdicts.iter().any(|(name, v)| name.client == c && v.committed().is_some());
    by(0) && by(1)
}

/// The client that took its place lost to it, and to no other.
fn late(state: &State) -> bool {
    let gone = |effect: &Effect| state.clients.iter().all(|client| client.id != effect.name.client);
    let lost = state.verdicts.iter().any(|(name, verdict)| name.client >= 2 && *verdict == Verdict::Conflict);
    lost && state.effects.iter().all(gone)
}

fn made_again(setup: &Setup, state: &State) -> bool {
    let creates = |effect: &Effect| {
        effect.name.client == 1 && matches!(setup.scripts[1].get(usize::from(effect.txn)), Some(Kind::Create(_)))
    };
    state.swept && state.effects.iter().any(creates)
}

fn true_reports(state: &State) -> bool {
    state.verdicts.iter().all(|(name, verdict)| {
        let mut effects = state.effects.iter().filter(|effect| effect.name == *name).map(|effect| effect.point);
        match verdict.committed() {
            Some(point) => effects.eq([point]),
            None => !verdict.not_committed() || effects.next().is_none(),
        }
    })
}

fn known(state: &State) -> bool {
    state.verdicts.iter().all(|(name, verdict)| *verdict != Verdict::Unknown || name.epoch < state.floor)
}

fn once(state: &State) -> bool {
    let mut seen = BTreeSet::new();
    state.effects.iter().all(|effect| seen.insert((effect.name.client, effect.txn)))
}

fn readable(state: &State) -> bool {
    let pointers = state.refs.iter().enumerate().filter_map(|(k, entry)| Some((k, entry.as_ref()?.content.name()?)));
    pointers.into_iter().all(|pointer| state.store.contains(&pointer))
}

/// What both refs were, from the beginning on.
fn past(state: &State) -> Vec<[Option<Name>; REFS]> {
    let mut past = vec![[Some(FIRST); REFS]];
    for effect in &state.effects {
        let mut now = *past.last().expect("the beginning");
        for (now, write) in now.iter_mut().zip(&effect.writes) {
            if let Some(content) = write {
                *now = content.name();
            }
        }
        past.push(now);
    }
    past
}

fn serial(state: &State) -> bool {
    let past = past(state);
    let now = state.refs.map(|entry| entry.and_then(|entry| entry.content.name()));
    past.last() == Some(&now) && past.iter().zip(&state.effects).all(|(before, effect)| *before == effect.reads)
}

fn opaque(state: &State) -> bool {
    let past = past(state);
    state.clients.iter().filter_map(|client| client.step.view()).all(|view| past.contains(&view.names()))
}
