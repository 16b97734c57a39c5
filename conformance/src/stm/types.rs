//! Values of all kinds come back as they are or are refused, and their types may change.

use std::collections::{BTreeMap, HashMap, VecDeque};

use avout_core::{Error, ErrorKind, Json, Stm};
use serde::{Deserialize, Serialize};

use super::bench::{outside, refused, refused_at};
use crate::law::{Ctx, Failure, Outcome, laws};

laws! { "stm":
    nested_options_come_back,
    json_values_come_back_or_are_refused,
    wide_integers_come_back_or_are_refused,
    bytes_come_back,
    types_of_one_shape_open_each_other,
    a_type_may_move_and_be_renamed,
    foreign_types_are_a_mismatch_that_names_both,
    values_of_another_shape_are_migrated,
    a_number_out_of_range_is_refused_when_it_is_read,
    handles_of_agreeing_types_share_a_transaction,
}

/// Two clients as if their stores were outside the process.
async fn both(ctx: &Ctx) -> Result<[Stm; 2], Failure> {
    let one = outside(ctx, |rig| rig, |store| store).await?;
    let two = outside(ctx, |rig| rig, |store| store).await?;
    Ok([one.stm, two.stm])
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    balance: i64,
}

/// `None`, `Some(None)`, `Some(())` and their like are told apart in refs, atoms, queues and results that are kept.
async fn nested_options_come_back(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    macro_rules! comes_back {
        ($name:literal: $type:ty = $($value:expr),+) => {
            let values: Vec<$type> = vec![$($value),+];
            let r = one.create_ref(concat!("/", $name), values[0].clone()).await?;
            let atom = one.create_atom(concat!("/", $name), values[0].clone()).await?;
            let queue = one.queue::<$type>(concat!("/", $name), 9)?;
            let of_two = two.open_ref::<$type>(concat!("/", $name)).await?;
            for (n, value) in values.into_iter().enumerate() {
                r.set(value.clone()).await?;
                assert_eq!((&r.get().await?, &of_two.get().await?), (&value, &value), $name);
                atom.reset(value.clone()).await?;
                assert_eq!(two.open_atom::<$type>(concat!("/", $name)).await?.get().await?, value, $name);
                queue.push(value.clone()).await?;
                assert_eq!(two.queue::<$type>(concat!("/", $name), 9)?.try_pop().await?, Some(value.clone()), $name);
                for stm in [&one, &two] {
                    let id = format!("{}/{n}", $name);
                    assert_eq!(stm.dosync_once(id, async |_| Ok(value.clone())).await?, value, $name);
                }
            }
        };
    }
    comes_back!("option": Option<Option<u8>> = Some(None), None, Some(Some(0)), Some(None));
    comes_back!("deep": Option<Option<Option<bool>>> = Some(Some(None)), Some(None), None, Some(Some(Some(false))));
    comes_back!("unit": Option<()> = Some(()), None, Some(()));
    comes_back!("list": Vec<Option<Option<String>>> = vec![Some(None), None, Some(Some(String::new()))]);
    Ok(())
}

