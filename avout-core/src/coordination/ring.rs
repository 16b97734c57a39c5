//! The rules of a queue: which numbers its values have, where they lie, and who has them. Plain data, no await and no clock.
//!
//! Values are numbered as they are pushed. Number n lies at place `n % size` of its ring, so places are used again. A value that is
//! out keeps its place for as long as it takes; the value whose turn at that place comes meanwhile is laid aside, at one of as many
//! places behind the ring's end. So what is out takes room for one value, however many have come and gone since.
//!
//! ```text
//! ring of 4      place   0  1  2  3 | 4  5  6  7
//! pushed 0 to 3          0  1  2  3 |
//! 0 is out, 1 to 3 done  0  .  .  . |
//! pushed 4 to 6          0  5  6  . | 4
//! ```
//!
//! A change of the capacity begins a new ring; what lies in the old one stays there until it is taken off.

use serde::{Deserialize, Serialize};

use super::rules::Claimant;

/// So many places, used in turn by the values from one number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    /// Tells it from all rings that the queue has had. `None`: of a version that had one for each queue.
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

/// What those who take off change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The first value that nobody has got yet. The name tells this form from an earlier one, whose readers refuse it.
    #[serde(alias = "next")]
    pub(super) front: u64,
    /// Values that somebody has got, and has not acknowledged.
    pub(super) out: Vec<Out>,
    /// Zero and no ring: as an earlier version wrote it, and the tail has both.
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

/// What those who add change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// The number of the next value.
    #[serde(alias = "next")]
    pub(super) back: u64,
    pub(super) capacity: u64,
    /// `None`: as an earlier version wrote it, with one ring of the capacity's size.
    #[serde(default)]
    ring: Option<Ring>,
    /// Values before this number find room and their places free, whatever those who take off do.
    #[serde(default)]
    free_until: u64,
}

/// Places of a queue that was destroyed, whose values have yet to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ruins {
    rings: Vec<Ruin>,
    places: Vec<Place>,
    /// The number of the next life's first value: no number ever names two values. It stays when nothing else is left.
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

/// A new queue, whose values are numbered from `first` on: its ring's name is one that it has never had.
pub(super) fn begin(capacity: u64, name: u64, first: u64) -> (Head, Tail) {
    let ring = Ring { name: Some(name), from: first, size: capacity };
    let head = Head { front: first, capacity, rings: vec![ring], ..Head::default() };
    (head, Tail { back: first, capacity, ring: Some(ring), free_until: first.saturating_add(capacity) })
}

impl Head {
    /// Whether it tells all that there is to know without the tail.
    pub(super) fn is_complete(&self) -> bool {
        !self.rings.is_empty()
    }

    /// What an earlier version left to the tail.
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

    /// Where the first value lies that nobody has got. `None`: it was not pushed yet, since what is out lies at its place.
    pub(super) fn front_place(&self) -> Option<Place> {
        let place = self.place(self.front)?;
        let taken = self.out.iter().any(|out| self.place(out.number) == Some(place));
        (!taken).then_some(place)
    }

    /// How many values there are, with those that are out.
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

    /// Hands a value out again that somebody else has got.
    pub(super) fn hand_on(&mut self, number: u64, who: Claimant, hidden: u64) -> Option<Out> {
        let out = self.out.iter_mut().find(|out| out.number == number)?;
        *out = Out { number, who, times: out.times.saturating_add(1), hidden };
        Some(*out)
    }

    /// The value that was handed out to just this one.
    pub(super) fn held_by(&mut self, who: Claimant) -> Option<&mut Out> {
        self.out.iter_mut().find(|out| out.who == who)
    }

    /// Takes a value off that is out.
    pub(super) fn settle(&mut self, number: u64) {
        self.out.retain(|out| out.number != number);
        self.forget(number);
    }

    /// Nothing is left of this value.
    fn forget(&mut self, number: u64) {
        self.aside.retain(|aside| aside.number != number);
        self.drop_rings();
    }

    /// Drops old rings in which nothing lies.
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

    /// Finds a place for the next value, with a look at all that there is. `None`: the queue is full.
    pub(super) fn make_room(&mut self, tail: &mut Tail) -> Option<Place> {
        let room = self.capacity.saturating_sub(self.count(tail));
        if room == 0 {
            return None;
        }
        let (ring, next) = (tail.ring(), tail.back);
        let waiting = self.front.max(ring.from);
        // In how many numbers the turn of a place comes that is taken.
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
        // The next one who pushes looks how much room there is.
        (tail.ring, tail.free_until) = (Some(ring), tail.back);
        self.rings.push(ring);
        self.drop_rings();
    }

    /// All places at which values lie.
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

    /// Where the next value goes, if that can be told without the head.
    pub(super) fn place(&self) -> Option<Place> {
        (self.back < self.free_until).then(|| self.ring().place(self.back))
    }

    /// A value was pushed. What is written has the form of this version.
    pub(super) fn pushed(&mut self) {
        self.ring = Some(self.ring());
        self.back += 1;
    }
}

impl Ruins {
    /// No value is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty() && self.places.is_empty()
    }

    /// The number of the first value of the queue's next life.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Adds those of the same queue's next life.
    pub(super) fn add(&mut self, mut others: Self) {
        self.next = self.next.max(others.next);
        self.rings.append(&mut others.rings);
        self.places.append(&mut others.places);
    }

    /// Takes so many places out.
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
