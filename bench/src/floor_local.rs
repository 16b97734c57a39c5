//! The workloads with other libraries for transactional memory, in threads.

use crate::measure::Run;
use crate::spec::{Spec, Workload};
use crate::values::{Page, Small};

/// Both libraries have the same interface.
macro_rules! contender {
    ($module:ident, $library:ident) => {
        mod $module {
            use std::hint::black_box;

            use $library::{TVar, atomically};

            use crate::measure::{Meter, Round, Run, threads};
            use crate::spec::Spec;
            use crate::values::{Sample, Small};

            fn alter_two<V: Sample>(a: &TVar<V>, b: &TVar<V>, meter: &mut Meter) {
                while meter.go() {
                    atomically(|transaction| {
                        let new = a.read(transaction)?.bump();
                        a.write(transaction, new)?;
                        let new = b.read(transaction)?.bump();
                        b.write(transaction, new)
                    });
                }
            }

            fn alter_one<V: Sample>(a: &TVar<V>, meter: &mut Meter) {
                while meter.go() {
                    atomically(|transaction| {
                        let new = a.read(transaction)?.bump();
                        a.write(transaction, new)
                    });
                }
            }

            fn read_all<V: Sample>(cells: &[TVar<V>], meter: &mut Meter) {
                while meter.go() {
                    black_box(atomically(|transaction| {
                        let mut values = Vec::with_capacity(cells.len());
                        for cell in cells {
                            values.push(cell.read(transaction)?);
                        }
                        Ok(values)
                    }));
                }
            }

            fn cells<V: Sample>(count: usize, size: usize) -> Vec<TVar<V>> {
                (0..count).map(|_| TVar::new(V::of(size))).collect()
            }

            pub(super) fn two<V: Sample>(spec: Spec, disjoint: bool) -> Run {
                let cells = cells::<V>(spec.tasks * 2, spec.size);
                Box::new(move |pace| {
                    Ok(threads(spec.tasks, pace, |thread, meter| {
                        let first = if disjoint { thread * 2 } else { 0 };
                        alter_two(&cells[first], &cells[first + 1], meter);
                    }))
                })
            }

            pub(super) fn one<V: Sample>(spec: Spec) -> Run {
                let cells = cells::<V>(1, spec.size);
                Box::new(move |pace| Ok(threads(spec.tasks, pace, |_, meter| alter_one(&cells[0], meter))))
            }

            pub(super) fn read_only(spec: Spec) -> Run {
                let cells = cells::<Small>(10, spec.size);
                Box::new(move |pace| Ok(threads(1, pace, |_, meter| read_all(&cells, meter))))
            }

            pub(super) fn read_mostly(spec: Spec, busy: bool) -> Run {
                let cells = cells::<Small>(10, spec.size);
                Box::new(move |pace| {
                    std::thread::scope(|scope| {
                        let writer = busy.then(|| {
                            scope.spawn(|| threads(1, pace, |_, meter| alter_two(&cells[0], &cells[1], meter)))
                        });
                        let readers = threads(15, pace, |_, meter| read_all(&cells, meter));
                        let beside = writer.map(|writer| writer.join().expect("a writer does not panic").per_second());
                        Ok(Round { beside, ..readers })
                    })
                })
            }
        }
    };
}

contender!(by_stm, stm);
contender!(by_fast_stm, fast_stm);

/// The two libraries, where they can do the work.
pub(crate) fn contenders(spec: Spec) -> Vec<(&'static str, Run)> {
    macro_rules! both {
        ($function:ident $(::<$value:ty>)? ($($argument:expr),*)) => {
            vec![
                ("fast-stm", by_fast_stm::$function$(::<$value>)?($($argument),*)),
                ("stm", by_stm::$function$(::<$value>)?($($argument),*)),
            ]
        };
    }
    match (spec.workload, spec.size) {
        (Workload::Hello | Workload::HelloByAlter, 16) => both!(two::<Small>(spec, true)),
        (Workload::Hello | Workload::HelloByAlter, _) => both!(two::<Page>(spec, true)),
        (Workload::OneRef, 16) => both!(one::<Small>(spec)),
        (Workload::OneRef, _) => both!(one::<Page>(spec)),
        (Workload::Disjoint, _) => both!(two::<Small>(spec, true)),
        (Workload::Contended, _) => both!(two::<Small>(spec, false)),
        (Workload::ReadOnly, _) => both!(read_only(spec)),
        (Workload::ReadMostly, _) => both!(read_mostly(spec, true)),
        (Workload::ReadMostlyQuiet, _) => both!(read_mostly(spec, false)),
        (Workload::Swap | Workload::Commute, _) => both!(one::<Small>(spec)),
        (Workload::Long | Workload::Processes | Workload::Lock | Workload::LockProcesses | Workload::Mixed, _) => {
            Vec::new()
        }
    }
}
