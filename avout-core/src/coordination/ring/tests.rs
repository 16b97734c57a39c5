use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use rmp_serde::Serializer;

use super::*;
use crate::protocol::SessionId;

/// A step of a test; its numbers choose among the values there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Pop,
    Receive,
    Ack(u8),
    Expose(u8),
    Again(u8),
    Resize(u64),
    Destroy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        2 => Just(Step::Pop),
        4 => Just(Step::Receive),
        3 => any::<u8>().prop_map(Step::Ack),
        1 => any::<u8>().prop_map(Step::Expose),
        1 => any::<u8>().prop_map(Step::Again),
        1 => (1..6_u64).prop_map(Step::Resize),
        1 => Just(Step::Destroy),
    ]
}

/// A queue by its rules, with the values at its places, and beside it a model of a queue.
struct Model {
    head: Head,
    tail: Tail,
    places: HashMap<Place, u64>,
    ruins: Ruins,
    /// The numbers of all values, including those of destroyed queues.
    numbers: HashSet<u64>,
    waiting: VecDeque<u64>,
    out: Vec<(u64, Claimant)>,
    pushed: u64,
    names: u64,
    tickets: u64,
}

impl Model {
    fn new(capacity: u64, legacy: bool) -> Self {
        let (mut head, mut tail) = begin(capacity, 1, 0);
        if legacy {
            head = Head::default();
            tail = Tail { back: 0, capacity, ring: None, free_until: 0 };
        }
        let (places, ruins, numbers, waiting, out) = Default::default();
        Self { head, tail, places, ruins, numbers, waiting, out, pushed: 0, names: 1, tickets: 0 }
    }

    /// The head as readers see it.
    fn head(&self) -> Head {
        self.head.clone().complete(&self.tail)
    }

    fn claimant(&mut self) -> Claimant {
        self.tickets += 1;
        Claimant::new(SessionId::new(1), self.tickets)
    }

    fn push(&mut self) {
        let room = (self.waiting.len() + self.out.len()) as u64 >= self.tail.capacity;
        let place = match self.tail.place() {
            Some(place) => Some(place),
            None => {
                let mut head = self.head();
                let place = head.make_room(&mut self.tail);
                self.head = head;
                place
            }
        };
        assert_eq!(place.is_none(), room, "it is full when it holds its capacity: {:?} {:?}", self.head, self.tail);
        if let Some(place) = place {
            self.pushed += 1;
            let before = self.places.insert(place, self.pushed);
            assert_eq!(before, None, "a place is used that is taken: {place:?} {:?} {:?}", self.head, self.tail);
            assert!(self.numbers.insert(self.tail.back), "number {} comes twice", self.tail.back);
            self.tail.pushed();
            self.waiting.push_back(self.pushed);
        }
    }

    /// The value at the front, which must be the first in the model.
    fn front(&self) -> Option<Place> {
        let place = self.head().front_place().filter(|place| self.places.contains_key(place));
        assert_eq!(
            place.map(|place| self.places[&place]),
            self.waiting.front().copied(),
            "{:?} {:?}",
            self.head,
            self.tail
        );
        place
    }

