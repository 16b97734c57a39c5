//! What the rules of a commit decide, as tables: what was told, and the steps that are asked for.

use std::any::TypeId;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::backend::{Kind, Page, StateContainer, Store, StoreCapabilities, VersionedStateContainer};
use crate::engine::attempt::{Action, Write};
use crate::engine::cell::{Cell, Coder, Function};
use crate::protocol::{
    ClientId, CodecId, Commit, Committed, Conflict, Entry, Meta, Payload, Realm, Record, Revision, Shared,
};

/// A store of which nothing is asked.
struct Unused;

#[async_trait]
impl Store for Unused {
    fn realm(&self) -> Realm {
        Realm::new(1)
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::default()
    }

    fn state(&self, _: &Key) -> Arc<dyn StateContainer> {
        unreachable!()
    }

    fn versioned_state(&self, _: &Key) -> Arc<dyn VersionedStateContainer> {
        unreachable!()
    }

    async fn keys(&self, _: Kind, _: &Key, _: Option<&Key>) -> Result<Page> {
        unreachable!()
    }
}

impl Coder for Unused {
    fn encode(&self, _: &Shared) -> Result<Bytes> {
        unreachable!()
    }

    fn decode(&self, _: &Bytes) -> Result<Shared> {
        unreachable!()
    }

    fn rust_type(&self) -> TypeId {
        TypeId::of::<i64>()
    }

    fn check_tag(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, value: &Shared) -> Result<Shared> {
        Ok(Arc::clone(value))
    }
}

fn key() -> Key {
    Key::new("/a").expect("a key")
}

fn meta() -> Arc<Meta> {
    Meta { realm: Realm::new(1), codec: CodecId::MESSAGE_PACK, type_tag: "i64".into(), history: 0 }.into()
}

fn cell() -> Arc<Cell> {
    Arc::new(Cell::new(key(), ClientId::new(1), meta(), Arc::new(Unused), true, Arc::new(Unused), None))
}

fn entry(point: u64, payload: Payload) -> Option<Entry> {
    let record = Arc::new(Record::first(meta(), payload));
    Some(Entry { revision: Revision::number(point.into()), point: Point::new(point), record })
}

fn value() -> Payload {
    Payload::Inline(Bytes::from_static(b"1"))
}

fn floor(epoch: u64) -> KnownFloor {
    KnownFloor { epoch, revision: Some(Revision::number(epoch.into())) }
}

fn commute() -> Action {
    let function: Function = Arc::new(|value: &Shared| Ok(Arc::clone(value)));
    Action::Commute { functions: vec![function], provisional: Arc::new(1_i64) }
}

fn set() -> Action {
    Action::Set(Arc::new(1_i64))
}

/// What a test tells a job.
enum Told {
    /// The obstacle is out of the way.
    GoOn,
    /// What is there, as a read at a point gave it.
    Read(u64, Option<Entry>),
    /// The values are made.
    Made,
    Overtaken,
    Fails(ErrorKind),
    Sent(Sent),
}

fn committed() -> Sent {
    let done = Committed { point: Point::new(9), revisions: vec![Revision::number(9)] };
    Sent::Committed(Landed { sent: None, commit: Commit::default(), done })
}

fn conflict(on: Key, fresh: Option<(u64, Option<Entry>)>) -> Sent {
    let fresh = fresh.map(|(point, entry)| Snapshot { point: Point::new(point), entries: vec![entry] });
    Sent::Conflict { conflict: Conflict { stale: vec![on], fresh }, slot: None }
}

/// A step, in a word or two.
fn name(step: &Step) -> String {
    match step {
        Step::GiveWay(obstacle) => format!("{obstacle:?}"),
        Step::Bases { at, .. } => at.map_or("Bases".to_owned(), |at| format!("Bases at {at}")),
        Step::Values => "Values".to_owned(),
        Step::Recheck => "Recheck".to_owned(),
        Step::Send => "Send".to_owned(),
        Step::Done(Ended::Committed(point)) => format!("Committed {}", point.unwrap_or_default()),
        Step::Done(Ended::Lost { key, primed }) => format!("Lost {key}, primed: {}", primed.is_some()),
    }
}

