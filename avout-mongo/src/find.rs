//! Reads that are of the servers' current state, or of a moment of it.

use std::sync::Arc;

use avout_core::protocol::Point;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Document, RawDocumentBuf, rawdoc};

use crate::current::{linearizable, term};
use crate::eras::prove;
use crate::progress::{Kept, Progress};
use crate::schema::Names;
use crate::wire::bson::timestamp;
use crate::wire::request::{Failure, Requests};

/// Sends a read, once unless there is another primary: a `find` without a read concern, at this level, and as of `at` or now.
pub(crate) async fn read(
    requests: &Requests<'_>,
    progress: &Arc<Progress>,
    names: &Arc<Names>,
    find: &RawDocumentBuf,
    level: &str,
    at: Option<Point>,
) -> Result<Document, Failure> {
    loop {
        let mut concern = rawdoc! { "level": level };
        match (at, progress.seen()) {
            (Some(at), _) => concern.append(cstr!("atClusterTime"), timestamp(at)),
            (None, 0) => {}
            (None, seen) => concern.append(cstr!("afterClusterTime"), timestamp(Point::new(seen))),
        }
        let mut command = find.clone();
        command.append(cstr!("readConcern"), concern);
        command.append(cstr!("$replData"), 1);
        let changes = progress.changes();
        let reply = requests.run(command).await?;
        if progress.kept == Kept::Nowhere {
            return Ok(reply);
        }
        let term = term(&reply)?;
        // What is read at a point was seen at it before, by a primary that knew all. It may be of another history all the same.
        let known = at.is_some() || progress.knows_term(term);
        if !known || progress.is_unproven() {
            catch_up(requests, progress, names, !known).await?;
        }
        if known && progress.changes() == changes {
            return Ok(reply);
        }
    }
}

/// Sees to it that later reads are of a primary that knows all which a majority has, and of a history that was compared with what
/// this client has seen. `again`: whatever is known of it.
async fn catch_up(
    requests: &Requests<'_>,
    progress: &Arc<Progress>,
    names: &Arc<Names>,
    again: bool,
) -> Result<(), Failure> {
    match progress.kept {
        Kept::Nowhere => Ok(()),
        Kept::Meta => {
            let (_, term) = linearizable(requests, progress, &names.meta, rawdoc! {}).await?;
            progress.in_term(term);
            Ok(())
        }
        Kept::Refs => prove(requests, progress, names, again).await,
    }
}
