//! Reads of several tasks, gathered into one request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use avout_core::backend::tasks;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::oneshot;

use super::dial::Wire;
use super::home::Home;
use crate::schema::CLOCK;

/// The most fields of one request that is gathered: the server does nothing else meanwhile.
const MOST: usize = 512;

/// What is about to be read with one connection.
///
/// A read that is alone goes at once. One that finds others under way goes with all that are asked for before the tasks have had
/// their turn that are ready now: a task of its own sends them then. So a read is never sent before it was asked for,
/// and none depends on the future of another one, which may be dropped, or held and never polled again.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    under_way: AtomicUsize,
    open: Mutex<Option<Batch>>,
}

#[derive(Debug)]
struct Batch {
    request: Cmd,
    fields: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    fields: usize,
    reply: oneshot::Sender<RedisResult<Vec<Value>>>,
}

/// A read from its beginning to its end, however it ends.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gathering {
    /// Reads the clock and these fields of the cells, all at one moment after the call.
    ///
    /// `None`: it was not sent, or its reply not taken, since the runtime has ended that was to do so.
    pub(crate) async fn read<'a>(
        self: &Arc<Self>,
        wire: &Arc<Wire>,
        home: &Home,
        cells: &str,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<RedisResult<Vec<Value>>> {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.under_way);
        let joined = if others == 0 { None } else { self.join(wire, home, cells, fields.clone()) };
        match joined {
            Some(reply) => reply.await.ok(),
            None => Some(wire.ask(&read_cells(cells, fields)).await),
        }
    }

    /// Adds a read to those that are gathered. `None`: there are too many fields.
    fn join<'a>(
        self: &Arc<Self>,
        wire: &Arc<Wire>,
        home: &Home,
        cells: &str,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<oneshot::Receiver<RedisResult<Vec<Value>>>> {
        let count = fields.clone().count();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if count + open.as_ref().map_or(0, |batch| batch.fields) > MOST {
            return None;
        }
        let batch = open.get_or_insert_with(|| {
            home.runtime().spawn(tasks::inside(send(Arc::clone(self), Arc::clone(wire))));
            Batch { request: begin(cells), fields: 0, parts: Vec::new() }
        });
        for field in fields {
            batch.request.arg(field);
        }
        batch.fields += count;
        let (reply, replied) = oneshot::channel();
        batch.parts.push(Part { fields: count, reply });
        Some(replied)
    }
}

/// Reads the clock and these fields of the cells.
pub(crate) fn read_cells<'a>(cells: &str, fields: impl Iterator<Item = &'a str>) -> Cmd {
    let mut request = begin(cells);
    for field in fields {
        request.arg(field);
    }
    request
}

fn begin(cells: &str) -> Cmd {
    let mut request = redis::cmd("HMGET");
    request.arg(cells).arg(CLOCK);
    request
}

async fn send(gathering: Arc<Gathering>, wire: Arc<Wire>) {
    // Behind all tasks that are ready.
    tokio::task::yield_now().await;
    let batch = gathering.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Batch { request, parts, .. }) = batch else { return };
    let mut values = match wire.ask::<Vec<Value>>(&request).await {
        Ok(values) => values.into_iter(),
        Err(error) => {
            for part in parts {
                let _ = part.reply.send(Err(error.clone()));
            }
            return;
        }
    };
    let clock = values.next();
    for part in parts {
        let mut own = Vec::with_capacity(1 + part.fields);
        own.extend(clock.clone());
        own.extend(values.by_ref().take(part.fields));
        // Who no longer waits needs no reply.
        let _ = part.reply.send(Ok(own));
    }
}