/// Each step, and what it is told then. The last step is told nothing.
fn assert_steps(action: Action, isolation: Isolation, script: Vec<(&str, Option<Told>)>) {
    let mut attempt = Attempt::default();
    if isolation == Isolation::Snapshot {
        attempt.read_point = Some(Point::new(5));
    }
    attempt.keys.entry(&key()).write = Some(Write { cell: cell(), action });
    let plan = CommitPlan::of(&mut attempt, isolation).expect("it is not lost yet");
    let capabilities = CoordinatorCapabilities::new(Realm::new(1));
    let interest = Interest::default();
    let mut job = Job::new(&mut attempt, plan, isolation, &capabilities, Some(floor(1)), None, &interest);
    for (at, (expected, told)) in script.into_iter().enumerate() {
        let step = job.step();
        assert_eq!(name(&step), expected, "step {at}");
        let Some(told) = told else { return };
        assert_eq!(name(&job.step()), expected, "step {at}, asked for again");
        match (step, told) {
            (Step::GiveWay(obstacle), Told::GoOn) => job.go_on(obstacle),
            (Step::Bases { keys, at }, Told::Read(point, entry)) => {
                let snapshot = Snapshot { point: Point::new(point), entries: vec![entry] };
                job.bases(&keys, at, Ok((snapshot, floor(1)))).expect("an answer");
            }
            (Step::Values, Told::Made) => {
                job.plan.writes[0].computed = Some(Arc::new(2_i64));
                job.values(Ok(None));
            }
            (Step::Values, Told::Overtaken) => job.values(Ok(Some(key()))),
            (Step::Values, Told::Fails(kind)) => job.values(Err(Error::new(kind, "a test"))),
            (Step::Send, Told::Sent(sent)) => job.sent(sent),
            (step, _) => panic!("step {at}: {} is not told this", name(&step)),
        }
    }
}

/// The steps in which a commute of what was never read comes to its value.
fn commuted() -> Vec<(&'static str, Option<Told>)> {
    vec![
        ("Queues", Some(Told::GoOn)),
        ("Bases", Some(Told::Read(4, entry(3, value())))),
        ("Reservations", Some(Told::GoOn)),
        ("Values", Some(Told::Made)),
    ]
}

