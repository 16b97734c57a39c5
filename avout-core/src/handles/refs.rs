use std::sync::Arc;

use super::{Ref, Value, cloned};
use crate::engine::Cell;
use crate::error::Result;
use crate::protocol::Shared;

/// Several refs that are read together: a tuple of up to eight `&Ref`s of any types, or a slice, array or vector of
/// refs of one type.
///
/// It cannot be implemented outside this library.
pub trait Refs: sealed::Sealed {
    /// The values: a tuple, or a vector.
    type Values;

    #[doc(hidden)]
    fn cells(&self) -> Vec<sealed::CellRef<'_>>;

    #[doc(hidden)]
    fn values(&self, values: Vec<sealed::Loaded>) -> Result<Self::Values>;
}

mod sealed {
    pub trait Sealed {}
    #[expect(missing_debug_implementations, reason = "never seen outside")]
    pub struct CellRef<'a>(pub(in super::super) &'a super::Arc<super::Cell>);
    #[expect(missing_debug_implementations, reason = "never seen outside")]
    pub struct Loaded(pub(in super::super) super::Shared);
}

pub(super) fn cells<R: Refs>(refs: &R) -> Vec<&Arc<Cell>> {
    refs.cells().into_iter().map(|cell| cell.0).collect()
}

pub(super) fn values<R: Refs>(refs: &R, values: Vec<Shared>) -> Result<R::Values> {
    refs.values(values.into_iter().map(sealed::Loaded).collect())
}

macro_rules! sequence {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => { $(
        impl<$($generics)*> sealed::Sealed for $type {}

        impl<$($generics)*> Refs for $type {
            type Values = Vec<T>;

            fn cells(&self) -> Vec<sealed::CellRef<'_>> {
                self.iter().map(|r| sealed::CellRef(&r.inner.cell)).collect()
            }

            fn values(&self, values: Vec<sealed::Loaded>) -> Result<Vec<T>> {
                values.into_iter().map(|value| cloned(value.0)).collect()
            }
        }
    )* };
}

sequence! {
    [T: Value] &[Ref<T>],
    [T: Value] &[&Ref<T>],
    [T: Value] &Vec<Ref<T>>,
    [T: Value] Vec<&Ref<T>>,
    [T: Value, const N: usize] &[Ref<T>; N],
    [T: Value, const N: usize] [&Ref<T>; N],
}

macro_rules! tuple {
    ($($type:ident $at:tt),*) => {
        impl<$($type: Value),*> sealed::Sealed for ($(&Ref<$type>,)*) {}

        impl<$($type: Value),*> Refs for ($(&Ref<$type>,)*) {
            type Values = ($($type,)*);

            fn cells(&self) -> Vec<sealed::CellRef<'_>> {
                vec![$(sealed::CellRef(&self.$at.inner.cell)),*]
            }

            fn values(&self, values: Vec<sealed::Loaded>) -> Result<Self::Values> {
                let mut values = values.into_iter().map(|value| value.0);
                Ok(($(cloned::<$type>(values.next().expect("one value for each ref"))?,)*))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
