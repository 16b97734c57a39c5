use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Account")]
struct Customer {
    balance: i64,
}

#[derive(Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    account: Account,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Unit,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Email(String);

#[derive(Serialize, Deserialize)]
struct Id(u64);

#[derive(Serialize, Deserialize)]
struct Page<T> {
    items: Vec<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Endless(Vec<Endless>);

fn tag<T: DeserializeOwned>() -> String {
    by_serde::<T>(false)[0].replace(", RandomState", "")
}

/// Whether a value written as `Old` is opened as `New`.
fn opens<Old: DeserializeOwned, New: DeserializeOwned>() -> bool {
    let found = &by_serde::<Old>(false)[0];
    by_serde::<New>(false).iter().any(|own| agree(own, found))
}

/// A tag is readable, and names structs and enums as serde does.
#[test]
fn names_types_as_serde_does() {
    assert_eq!(tag::<i64>(), "i64");
    assert_eq!(tag::<Vec<u8>>(), "Vec<u8>");
    assert_eq!(tag::<Box<Account>>(), "Account");
    assert_eq!(tag::<Customer>(), "Account");
    assert_eq!(tag::<HashMap<String, Vec<Customer>>>(), "HashMap<String, Vec<Account>>");
    assert_eq!(tag::<Option<(Customer, u8)>>(), "Option<(Account, u8)>");
    assert_eq!(tag::<Flat>(), "Flat");
    assert_eq!(tag::<Vec<Tagged>>(), "Vec<Tagged>");
    assert_eq!(tag::<Vec<Untagged>>(), "Vec<Untagged>");
    assert_eq!(tag::<Page<Account>>(), "Page<Account>");
    assert_eq!(tag::<Email>(), "Email");
    assert_eq!(tag::<[Customer; 3]>(), "[Account; 3]");
    assert!(tag::<Endless>().len() <= MAX_TYPE_TAG);
    let inside = async {
        #[derive(Serialize, Deserialize)]
        struct Account {
            balance: i64,
        }
        tag::<Account>()
    };
    let tag = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(inside);
    assert_eq!(tag, "Account");
}

/// A value that can be read as the new type opens; a foreign one does not.
#[test]
fn tags_of_one_shape_agree() {
    assert!(opens::<i32, i64>() && opens::<i64, i32>() && opens::<u8, i128>());
    assert!(opens::<HashMap<String, i32>, BTreeMap<String, i64>>());
    assert!(opens::<Vec<u8>, VecDeque<i64>>() && opens::<BTreeSet<u8>, Vec<u8>>() && opens::<[u8; 4], Vec<u8>>());
    assert!(opens::<Vec<u8>, serde_bytes::ByteBuf>() && opens::<serde_bytes::ByteBuf, Vec<u8>>());
    assert!(opens::<Account, Customer>() && opens::<Account, Option<Box<Account>>>());
    assert!(opens::<String, Cow<'static, str>>() && opens::<String, Box<str>>() && opens::<String, Email>());
    assert!(opens::<Vec<Account>, Box<[Customer]>>() && opens::<f32, f64>());
    assert!(opens::<(Account, u8), (Customer, u32)>());
    assert!(!opens::<Account, Id>() && !opens::<String, i64>() && !opens::<i64, f64>() && !opens::<u64, Id>());
    assert!(!opens::<Vec<Account>, Vec<Id>>() && !opens::<Page<Account>, Page<Id>>());
    assert!(!opens::<Vec<Account>, HashMap<String, Account>>() && !opens::<Email, Id>());
    assert!(!opens::<HashMap<String, Account>, HashMap<u64, Account>>() && !opens::<(u8, String), (String, u8)>());
}

/// Values of earlier versions are read by the same type, wherever that is now.
#[test]
fn tags_of_earlier_versions_agree() {
    let own = |tags: Vec<String>, found: &str| tags.iter().any(|own| agree(own, found));
    assert!(own(by_serde::<Account>(false), "{{closure}}Account"));
    assert!(own(by_serde::<Vec<Account>>(false), "Vec<{{closure}}Account>"));
    assert!(own(by_serde::<Account>(false), "Foo<i32>{{closure}}Account"));
    assert!(own(by_serde::<Vec<Account>>(false), "Vec<Foo<i32>{{closure}}Account>"));
    assert!(own(by_serde::<Customer>(false), "Customer"));
    assert!(own(by_serde::<Email>(false), "Email"));
    assert!(own(by_serde::<Box<i64>>(false), "Box<i64>"));
    assert!(own(by_serde::<HashMap<String, i64>>(false), "HashMap<String, i64>"));
    assert!(!own(by_serde::<Account>(false), "{{closure}}Order"));
    assert!(!own(by_serde::<Account>(false), ""));
}

mod users {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct Repr {
        pub(super) n: u8,
    }

    macro_rules! through_repr {
        ($($name:ident)*) => {
            $(#[derive(Clone, Serialize, Deserialize)]
            #[serde(from = "Repr", into = "Repr")]
            pub(super) struct $name {
                n: u8,
            }

            impl From<Repr> for $name {
                fn from(repr: Repr) -> Self {
                    Self { n: repr.n }
                }
            }

            impl From<$name> for Repr {
                fn from(value: $name) -> Self {
                    Self { n: value.n }
                }
            }
            )*
        };
    }

    through_repr!(Balance Invoice PathBuf);

    #[derive(Serialize, Deserialize)]
    pub(super) struct Path {
        from: u8,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Bytes {
        of: u8,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct U64(String);

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    pub(super) struct NonZeroU8(String);

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum ByteBuf {
        Number(u8),
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Cell<T> {
        of: T,
    }
}

/// A type that reads itself as another keeps its own name, and values with the other's name are read.
#[test]
fn a_helper_names_no_type() {
    assert_eq!(tag::<users::Balance>(), "Balance");
    assert_eq!(tag::<Vec<Option<users::Balance>>>(), "Vec<Option<Balance>>");
    assert_eq!(tag::<users::PathBuf>(), "struct PathBuf");
    assert!(opens::<users::Balance, users::Balance>() && opens::<users::Repr, users::Balance>());
    assert!(!opens::<users::Balance, users::Invoice>() && !opens::<Vec<users::Balance>, Vec<users::Invoice>>());
}

/// A user's type with the same name as one that the library knows is not taken for it.
#[test]
fn a_users_type_may_have_any_name() {
    assert_eq!(tag::<users::Path>(), "struct Path");
    assert_eq!(tag::<HashMap<String, users::Path>>(), "HashMap<String, struct Path>");
    assert_eq!(tag::<users::Cell<i32>>(), "struct Cell<i32>");
    assert!(opens::<users::Path, users::Path>() && opens::<Vec<users::Path>, Option<VecDeque<users::Path>>>());
    assert!(opens::<users::Cell<i32>, users::Cell<i64>>() && !opens::<users::Cell<i32>, i32>());
    assert!(!opens::<i32, users::Cell<i32>>());
    assert!(!opens::<String, users::Path>() && !opens::<users::Path, String>());
    assert!(!opens::<Vec<String>, Vec<users::Path>>() && !opens::<Vec<u8>, users::Bytes>());
    assert!(!opens::<u64, users::U64>() && !opens::<users::U64, u64>() && !opens::<u8, users::NonZeroU8>());
    assert!(!opens::<Vec<u8>, users::ByteBuf>());
    assert!(opens::<String, std::path::PathBuf>() && opens::<u8, std::num::NonZeroU8>());
    let earlier = by_serde::<users::Path>(false);
    assert!(earlier.iter().any(|own| agree(own, "Path")), "{earlier:?}");
}

/// Tags that an application gave with the path of a module agree as a whole.
#[test]
fn pinned_paths_agree_as_a_whole() {
    assert!(agree("billing::Account", "billing::Account"));
    assert!(!agree("billing::Account", "users::Account"));
    assert!(!agree("billing::Account", "Account") && !agree("Account", "users::Account"));
    assert!(!agree("{billing}Account", "{users}Account"));
}

/// A number is not rounded by opening it.
#[test]
fn a_float_does_not_become_narrower() {
    assert!(opens::<f32, f64>() && !opens::<f64, f32>() && !opens::<Vec<f64>, Vec<f32>>());
}

/// A tag has no module paths, and at most 255 bytes.
#[test]
fn leaves_out_module_paths() {
    let tag = |tags: Vec<String>| tags[0].replace(", RandomState", "");
    assert_eq!(tag(by_rust_name::<i64>()), "i64");
    assert_eq!(tag(by_rust_name::<Vec<String>>()), "Vec<String>");
    let mixed = by_rust_name::<(HashMap<String, Option<u8>>, [u8; 4])>();
    assert_eq!(tag(mixed), "(HashMap<String, Option<u8>>, [u8; 4])");
    type Wide = (HashMap<String, Option<Vec<String>>>, HashMap<String, Option<Vec<String>>>);
    type Wider = (Wide, Wide, Wide, Wide);
    assert!(by_rust_name::<(Wider, Wider)>()[0].len() <= MAX_TYPE_TAG);
    assert_ne!(by_rust_name::<(Wider, Wider)>(), by_rust_name::<(Wider, Wider, u8)>());
}