    fn step(&mut self, step: Step) {
        let chosen = |n: u8, many: usize| (many > 0).then(|| n as usize % many);
        match step {
            Step::Push => self.push(),
            Step::Pop => {
                if let Some(place) = self.front() {
                    self.places.remove(&place);
                    self.head = self.head();
                    self.head.pass_front();
                    self.waiting.pop_front();
                }
            }
            Step::Receive => {
                if self.front().is_some() {
                    let who = self.claimant();
                    self.head = self.head();
                    self.head.hand_out_front(who, 9);
                    let value = self.waiting.pop_front().expect("the front");
                    self.out.push((value, who));
                }
            }
            Step::Ack(n) => {
                if let Some(at) = chosen(n, self.out.len()) {
                    let (value, who) = self.out.remove(at);
                    self.head = self.head();
                    let number = self.head.held_by(who).expect("it is out").number;
                    let place = self.head.place(number).expect("a place");
                    assert_eq!(self.places.remove(&place), Some(value), "{place:?} {:?}", self.head);
                    self.head.settle(number);
                }
            }
            Step::Expose(n) => {
                if let Some(at) = chosen(n, self.out.len()) {
                    self.head = self.head();
                    self.head.held_by(self.out[at].1).expect("it is out").hidden = 0;
                }
            }
            Step::Again(n) => {
                if let Some(at) = chosen(n, self.out.len()) {
                    let who = self.claimant();
                    self.head = self.head();
                    let number = self.head.held_by(self.out[at].1).expect("it is out").number;
                    assert!(self.head.hand_on(number, who, 9).is_some());
                    assert!(self.head.held_by(self.out[at].1).is_none());
                    self.out[at].1 = who;
                }
            }
            Step::Resize(capacity) => {
                self.names += 1;
                self.head = self.head();
                self.head.resize(&mut self.tail, capacity, self.names);
            }
            Step::Destroy => {
                self.ruins.add(self.head().ruins(&self.tail));
                self.names += 1;
                (self.head, self.tail) = begin(self.tail.capacity, self.names, self.ruins.next());
                (self.waiting, self.out) = Default::default();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is done to a queue, in whatever order: values come in the order in which they were pushed, each once,
    /// and no number is used twice; no value is laid where another lies; the queue is full when it holds its capacity,
    /// and not before; and when it is destroyed all places are known, none of which the next queue of that name uses.
    #[test]
    fn keeps_order_and_room(capacity in 1..6_u64, legacy: bool, steps in prop::collection::vec(step(), 0..120)) {
        let mut model = Model::new(capacity, legacy);
        for step in steps {
            model.step(step);
            model.front();
            let held = (model.waiting.len() + model.out.len()) as u64;
            prop_assert_eq!(model.head().count(&model.tail), held);
            prop_assert!(model.head.rings.len() as u64 <= held + 1, "old rings are dropped: {:?}", model.head);
            prop_assert!(model.head.aside.len() as u64 <= held);
            let (head, tail) = (model.head(), model.tail.clone());
            let numbers = (head.front..tail.back).chain(head.out.iter().map(|out| out.number));
            let most = head.rings.iter().map(|ring| ring.size).max().unwrap_or(1);
            for number in numbers {
                let index = head.place(number).expect("a place").index;
                prop_assert!(index < 2 * most.max(capacity), "places are bounded: {index}");
            }
        }
        model.step(Step::Destroy);
        let ruins: HashSet<Place> = std::iter::from_fn(|| Some(model.ruins.take(3)).filter(|some| !some.is_empty())).flatten().collect();
        prop_assert!(model.ruins.is_empty());
        prop_assert!(model.places.keys().all(|place| ruins.contains(place)), "{:?} are left", model.places);
        model.push();
        let new: Vec<Place> = (model.head.front..model.head.front + model.tail.capacity).filter_map(|number| model.head.place(number)).collect();
        prop_assert!(new.iter().all(|place| !ruins.contains(place)));
    }
}

/// A value that is out takes the room of one value, however far the others have got.
#[test]
fn what_is_out_takes_one_place() {
    let mut model = Model::new(3, false);
    let rounds = [Step::Push, Step::Receive, Step::Ack(1)];
    [Step::Push, Step::Receive]
        .into_iter()
        .chain(rounds.into_iter().cycle().take(300))
        .for_each(|step| model.step(step));
    assert_eq!((model.head.out.len(), model.head.aside.len(), model.waiting.len()), (1, 0, 0));
}

#[derive(Serialize, Deserialize)]
struct EarlierHead {
    next: u64,
    out: Vec<Out>,
}

#[derive(Serialize, Deserialize)]
struct EarlierTail {
    next: u64,
    first: u64,
    capacity: u64,
}

fn packed<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::new(&mut bytes).with_struct_map()).expect("in memory");
    bytes
}

/// The form of an earlier version is read, with as many places as its capacity; and that version refuses the form of
/// this one.
#[test]
fn reads_the_earlier_form() {
    let out = Out { number: 3, who: Claimant::new(SessionId::new(5), 6), times: 2, hidden: 7 };
    let head: Head = rmp_serde::from_slice(&packed(&EarlierHead { next: 5, out: vec![out] })).expect("a head");
    let tail: Tail = rmp_serde::from_slice(&packed(&EarlierTail { next: 6, first: 3, capacity: 4 })).expect("a tail");
    assert!(!head.is_complete());
    let mut head = head.complete(&tail);
    assert_eq!((head.capacity, head.count(&tail)), (4, 2));
    assert_eq!(head.front_place(), Some(Place { ring: None, index: 1 }));
    assert_eq!(head.place(3), Some(Place { ring: None, index: 3 }));
    let mut tail = tail;
    let mut places = Vec::new();
    while let Some(place) = tail.place().or_else(|| head.make_room(&mut tail)) {
        places.push(place.index);
        tail.pushed();
    }
    assert_eq!(places, [2, 4], "the place of the value that is out is passed by");
    let (head, tail) = (packed(&head), packed(&tail));
    assert!(
        rmp_serde::from_slice::<EarlierHead>(&head).is_err() && rmp_serde::from_slice::<EarlierTail>(&tail).is_err()
    );
    assert!(rmp_serde::from_slice::<Head>(&head).is_ok() && rmp_serde::from_slice::<Tail>(&tail).is_ok());
}
