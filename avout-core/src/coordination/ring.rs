//! The rules of a queue: how its values are numbered, where they lie, and who has them. Plain data, no await and no
//! clock.
//!
//! Values are numbered as they are pushed. Number n lies at place `n % size` of its ring, so places are reused. A value
//! that is out keeps its place for as long as it takes; if the turn of another value comes at that place, that one is
//! laid aside, at one of as many places behind the ring's end. So a value that is out takes the room of one value,
//! however many have come and gone since.
//!
//! ```text
//! ring of 4      place   0  1  2  3 | 4  5  6  7
//! pushed 0 to 3          0  1  2  3 |
//! 0 is out, 1 to 3 done  0  .  .  . |
//! pushed 4 to 6          0  5  6  . | 4
//! ```
//!
//! A change of the capacity begins a new ring; values in the old one stay there until they are taken off.

use serde::{Deserialize, Serialize};

use super::rules::Claimant;

/// A number of places, used in turn by the values from one number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    /// Distinguishes it from all rings that the queue has had. `None`: of a version that had one ring for each queue.
    pub(super) name: Option<u64>,
    pub(super) from: u64,
    pub(super) size: u64,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) ring: Option<u64>,
    pub(super) index: u64,
}

/// The part of a queue that consumers change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The first value that no consumer has had yet. The field's name tells this form from an earlier one, whose
    /// readers refuse it.
    #[serde(alias = "next")]
    pub(super) front: u64,
    /// Values that were handed out and not acknowledged.
    pub(super) out: Vec<Out>,
    /// Zero and no ring: written by an earlier version, and the tail has both.
    #[serde(default)]
    pub(super) capacity: u64,
    /// Oldest first; new values go to the last one.
    #[serde(default)]
    rings: Vec<Ring>,
    /// Values that did not get their places.
    #[serde(default)]
    aside: Vec<Aside>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Out {
    pub(super) number: u64,
    pub(super) who: Claimant,
    /// How often it was handed out.
    pub(super) times: u32,
    /// How long it stays hidden, in milliseconds.
    pub(super) hidden: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Aside {
    number: u64,
    index: u64,
}

/// The part of a queue that producers change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// The number of the next value.
    #[serde(alias = "next")]
    pub(super) back: u64,
    pub(super) capacity: u64,
    /// `None`: written by an earlier version, with one ring of the capacity's size.
    #[serde(default)]
    ring: Option<Ring>,
    /// Values before this number find room and a free place, whatever consumers do.
    #[serde(default)]
    free_until: u64,
}

/// The places of a queue that was destroyed, whose values have yet to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ruins {
    rings: Vec<Ruin>,
    places: Vec<Place>,
    /// The number of the first value after the destruction: no number is ever used for two values. It stays when all
    /// else is removed.
    #[serde(default)]
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ruin {
    ring: Ring,
    from: u64,
    to: u64,
}

impl Ring {
    fn place(&self, number: u64) -> Place {
        Place { ring: self.name, index: number % self.size.max(1) }
    }
}

/// A new queue, whose values are numbered from `first` on. `name`: of a ring that it has never had.
pub(super) fn begin(capacity: u64, name: u64, first: u64) -> (Head, Tail) {
    let ring = Ring { name: Some(name), from: first, size: capacity };
    let head = Head { front: first, capacity, rings: vec![ring], ..Head::default() };
    (head, Tail { back: first, capacity, ring: Some(ring), free_until: first.saturating_add(capacity) })
}

impl Head {
    /// Whether it is in the form of this version, which does not need the tail.
    pub(super) fn is_complete(&self) -> bool {
        !self.rings.is_empty()
    }

    /// Adds the fields that an earlier version left to the tail.
    pub(super) fn complete(mut self, tail: &Tail) -> Self {
        if !self.is_complete() {
            (self.capacity, self.rings) = (tail.capacity, vec![tail.ring()]);
        }
        self
    }

    fn ring_of(&self, number: u64) -> Option<&Ring> {
        self.rings.iter().rev().find(|ring| ring.from <= number)
    }

    /// Where a value lies, or will lie as far as can be known.
    pub(super) fn place(&self, number: u64) -> Option<Place> {
        let ring = self.ring_of(number)?;
        let aside = self.aside.iter().find(|aside| aside.number == number);
        Some(aside.map_or_else(|| ring.place(number), |aside| Place { ring: ring.name, index: aside.index }))
    }

    /// The place of the first value that no consumer has had. `None`: it was not pushed yet, and its place is taken by
    /// a value that is out.
    pub(super) fn front_place(&self) -> Option<Place> {
        let place = self.place(self.front)?;
        let taken = self.out.iter().any(|out| self.place(out.number) == Some(place));
        (!taken).then_some(place)
    }

    /// The number of values, including those that are out.
    pub(super) fn count(&self, tail: &Tail) -> u64 {
        tail.back.saturating_sub(self.front) + self.out.len() as u64
    }

    /// Takes the first value off.
    pub(super) fn pass_front(&mut self) {
        let number = self.front;
        self.front += 1;
        self.forget(number);
    }

    /// Hands the first value out.
    pub(super) fn hand_out_front(&mut self, who: Claimant, hidden: u64) -> Out {
        let out = Out { number: self.front, who, times: 1, hidden };
        self.out.push(out);
        self.front += 1;
        out
    }

