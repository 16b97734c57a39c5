use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use super::floor::KnownFloor;
use crate::backend::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{ClientId, Entry, Key, Meta, Shared, State};

/// Turns values of one type into bytes and back; the handles make it, so that the engine knows no types.
pub(crate) trait Coder: Send + Sync {
    /// The value in its envelope.
    fn encode(&self, value: &Shared) -> Result<Bytes>;
    /// The value of an envelope, checked to be of this codec and type.
    fn decode(&self, bytes: &Bytes) -> Result<Shared>;
    /// The type. Functions of one do not take values of another, though the type tags be the same.
    fn rust_type(&self) -> TypeId;
    /// Checks that values with this type tag can be read.
    fn check_tag(&self, found: &str) -> Result<()>;
    /// A shared value as one of this type, which it is or can be made.
    fn adopt(&self, value: &Shared) -> Result<Shared>;
}

/// Why a validator refused a value.
pub(crate) type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// A check of new values.
pub(crate) type Validator = Arc<dyn Fn(&Shared) -> Result<(), Refusal> + Send + Sync>;

/// A function that a commute keeps, to be applied again at the commit.
pub(crate) type Function = Arc<dyn Fn(&Shared) -> Result<Shared> + Send + Sync>;

/// Runs code of a user's that no other's work may end with. A panic in it is an error.
pub(crate) fn caught<T>(what: &str, code: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| Err(panicked(what, &*panic)))
}

/// A panic of a user's code that makes values, as an error.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Error {
    let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (None, Some(text)) => *text,
        (None, None) => "no text",
    };
    Error::new(ErrorKind::Codec, format!("{what} panicked: {text}"))
}

/// What the engine knows of one ref or atom.
pub(crate) struct Cell {
    pub(crate) key: Key,
    /// The client whose cell it is.
    pub(crate) client: ClientId,
    pub(crate) meta: Arc<Meta>,
    /// Where its values lie when they are not in the record.
    pub(crate) store: Arc<dyn Store>,
    /// Whether its values may lie in the record.
    pub(crate) inline: bool,
    pub(crate) coder: Arc<dyn Coder>,
    validator: RwLock<Option<Validator>>,
    /// Whether there has ever been a validator: commits of all threads ask.
    validated: AtomicBool,
    remembered: Mutex<Option<Box<Remembered>>>,
}

/// The record as a blind write of this client left it, and the floor under which it did.
struct Remembered {
    floor: KnownFloor,
    /// How many losses there had been by then.
    history: u64,
    entry: Entry,
}

/// The largest record that is kept from one blind write for the next.
const MAX_REMEMBERED: usize = 16 << 10;

impl Cell {
    pub(crate) fn new(
        key: Key,
        client: ClientId,
        meta: Arc<Meta>,
        store: Arc<dyn Store>,
        inline: bool,
        coder: Arc<dyn Coder>,
        validator: Option<Validator>,
    ) -> Self {
        let validated = AtomicBool::new(validator.is_some());
        let (validator, remembered) = (RwLock::new(validator), Mutex::default());
        Self { key, client, meta, store, inline, coder, validator, validated, remembered }
    }

    /// The same, but for values that were checked already.
    pub(crate) fn without_validator(&self) -> Self {
        let (meta, store, coder) = (Arc::clone(&self.meta), Arc::clone(&self.store), Arc::clone(&self.coder));
        Self::new(self.key.clone(), self.client, meta, store, self.inline, coder, None)
    }

    pub(crate) fn set_validator(&self, validator: Option<Validator>) {
        *self.validator.write().unwrap_or_else(PoisonError::into_inner) = validator;
        self.validated.store(true, Ordering::Release);
    }

    /// Asks the validator. A panic in it is a refusal.
    pub(crate) fn validate(&self, value: &Shared) -> Result<()> {
        if !self.validated.load(Ordering::Acquire) {
            return Ok(());
        }
        let validator = self.validator.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(validator) = validator else {
            return Ok(());
        };
        let rejected = |message: &'static str| Error::new(ErrorKind::Rejected, message).at(&self.key);
        match catch_unwind(AssertUnwindSafe(|| validator(value))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(rejected("the validator refused the new value").with_source(reason)),
            Err(_) => Err(rejected("the validator panicked at the new value")),
        }
    }

    /// Checks that a record was made for this type, codec and store.
    pub(crate) fn check_meta(&self, found: &Meta) -> Result<()> {
        let own = &*self.meta;
        if std::ptr::eq(found, own) {
            return Ok(());
        }
        let mismatch = |what, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            let message = format!("made with {what} {found}, opened with {expected}: open it as it was made");
            Err(Error::new(ErrorKind::Mismatch, message).at(&self.key))
        };
        if found.type_tag != own.type_tag {
            self.coder.check_tag(&found.type_tag).map_err(|error| error.at(&self.key))?;
        }
        if found.codec != own.codec {
            return mismatch("codec", &own.codec.0, &found.codec.0);
        }
        if found.realm != own.realm {
            return mismatch("a store of realm", &own.realm, &found.realm);
        }
        Ok(())
    }

    /// The value that a store or record holds.
    pub(crate) fn decode(&self, state: &State) -> Result<Shared> {
        match state {
            State::Bytes(bytes) => {
                caught("decoding the value", || self.coder.decode(bytes)).map_err(|error| error.at(&self.key))
            }
            State::Shared(value) => self.own(value),
        }
    }

    /// A value that a store or record in this process holds as it is.
    pub(crate) fn own(&self, value: &Shared) -> Result<Shared> {
        caught("converting the value", || self.coder.adopt(value)).map_err(|error| error.at(&self.key))
    }

    /// The value in its envelope.
    pub(crate) fn encode(&self, value: &Shared) -> Result<Bytes> {
        caught("encoding the value", || self.coder.encode(value)).map_err(|error| error.at(&self.key))
    }

    /// The value as its store takes it, checked against the store's limit.
    pub(crate) fn encode_for_store(&self, value: &Shared) -> Result<State> {
        let capabilities = self.store.capabilities();
        if capabilities.in_process {
            return Ok(State::Shared(Arc::clone(value)));
        }
        let bytes = self.encode(value)?;
        self.check_size(bytes.len(), capabilities.max_value)?;
        Ok(State::Bytes(bytes))
    }

    /// Keeps what a blind write has left, for the next one.
    pub(super) fn remember(&self, floor: &KnownFloor, history: u64, entry: Entry) {
        if entry.record.encoded_size() <= MAX_REMEMBERED {
            let left = Box::new(Remembered { floor: floor.clone(), history, entry });
            *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }

    /// Takes what the last blind write has left, if it was under one of these floors, and in this history.
    pub(super) fn take_remembered(&self, holds: impl Fn(&KnownFloor, u64) -> bool) -> Option<Entry> {
        let left = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        holds(&left.floor, left.history).then_some(left.entry)
    }

    pub(crate) fn check_size(&self, size: usize, limit: usize) -> Result<()> {
        if size <= limit {
            return Ok(());
        }
        let message = format!("the value has {size} bytes and its store takes at most {limit}");
        Err(Error::new(ErrorKind::TooLarge, message).at(&self.key))
    }
}

/// The error of a ref that is not there.
pub(crate) fn absent(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "there is no ref of this name, or it was destroyed").at(key)
}
