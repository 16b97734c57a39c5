use avout_core::backend::tasks;
use tokio::runtime::{Handle, Id, RuntimeFlavor};

/// The runtime that drives the connections of a request's caller.
///
/// A runtime with threads of its own drives those of its own tasks: another thread would have to be woken for each request, and the
/// caller for each answer. All other callers share connections that the library's thread drives. So no connection that others use ends
/// with a runtime, or stands still with it.
#[derive(Clone, Debug)]
pub(crate) struct Home(Option<Handle>);

impl Home {
    /// Where the caller is.
    pub(crate) fn here() -> Self {
        Self(Handle::try_current().ok().filter(|current| current.runtime_flavor() == RuntimeFlavor::MultiThread))
    }

    /// Where no caller has to be.
    pub(crate) fn library() -> Self {
        Self(None)
    }

    pub(crate) fn runtime(&self) -> Handle {
        self.0.clone().unwrap_or_else(tasks::connections)
    }

    /// The runtime, if it is the caller's own.
    pub(crate) fn own(&self) -> Option<&Handle> {
        self.0.as_ref()
    }

    pub(crate) fn id(&self) -> Option<Id> {
        self.own().map(Handle::id)
    }
}