fn then(
    mut before: Vec<(&'static str, Option<Told>)>,
    after: Vec<(&'static str, Option<Told>)>,
) -> Vec<(&'static str, Option<Told>)> {
    before.extend(after);
    before
}

#[test]
fn a_commute_is_read_made_and_sent() {
    let end = vec![("Send", Some(Told::Sent(committed()))), ("Committed 9", None)];
    assert_steps(commute(), Isolation::Serializable, then(commuted(), end));
}

/// Whether its coordinator gave the newer record along with the conflict decides on whether it is read.
#[test]
fn a_commute_is_applied_again_after_a_conflict() {
    let given = vec![
        ("Send", Some(Told::Sent(conflict(key(), Some((7, entry(7, value()))))))),
        ("Winners(0)", Some(Told::GoOn)),
        ("Reservations", Some(Told::GoOn)),
        ("Values", Some(Told::Made)),
        ("Send", Some(Told::Sent(conflict(key(), None)))),
        ("Winners(1)", Some(Told::GoOn)),
        ("Bases", Some(Told::Read(8, entry(8, value())))),
        ("Reservations", Some(Told::GoOn)),
        ("Values", Some(Told::Made)),
        ("Send", Some(Told::Sent(committed()))),
        ("Committed 9", None),
    ];
    assert_steps(commute(), Isolation::Serializable, then(commuted(), given));
}

/// What was seen under another floor is of no use, and nothing of it is kept for the next attempt.
#[test]
fn a_raised_floor_loses_the_attempt() {
    let raised = conflict(Floor::key(), Some((7, None)));
    let name = format!("Lost {}, primed: false", Floor::key());
    let end = vec![("Send", Some(Told::Sent(raised))), (&*name, None)];
    let mut script: Vec<(&str, Option<Told>)> = commuted();
    script.extend(end);
    assert_steps(commute(), Isolation::Serializable, script);
}

#[test]
fn what_did_not_take_effect_is_sent_again() {
    let reason = Error::new(ErrorKind::Unavailable, "a test");
    let end = vec![
        ("Send", Some(Told::Sent(Sent::NotCommitted(reason)))),
        ("Outage(0)", Some(Told::GoOn)),
        ("Reservations", Some(Told::GoOn)),
        ("Send", Some(Told::Sent(Sent::Resolved(Point::new(6))))),
        ("Committed 6", None),
    ];
    assert_steps(commute(), Isolation::Serializable, then(commuted(), end));
}

/// A transaction that was committed with others and has left is taken out before it is sent.
#[test]
fn what_was_deserted_is_made_anew() {
    let end = vec![
        ("Send", Some(Told::Sent(Sent::Deserted))),
        ("Reservations", Some(Told::GoOn)),
        ("Values", Some(Told::Made)),
        ("Send", Some(Told::Sent(committed()))),
        ("Committed 9", None),
    ];
    assert_steps(commute(), Isolation::Serializable, then(commuted(), end));
}

#[test]
fn errors_are_looked_at_once_more() {
    let absent = vec![("Queues", Some(Told::GoOn)), ("Bases", Some(Told::Read(4, None))), ("Recheck", None)];
    assert_steps(commute(), Isolation::Serializable, absent);
    let create = Action::Create(Arc::new(1_i64));
    let there =
        vec![("Queues", Some(Told::GoOn)), ("Bases", Some(Told::Read(4, entry(3, value())))), ("Recheck", None)];
    assert_steps(create, Isolation::Serializable, there);
    let mut fails = commuted();
    fails.pop();
    fails.extend([("Values", Some(Told::Fails(ErrorKind::Codec))), ("Recheck", None)]);
    assert_steps(commute(), Isolation::Serializable, fails);
    let refused = Sent::Refused(Error::new(ErrorKind::TooLarge, "a test"));
    let end = vec![("Send", Some(Told::Sent(refused))), ("Recheck", None)];
    assert_steps(commute(), Isolation::Serializable, then(commuted(), end));
}

/// Others replace the value faster than it can be read.
#[test]
fn a_value_that_is_always_gone_loses_the_attempt() {
    let mut script = commuted();
    script.pop();
    script.extend([("Values", Some(Told::Overtaken)), ("Lost /a, primed: false", None)]);
    assert_steps(commute(), Isolation::Serializable, script);
}

/// Under Snapshot a write must not jump over one that the body did not see.
#[test]
fn a_write_of_what_has_changed_since_the_read_point_is_lost() {
    let unchanged = vec![
        ("Queues", Some(Told::GoOn)),
        ("Bases", Some(Told::Read(7, entry(3, value())))),
        ("Reservations", Some(Told::GoOn)),
        ("Send", Some(Told::Sent(conflict(key(), Some((8, entry(8, value()))))))),
        ("Lost /a, primed: true", None),
    ];
    assert_steps(set(), Isolation::Snapshot, unchanged);
    let changed = vec![
        ("Queues", Some(Told::GoOn)),
        ("Bases", Some(Told::Read(7, entry(6, value())))),
        ("Lost /a, primed: false", None),
    ];
    assert_steps(set(), Isolation::Snapshot, changed);
}

/// What the last blind write has left is used for the next one, if that is of the same floor and history; what it does not fit is read.
#[test]
fn a_blind_write_begins_with_what_the_last_one_left() {
    for (under, history, is_used) in [(floor(1), 0, true), (floor(2), 0, false), (floor(1), 1, false)] {
        let cell = cell();
        cell.remember(&under, history, entry(3, value()).expect("an entry"));
        let mut attempt = Attempt::default();
        let plan = CommitPlan::blind(Write { cell, action: set() });
        let capabilities = CoordinatorCapabilities::new(Realm::new(1));
        let interest = Interest::default();
        let serializable = Isolation::Serializable;
        let mut job = Job::new(&mut attempt, plan, serializable, &capabilities, Some(floor(1)), None, &interest);
        job.go_on(Obstacle::Queues);
        assert_eq!(name(&job.step()), if is_used { "Reservations" } else { "Bases" });
        if is_used {
            job.go_on(Obstacle::Reservations);
            assert_eq!(name(&job.step()), "Send");
            job.sent(Sent::Refused(Error::new(ErrorKind::TooLarge, "what is there now may have room for it")));
            assert_eq!(name(&job.step()), "Bases");
        }
    }
}
