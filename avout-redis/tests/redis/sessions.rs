//! Sessions, which are keys that expire.

use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::backend::Coordinator as _;
use avout_core::protocol::SessionId;
use avout_core::{ErrorKind, Stm};
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

/// A session lives for its time from each sign of life on, and not again after it has ended.
pub(crate) async fn a_session_lives_by_its_renewals() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url("sessions");
    let (one, other) = (avout_redis::connect(&url).await?, avout_redis::connect(&url).await?);
    let (sessions, observer) =
        (one.coordinator.sessions().expect("its own"), other.coordinator.sessions().expect("its own"));
    let [short, long, unknown] = [1, 2, 3].map(SessionId::new);
    let (ttl, hours) = (Duration::from_millis(500), Duration::from_secs(7200));
    assert!(!sessions.renew(long, hours).await?, "it was never begun");
    assert!(sessions.begin(long, hours).await? && sessions.renew(long, Duration::MAX).await?);
    assert!(sessions.begin(short, ttl).await?);
    for _ in 0..4 {
        let renewed = Instant::now();
        assert!(sessions.renew(short, ttl).await?);
        let alive = observer.alive(&[short, unknown, long]).await?;
        if renewed.elapsed() < ttl {
            assert_eq!(alive, [true, false, true]);
        }
        sleep(ttl / 4).await;
    }
    at_last("its end", async || (observer.alive(&[short]).await.ok()? == [false]).then_some(())).await;
    assert!(!sessions.renew(short, ttl).await?, "it has ended");
    assert_eq!(observer.alive(&[short, long]).await?, [false, true]);
    sessions.end(long).await?;
    sessions.end(long).await?;
    assert_eq!(observer.alive(&[long]).await?, [false]);
    Ok(())
}

/// If the server has lost a session's key, as a failover may, its client finds out by its next sign of life, and the lock is
/// the next one's.
pub(crate) async fn a_session_that_the_server_forgot_is_lost() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url("forgotten");
    let ttl = Duration::from_secs(4);
    let client = async || {
        let backend = avout_redis::connect(&url).await?;
        Ok::<_, avout_core::Error>(Stm::builder(backend.coordinator, backend.store).session_ttl(ttl).build())
    };
    let (one, other) = (client().await?, client().await?);
    let guard = one.lock("/lock")?.acquire().await?;
    let keys = redis.command(0, &["KEYS", "{forgotten}:s/*"]).await?;
    assert_eq!(redis.command(0, &["DEL", keys.trim()]).await?.trim(), "1", "{keys}");
    timeout(Duration::from_secs(60), guard.lost()).await?;
    assert!(!guard.is_held());
    let next = timeout(Duration::from_secs(60), other.lock("/lock")?.acquire()).await??;
    assert!(next.token() > guard.token());
    let late = one.dosync(async |tx| tx.require(&guard).await).await.expect_err("it is lost");
    assert_eq!(late.kind(), ErrorKind::Lost);
    next.release().await?;
    Ok(())
}
