//! Servers that end, and those that take over.

use std::time::Duration;

use avout_conformance::servers::Mongo;
use avout_core::{Event, Events, Role};

use crate::support::{Load, Outcome, client, with};

/// A server that is killed under load, and started again, has all that was acknowledged, whole.
pub(crate) async fn a_killed_server_loses_nothing() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=killed&timeout=3s");
    let load = Load::begin(&url, 6).await?;
    for _ in 0..2 {
        load.steps(30).await;
        mongo.node(0).kill().await?;
        mongo.node(0).start().await?;
        mongo.primary().await?;
    }
    load.steps(30).await;
    load.end(&url).await
}

/// A primary that is killed under load takes nothing with it that was acknowledged, and the others go on.
pub(crate) async fn a_killed_primary_loses_nothing() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let url = with(&mongo.url("tests"), "namespace=killed&timeout=3s");
    let load = Load::begin(&url, 6).await?;
    load.steps(30).await;
    let primary = mongo.primary().await?;
    mongo.node(primary).kill().await?;
    load.steps(30).await;
    mongo.node(primary).start().await?;
    load.steps(30).await;
    load.end(&url).await
}

/// A primary that steps down under load loses nothing.
pub(crate) async fn a_primary_that_steps_down_loses_nothing() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let url = with(&mongo.url("tests"), "namespace=stepped&timeout=3s");
    let load = Load::begin(&url, 6).await?;
    load.steps(30).await;
    mongo.step_down().await?;
    load.steps(60).await;
    load.end(&url).await
}

/// A watch that began before a failover tells what is committed after it.
pub(crate) async fn a_watch_goes_on_after_a_failover() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let url = with(&mongo.url("tests"), "namespace=watched&timeout=3s");
    let (one, two) = (client(&url, 60).await?, client(&url, 60).await?);
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let mut changes = of_two.watch().await?;
    r.set(1).await?;
    assert_eq!(changes.next().await.expect("it goes on")?.new, Some(1));
    let primary = mongo.primary().await?;
    mongo.node(primary).kill().await?;
    for n in 2..6 {
        r.set(n).await?;
        let change = tokio::time::timeout(Duration::from_secs(40), changes.next()).await?.expect("it goes on")?;
        assert_eq!(change.new, Some(n), "{change:?}");
    }
    Ok(())
}

async fn next(events: &mut Events) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    next.expect("an event within a minute").expect("the client is open")
}

/// A client that asks nothing is told when its primary ends, stops or answers no more, and when there is one again.
pub(crate) async fn the_loss_of_the_primary_is_told() -> Outcome {
    let told = [Event::Disconnected(Role::Coordinator), Event::Connected(Role::Coordinator)];
    let mongo = Mongo::replica_set(3).await?;
    let stm = client(&with(&mongo.url("tests"), "namespace=told"), 60).await?;
    let mut events = stm.events();
    let primary = mongo.primary().await?;
    mongo.node(primary).kill().await?;
    assert_eq!([next(&mut events).await, next(&mut events).await], told, "after a kill");
    mongo.node(primary).start().await?;

    let alone = Mongo::replica_set(1).await?;
    let url = with(&alone.url("tests"), "namespace=told&heartbeatFrequencyMS=1000&connectTimeoutMS=1000");
    let stm = client(&url, 60).await?;
    let mut events = stm.events();
    alone.node(0).pause().await?;
    assert_eq!(next(&mut events).await, told[0], "while it is paused");
    alone.node(0).resume().await?;
    assert_eq!(next(&mut events).await, told[1], "when it goes on");
    Ok(())
}
