//! What it takes to encode and decode typical values, beside `rmp-serde` alone.
//!
//! `cargo run --release -p avout-core --example codec_cost`

use std::collections::HashMap;
use std::time::{Duration, Instant};

use avout_core::{Codec, MessagePack};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    cents: i64,
    paid: bool,
    note: Option<String>,
    tags: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Sparse {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    cents: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Blob {
    name: String,
    bytes: Vec<u8>,
}

/// The shortest of several rounds, for each call.
fn time<O>(mut f: impl FnMut() -> O) -> Duration {
    let begun = Instant::now();
    std::hint::black_box(f());
    let calls = (Duration::from_millis(20).as_nanos() / begun.elapsed().as_nanos().max(1)).clamp(1, 100_000) as u32;
    let round = |_| {
        let begun = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(f());
        }
        begun.elapsed() / calls
    };
    (0..7).map(round).min().unwrap_or_default()
}

fn measure<T: Serialize + DeserializeOwned>(name: &str, value: &T) {
    let bytes = MessagePack.encode(value).expect("an encoding");
    let plain = rmp_serde::to_vec_named(value).expect("an encoding");
    let times = [
        time(|| MessagePack.encode(value).expect("an encoding")),
        time(|| rmp_serde::to_vec_named(value).expect("an encoding")),
        time(|| Codec::<T>::decode(&MessagePack, &bytes).expect("its own bytes")),
        time(|| rmp_serde::from_slice::<T>(&plain).expect("its own bytes")),
    ];
    let [encode, plain_encode, decode, plain_decode] = times.map(|time| format!("{time:.1?}"));
    println!("| {name} | {} | {} | {encode} | {plain_encode} | {decode} | {plain_decode} |", bytes.len(), plain.len());
}

fn main() {
    let order = Order {
        id: 1 << 40,
        customer: "a customer".to_owned(),
        cents: 12_345,
        paid: true,
        note: None,
        tags: vec!["new".to_owned(), "large".to_owned()],
    };
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n * 7) as u8).collect();
    println!("| value | bytes | rmp-serde | encode | rmp-serde | decode | rmp-serde |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    measure("struct of 6 fields", &order);
    measure("1000 of them", &vec![order.clone(); 1000]);
    measure("`HashMap` of 1000 of them", &(0..1000).map(|n| (n, order.clone())).collect::<HashMap<u32, _>>());
    measure("struct with a field left out", &Sparse { id: 7, note: None, cents: 7 });
    measure("`String` of 1 MiB", &"x".repeat(1 << 20));
    measure("`Vec<u8>` of 1 MiB", &bytes);
    measure("`Vec<u8>` of 1 MiB in a struct", &Blob { name: "a blob".to_owned(), bytes: bytes.clone() });
    measure("`Box<[u8]>` of 1 MiB", &bytes.clone().into_boxed_slice());
    measure("1024 `Vec<u8>` of 1 KiB", &vec![bytes[..1024].to_vec(); 1024]);
    measure("`Option<()>`", &Some(()));
    measure("`u128`", &(1_u128 << 100));
}
