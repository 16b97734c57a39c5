//! What [`Stm::events`] says of a store's connections.

use std::time::Duration;

use avout_core::{Event, Events, Role, Stm};

use crate::law::{Ctx, Outcome, laws, needs, within};
use crate::stm::bench::{SOON, roles};

laws! { "connections":
    a_connection_that_is_lost_and_made_again_is_told,
}

/// Waits for the next event of the coordinator's connection, and has the client ask meanwhile, so that one is made.
async fn next(stm: &Stm, events: &mut Events) -> Event {
    let asking = async {
        loop {
            let _ = stm.ping().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        event = within(SOON, "an event", events.next()) => event.expect("the client was not closed"),
        () = asking => unreachable!("it asks on and on"),
    }
}

/// When all connections are lost each listener is told, and when one is made again, in this order, each time.
async fn a_connection_that_is_lost_and_made_again_is_told(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    needs(coordinator.connection().is_some(), "it says nothing of its connections")?;
    let stm = ctx.stm(coordinator, store).seed(ctx.seed).build();
    stm.ping().await?;
    let (mut one, mut two) = (stm.events(), stm.events());
    for round in 0..2 {
        // Of several connections one may be made again before the last one is cut: then none was missing, and nothing is told.
        let first = loop {
            needs(ctx.fixture.cut_connections(&ctx.namespace).await, "the fixture cannot cut connections")?;
            if let Ok(event) = tokio::time::timeout(SOON / 8, next(&stm, &mut one)).await {
                break event;
            }
        };
        assert_eq!(first, Event::Disconnected(Role::Coordinator), "round {round}");
        assert_eq!(next(&stm, &mut one).await, Event::Connected(Role::Coordinator), "round {round}");
        assert_eq!(next(&stm, &mut two).await, Event::Disconnected(Role::Coordinator), "round {round}");
        assert_eq!(next(&stm, &mut two).await, Event::Connected(Role::Coordinator), "round {round}");
    }
    stm.close().await;
    // A cut that was told late is told all the same.
    while one.next().await.is_some() {}
    Ok(())
}
