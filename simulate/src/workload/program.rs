use avout_core::Isolation;

use super::super::World;

/// What the refs of one schedule are.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) lists: usize,
    pub(super) registers: usize,
    /// A ref that is destroyed and made again.
    pub(super) volatile: bool,
    /// Hardly anything else happens, beside many sweeps.
    pub(super) churn: bool,
    pub(super) atom: bool,
    /// Which of the lists and registers are kept in the second store.
    pub(super) elsewhere: u64,
    pub(super) history: u16,
    pub(super) isolation: Isolation,
    /// Every read of a transaction that writes is an ensure, so that nothing is left to be weak under `Snapshot`.
    pub(super) ensures_all: bool,
}

/// One step of a body.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(usize, u64),
    /// Appends with no look at what is there.
    Commute(usize, u64),
    Read(usize),
    /// Reads two lists in one request.
    ReadBoth(usize, usize),
    Ensure(usize),
    Prefetch(usize),
    Get(usize),
    Set(usize, u64),
    GetVolatile,
    SetVolatile(u64),
    Destroy,
    /// Retries until the list has so many elements.
    Wait(usize, usize),
    /// The second steps, should the first ones retry.
    OrElse(Vec<Step>, Vec<Step>),
    /// Lets others go first.
    Yield,
}

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Transaction {
        steps: Vec<Step>,
        /// Its future is dropped after so many steps.
        cancelled_at: Option<u64>,
    },
    /// Reads all lists from a snapshot, with a pause in between.
    Snapshot,
    /// Makes the volatile ref, if it is not there.
    Create(u64),
    Swap(u64),
}

impl Setting {
    pub(super) fn draw(world: &World) -> Self {
        let churn = world.chance(0.05);
        let isolation = if world.chance(0.7) { Isolation::Serializable } else { Isolation::Snapshot };
        Self {
            lists: 1 + world.draw(3) as usize,
            registers: world.draw(3) as usize,
            volatile: churn || world.chance(0.3),
            churn,
            atom: world.chance(0.3),
            elsewhere: if world.chance(0.4) { world.draw(64) } else { 0 },
            history: [0, 1, 2, 8][world.draw(4) as usize],
            isolation,
            ensures_all: isolation == Isolation::Serializable || world.chance(0.4),
        }
    }

    fn list(&self, world: &World) -> usize {
        world.draw(self.lists as u64) as usize
    }

    /// What a client does next.
    pub(super) fn task(&self, world: &World) -> Task {
        if self.churn && world.chance(0.8) {
            let steps = match world.draw(4) {
                0 => return Task::Create(world.next_id()),
                1 => vec![Step::Destroy],
                2 => vec![Step::Destroy, Step::Yield, self.write(world)],
                _ => vec![Step::SetVolatile(world.next_id())],
            };
            return Task::Transaction { steps, cancelled_at: None };
        }
        match world.draw(20) {
            0 | 1 => Task::Snapshot,
            2 if self.atom => Task::Swap(world.next_id()),
            3 if self.volatile => Task::Create(world.next_id()),
            _ => {
                let steps = self.steps(world);
                let cancelled_at = world.chance(0.04).then(|| world.draw(60));
                Task::Transaction { steps, cancelled_at }
            }
        }
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        match world.draw(12) {
            0 => vec![Step::Commute(self.list(world), world.next_id())],
            1 => {
                let (first, second) = (self.list(world), self.list(world));
                let wait = vec![
                    Step::Append(second, world.next_id()),
                    Step::Wait(first, 1 + world.draw(6) as usize),
                    Step::Append(first, world.next_id()),
                ];
                vec![Step::OrElse(wait, vec![Step::Append(second, world.next_id())])]
            }
            2 => vec![Step::Wait(self.list(world), 1 + world.draw(4) as usize), self.write(world)],
            3 => (0..self.lists).map(Step::Read).collect(),
            4 if self.lists > 1 => vec![self.read(world), Step::Yield, Step::ReadBoth(0, 1)],
            _ => {
                let mut steps: Vec<Step> = (0..=world.draw(4)).map(|_| self.step(world)).collect();
                // What is read and commuted under `Snapshot` is weaker than the checker knows.
                if self.isolation == Isolation::Snapshot {
                    steps.retain(|step| !matches!(step, Step::Commute(..)));
                }
                steps
            }
        }
    }

    fn step(&self, world: &World) -> Step {
        match world.draw(11) {
            0..=2 => self.read(world),
            3..=5 => self.write(world),
            6 => Step::Commute(self.list(world), world.next_id()),
            7 if self.registers > 0 => Step::Get(world.draw(self.registers as u64) as usize),
            8 => Step::Yield,
            9 => Step::Prefetch(self.list(world)),
            10 if self.volatile => match world.draw(4) {
                0 => Step::Destroy,
                1 => Step::SetVolatile(world.next_id()),
                _ => Step::GetVolatile,
            },
            _ => Step::Ensure(self.list(world)),
        }
    }

    fn read(&self, world: &World) -> Step {
        Step::Read(self.list(world))
    }

    fn write(&self, world: &World) -> Step {
        if self.registers > 0 && world.chance(0.3) {
            return Step::Set(world.draw(self.registers as u64) as usize, world.next_id());
        }
        Step::Append(self.list(world), world.next_id())
    }
}