/// With `Json` numbers come back to the last bit, and what JSON cannot hold is refused before anything is sent.
async fn json_values_come_back_or_are_refused(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    for number in [f64::NAN, f64::INFINITY] {
        refused(one.create_ref("/number", number).codec(Json).await, ErrorKind::Codec, "a number that is not finite");
        refused(one.create_atom("/number", number).codec(Json).await, ErrorKind::Codec, "in an atom");
    }
    assert!(one.list("/").await?.is_empty() && one.list_atoms("/").await?.is_empty(), "a refused value was sent");
    let maybe = one.create_ref("/maybe", Some(1.5_f64)).codec(Json).await?;
    refused_at(maybe.set(Some(f64::INFINITY)).await, ErrorKind::Codec, maybe.key(), "it would be None");
    let nested = one.create_ref("/nested", Some(Some(1_u8))).codec(Json).await?;
    refused_at(nested.set(Some(None)).await, ErrorKind::Codec, nested.key(), "it would be None");
    assert_eq!((maybe.get().await?, nested.get().await?), (Some(1.5), Some(Some(1))));
    let exact = 117.633_313_940_001_7_f64;
    one.create_atom("/exact", exact).codec(Json).await?;
    let atom = two.open_atom::<f64>("/exact").codec(Json).await?;
    assert!(atom.compare_and_set(&exact, 1.0).await?, "it came back changed");
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Payment {
    Wei { wei: u128 },
}

/// Integers of 128 bits come back; where serde cannot read them they are refused before anything is sent.
async fn wide_integers_come_back_or_are_refused(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    let values = (u128::MAX, i128::MIN, 7_u128, -7_i128);
    one.create_ref("/wide", values).await?;
    assert_eq!(two.open_ref::<(u128, i128, u128, i128)>("/wide").await?.get().await?, values);
    for wei in [7, u128::MAX] {
        refused(one.create_ref("/tagged", Payment::Wei { wei }).await, ErrorKind::Codec, "in an enum tagged inside");
    }
    refused(two.open_ref::<Payment>("/tagged").await, ErrorKind::NotFound, "a refused value was sent");
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Blob {
    Blob { bytes: Vec<u8>, more: Option<Vec<u8>> },
}

/// Bytes come back, also from where serde buffers them.
async fn bytes_come_back(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    let bytes: Vec<u8> = (0..3000_u32).map(|n| (n * 7) as u8).collect();
    let r = one.create_ref("/bytes", bytes.clone()).await?;
    let blob = Blob::Blob { bytes: bytes.clone(), more: Some(bytes.clone()) };
    one.create_ref("/blob", blob.clone()).await?;
    assert_eq!(two.open_ref::<Vec<u8>>("/bytes").await?.get().await?, bytes);
    assert_eq!(two.open_ref::<Blob>("/blob").await?.get().await?, blob);
    r.set(vec![]).await?;
    assert!(two.open_ref::<Vec<u8>>("/bytes").await?.get().await?.is_empty());
    Ok(())
}

/// A map opens as another map, a list as another list, an integer as a wider one, and what is written through either is read through
/// both.
async fn types_of_one_shape_open_each_other(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    let entry = ("a".to_owned(), 1);
    let map = one.create_ref("/map", HashMap::<String, i32>::from([entry.clone()])).await?;
    let sorted = two.open_ref::<BTreeMap<String, i64>>("/map").await?;
    assert_eq!(sorted.get().await?, BTreeMap::from([("a".to_owned(), 1)]));
    sorted.update(|map| map.insert("b".to_owned(), 2)).await?;
    assert_eq!(map.get().await?, HashMap::from([entry, ("b".to_owned(), 2)]));
    let past: Vec<_> = sorted.history().await?.into_iter().map(|past| past.value.map(|map| map.len())).collect();
    assert_eq!(past, [Some(2), Some(1)], "the history went with the old name");

    let list = one.create_ref("/list", vec![1_u8, 2]).await?;
    let deque = two.open_ref::<VecDeque<i64>>("/list").await?;
    deque.update(|list| list.push_back(3)).await?;
    assert_eq!(list.get().await?, [1, 2, 3]);

    one.create_atom("/count", 1_i32).await?;
    let wide = two.open_atom::<i64>("/count").await?;
    wide.swap(|n| n + (1 << 40)).await?;
    assert_eq!(wide.get().await?, 1 + (1 << 40));
    one.create_ref("/maybe", 5_u8).await?;
    assert_eq!(two.open_ref::<Option<u16>>("/maybe").await?.get().await?, Some(5));
    one.queue::<i32>("/numbers", 3)?.push(7).await?;
    assert_eq!(two.queue::<i64>("/numbers", 3)?.try_pop().await?, Some(7));
    one.dosync_once("number", async |_| Ok(7_i32)).await?;
    assert_eq!(two.dosync_once("number", async |_| Ok(0_i64)).await?, 7);
    Ok(())
}

/// A type keeps its values when it moves to another module, is renamed and keeps its name for serde, or says what it was.
async fn a_type_may_move_and_be_renamed(ctx: Ctx) -> Outcome {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "Account")]
    struct Customer {
        balance: i64,
    }
    let [one, two] = both(&ctx).await?;
    let inside = async {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Account {
            balance: i64,
        }
        one.create_ref("/inside", Account { balance: 1 }).await?;
        one.create_ref("/inside/list", vec![Account { balance: 1 }]).await?;
        one.create_atom("/inside", Account { balance: 1 }).await.map(drop)
    };
    inside.await?;
    assert_eq!(two.open_ref::<Account>("/inside").await?.get().await?.balance, 1);
    assert_eq!(two.open_ref::<Vec<Account>>("/inside/list").await?.get().await?.len(), 1);
    assert_eq!(two.open_atom::<Account>("/inside").await?.get().await?.balance, 1);
    assert_eq!(two.open_ref::<Customer>("/inside").await?.get().await?.balance, 1);
    // As versions before named what is inside an async function.
    one.create_ref("/old", Account { balance: 2 }).type_tag("{{closure}}Account").await?;
    let old = two.open_ref::<Account>("/old").await?;
    old.update(|account| account.balance += 1).await?;
    assert_eq!(old.get().await?.balance, 3);

    refused(two.open_ref::<Order>("/inside").await, ErrorKind::Mismatch, "it does not say what it was");
    let order = two.open_ref::<Order>("/inside").was("Account").await?;
    order.set(Order { balance: 4 }).await?;
    assert_eq!(two.open_ref::<Order>("/inside").await?.get().await?.balance, 4, "it has its new name now");
    let orders = two.open_ref::<Vec<Order>>("/inside/list").was("Vec<Account>").await?;
    assert_eq!(orders.get().await?, [Order { balance: 1 }]);
    let order = two.open_atom::<Order>("/inside").was("Account").await?;
    assert_eq!(order.swap(|order| order).await?.balance, 1);
    two.open_atom::<Order>("/inside").await?;
    Ok(())
}

