/// An error that is only ever shown.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
