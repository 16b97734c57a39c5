use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::coder::{Migration, Tags, TypedCoder};
use super::stage::Stage;
use super::tag::MAX_TYPE_TAG;
use super::validate::validator;
use super::{Atom, Codec, Ref, Value, Verdict};
use crate::backend::{Kind, Store};
use crate::engine::{Action, Cell, Coder, Engine, Options, Validator, run};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{CodecId, Entry, Key, MAX_HISTORY, Meta, Payload, Shared};

/// Creates or opens a ref: set options if you need any, then `.await` it.
///
/// Validators and the amount of history that writes keep belong to the handle, and every process sets its own. Store
/// and codec belong to the ref for life. The type may be replaced by another that reads the same values, see
/// [`type_tag`](Self::type_tag), [`was`](Self::was) and [`migrate`](Self::migrate); each write stores the name of its
/// handle's type.
///
/// # Errors
/// When awaited: [`InvalidInput`](ErrorKind::InvalidInput) if the key is not valid; [`Nested`](ErrorKind::Nested)
/// inside the body of a transaction; [`Mismatch`](ErrorKind::Mismatch) if the ref was created with another type, codec
/// or store; [`Rejected`](ErrorKind::Rejected) if the validator refuses the first value;
/// [`Unsupported`](ErrorKind::Unsupported) for the in-process codec in a store outside the process; and those of
/// [`Stm::dosync`](crate::Stm::dosync).
#[must_use = "a builder does nothing until it is awaited"]
pub struct RefBuilder<T, C>(Stage<Settings<T, C>, Ref<T>>);

/// Creates or opens an atom: set options if you need any, then `.await` it.
///
/// # Errors
/// When awaited: as for [`RefBuilder`], and [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the reply to the
/// first write was lost.
#[must_use = "a builder does nothing until it is awaited"]
pub struct AtomBuilder<T, C>(Stage<Settings<T, C>, Atom<T>>);

/// A shared store, by its own type or as `Arc<dyn Store>`.
pub trait AsStore {
    /// The store.
    fn as_store(&self) -> Arc<dyn Store>;
}

/// How much history a ref keeps by default.
const DEFAULT_HISTORY: u16 = 8;

impl<S: Store> AsStore for Arc<S> {
    fn as_store(&self) -> Arc<dyn Store> {
        Arc::clone(self) as _
    }
}

impl AsStore for Arc<dyn Store> {
    fn as_store(&self) -> Arc<dyn Store> {
        Arc::clone(self)
    }
}

/// Whether to create it, to open it, or either.
enum Intent<T> {
    Open,
    Create { value: T, or_open: bool },
}

/// The options that refs and atoms share.
struct Settings<T, C> {
    engine: Arc<Engine>,
    key: Result<Key>,
    intent: Intent<T>,
    store: Option<Arc<dyn Store>>,
    validator: Option<Validator>,
    codec: C,
    type_tag: Option<String>,
    was: Vec<String>,
    migrations: Vec<Migration<T, C>>,
    /// The codec was chosen after a migration, whose old values it should read too.
    codec_too_late: bool,
    history: Option<u16>,
}

macro_rules! builder {
    ($name:ident, $what:literal) => {
        impl<T> $name<T, super::MessagePack> {
            pub(super) fn open(engine: &Arc<Engine>, key: &str) -> Self {
                Self(Stage::Building(Settings::new(engine, key, Intent::Open)))
            }

            pub(super) fn create(engine: &Arc<Engine>, key: &str, value: T, or_open: bool) -> Self {
                Self(Stage::Building(Settings::new(engine, key, Intent::Create { value, or_open })))
            }
        }

        impl<T, C> $name<T, C> {
            #[doc = concat!("Keeps the ", $what, "'s values in this store, and not in the client's own.")]
            pub fn in_store<S: AsStore + ?Sized>(mut self, store: &S) -> Self {
                self.0.store = Some(store.as_store());
                self
            }

            /// Checks every new value with `f` before it is committed. `f` should be quick; if it panics the value is
            /// refused.
            #[doc(alias = "set-validator!!")]
            pub fn validator<V: Verdict>(mut self, f: impl Fn(&T) -> V + Send + Sync + 'static) -> Self
            where
                T: Value,
            {
                self.0.validator = Some(validator(f));
                self
            }

            #[doc = concat!("Encodes the ", $what, "'s values with this codec, and not as MessagePack.")]
            pub fn codec<D>(self, codec: D) -> $name<T, D> {
                $name(Stage::Building(self.0.into_settings().with_codec(codec)))
            }

            /// Names the type, with at most 255 bytes. The default is the type's Rust name without module paths, with
            /// serde's names for structs and enums. The name is stored beside each value, and opening with another name
            /// is a [`Mismatch`](ErrorKind::Mismatch). All integers have compatible names, and so do sequences and
            /// sets, and maps; `Option`, `Box` and other types that add nothing do not count. A name with `::` in it is
            /// compatible with itself only.
            pub fn type_tag(mut self, tag: impl Into<String>) -> Self {
                self.0.type_tag = Some(tag.into());
                self
            }

            /// Also reads values that were written when the type had this name: `Account`, or `Vec<Account>` if it is
            /// inside another type. The next write gives them the new name. If you renamed the type in Rust and kept
            /// its `#[serde(rename)]` you need this only for untagged enums, in a tuple behind its first element, and
            /// for parameters of your generic types.
            pub fn was(mut self, tag: impl Into<String>) -> Self {
                self.0.was.push(tag.into());
                self
            }

            /// Also reads values that were written when the type was `Old`, converted by `f`. The next write stores
            /// them as the new type; until then each read calls `f`. If both types have the same name, a value that
            /// cannot be read as the new type is read as the old one. It may be called several times, for several old
            /// types. Call it after [`codec`](Self::codec).
            ///
            /// A process that does not know the new type cannot read values that were written as it.
            pub fn migrate<Old: Value>(mut self, f: impl Fn(Old) -> T + Send + Sync + 'static) -> Self
            where
                C: Codec<Old>,
            {
                let migration = Migration::new::<Old>(&self.0.codec, f);
                self.0.migrations.push(migration);
                self
            }
        }

        impl<T, C> std::fmt::Debug for $name<T, C> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($name));
                if let Stage::Building(settings) = &self.0 {
                    shown.field("key", &settings.key);
                }
                shown.finish_non_exhaustive()
            }
        }

        // The pinned parts of it are boxed.
        impl<T, C> Unpin for $name<T, C> {}
    };
}

