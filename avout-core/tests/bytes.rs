//! Bytes are stored as bytes, without the user's doing.

use avout_core::{Codec, MessagePack};

#[test]
fn bytes_take_a_byte_each() {
    let bytes = vec![200_u8; 1 << 20];
    let encoded = Codec::<Vec<u8>>::encode(&MessagePack, &bytes).expect("they are encoded");
    assert!(encoded.len() < bytes.len() + 64, "{} bytes", encoded.len());
    assert_eq!(Codec::<Vec<u8>>::decode(&MessagePack, &encoded).expect("they are decoded"), bytes);
}
