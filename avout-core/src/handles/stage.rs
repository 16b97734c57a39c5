use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Result;

/// The stage of a builder: its settings, and from the first poll on the future that they became.
///
/// A builder is itself a future rather than `IntoFuture`: if a bound does not hold, the compiler then names the bound,
/// such as `Account: Serialize`, instead of saying that the builder is not a future.
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

    /// Polls the future; the first poll makes it from the settings, by `begin`.
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
