//! Every backend as a [`Fixture`] by its URL, for tests in which several of them meet.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use avout_conformance::servers::shared;
use avout_conformance::{Backend, Fixture};
use tempfile::TempDir;

/// All backends. A new one is a line here.
pub fn backends() -> Vec<Arc<dyn Fixture>> {
    let all: Vec<Place> = vec![
        Place::new("local", |namespace| Box::pin(async move { Ok(format!("mem:{namespace}")) })),
        Place::new("sql", |namespace| Box::pin(async move { Ok(format!("sqlite:{}/{namespace}.db", folder())) })),
        Place::new("redis", |namespace| Box::pin(async move { told(shared::redis_url(&namespace).await) })),
        Place::new("zk", |namespace| Box::pin(async move { told(shared::zookeeper_url(&namespace).await) })),
        Place::new("mongo", |namespace| {
            // A database takes the server longer to make than the collections of a namespace.
            Box::pin(async move {
                let url = told(shared::mongo_url("mixed").await)?;
                let mark = if url.contains('?') { '&' } else { '?' };
                Ok(format!("{url}{mark}namespace={namespace}"))
            })
        }),
    ];
    all.into_iter().map(|place| Arc::new(place) as _).collect()
}

/// The URL of a namespace, or why there is none.
type Url = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

struct Place {
    name: &'static str,
    url: fn(String) -> Url,
}

impl Place {
    fn new(name: &'static str, url: fn(String) -> Url) -> Self {
        Self { name, url }
    }
}

fn told<T>(done: Result<T, impl ToString>) -> Result<T, String> {
    done.map_err(|error| error.to_string())
}

/// Where the files of all tests of this process are.
fn folder() -> String {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder for temporary files"));
    folder.path().display().to_string()
}

#[async_trait]
impl Fixture for Place {
    fn name(&self) -> &str {
        self.name
    }

    async fn available(&self) -> Result<(), String> {
        (self.url)("any".to_owned()).await.map(drop)
    }

    async fn open(&self, namespace: &str) -> avout::Result<Backend> {
        let url = (self.url)(namespace.to_owned()).await.expect("it was there before");
        let opened = avout::open(&url).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}
