use std::fmt::Display;
use std::sync::Arc;

use super::Value;
use crate::engine::{Refusal, Validator};

/// The answer of a validator: `true` or `Ok(())` for a value that is allowed.
pub trait Verdict {
    /// The reason for refusing.
    fn refusal(self) -> Option<String>;
}

impl Verdict for bool {
    fn refusal(self) -> Option<String> {
        (!self).then(|| "it answered false".to_owned())
    }
}

impl<E: Display> Verdict for Result<(), E> {
    fn refusal(self) -> Option<String> {
        self.err().map(|reason| reason.to_string())
    }
}

pub(super) fn validator<T: Value, V: Verdict>(check: impl Fn(&T) -> V + Send + Sync + 'static) -> Validator {
    Arc::new(move |value| match value.downcast_ref::<T>() {
        Some(value) => check(value).refusal().map_or(Ok(()), |reason| Err(Refusal::from(reason))),
        None => Err(Refusal::from("the value is of another type than its validator")),
    })
}
