use std::fmt;

/// A random id kept inside a store's namespace, so that a pointer to a value names the physical
/// store and not a name that may be given to another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(u128);

/// The random id of one client, new for each connection and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u128);

/// The random id of one session of a client. A session that has ended never comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// The id with this number.
            pub const fn new(number: u128) -> Self {
                Self(number)
            }

            /// An id drawn from the operating system's generator.
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The id's number.
            pub const fn number(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id!(Realm);
id!(ClientId);
id!(SessionId);

impl ClientId {
    /// The bits that tell the coordinator.
    const MARK: u128 = (1 << 48) - 1;

    /// The id for a client of this coordinator, from 80 random bits. The other 48 are the coordinator's: where several
    /// coordinators keep values in one store, the sweeper of each knows its own.
    pub fn of(coordinator: Realm, random: u128) -> Self {
        Self(random << 48 | coordinator.0 & Self::MARK)
    }

    /// Whether it was made for a client of this coordinator.
    pub fn is_of(self, coordinator: Realm) -> bool {
        self.0 & Self::MARK == coordinator.0 & Self::MARK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's id tells its coordinator from others, and clients from each other.
    #[test]
    fn a_client_is_of_its_coordinator() {
        let (one, other) = (Realm::random(), Realm::random());
        let (a, b) = (ClientId::of(one, 1), ClientId::of(one, 2));
        assert!(a != b && a.is_of(one) && b.is_of(one) && !a.is_of(other));
    }
}
