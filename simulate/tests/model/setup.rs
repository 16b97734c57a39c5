//! What is modelled in one run: the transactions, the faults, and the rules, each of which can be broken.

/// Refs of the model.
pub(crate) const REFS: usize = 2;

/// What a transaction does. Each reads both refs first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Writes one ref.
    Write(usize),
    /// Writes both.
    WriteBoth,
    Destroy(usize),
    Create(usize),
}

/// Which commits check the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloorCheck {
    Always,
    /// Those that write values into stores, or whose coordinator may use a revision again.
    WhereNeeded,
    Never,
}

/// The protocol's rules. [`Rules::RIGHT`] is the protocol; each other value of a field is a planted bug.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// A lost reply is decided by a fence where the slot does not tell; else by looking alone.
    pub(crate) fence: bool,
    /// Commits put the slot.
    pub(crate) slot_in_commit: bool,
    /// Commits check what was only read.
    pub(crate) read_checks: bool,
    pub(crate) floor_check: FloorCheck,
    /// The sweeper raises the floor; else it fences the suspected client and takes all of that one's values.
    pub(crate) raise: bool,
    /// The sweeper removes only tombstones and slots that it saw before it raised the floor.
    pub(crate) look_first: bool,
    /// Each removal puts the record of the sweeper's turn, expecting it as it was last seen.
    pub(crate) removal_takes_turn: bool,
    /// The floor is raised only if the turn is the one at the look.
    pub(crate) raise_checks_turn: bool,
    /// An attempt that lost to a raised floor reads again; else it goes on with what it had, under the new floor.
    pub(crate) read_again: bool,
    /// A conflict on the client's own slot is decided by the slot; else it counts as a conflict.
    pub(crate) own_slot_decides: bool,
    /// A slot is used under one epoch only.
    pub(crate) slot_serves_one_epoch: bool,
    /// A second read extends the read point, or the attempt is run again; else it is taken as it is.
    pub(crate) extend: bool,
}

impl Rules {
    pub(crate) const RIGHT: Self = Self {
        fence: true,
        slot_in_commit: true,
        read_checks: true,
        floor_check: FloorCheck::Always,
        raise: true,
        look_first: true,
        removal_takes_turn: true,
        raise_checks_turn: true,
        read_again: true,
        own_slot_decides: false,
        slot_serves_one_epoch: true,
        extend: true,
    };
}

/// One run of the checker.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) rules: Rules,
    /// What each client runs, one after the other.
    pub(crate) scripts: [Vec<Kind>; 2],
    /// How often a transaction is tried.
    pub(crate) attempts: u8,
    /// Values lie in stores; else in the records.
    pub(crate) stored: bool,
    /// The coordinator never gives a revision twice; else a key that is made again counts from 0.
    pub(crate) unique_revisions: bool,
    /// Refs are read one by one; else in one request.
    pub(crate) reads_apart: bool,
    /// A request that is not answered may be sent again below the client, which then takes any of the replies.
    pub(crate) sent_again: bool,
    /// How often a client may crash and come back as a new one.
    pub(crate) crashes: u8,
    pub(crate) sweeps: u8,
    /// The sweeper removes tombstones.
    pub(crate) sweeps_tombstones: bool,
    /// The sweeper retires the slots of clients that it takes for dead, which may be any.
    pub(crate) sweeps_slots: bool,
}

impl Setup {
    /// Two clients, one transaction each, values in the records, nothing swept, no crash.
    pub(crate) fn plain() -> Self {
        Self {
            rules: Rules::RIGHT,
            scripts: [vec![Kind::Write(0)], vec![Kind::Write(1)]],
            attempts: 2,
            stored: false,
            unique_revisions: true,
            reads_apart: false,
            sent_again: false,
            crashes: 0,
            sweeps: 0,
            sweeps_tombstones: false,
            sweeps_slots: false,
        }
    }

    /// Values lie in stores, and a sweep goes over them. Both clients write the first ref.
    pub(crate) fn swept() -> Self {
        Self { scripts: [vec![Kind::Write(0)], vec![Kind::WriteBoth]], stored: true, sweeps: 1, ..Self::plain() }
    }

    /// Refs are read one by one.
    pub(crate) fn reads_apart() -> Self {
        Self { scripts: [vec![Kind::Write(0)], vec![Kind::WriteBoth]], reads_apart: true, ..Self::plain() }
    }

    /// A client crashes at any step, once, and comes back as a new one while its requests are still under way.
    pub(crate) fn crashed() -> Self {
        Self { crashes: 1, ..Self::plain() }
    }

    /// A ref is destroyed, its tombstone removed, and the ref made again, with the revisions it had before.
    pub(crate) fn made_again() -> Self {
        Self {
            scripts: [vec![Kind::Write(0)], vec![Kind::Destroy(0), Kind::Create(0)]],
            unique_revisions: false,
            sweeps: 1,
            sweeps_tombstones: true,
            ..Self::plain()
        }
    }

    /// The same by one client alone, with two sweeps.
    pub(crate) fn swept_twice() -> Self {
        let script = vec![Kind::Destroy(0), Kind::Create(0), Kind::Write(0)];
        Self { scripts: [Vec::new(), script], sweeps: 2, ..Self::made_again() }
    }

    /// Slots are retired, of clients that are alive too.
    pub(crate) fn retired() -> Self {
        Self { scripts: [vec![Kind::Write(0)], vec![Kind::Write(1)]], sweeps: 1, sweeps_slots: true, ..Self::plain() }
    }

    /// The same where revisions come again, by one client that goes on after its slot was retired.
    pub(crate) fn retired_and_used_on() -> Self {
        let scripts = [vec![Kind::Write(0), Kind::Write(0)], Vec::new()];
        Self { scripts, unique_revisions: false, ..Self::retired() }
    }

    /// The same with some rules broken.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }
}
