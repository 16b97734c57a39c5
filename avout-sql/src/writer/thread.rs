use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};

use avout_core::Result;
use avout_core::protocol::Resolution;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::batch::Writer;
use super::work::Job;
use crate::coordinator::outcome::Receipt;

/// The most requests in one SQLite transaction.
const MAX_JOBS: usize = 256;

/// The most bytes in one SQLite transaction, but for the last request.
const MAX_BYTES: usize = 8 << 20;

/// What is seldom sent lies in a box: the queue has room for the largest everywhere.
pub(crate) enum Message {
    Job(Box<dyn Job>),
    Resolve(Box<(Receipt, oneshot::Sender<Result<Resolution>>)>),
    /// There is work left from a batch on another thread.
    Wake,
    /// Ends the thread, and closes these connections before its own.
    Stop(Vec<Connection>),
}

/// A writer, and where it is found: nearly always its thread works with it, and sometimes a caller. `None`: it ended.
pub(crate) type SharedWriter = Arc<Mutex<Option<Writer>>>;

/// Works until it is told to stop or every handle is gone.
pub(crate) fn serve(writer: &SharedWriter, queue: &Receiver<Message>) {
    let mut held = None;
    while let Ok(message) = held.take().map_or_else(|| queue.recv(), Ok) {
        // If a caller panicked in the middle of a batch, nobody knows what state the writer is in.
        let Ok(mut writer) = writer.lock() else { return };
        let Some(writer) = writer.as_mut() else { return };
        writer.finish();
        match message {
            Message::Job(job) => {
                let (jobs, other) = gather(job, queue);
                held = other;
                writer.batch(jobs);
            }
            Message::Resolve(asked) => {
                let (receipt, reply) = *asked;
                let _ = reply.send(writer.resolve(&receipt));
            }
            Message::Wake => {}
            Message::Stop(connections) => {
                drop(connections);
                break;
            }
        }
        writer.tidy();
    }
    let ended = writer.lock().ok().and_then(|mut writer| writer.take());
    if let Some(mut writer) = ended {
        writer.finish();
        writer.end();
    }
}

/// The jobs that wait, within the limits of a batch, and a message of another kind that came behind them.
fn gather(first: Box<dyn Job>, queue: &Receiver<Message>) -> (Vec<Box<dyn Job>>, Option<Message>) {
    let mut bytes = first.bytes();
    let mut jobs = vec![first];
    while jobs.len() < MAX_JOBS && bytes < MAX_BYTES {
        match queue.try_recv() {
            Ok(Message::Job(job)) => {
                bytes += job.bytes();
                jobs.push(job);
            }
            Ok(other) => return (jobs, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (jobs, None)
}
