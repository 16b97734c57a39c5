//! What clients write: logs of their own, and a queue for all.

use avout_core::{Error, Queue, Ref, Result, Stm, Tx};
use tokio::task::JoinSet;

use crate::record::Head;

/// A log is kept in pieces, so that no commit is large.
const PIECE: u32 = 512;
const PIECES: u32 = 8;

/// One entry of a log: its number, and what was taken from the queue with it.
pub(crate) type Entry = (u32, u64);

/// A client's log.
#[derive(Clone)]
pub(crate) struct Log {
    head: Ref<Head>,
    pieces: Vec<Ref<Vec<Entry>>>,
}

impl Log {
    pub(crate) async fn open(stm: &Stm, who: usize) -> Result<Self> {
        let mut opened = JoinSet::new();
        for piece in 0..PIECES {
            let stm = stm.clone();
            opened.spawn(async move {
                let opened = stm.create_or_open_ref(format!("/log/{who}/{piece}"), Vec::new()).await?;
                Ok::<_, Error>((piece, opened))
            });
        }
        let head = stm.create_or_open_ref(format!("/head/{who}"), Head::default()).await?;
        let mut pieces = opened.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        pieces.sort_by_key(|(piece, _)| *piece);
        Ok(Self { head, pieces: pieces.into_iter().map(|(_, piece)| piece).collect() })
    }

    pub(crate) async fn add(&self, tx: &Tx, entry: Entry) -> Result<Head> {
        let piece = &self.pieces[(entry.0 / PIECE).min(PIECES - 1) as usize];
        tx.update(piece, |piece| piece.push(entry)).await?;
        tx.alter(&self.head, |head| Head { count: head.count + 1, last: entry.0 }).await
    }

    /// All of it.
    pub(crate) async fn read(&self, tx: &Tx) -> Result<(Head, Vec<Entry>)> {
        let mut all = Vec::new();
        for piece in &self.pieces {
            all.extend(tx.get(piece).await?);
        }
        Ok((tx.get(&self.head).await?, all))
    }
}

pub(crate) fn queue(stm: &Stm) -> Result<Queue<u64>> {
    stm.queue("/queue", 1 << 20)
}
