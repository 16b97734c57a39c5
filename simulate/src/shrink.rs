use crate::world::{Course, Limits};

/// How many schedules the search may run.
const TRIES: usize = 400;

/// Finds a short schedule that still fails: without all faults from some one on, without parts of the test, and without
/// single faults. It keeps what it can leave out, and is not the shortest there is.
pub(crate) fn shrink(schedule: impl Fn(&Limits) -> (Course, Option<String>)) -> Limits {
    let mut search = Search { tries: 0, best: Limits::default(), faults: 0, parts: 0, schedule };
    let (course, _) = (search.schedule)(&search.best);
    (search.faults, search.parts) = (course.faults, course.parts);
    // What comes after the limit does not change what comes before it, so the last fault that matters is found by halving.
    let (mut fails, mut passes) = (search.faults, None::<usize>);
    while fails > passes.map_or(0, |passes| passes + 1) {
        let half = passes.map_or(0, |passes| passes + 1).midpoint(fails);
        let limits = Limits { fault_limit: Some(half), ..search.best.clone() };
        if search.keep(limits) { fails = half } else { passes = Some(half) }
    }
    for _ in 0..2 {
        search.drop_parts();
        search.drop_faults();
    }
    search.best
}

struct Search<S> {
    tries: usize,
    best: Limits,
    faults: usize,
    parts: usize,
    schedule: S,
}

impl<S: Fn(&Limits) -> (Course, Option<String>)> Search<S> {
    /// Takes these limits if the schedule still fails.
    fn keep(&mut self, limits: Limits) -> bool {
        self.tries += 1;
        if self.tries > TRIES {
            return false;
        }
        let (course, failed) = (self.schedule)(&limits);
        if failed.is_none() {
            return false;
        }
        (self.best, self.faults) = (limits, course.faults);
        true
    }

    /// Leaves out parts: first many at once, then fewer.
    fn drop_parts(&mut self) {
        let mut at_once = self.parts.div_ceil(2);
        while at_once > 0 {
            for first in (0..self.parts).step_by(at_once) {
                let off = first..(first + at_once).min(self.parts);
                let mut limits = self.best.clone();
                limits.parts_off.extend(off);
                if limits.parts_off != self.best.parts_off {
                    self.keep(limits);
                }
            }
            at_once = if at_once == 1 { 0 } else { at_once.div_ceil(2) };
        }
    }

    /// Leaves out single faults, the last ones first.
    fn drop_faults(&mut self) {
        let count = self.best.fault_limit.unwrap_or(self.faults).min(self.faults);
        for fault in (0..count).rev() {
            if !self.best.faults_off.contains(&fault) {
                let mut limits = self.best.clone();
                limits.faults_off.insert(fault);
                self.keep(limits);
            }
        }
    }
}
