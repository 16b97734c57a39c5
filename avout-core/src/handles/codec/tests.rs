use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    Leaf,
    Deeper(Box<Nested>),
}

fn nested(depth: usize) -> Nested {
    (0..depth).fold(Nested::Leaf, |inner, _| Nested::Deeper(Box::new(inner)))
}

/// A value that is nested too deep is refused on a small stack, and does not exhaust it.
#[test]
fn refuses_deep_values() {
    let on_small_stack = std::thread::Builder::new().stack_size(512 * 1024).spawn(|| {
        for depth in 0..MAX_DEPTH + 20 {
            match MessagePack.encode(&nested(depth)) {
                Ok(bytes) => assert_eq!(MessagePack.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                Err(_) => assert!(depth > MAX_DEPTH / 2, "{depth}"),
            }
        }
        for depth in 0..MAX_DEPTH + 20 {
            match MessagePack.encode(&nested(depth)) {
                Ok(bytes) => assert_eq!(MessagePack.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                Err(_) => assert!(depth > MAX_DEPTH / 2, "{depth}"),
            }
            match Json.encode(&nested(depth)) {
                Ok(bytes) => assert_eq!(Json.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                Err(_) => assert!(depth > MAX_DEPTH, "{depth}"),
            }
        }
        assert!(MessagePack.encode(&nested(300)).is_err());
        assert!(Json.encode(&nested(300)).is_err());
        let mut deep = vec![0x81, 0xa6];
        deep.extend(b"Deeper");
        let deep = deep.repeat(100_000);
        assert!(Codec::<Nested>::decode(&MessagePack, &deep).is_err());
    });
    on_small_stack.expect("a thread").join().expect("no overflow");
}

/// Bytes after the end of the value are refused.
#[test]
fn refuses_trailing_bytes() {
    assert!(Codec::<u8>::decode(&MessagePack, &[7]).is_ok());
    assert!(Codec::<u8>::decode(&MessagePack, &[7, 7]).is_err());
    assert!(Codec::<u8>::decode(&Json, b"7 7").is_err());
}

proptest! {
    /// Arbitrary bytes give a value or an error, and never a panic.
    #[test]
    fn survives_arbitrary_bytes(bytes: Vec<u8>) {
        let _ = Codec::<Nested>::decode(&MessagePack, &bytes);
        let _ = Codec::<Vec<Option<String>>>::decode(&MessagePack, &bytes);
        let _ = Codec::<std::collections::HashMap<u64, Nested>>::decode(&Json, &bytes);
    }
}
