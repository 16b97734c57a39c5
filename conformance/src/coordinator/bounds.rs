//! Reads at their bounds: of many keys, of many bytes, and as of points that nobody has read at.

use std::sync::Arc;

use avout_core::protocol::Put;
use avout_core::{ErrorKind, Payload, Point};

use crate::law::{Ctx, Outcome, laws, needs};
use crate::sample::{big, committed, inline, key, keys, number, puts, record, write};

laws! { "coordinator":
    a_read_of_many_large_records_is_answered,
    a_read_names_as_many_keys_as_it_may,
    a_read_as_of_the_beginning_is_none_of_now,
    a_read_as_of_what_is_to_come_is_refused,
}

/// As many bytes as a law has in one namespace, where the coordinator has no limit or a larger one.
const MANY_BYTES: usize = 24 << 20;
const LARGE: usize = 2 << 20;
/// As many keys as a law asks for.
const MANY_KEYS: usize = 70_000;

/// A read of many keys is answered though each has as large a record as the capabilities allow: no limit of the client's own
/// connection is lower than what it says that it takes.
async fn a_read_of_many_large_records_is_answered(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let capabilities = one.capabilities();
    needs(!capabilities.in_process, "no bytes go anywhere")?;
    let size = capabilities.max_record.min(capabilities.max_commit - "/k/00".len()).min(LARGE);
    let all = keys("k", capabilities.max_keys.min(MANY_BYTES / size));
    let overhead = record(0).encoded_size() - 8;
    let value = big(size - overhead, 1);
    for key in &all {
        let record = inline(value.clone());
        assert_eq!(record.encoded_size(), size);
        committed(one.commit(&puts([Put { key: key.clone(), revision: None, record }])).await?);
    }
    for client in [two, one] {
        let found = client.read(&all, None).await?.entries;
        assert_eq!(found.len(), all.len());
        for (key, entry) in all.iter().zip(found) {
            let payload = entry.as_ref().map(|entry| &entry.record.payload);
            let whole = matches!(payload, Some(Payload::Inline(bytes)) if *bytes == value);
            assert!(
                whole,
                "{key} of {} keys with {size} bytes each: {:?}",
                all.len(),
                payload.map(Payload::inline_bytes)
            );
        }
    }
    Ok(())
}

/// A read of as many keys as the capabilities allow is answered, in order, whether they are present or absent.
async fn a_read_names_as_many_keys_as_it_may(ctx: Ctx) -> Outcome {
    let client = ctx.coordinator().await?;
    let all = keys("k", client.capabilities().max_keys.min(MANY_KEYS));
    let present = [0, all.len() / 2, all.len() - 1];
    for place in present {
        write(&*client, &all[place], place as u64).await?;
    }
    let found = client.read(&all, None).await?.entries;
    assert_eq!(found.len(), all.len());
    for (place, entry) in found.iter().enumerate() {
        let expected = present.contains(&place).then_some(place as u64);
        assert_eq!(entry.as_ref().map(number), expected, "{}", all[place]);
    }
    Ok(())
}

/// With native snapshots the first point of all is the moment before the first commit, and never means "now".
async fn a_read_as_of_the_beginning_is_none_of_now(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*one, &key, 1).await?;
    let answer = two.read(std::slice::from_ref(&key), Some(Point::ZERO)).await;
    if !one.capabilities().native_snapshots {
        // What is ignored is ignored whatever it is.
        assert_eq!(answer?.entries[0].as_ref().map(number), Some(1));
        return Ok(());
    }
    match answer {
        Ok(snapshot) => {
            assert_eq!(snapshot.point, Point::ZERO, "a read as of the beginning is answered as of another point");
            assert!(snapshot.entries[0].is_none(), "a read as of the beginning shows what was committed later");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::TooOld, "{error:?}"),
    }
    Ok(())
}

/// With native snapshots a read as of a point that is not there yet is refused, in bounded time: nobody knows what will be
/// current then.
async fn a_read_as_of_what_is_to_come_is_refused(ctx: Ctx) -> Outcome {
    let client: Arc<_> = ctx.coordinator().await?;
    let key = key("/a");
    write(&*client, &key, 1).await?;
    let now = client.read(&[], None).await?.point;
    // Of counted points far ahead, and an hour where a point has seconds in its upper half.
    let to_come = Point::new(now.number() + (3600 << 32));
    let asked = client.read(std::slice::from_ref(&key), Some(to_come));
    let answer = crate::law::within(ctx.fixture.patience(), "a read as of a point that is to come", asked).await;
    if !client.capabilities().native_snapshots {
        assert_eq!(answer?.entries[0].as_ref().map(number), Some(1));
        return Ok(());
    }
    match answer {
        Ok(snapshot) => panic!("answered as of {:?}, when the last point was {now:?}", snapshot.point),
        Err(error) => assert_eq!(error.kind(), ErrorKind::TooOld, "{error:?}"),
    }
    Ok(())
}