    /// Hands out again a value that another consumer has got.
    pub(super) fn hand_on(&mut self, number: u64, who: Claimant, hidden: u64) -> Option<Out> {
        let out = self.out.iter_mut().find(|out| out.number == number)?;
        *out = Out { number, who, times: out.times.saturating_add(1), hidden };
        Some(*out)
    }

    /// The value that was handed out to this claimant.
    pub(super) fn held_by(&mut self, who: Claimant) -> Option<&mut Out> {
        self.out.iter_mut().find(|out| out.who == who)
    }

    /// Takes a value off that is out.
    pub(super) fn settle(&mut self, number: u64) {
        self.out.retain(|out| out.number != number);
        self.forget(number);
    }

    /// Forgets all about this value.
    fn forget(&mut self, number: u64) {
        self.aside.retain(|aside| aside.number != number);
        self.drop_rings();
    }

    /// Drops old rings without values.
    fn drop_rings(&mut self) {
        let ends: Vec<u64> = self.rings.iter().skip(1).map(|ring| ring.from).collect();
        let (front, out) = (self.front, &self.out);
        let mut ends = ends.into_iter();
        self.rings.retain(|ring| match ends.next() {
            None => true,
            Some(end) => {
                (front < end && ring.from < end) || out.iter().any(|out| (ring.from..end).contains(&out.number))
            }
        });
    }

    /// Finds a place for the next value, by the whole state. `None`: the queue is full.
    pub(super) fn make_room(&mut self, tail: &mut Tail) -> Option<Place> {
        let room = self.capacity.saturating_sub(self.count(tail));
        if room == 0 {
            return None;
        }
        let (ring, next) = (tail.ring(), tail.back);
        let waiting = self.front.max(ring.from);
        // After how many values the next value comes whose place is taken.
        let turns = self.out.iter().filter(|out| self.is_at_its_place(out.number, &ring)).map(|out| {
            let (place, turn) = (ring.place(out.number).index, ring.place(next).index);
            if place >= turn { place - turn } else { ring.size - turn + place }
        });
        let turn = turns.min().unwrap_or(u64::MAX);
        if turn > 0 {
            tail.free_until = next.saturating_add(room.min(turn)).min(waiting.saturating_add(ring.size));
            return Some(ring.place(next));
        }
        let in_ring = |aside: &&Aside| self.ring_of(aside.number).map(|ring| ring.name) == Some(ring.name);
        let mut taken: Vec<u64> = self.aside.iter().filter(in_ring).map(|aside| aside.index).collect();
        taken.sort_unstable();
        let index = taken.iter().fold(ring.size, |free, index| if *index == free { free + 1 } else { free });
        self.aside.push(Aside { number: next, index });
        Some(Place { ring: ring.name, index })
    }

    fn is_at_its_place(&self, number: u64, ring: &Ring) -> bool {
        self.ring_of(number).is_some_and(|of| of.name == ring.name)
            && !self.aside.iter().any(|aside| aside.number == number)
    }

    /// Changes the capacity. `name`: of a ring that the queue has never had.
    pub(super) fn resize(&mut self, tail: &mut Tail, capacity: u64, name: u64) {
        let ring = Ring { name: Some(name), from: tail.back, size: capacity };
        (self.capacity, tail.capacity) = (capacity, capacity);
        // The next producer looks how much room there is.
        (tail.ring, tail.free_until) = (Some(ring), tail.back);
        self.rings.push(ring);
        self.drop_rings();
    }

    /// All places with values.
    pub(super) fn ruins(&self, tail: &Tail) -> Ruins {
        let ends = self.rings.iter().skip(1).map(|ring| ring.from).chain([tail.back]);
        let rings = self.rings.iter().zip(ends).filter_map(|(ring, to)| {
            let from = ring.from.max(self.front);
            (from < to).then_some(Ruin { ring: *ring, from, to })
        });
        let apart = self.out.iter().map(|out| out.number).chain(self.aside.iter().map(|aside| aside.number));
        let places = apart.filter_map(|number| self.place(number)).collect();
        Ruins { rings: rings.collect(), places, next: tail.back }
    }
}

impl Tail {
    /// The ring that the next value goes to.
    pub(super) fn ring(&self) -> Ring {
        self.ring.unwrap_or(Ring { name: None, from: 0, size: self.capacity.max(1) })
    }

    /// The place of the next value, if it is known without the head.
    pub(super) fn place(&self) -> Option<Place> {
        (self.back < self.free_until).then(|| self.ring().place(self.back))
    }

    /// Takes note that a value was pushed, in the form of this version.
    pub(super) fn pushed(&mut self) {
        self.ring = Some(self.ring());
        self.back += 1;
    }
}

impl Ruins {
    /// Whether no value is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty() && self.places.is_empty()
    }

    /// The number of the first value after the destruction.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Adds the places of the queue that was made and destroyed after this one.
    pub(super) fn add(&mut self, mut others: Self) {
        self.next = self.next.max(others.next);
        self.rings.append(&mut others.rings);
        self.places.append(&mut others.places);
    }

    /// Takes at most this many places out.
    pub(super) fn take(&mut self, most: usize) -> Vec<Place> {
        let mut taken = Vec::with_capacity(most);
        while taken.len() < most {
            match (self.places.pop(), self.rings.last_mut()) {
                (Some(place), _) => taken.push(place),
                (None, Some(ruin)) if ruin.from < ruin.to => {
                    taken.push(ruin.ring.place(ruin.from));
                    ruin.from += 1;
                }
                (None, Some(_)) => drop(self.rings.pop()),
                (None, None) => break,
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests;
