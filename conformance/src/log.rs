//! What the library says in its log, for laws about that.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::law::Failure;

/// What was said since a law first listened.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Said>>>);

#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) level: Level,
    /// The message and all fields.
    pub(crate) text: String,
}

impl Log {
    /// Begins to listen to what coordination says, in the whole program. Where the program has a subscriber of its own a law about the log
    /// does not apply.
    pub(crate) fn listen() -> Result<Self, Failure> {
        static LOG: OnceLock<Option<Log>> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            tracing::subscriber::set_global_default(log.clone()).ok().map(|()| log)
        });
        log.clone().ok_or_else(|| Failure::Skipped("the program has a subscriber of its own".to_owned()))
    }

    /// What was said that has all of these in it.
    pub(crate) fn said(&self, all_of: &[&str]) -> Vec<Said> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().filter(|said| all_of.iter().all(|part| said.text.contains(part))).cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::INFO
            && metadata.target().starts_with("avout_core::coordination")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let said = Said { level: *event.metadata().level(), text: text.0 };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