/// What is of another type is a `Mismatch` that names both and says what to do, though serde could read it.
async fn foreign_types_are_a_mismatch_that_names_both(ctx: Ctx) -> Outcome {
    fn names(error: &Error, names: &[&str]) {
        let text = error.to_string();
        for name in names.iter().chain(&["was", "migrate"]) {
            assert!(text.contains(name), "{text:?} does not name {name}");
        }
    }
    let [one, two] = both(&ctx).await?;
    let r = one.create_ref("/r", Order { balance: 1 }).await?;
    one.create_atom("/r", Order { balance: 1 }).await?;
    one.create_ref("/text", "x".to_owned()).await?;
    let opened = refused_at(two.open_ref::<Account>("/r").await, ErrorKind::Mismatch, r.key(), "a ref");
    names(&opened, &["Order", "Account"]);
    let opened = refused_at(two.open_atom::<Account>("/r").await, ErrorKind::Mismatch, r.key(), "an atom");
    names(&opened, &["Order", "Account"]);
    names(&refused(two.open_ref::<i64>("/text").await, ErrorKind::Mismatch, "a text"), &["String", "i64"]);
    let lists = two.open_ref::<Vec<Order>>("/r").await;
    names(&refused(lists, ErrorKind::Mismatch, "a list"), &["Order", "Vec<Order>"]);
    assert_eq!(r.get().await?.balance, 1);
    Ok(())
}

