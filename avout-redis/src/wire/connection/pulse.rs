//! Whether a server goes on answering, whatever becomes of those that asked it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use avout_tls::Refused;
use redis::RedisError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// What is known of a connection's requests.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    under_way: AtomicUsize,
    /// The future of a request was dropped before its answer came.
    given_up: AtomicBool,
    /// Grows with all that comes, and with all that goes out again after it had to wait.
    beats: AtomicU64,
    begun: Notify,
    /// The server does not take this client's certificate. It says so after the handshake, when it may have been asked already.
    refused: OnceLock<Refused>,
}

/// A request, from its beginning to its end.
pub(crate) struct Asked<'a> {
    pulse: &'a Pulse,
    ended: bool,
}

impl Asked<'_> {
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.pulse.given_up.store(true, Ordering::Release);
        }
        self.pulse.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pulse {
    pub(crate) fn asked(&self) -> Asked<'_> {
        if self.under_way.fetch_add(1, Ordering::AcqRel) == 0 {
            self.begun.notify_one();
        }
        Asked { pulse: self, ended: false }
    }

    /// Why a request got no answer: what the server has said of the client's certificate, or else the error.
    pub(crate) fn cause(&self, error: RedisError) -> RedisError {
        match self.refused.get() {
            Some(refused) => RedisError::from(io::Error::other(refused.clone())),
            None => error,
        }
    }

    fn note(&self, error: &io::Error) {
        if let Some(refused) = Refused::of(error) {
            let _ = self.refused.set(refused);
        }
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    fn is_asked(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Returns when something has been asked for `limit` and nothing has come back meanwhile, or when `ping` fails.
    ///
    /// `ping` is sent where the last requests were given up: nobody else would notice that no answer comes. `doubt` is called again and
    /// again once nothing has come for `early`.
    pub(crate) async fn stops<F: Future<Output = bool>>(
        &self,
        early: Duration,
        limit: Duration,
        doubt: impl Fn(),
        ping: impl Fn() -> F,
    ) {
        let step = early.min(limit) / 4;
        loop {
            while !self.is_asked() && !self.given_up.load(Ordering::Acquire) {
                self.begun.notified().await;
            }
            let (mut beats, mut since) = (self.beats(), Instant::now());
            loop {
                if self.is_asked() {
                    sleep(step).await;
                } else if self.given_up.swap(false, Ordering::AcqRel) {
                    // What was asked before it is answered before it.
                    let left = limit.saturating_sub(since.elapsed());
                    match timeout(step.min(left).max(Duration::from_millis(1)), ping()).await {
                        Ok(true) => break,
                        Ok(false) => return,
                        Err(_) => self.given_up.store(true, Ordering::Release),
                    }
                } else {
                    break;
                }
                let now = self.beats();
                if now != beats {
                    (beats, since) = (now, Instant::now());
                } else if since.elapsed() >= limit {
                    return;
                } else if since.elapsed() >= early {
                    doubt();
                }
            }
        }
    }
}

/// A stream whose traffic is noted.
pub(crate) struct Heard<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// The other side takes no more for now.
    held: bool,
}

impl<S> Heard<S> {
    pub(crate) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, held: false }
    }

    fn beat(&self) {
        self.pulse.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> Heard<S> {
    /// Nothing can be sent any more. What the server said before it ended the connection tells why.
    fn hear_out(&mut self, context: &mut Context<'_>) {
        let mut words = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut words);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(Err(error)) => return self.pulse.note(&error),
                _ => return,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.beat();
        }
        if let Poll::Ready(Err(error)) = &read {
            self.pulse.note(error);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if std::mem::replace(&mut self.held, written.is_pending()) && written.is_ready() {
            self.beat();
        }
        if let Poll::Ready(Err(_)) = &written {
            self.hear_out(context);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Err(_)) = &flushed {
            self.hear_out(context);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Duration = Duration::from_millis(200);
    const LIMIT: Duration = Duration::from_millis(500);

    async fn never() -> bool {
        std::future::pending().await
    }

    /// A server that answers nothing is noticed at the limit, also if nobody waits any more, and not before.
    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_whoever_waits() {
        for kept in [true, false] {
            let pulse = Pulse::default();
            let doubts = AtomicUsize::new(0);
            let begun = Instant::now();
            let asked = pulse.asked();
            let _kept = kept.then_some(asked);
            let doubt = || {
                doubts.fetch_add(1, Ordering::Relaxed);
            };
            pulse.stops(EARLY, LIMIT, doubt, never).await;
            assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT * 2, "{:?}", begun.elapsed());
            assert!(doubts.into_inner() > 0);
        }
    }

    /// A server that is asked nothing, or answers, is left alone.
    #[tokio::test(start_paused = true)]
    async fn answers_keep_it() {
        let pulse = Pulse::default();
        let stops = pulse.stops(EARLY, LIMIT, || (), async || true);
        let work = async {
            sleep(LIMIT * 10).await;
            let asked = pulse.asked();
            for _ in 0..20 {
                sleep(LIMIT / 3).await;
                pulse.beats.fetch_add(1, Ordering::Relaxed);
            }
            asked.end();
            drop(pulse.asked());
            sleep(LIMIT * 10).await;
        };
        tokio::select! {
            () = stops => panic!("it answers"),
            () = work => {}
        }
    }
}