builder!(RefBuilder, "ref");
builder!(AtomBuilder, "atom");

impl<T, C> RefBuilder<T, C> {
    /// How many earlier values the ref's record keeps for readers, watchers and [`Ref::history`]: 8 by default, 256 at
    /// most. Values that are stored in the record itself take at most 4 KiB in all.
    pub fn history(mut self, values: u16) -> Self {
        self.0.history = Some(values);
        self
    }
}

impl<T: Value, C: Codec<T>> Future for RefBuilder<T, C> {
    type Output = Result<Ref<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(Settings::into_ref, context)
    }
}

impl<T: Value, C: Codec<T>> Future for AtomBuilder<T, C> {
    type Output = Result<Atom<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(Settings::into_atom, context)
    }
}

impl<T> Settings<T, super::MessagePack> {
    fn new(engine: &Arc<Engine>, key: &str, intent: Intent<T>) -> Self {
        Self {
            engine: Arc::clone(engine),
            key: Key::new(key),
            intent,
            store: None,
            validator: None,
            codec: super::MessagePack,
            type_tag: None,
            was: Vec::new(),
            migrations: Vec::new(),
            codec_too_late: false,
            history: None,
        }
    }
}

impl<T, C> Settings<T, C> {
    fn with_codec<D>(self, codec: D) -> Settings<T, D> {
        let Self { engine, key, intent, store, validator, type_tag, was, history, .. } = self;
        let codec_too_late = self.codec_too_late || !self.migrations.is_empty();
        let migrations = Vec::new();
        Settings { engine, key, intent, store, validator, codec, type_tag, was, migrations, codec_too_late, history }
    }
}

/// What is known of a ref or atom before the store is asked.
struct Blueprint {
    engine: Arc<Engine>,
    key: Key,
    store: Option<Arc<dyn Store>>,
    validator: Option<Validator>,
    coder: Arc<dyn Coder>,
    codec: CodecId,
    type_tag: Box<str>,
    history: Option<u16>,
    of: Kind,
}

impl<T: Value, C: Codec<T>> Settings<T, C> {
    fn check(self, of: Kind) -> Result<(Blueprint, Intent<T>)> {
        let key = self.key?;
        let mut tags = match self.type_tag {
            Some(tag) => vec![tag],
            None => self.codec.type_tags(),
        };
        tags.extend(self.was);
        if tags.first().is_none_or(|own| own.len() > MAX_TYPE_TAG) {
            return Err(Error::new(ErrorKind::InvalidInput, "a type tag has at most 255 bytes").at(&key));
        }
        if self.codec_too_late {
            return Err(Error::new(ErrorKind::InvalidInput, "migrate was called before codec: call it after").at(&key));
        }
        let tags = Tags { own: tags.remove(0).into(), earlier: tags };
        let type_tag = tags.own.clone();
        if self.history.is_some_and(|history| history > MAX_HISTORY) {
            return Err(Error::new(ErrorKind::InvalidInput, "a record keeps at most 256 earlier values").at(&key));
        }
        let codec = self.codec.id();
        let engine = self.engine;
        let store = match of {
            Kind::Ref => self.store.map(|store| engine.attach(store)),
            Kind::Atom => self.store.map(|store| engine.usable(store)),
        };
        let blueprint = Blueprint {
            engine,
            key,
            store,
            validator: self.validator,
            coder: Arc::new(TypedCoder::<T, C>::new(self.codec, tags, self.migrations)),
            codec,
            type_tag,
            history: self.history,
            of,
        };
        Ok((blueprint, self.intent))
    }

