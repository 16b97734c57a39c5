//! Group `sessions`: the contract of [`Sessions`], for a coordinator that has them.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::{Coordinator, Sessions};
use avout_core::protocol::SessionId;
use tokio::time::Instant;

use crate::law::{Ctx, Failure, Outcome, laws};

laws! { "sessions":
    a_session_that_was_ended_is_never_revived,
    a_session_is_begun_once_however_often_it_is_asked,
    who_is_alive_is_told_in_order;
    timed:
    a_session_lives_as_long_as_it_shows_signs_of_life,
    a_session_without_signs_of_life_ends_in_time,
    a_session_that_expired_is_never_revived,
}

/// A client that looks at sessions, or has them.
struct Client(Arc<dyn Coordinator>);

impl Client {
    fn sessions(&self) -> &dyn Sessions {
        self.0.sessions().expect("it was asked before")
    }

    async fn alive(&self, session: SessionId) -> Result<bool, Failure> {
        let alive = self.sessions().alive(&[session]).await?;
        assert_eq!(alive.len(), 1, "one session was asked for");
        Ok(alive[0])
    }
}

async fn clients(ctx: &Ctx) -> Result<[Client; 2], Failure> {
    let clients = ctx.coordinators().await?;
    if clients[0].sessions().is_none() {
        return Err(Failure::Skipped("it has no sessions of its own".to_owned()));
    }
    Ok(clients.map(Client))
}

/// A short time to live that the store keeps as it is.
fn short(client: &Client) -> Duration {
    kept(client, Duration::from_millis(600))
}

/// The time that a session of this `ttl` is given.
fn kept(client: &Client, ttl: Duration) -> Duration {
    match client.sessions().min_ttl() {
        Duration::ZERO => ttl,
        step => step * u32::try_from(ttl.as_nanos().div_ceil(step.as_nanos())).unwrap_or(u32::MAX),
    }
}

/// A session is alive from its begin on, for every client, and stays so while it shows signs of life, each for the whole of its
/// time.
async fn a_session_lives_as_long_as_it_shows_signs_of_life(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let (session, ttl) = (SessionId::new(1), short(&own));
    assert!(!other.alive(session).await?, "a session is alive that was never begun");
    let mut last = Instant::now();
    assert!(own.sessions().begin(session, ttl).await?, "it has ended before it began");
    for round in 0..8 {
        let alive = other.alive(session).await?;
        if last.elapsed() < ttl {
            assert!(alive, "not alive {:?} after a sign of life, of {ttl:?}", last.elapsed());
        }
        tokio::time::sleep(ttl / 3).await;
        let sent = Instant::now();
        let renewed = own.sessions().renew(session, ttl).await?;
        if last.elapsed() >= ttl {
            // This machine was too slow for it to say anything.
            return Ok(());
        }
        assert!(renewed, "sign of life {round} is refused, {:?} after the one before", sent - last);
        last = sent;
    }
    Ok(())
}

/// A session whose client shows no more signs of life ends, for every client, at the latest after twice its time.
async fn a_session_without_signs_of_life_ends_in_time(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let (session, ttl) = (SessionId::new(1), short(&own));
    assert!(own.sessions().begin(session, ttl).await?);
    assert!(own.sessions().renew(session, ttl).await?);
    tokio::time::sleep(2 * ttl).await;
    assert!(!other.alive(session).await?, "alive {:?} after its last sign of life, of {ttl:?}", 2 * ttl);
    Ok(())
}

/// Nothing brings a session back: for a moment it is asked and looked at.
async fn stays_ended(own: &Client, other: &Client, session: SessionId, ttl: Duration, how: &str) -> Outcome {
    for _ in 0..3 {
        assert!(!own.sessions().renew(session, ttl).await?, "a sign of life of a session that {how} is taken");
        assert!(!other.alive(session).await?, "a session that {how} is alive again");
        assert!(!own.alive(session).await?, "a session that {how} is alive again for its own client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A session that its client has ended is not alive any more, and no later sign of life brings it back. To end it again is no
/// error.
async fn a_session_that_was_ended_is_never_revived(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let (session, ttl) = (SessionId::new(1), Duration::from_secs(60));
    let ttl = kept(&own, ttl);
    assert!(own.sessions().begin(session, ttl).await?);
    assert!(other.alive(session).await?);
    own.sessions().end(session).await?;
    stays_ended(&own, &other, session, ttl, "was ended").await?;
    own.sessions().end(session).await?;
    own.sessions().end(SessionId::new(2)).await?;
    stays_ended(&own, &other, session, ttl, "was ended twice").await
}

/// A session that has expired is not alive any more, and no later sign of life brings it back.
async fn a_session_that_expired_is_never_revived(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let (session, ttl) = (SessionId::new(1), short(&own));
    assert!(own.sessions().begin(session, ttl).await?);
    // Nobody looks meanwhile: it is the store that notices.
    tokio::time::sleep(2 * ttl).await;
    stays_ended(&own, &other, session, ttl, "has expired").await
}

/// To begin a session again, as after a lost reply, changes nothing.
async fn a_session_is_begun_once_however_often_it_is_asked(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let (session, ttl) = (SessionId::new(1), kept(&own, Duration::from_secs(60)));
    for _ in 0..3 {
        assert!(own.sessions().begin(session, ttl).await?, "it cannot be begun again");
        assert!(other.alive(session).await?);
    }
    own.sessions().end(session).await?;
    assert!(!other.alive(session).await?, "a session that was begun three times and ended once is alive");
    Ok(())
}

/// As many sessions as the engine asks for at once are answered in their order, those twice that are asked for twice, and
/// nobody's end is another's.
async fn who_is_alive_is_told_in_order(ctx: Ctx) -> Outcome {
    let [own, other] = clients(&ctx).await?;
    let ttl = kept(&own, Duration::from_secs(60));
    let all: Vec<SessionId> = (0..256).map(SessionId::new).collect();
    for session in all.iter().step_by(8) {
        assert!(own.sessions().begin(*session, ttl).await?);
    }
    for session in all.iter().step_by(16) {
        own.sessions().end(*session).await?;
    }
    let lives = |n: &usize| n.is_multiple_of(8) && !n.is_multiple_of(16);
    let expected: Vec<bool> = (0..256).map(|n| lives(&n)).collect();
    assert_eq!(other.sessions().alive(&all).await?, expected);
    let some = [8, 16, 8, 3].map(|n: usize| SessionId::new(n as u128));
    assert_eq!(other.sessions().alive(&some).await?, [true, false, true, false]);
    assert_eq!(other.sessions().alive(&[]).await?, Vec::<bool>::new());
    Ok(())
}
