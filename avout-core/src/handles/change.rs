use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::stream::{Stream, StreamExt, unfold};

use super::{Value, cloned};
use crate::engine::{Followed, Follower, panicked, tells_of_lost_commits};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Point;

/// One change of a ref or atom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<T> {
    /// The value before, as this watch knew it; `None`: there was none.
    pub old: Option<T>,
    /// The new value; `None`: it was destroyed.
    pub new: Option<T>,
    /// Where it took effect. `None` for atoms, which have no place in the commit order.
    pub point: Option<Point>,
    /// Values between `old` and `new` may have been skipped because they are no longer held. Always so for atoms, which
    /// keep no history.
    pub skipped: bool,
}

/// The committed changes of a ref or atom since the watch began, in order, without end.
///
/// It is a [`Stream`] and also has its own [`next`](Self::next). It waits through outages. Errors are items: after
/// [`Corrupt`](ErrorKind::Corrupt), [`Codec`](ErrorKind::Codec) or [`Mismatch`](ErrorKind::Mismatch) for one value it
/// continues; after [`Closed`](ErrorKind::Closed) and [`StoreLost`](ErrorKind::StoreLost) it ends.
///
/// If the store has only lost commits, each watch gets one `StoreLost` with [`LostCommits`](crate::LostCommits) as its
/// source, and continues: the next item is the present value, with `skipped` set, even if it is the same as before.
///
/// A slow reader costs no memory: changes are fetched only when it asks for them. Its next change then has `skipped`
/// set.
#[must_use = "a stream does nothing until it is read"]
pub struct Changes<T>(Pin<Box<dyn Stream<Item = Result<Change<T>>> + Send>>);

impl<T: Value> Changes<T> {
    /// Makes it from an endless source of steps.
    pub(super) fn from_source<S: Source<T>>(source: S) -> Self {
        Self(Box::pin(unfold(Some(source), async |source| {
            let mut source = source?;
            // A value that cannot be cloned does not end the stream.
            let next = AssertUnwindSafe(source.next()).catch_unwind().await;
            let change = next.unwrap_or_else(|panic| Err(panicked("cloning the value", &*panic)));
            let ended = matches!(&change, Err(error) if is_final(error));
            Some((change, (!ended).then_some(source)))
        })))
    }

    /// The next change; `None` after the last one.
    ///
    /// # Cancel safety
    /// Safe: a change is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Result<Change<T>>> {
        self.0.next().await
    }
}

impl<T> Stream for Changes<T> {
    type Item = Result<Change<T>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> std::fmt::Debug for Changes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}

/// Whether no change follows after this error.
fn is_final(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Closed => true,
        ErrorKind::StoreLost => !tells_of_lost_commits(error),
        _ => false,
    }
}

/// A source of changes.
pub(super) trait Source<T>: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Result<Change<T>>> + Send;
}

impl<T: Value> Source<T> for Follower {
    async fn next(&mut self) -> Result<Change<T>> {
        let Followed { old, new, point, skipped } = Follower::next(self).await?;
        let old = old.map(cloned).transpose()?;
        let new = new.map(cloned).transpose()?;
        Ok(Change { old, new, point: Some(point), skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives numbers, and panics at the first.
    struct Unlucky(u8);

    impl Source<u8> for Unlucky {
        async fn next(&mut self) -> Result<Change<u8>> {
            self.0 += 1;
            assert!(self.0 > 1, "a panic of a clone, by plan");
            Ok(Change { old: None, new: Some(self.0), point: None, skipped: false })
        }
    }

    /// A panic in one value is an item, and the other values follow.
    #[tokio::test]
    async fn a_panic_is_no_end() {
        let mut changes = Changes::from_source(Unlucky(0));
        let error = changes.next().await.expect("it goes on").expect_err("it panicked");
        assert!(error.kind() == ErrorKind::Codec && error.to_string().contains("by plan"), "{error}");
        assert_eq!(changes.next().await.expect("it goes on").expect("a change").new, Some(2));
    }
}