    async fn into_ref(self) -> Result<Ref<T>> {
        self.engine.begin("open ref")?;
        let (blueprint, intent) = self.check(Kind::Ref)?;
        let (value, or_open): (Option<Shared>, bool) = match intent {
            Intent::Open => (None, true),
            Intent::Create { value, or_open } => (Some(Arc::new(value)), or_open),
        };
        let operation = if value.is_some() { "create ref" } else { "open ref" };
        let cell =
            blueprint.settle(value, or_open).await.map_err(|error| error.at(&blueprint.key).during(operation))?;
        Ok(Ref::new(blueprint.engine, cell))
    }

    async fn into_atom(self) -> Result<Atom<T>> {
        self.engine.begin("open atom")?;
        let (blueprint, intent) = self.check(Kind::Atom)?;
        let cell = blueprint.cell(None)?;
        let atom = Atom::new(Arc::clone(&blueprint.engine), cell);
        let opened = match intent {
            Intent::Open => atom.open().await,
            Intent::Create { value, or_open } => atom.create(value, or_open).await,
        };
        opened.map_err(|error| error.at(&blueprint.key))?;
        Ok(atom)
    }
}

impl Blueprint {
    /// Finds the ref as it is, or creates it: one read, and for a new one a commit.
    async fn settle(&self, value: Option<Shared>, or_open: bool) -> Result<Arc<Cell>> {
        let deadline = self.engine.deadline();
        // A client that only reads opens an existing one.
        if value.is_some() && !self.engine.readonly {
            let cell = self.cell(None)?;
            let container = cell.store.versioned_state(&self.key);
            self.engine.until(deadline, || container.init()).await?;
        }
        for tries in 0.. {
            let settled = self.settle_once(&value, or_open, deadline).await;
            match settled {
                Err(error) if value.is_some() && or_open => {
                    if !self.engine.looks_again(&error, tries, deadline).await {
                        return Err(error);
                    }
                }
                settled => return settled,
            }
        }
        unreachable!("the loop above has no end but a return")
    }

    async fn settle_once(&self, value: &Option<Shared>, or_open: bool, deadline: Option<Instant>) -> Result<Arc<Cell>> {
        run(&self.engine, Options::until(&self.engine.config, deadline), |tx| async move {
            tx.see(&[&self.key]).await?;
            let found = tx.seen_alive(&self.key);
            match (found, value) {
                (Some(_), Some(_)) if !or_open => {
                    Err(Error::new(ErrorKind::AlreadyExists, "there is a ref of this name already: open it"))
                }
                (Some(entry), _) => self.cell(Some(&entry)),
                (None, Some(value)) => {
                    let cell = self.cell(None)?;
                    tx.write(&cell, Action::Create(Arc::clone(value)))?;
                    Ok(cell)
                }
                (None, None) => {
                    Err(Error::new(ErrorKind::NotFound, "there is no ref of this name, or it was destroyed: create it"))
                }
            }
        })
        .await
    }

    /// The cell, in the store that the ref is in, or in the chosen store if there is no ref yet.
    fn cell(&self, entry: Option<&Entry>) -> Result<Arc<Cell>> {
        let engine = &self.engine;
        let found = entry.map(|entry| &*entry.record.meta);
        let store = match (&self.store, found) {
            (Some(store), _) => Arc::clone(store),
            (None, Some(meta)) => engine.store(meta.realm).ok_or_else(|| {
                let message = format!(
                    "its values lie in the store of realm {}, which is not attached: attach it first",
                    meta.realm
                );
                Error::new(ErrorKind::Mismatch, message)
            })?,
            (None, None) => Arc::clone(&engine.home),
        };
        let realm = store.realm();
        let inline = realm == engine.home.realm();
        let in_process = match inline && self.of == Kind::Ref {
            true => engine.capabilities.in_process,
            false => store.capabilities().in_process,
        };
        if self.codec == CodecId::IN_PROCESS && !in_process {
            let message = "the in-process codec is for stores in this process only: choose another codec or store";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let history = self.history.or(found.map(|meta| meta.history)).unwrap_or(DEFAULT_HISTORY);
        let meta = Arc::new(Meta { realm, codec: self.codec, type_tag: self.type_tag.clone(), history });
        let (coder, validator) = (Arc::clone(&self.coder), self.validator.clone());
        let cell = Cell::new(self.key.clone(), engine.client, meta, store, inline, coder, validator);
        if let Some(entry) = entry {
            cell.check_meta(&entry.record.meta)?;
            if let Payload::Shared(value) = &entry.record.payload {
                cell.coder.adopt(value)?;
            }
        }
        Ok(Arc::new(cell))
    }
}
