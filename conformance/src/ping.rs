//! What [`Stm::ping`] says of a store that answers, that has stopped, and that is another one.

use std::time::Duration;

use avout_core::{ErrorKind, Stm};
use tokio::time::Instant;

use crate::coordinator::wiped::is_lost;
use crate::law::{Ctx, Failure, Outcome, laws, needs, within};
use crate::stm::bench::{client, counted, roles};

laws! { "ping":
    a_ping_is_one_request_that_changes_nothing,
    a_ping_tells_of_a_stalled_server_by_its_deadline,
    a_ping_is_answered_after_connections_were_cut,
    a_ping_tells_of_a_wiped_namespace,
}

/// A ping asks the coordinator once, and leaves everything as it was.
async fn a_ping_is_one_request_that_changes_nothing(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let before = counting.counts().requests();
    stm.ping().await?;
    assert_eq!(counting.counts().requests() - before, 1, "requests of a ping");
    assert_eq!((r.get().await?, stm.list("/").await?.len()), (1, 1));
    Ok(())
}

/// On a server that does not answer, a ping ends by the client's deadline and says so, and it is answered when the server goes on.
async fn a_ping_tells_of_a_stalled_server_by_its_deadline(ctx: Ctx) -> Outcome {
    const DEADLINE: Duration = Duration::from_millis(300);
    let (coordinator, store) = roles(&ctx).await?;
    let stm = ctx.stm(coordinator, store).seed(ctx.seed).deadline(Some(DEADLINE)).build();
    answered(&ctx, &stm).await?;
    needs(ctx.fixture.stall(&ctx.namespace).await, "the fixture cannot stall a server")?;
    let begun = Instant::now();
    let error = within(DEADLINE + ctx.fixture.patience() / 3, "the end of a ping", stm.ping()).await;
    let error = error.err().unwrap_or_else(|| panic!("a ping is answered by a server that has stopped"));
    assert_eq!(error.kind(), ErrorKind::Unavailable, "after {:?}: {error:?}", begun.elapsed());
    ctx.fixture.resume(&ctx.namespace).await;
    answered(&ctx, &stm).await
}

/// Waits until a ping is answered.
async fn answered(ctx: &Ctx, stm: &Stm) -> Outcome {
    let until = Instant::now() + ctx.fixture.time_limit() / 3;
    loop {
        match stm.ping().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer.map(drop).map_err(Failure::from),
        }
    }
}

/// Connections that were cut are made again, and then a ping is answered.
async fn a_ping_is_answered_after_connections_were_cut(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    stm.ping().await?;
    needs(ctx.fixture.cut_connections(&ctx.namespace).await, "the fixture cannot cut connections")?;
    answered(&ctx, &stm).await
}

/// A ping tells that the namespace is not the one that was opened.
async fn a_ping_tells_of_a_wiped_namespace(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    stm.create_ref("/r", 1_i64).await?;
    needs(ctx.fixture.wipe(&ctx.namespace).await, "the fixture cannot wipe a namespace")?;
    is_lost(&ctx, "a ping", || stm.ping()).await;
    Ok(())
}
