use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Result;

/// How far a builder is: settings, and from the first poll on what they became.
///
/// A builder is itself the future, and not something to be made into one: where a bound does not hold, the compiler then names
/// the bound, such as `Account: Serialize`, and does not just say that the builder is no future.
pub(super) enum Stage<S, H> {
    Building(S),
    Awaited(Pin<Box<dyn Future<Output = Result<H>> + Send>>),
    Done,
}

impl<S, H> Stage<S, H> {
    pub(super) fn into_settings(self) -> S {
        match self {
            Self::Building(settings) => settings,
            _ => panic!("a builder's options are set before it is polled"),
        }
    }

    /// Goes on; at the first poll with what `begin` makes of the settings.
    pub(super) fn poll<F>(&mut self, begin: impl FnOnce(S) -> F, context: &mut Context<'_>) -> Poll<Result<H>>
    where
        F: Future<Output = Result<H>> + Send + 'static,
    {
        let mut future: Pin<Box<dyn Future<Output = Result<H>> + Send>> = match std::mem::replace(self, Self::Done) {
            Self::Building(settings) => Box::pin(begin(settings)),
            Self::Awaited(future) => future,
            Self::Done => panic!("a builder is polled after it is done"),
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            *self = Self::Awaited(future);
        }
        polled
    }
}

impl<S, H> Deref for Stage<S, H> {
    type Target = S;

    fn deref(&self) -> &S {
        match self {
            Self::Building(settings) => settings,
            _ => panic!("a builder's options are set before it is polled"),
        }
    }
}

impl<S, H> DerefMut for Stage<S, H> {
    fn deref_mut(&mut self) -> &mut S {
        match self {
            Self::Building(settings) => settings,
            _ => panic!("a builder's options are set before it is polled"),
        }
    }
}