/// `migrate` reads values of an earlier shape, in refs and atoms, with their history, and the next write stores them as the new one.
async fn values_of_another_shape_are_migrated(ctx: Ctx) -> Outcome {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Priced {
        balance: i64,
        currency: String,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "Account")]
    struct NewAccount {
        cents: i64,
    }
    let priced = |old: Account| Priced { balance: old.balance, currency: "EUR".to_owned() };
    let [one, two] = both(&ctx).await?;
    let r = one.create_ref("/r", Account { balance: 1 }).await?;
    r.set(Account { balance: 2 }).await?;
    one.create_atom("/a", Account { balance: 1 }).await?;

    refused(two.open_ref::<Priced>("/r").await, ErrorKind::Mismatch, "without migrate");
    let new = two.open_ref::<Priced>("/r").migrate(priced).await?;
    assert_eq!(new.get().await?, priced(Account { balance: 2 }));
    assert_eq!(r.get().await?.balance, 2, "to read changes nothing");
    new.update(|account| account.currency = "USD".to_owned()).await?;
    let past: Vec<_> = new.history().await?.into_iter().filter_map(|past| past.value).collect();
    let currencies: Vec<_> = past.iter().map(|account| (account.balance, account.currency.as_str())).collect();
    assert_eq!(currencies, [(2, "USD"), (2, "EUR"), (1, "EUR")]);
    assert_eq!(two.open_ref::<Priced>("/r").await?.get().await?.currency, "USD", "it is of the new type now");
    refused_at(r.get().await, ErrorKind::Mismatch, r.key(), "through a handle of the old type");

    // Of the same name: what is not of the new shape is of the old.
    let atom =
        two.open_atom::<NewAccount>("/a").migrate(|old: Account| NewAccount { cents: old.balance * 100 }).await?;
    assert_eq!(atom.swap(|account| NewAccount { cents: account.cents + 1 }).await?.cents, 101);
    assert_eq!(two.open_atom::<NewAccount>("/a").await?.get().await?.cents, 101);
    assert_eq!(atom.get().await?.cents, 101, "what is new is not migrated again");

    let json = one.create_ref("/json", 7_i64).codec(Json).await?;
    let text = two.open_ref::<String>("/json").codec(Json).migrate(|old: i64| old.to_string()).await?;
    assert_eq!((text.get().await?, json.get().await?), ("7".to_owned(), 7));
    let late = two.open_ref::<String>("/json").migrate(|old: i64| old.to_string()).codec(Json).await;
    refused(late, ErrorKind::InvalidInput, "the codec was chosen after migrate");
    Ok(())
}

/// An integer that is too large for the type that it is opened as is `Codec`, and stays as it is.
async fn a_number_out_of_range_is_refused_when_it_is_read(ctx: Ctx) -> Outcome {
    let [one, two] = both(&ctx).await?;
    let wide = one.create_ref("/r", 7_i64).await?;
    let narrow = two.open_ref::<i32>("/r").await?;
    assert_eq!(narrow.get().await?, 7);
    wide.set(1 << 40).await?;
    refused_at(narrow.get().await, ErrorKind::Codec, narrow.key(), "too large a number");
    refused_at(narrow.alter(|n| n + 1).await, ErrorKind::Codec, narrow.key(), "alter");
    assert_eq!(wide.get().await?, 1 << 40);
    Ok(())
}

/// Two handles of one ref, of types that agree, see the same value in one transaction.
async fn handles_of_agreeing_types_share_a_transaction(ctx: Ctx) -> Outcome {
    let [stm, _] = both(&ctx).await?;
    let wide = stm.create_ref("/r", 7_i64).await?;
    let narrow = stm.open_ref::<i32>("/r").await?;
    let seen = stm.dosync(async |tx| {
        let before = (tx.get(&narrow).await?, tx.get(&wide).await?, tx.get(&narrow).await?);
        tx.set(&wide, 8).await?;
        let set = tx.get(&narrow).await?;
        tx.alter(&narrow, |n| n + 1).await?;
        Ok::<_, Error>((before, set, tx.get(&wide).await?))
    });
    assert_eq!(seen.await?, ((7, 7, 7), 8, 9));
    let commuted = stm.dosync(async |tx| {
        tx.commute(&wide, |n| n + 1).await?;
        tx.get(&narrow).await
    });
    assert_eq!(commuted.await?, 10);
    stm.create_ref("/map", HashMap::from([("a".to_owned(), 1_u8)])).await?;
    let (hash, tree) = (stm.open_ref::<HashMap<String, u8>>("/map"), stm.open_ref::<BTreeMap<String, u8>>("/map"));
    let (hash, tree) = (hash.await?, tree.await?);
    let lengths = stm.dosync(async |tx| Ok::<_, Error>((tx.get(&hash).await?.len(), tx.get(&tree).await?.len())));
    assert_eq!(lengths.await?, (1, 1));
    Ok(())
}
