//! Makes a namespace, and opens one that is there.

use std::sync::Arc;

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{Acls, CreateMode, CreateOptions, Error as ZkError, MultiReadResult, MultiWriteError};

use crate::Backend;
use crate::client::Client;
use crate::error::{classify, classify_write, unexpected};
use crate::options::Options;
use crate::paths::Folder;

/// The layout that this library knows.
const FORMAT: u32 = 1;

/// How often two clients may come between each other while both make the namespace.
const ATTEMPTS: u32 = 10;

/// What is known of a namespace that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) realm: Realm,
    /// Where the clock was made: another clock is another namespace.
    pub(crate) clock_made: i64,
}

/// The options of all znodes that the client makes.
pub(crate) fn made_by(options: &Options, mode: CreateMode) -> CreateOptions<'static> {
    mode.with_acls(if options.creator_only() { Acls::creator_all() } else { Acls::anyone_all() })
}

pub(crate) async fn open(options: Options) -> Result<Backend> {
    if let Some(tls) = &options.tls {
        // The names of files are mistaken more often than servers are gone.
        let identity = tls.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        identity.chain([&tls.ca]).try_for_each(|path| crate::options::read_pem(path).map(drop))?;
    }
    let client = Client::new(options);
    for _ in 0..ATTEMPTS {
        if let Some(opened) = find(&client).await? {
            return Ok(Backend::new(Arc::new(client), opened));
        }
        match make(&client).await {
            Err(error) if error.kind() != ErrorKind::OutcomeUnknown => return Err(error),
            // Made by this client or another, or unmade: the next look tells.
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "others make and delete the namespace"))
}

/// Reads what the namespace is; `None`: it is not there.
async fn find(client: &Client) -> Result<Option<Opened>> {
    let paths = &client.paths;
    let answer = client.ask(async |zk| {
        let mut reader = zk.new_multi_reader();
        reader.add_get_data(&paths.meta)?;
        reader.add_get_data(&paths.clock)?;
        // The client is new, but its user was told of the namespace by somebody.
        let sync = zk.sync("/");
        let read = reader.commit();
        sync.await?;
        read.await
    });
    let mut results = answer.await?.map_err(classify)?.into_iter();
    let meta = match results.next() {
        Some(MultiReadResult::Data { data, .. }) => data,
        Some(MultiReadResult::Error { err: ZkError::NoNode }) => return Ok(None),
        Some(MultiReadResult::Error { err }) => return Err(classify(err)),
        _ => return Err(unexpected()),
    };
    let realm = parse(&meta)?;
    match results.next() {
        Some(MultiReadResult::Data { stat, .. }) => Ok(Some(Opened { realm, clock_made: stat.czxid })),
        Some(MultiReadResult::Error { err }) => Err(classify(err)),
        _ => Err(unexpected()),
    }
}

fn text(realm: Realm) -> String {
    format!("avout {FORMAT} {realm}")
}

fn parse(meta: &[u8]) -> Result<Realm> {
    let text = str::from_utf8(meta).unwrap_or_default();
    let mut words = text.split(' ');
    let (name, format, realm) = (words.next(), words.next(), words.next());
    match (name, format.and_then(|format| format.parse::<u32>().ok())) {
        (Some("avout"), Some(FORMAT)) => match realm.map(str::parse) {
            Some(Ok(realm)) if words.next().is_none() => Ok(realm),
            _ => Err(Error::new(ErrorKind::Corrupt, "the znode meta of the namespace is not as avout made it")),
        },
        (Some("avout"), Some(found)) => {
            let message =
                format!("the namespace has layout {found}, and this library knows {FORMAT}: use another version");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        _ => Err(Error::new(ErrorKind::Mismatch, "the namespace belongs to another application: take another one")),
    }
}

/// Makes the namespace, all at once under its znode.
async fn make(client: &Client) -> Result<()> {
    make_root(client).await?;
    let paths = &client.paths;
    let options = &made_by(&client.options, CreateMode::Persistent);
    let answer = client.send(async |zk| {
        let mut writer = zk.new_multi_writer();
        writer.add_create(&paths.meta, text(Realm::random()).as_bytes(), options)?;
        for path in [&paths.clock, &paths.floor] {
            writer.add_create(path, b"", options)?;
        }
        for folder in Folder::ALL {
            writer.add_create(&paths.folder(folder), b"", options)?;
            for bucket in paths.buckets(folder) {
                writer.add_create(&bucket, b"", options)?;
            }
        }
        writer.commit().await
    });
    match answer.await? {
        Ok(_) | Err(MultiWriteError::OperationFailed { index: 0, source: ZkError::NodeExists }) => Ok(()),
        Err(MultiWriteError::OperationFailed { source: ZkError::NodeExists, .. }) => {
            let message = "there are znodes with the names of avout's under the namespace: take another one";
            Err(Error::new(ErrorKind::Mismatch, message))
        }
        Err(MultiWriteError::OperationFailed { source, .. }) => Err(classify(source)),
        Err(MultiWriteError::RequestFailed { source }) => Err(classify_write(source)),
    }
}

/// Makes the namespace's znode and those above it, where they are not there.
async fn make_root(client: &Client) -> Result<()> {
    let root = client.paths.root.as_str();
    let ends = root.match_indices('/').skip(1).map(|(end, _)| end).chain([root.len()]);
    let prefixes: Vec<&str> = ends.map(|end| &root[..end]).collect();
    let mut missing = prefixes.len();
    while missing > 0 {
        let path = prefixes[missing - 1];
        let stat = client.ask(async |zk| zk.check_stat(path).await).await?;
        if stat.map_err(classify)?.is_some() {
            break;
        }
        missing -= 1;
    }
    let options = &made_by(&client.options, CreateMode::Persistent);
    for path in &prefixes[missing..] {
        match client.ask(async |zk| zk.create(path, b"", options).await).await? {
            Ok(_) | Err(ZkError::NodeExists) => {}
            Err(error) => return Err(classify(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A namespace's realm comes back; other formats and other applications are told apart.
    #[test]
    fn tells_what_a_namespace_is() {
        let realm = Realm::random();
        assert_eq!(parse(text(realm).as_bytes()).expect("its own"), realm);
        for (meta, kind) in [
            (format!("avout 2 {realm}"), ErrorKind::Unsupported),
            ("avout 1 7".to_owned(), ErrorKind::Corrupt),
            (format!("avout 1 {realm} x"), ErrorKind::Corrupt),
            ("kafka 1".to_owned(), ErrorKind::Mismatch),
            (String::new(), ErrorKind::Mismatch),
        ] {
            assert_eq!(parse(meta.as_bytes()).expect_err(&meta).kind(), kind, "{meta}");
        }
    }
}
