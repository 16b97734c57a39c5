//! What the tests share.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use avout_core::{Ref, Stm};
use avout_zk::Backend;

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the table of a file's tests.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) fn tests() -> Vec<avout_conformance::servers::ServerTest> {
            let group = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(avout_conformance::servers::ServerTest::new(&format!("{group}::{}", stringify!($name)), $name)),+]
        }
    };
}
pub(crate) use tests;

pub(crate) fn stm(backend: &Backend) -> Stm {
    Stm::new(backend.coordinator.clone(), backend.store.clone())
}

pub(crate) async fn client(url: &str) -> avout_core::Result<Stm> {
    Ok(stm(&avout_zk::connect(url).await?))
}

/// Waits until something holds; panics with `what` if it never does.
pub(crate) async fn eventually<F>(what: &str, mut holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, wait).await
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Adds one to both, as one.
pub(crate) async fn hello(stm: &Stm, a: &Ref<i64>, b: &Ref<i64>) -> avout_core::Result<i64> {
    stm.dosync(async |tx| {
        let (x, y) = tx.get_many((a, b)).await?;
        tx.set(a, x + 1).await?;
        tx.set(b, y + 1).await?;
        Ok(x + 1)
    })
    .await
}

pub(crate) async fn two_refs(stm: &Stm) -> avout_core::Result<(Ref<i64>, Ref<i64>)> {
    Ok((stm.create_or_open_ref("/a", 0).await?, stm.create_or_open_ref("/b", 0).await?))
}

/// Whether a request is a `multi` that writes. Of a request the first 4 bytes are its length, the next its number and its type.
pub(crate) fn is_commit(request: &[u8]) -> bool {
    const MULTI: u8 = 14;
    request.get(8..12) == Some(&[0, 0, 0, MULTI])
}
