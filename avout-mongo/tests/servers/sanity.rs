//! Requests, conflicts, and servers that do not fit.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use avout_conformance::servers::{Action, Certificates, Direction, Mongo};
use avout_core::ErrorKind;
use avout_core::backend::{Coordinator as _, Store as _};
use avout_core::protocol::{Check, Commit, CommitOutcome, Floor, Key, Put, State};
use avout_mongo::Options;
use mongodb::bson::{Bson, doc};
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::oidc::{Callback, IdpServerResponse};
use mongodb::options::{
    AuthMechanism, ClientOptions, Credential, ReadPreference, ServerApi, ServerApiVersion, WriteConcern,
};
use tokio::net::{TcpListener, TcpStream};

use crate::pairs::pair;
use crate::support::{Outcome, client, command, driver, open, shared_url, stm, with};

/// What a server counts: queries of the refs, and transactions that it began and committed.
async fn counted(database: &mongodb::Database) -> Result<[i64; 3], Box<dyn std::error::Error>> {
    let admin = database.client().database("admin");
    let top = admin.run_command(doc! { "top": 1 }).await?;
    let refs = top.get_document("totals")?.get_document("tests.hello.refs")?;
    let status = admin.run_command(doc! { "serverStatus": 1 }).await?;
    let transactions = status.get_document("transactions")?;
    let number = |value: Option<&Bson>| match value {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        other => panic!("{other:?} is no number"),
    };
    Ok([
        number(refs.get_document("queries")?.get("count")),
        number(transactions.get("totalStarted")),
        number(transactions.get("totalCommitted")),
    ])
}

/// A hello is one `find`, one `update` and one `commitTransaction`, and opening a ref that is there is one `find`: by what
/// goes over the wire, and by what the server counts.
pub(crate) async fn a_hello_is_three_requests() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let (proxy, database) = (mongo.proxy(0).await?, driver(&mongo.url("tests")).await?);
    let url = format!("mongodb://{}/tests?directConnection=true&namespace=hello", proxy.address());
    let stm = client(&url, 10).await?;
    let count = stm.create_or_open_ref("/count", 0_i64).await?;
    let log = stm.create_or_open_ref("/log", Vec::<i64>::new()).await?;
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    proxy.hook(move |direction, message| {
        if matches!(direction, Direction::Request)
            && let Some(name) = command(message).filter(|name| !["hello", "isMaster", "ismaster"].contains(name))
        {
            seen.lock().expect("no panic under it").push(name.to_owned());
        }
        Action::Pass
    });
    let taken = || std::mem::take(&mut *requests.lock().expect("no panic under it"));
    for _ in 0..3 {
        let before = counted(&database).await?;
        stm.dosync(async |tx| {
            let (n, mut all) = tx.get_many((&count, &log)).await?;
            all.push(n + 1);
            tx.set(&count, n + 1).await?;
            tx.set(&log, all).await
        })
        .await?;
        assert_eq!(taken(), ["find", "update", "commitTransaction"]);
        assert_eq!(counted(&database).await?, before.map(|count| count + 1));
    }
    stm.open_ref::<i64>("/count").await?;
    assert_eq!(taken(), ["find"]);
    Ok(())
}

/// Commits of different keys, with values in the store and without, get in nobody's way.
pub(crate) async fn commits_of_different_keys_run_side_by_side() -> Outcome {
    let url = shared_url("disjoint").await?;
    let stm = client(&url, 60).await?;
    let run = |task: usize| {
        let stm = stm.clone();
        async move {
            let small = stm.create_ref(format!("/small/{task}"), 0_u32).await?;
            let large = stm.create_ref(format!("/large/{task}"), vec![0_u8; 40_000]).await?;
            for _ in 0..5 {
                small.alter(|n| n + 1).await?;
                large.update(|bytes| bytes.push(1)).await?;
            }
            avout_core::Result::<()>::Ok(())
        }
    };
    let tasks: Vec<_> = (0..32).map(|task| tokio::spawn(run(task))).collect();
    for task in tasks {
        task.await??;
    }
    let stats = stm.stats();
    assert_eq!((stats.conflicts, stats.attempts), (0, stats.committed), "{stats:?}");
    Ok(())
}

/// Of two commits that each check what the other one writes, at least one conflicts; the same with the floor.
pub(crate) async fn checks_and_writes_of_others_conflict() -> Outcome {
    let url = shared_url("skew").await?;
    let [one, two] = [open(&url).await?, open(&url).await?];
    let record = || Arc::new(Floor { epoch: 1 }.to_record());
    for round in 0..20 {
        let a = Key::new(format!("/a/{round}"))?;
        let b = if round % 2 == 0 { Key::new(format!("/b/{round}"))? } else { Floor::key() };
        let now = one.coordinator.read(&[a.clone(), b.clone()], None).await?.entries;
        let revision = |index: usize| now[index].as_ref().map(|entry| entry.revision.clone());
        let commit = |check: (&Key, usize), put: (&Key, usize)| Commit {
            checks: vec![Check { key: check.0.clone(), revision: revision(check.1) }],
            puts: vec![Put { key: put.0.clone(), revision: revision(put.1), record: record() }],
            deletes: Vec::new(),
        };
        let (first, second) = (commit((&a, 0), (&b, 1)), commit((&b, 1), (&a, 0)));
        let (first, second) = tokio::join!(one.coordinator.commit(&first), two.coordinator.commit(&second));
        let committed = [first?, second?].iter().filter(|done| matches!(done, CommitOutcome::Committed(_))).count();
        assert_eq!(committed, 1, "in round {round}");
    }
    Ok(())
}

/// A stand-alone server is refused as coordinator, with what to do, and is a store.
pub(crate) async fn a_stand_alone_server_is_a_store() -> Outcome {
    let alone = Mongo::standalone().await?;
    let url = alone.url("shop");
    let error = open(&url).await.expect_err("a stand-alone server");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("--replSet"), "{error}");

    let store = Options::from_url(&url)?.open_store().await?;
    assert!(!store.capabilities().push);
    assert_eq!(Options::from_url(&url)?.open_store().await?.realm(), store.realm());
    let atom = store.state(&Key::new("/a")?);
    atom.set_state(State::Bytes("one".into())).await?;
    let mut watcher = store.state(&Key::new("/a")?).watch().await?;
    atom.set_state(State::Bytes("two".into())).await?;
    tokio::time::timeout(Duration::from_secs(5), watcher.changed()).await??;

    // Its values can be those of refs that another coordinator keeps.
    let main = client(&shared_url("beside").await?, 10).await?;
    let store: Arc<dyn avout_core::Store> = Arc::new(store);
    let r = main.create_or_open_ref("/r", 0_i64).in_store(&store).await?;
    assert_eq!(r.alter(|n| n + 1).await?, 1);
    Ok(())
}

/// Wrong credentials are `Denied`, and neither they nor right ones are in any message.
pub(crate) async fn credentials_are_needed_and_never_shown() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).user("admin", "correct-horse").start().await?;
    let none = mongo.url("shop");
    let right = with(&none.replacen("://", "://admin:correct-horse@", 1), "authSource=admin");
    let backend = open(&right).await?;
    assert_eq!(stm(&backend).create_ref("/r", 1_i64).await?.get().await?, 1);
    let shown = format!("{backend:?} {:?} {:?}", backend.store, Options::from_url(&right)?);
    assert!(!shown.contains("correct-horse"), "{shown}");

    let wrong = with(&right.replace("correct-horse", "battery-staple"), "timeout=2s");
    for url in [wrong, with(&none, "timeout=2s")] {
        let error = open(&url).await.expect_err("not admitted");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("battery-staple") && !text.contains("correct-horse"), "{text}");
    }
    Ok(())
}

/// A right that is missing is named.
pub(crate) async fn a_missing_right_is_named() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).user("admin", "correct-horse").start().await?;
    let admin = with(&mongo.url("tests").replacen("://", "://admin:correct-horse@", 1), "authSource=admin");
    open(&with(&admin, "namespace=rights")).await?;
    let user = doc! { "createUser": "reader", "pwd": "paper-clip", "roles": ["read"] };
    driver(&admin).await?.run_command(user).await?;
    let reader = mongo.url("tests").replacen("://", "://reader:paper-clip@", 1);
    let error = open(&with(&reader, "namespace=other")).await.expect_err("it may not write");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("may not create tests.other.meta") && text.contains("readWrite on tests"), "{text}");
    Ok(())
}

/// Servers whose names cannot be looked up are `Unavailable` within the timeout, and so long times as there are cause no panic.
pub(crate) async fn names_that_are_not_found_are_unavailable() -> Outcome {
    let begun = Instant::now();
    let url = "mongodb+srv://user:secret-word@db.nowhere.invalid/shop?timeout=1s";
    let error = open(url).await.expect_err("there is no such name");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret-word"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let long = u64::MAX;
    let options = format!(
        "namespace=long&timeout=365d&serverSelectionTimeoutMS={long}&connectTimeoutMS={long}&heartbeatFrequencyMS={long}&maxIdleTimeMS={long}"
    );
    let url = with(&mongo_url_of_tests().await?, &options.replace("365d", "999999999s"));
    open(&url).await?;
    Ok(())
}

async fn mongo_url_of_tests() -> Result<String, Box<dyn std::error::Error>> {
    Ok(avout_conformance::servers::shared::mongo_url("tests").await?)
}

/// Nobody at the address is `Unavailable` within the timeout.
pub(crate) async fn nobody_there_is_unavailable() -> Outcome {
    let port = avout_conformance::servers::free_port();
    let url = format!("mongodb://user:secret-word@127.0.0.1:{port}/shop?timeout=500ms");
    let error = tokio::time::timeout(Duration::from_secs(10), open(&url)).await?.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("secret-word"));
    Ok(())
}

/// With TLS a server is taken whose certificate is signed by a trusted one, and no other.
pub(crate) async fn tls_checks_the_certificate() -> Outcome {
    let files = Certificates::make()?;
    let file = |name: &str| files.file(name);
    let pair = pair(&files, "server")?;
    // Those who start it talk to it in the clear.
    let tls = ["--tlsMode", "allowTLS", "--tlsCertificateKeyFile", &pair, "--tlsCAFile", &file("ca.pem")];
    let arguments = [&tls[..], &["--tlsAllowConnectionsWithoutCertificates"]].concat();
    let mongo = Mongo::builder().replica_set(1).arguments(&arguments).start().await?;
    let url = |ca: &str| with(&mongo.url("tls"), &format!("timeout=10s&tls=true&tlsCAFile={ca}"));

    let stm = client(&url(&file("ca.pem")), 10).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    assert_eq!(r.alter(|n| n + 1).await?, 2);
    // What only another configuration can mend is told at once, with what to do.
    let elsewhere = another_address_of(mongo.node(0).address()).await?;
    let begun = Instant::now();
    for (url, help) in [
        (url(&file("other.pem")), "tlsCAFile"),
        (with(&mongo.url("tls"), "timeout=10s&tls=true"), "tlsCAFile"),
        (with(&url(&file("ca.pem")).replace(&mongo.address(), &elsewhere), "directConnection=true"), "another host"),
    ] {
        let error = open(&url).await.expect_err("a certificate that nobody trusts");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.to_string().contains(help), "{error:?}");
    }
    for file in ["/nowhere.pem".to_owned(), file("server.key")] {
        let error = open(&url(&file)).await.expect_err("no certificates of authorities");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("tlsCAFile"), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "it tried again and again, for {:?}", begun.elapsed());
    Ok(())
}

/// An address that is in no certificate, and leads to this one.
async fn another_address_of(server: SocketAddr) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.2:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(address)
}

/// However few connections the URL allows, a watch leaves some for requests.
pub(crate) async fn a_small_pool_serves_a_watch_and_requests() -> Outcome {
    for pool in [1, 2] {
        let url = with(&shared_url(&format!("pool_{pool}")).await?, &format!("maxPoolSize={pool}"));
        let stm = client(&url, 10).await?;
        let count = stm.create_or_open_ref("/count", 0_i64).await?;
        let mut changes = count.watch().await?;
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let count = count.clone();
                tokio::spawn(async move {
                    let begun = Instant::now();
                    count.alter(|n| n + 1).await.map(|_| begun.elapsed())
                })
            })
            .collect();
        for task in tasks {
            let took = task.await??;
            assert!(took < Duration::from_secs(8), "maxPoolSize={pool}: a change took {took:?}");
        }
        assert_eq!(count.get().await?, 10, "maxPoolSize={pool}");
        let mut last = 0;
        while last < 10 {
            last = changes.next().await.expect("the watch goes on")?.new.expect("it exists");
        }
    }
    Ok(())
}

/// The driver's own options will do in place of a URL: what avout needs is set, what the application listens to is told, and what would
/// be in the way is refused.
pub(crate) async fn the_drivers_own_options_will_do() -> Outcome {
    let mut driver = ClientOptions::parse(mongo_url_of_tests().await?).await?;
    let made = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&made);
    driver.cmap_event_handler = Some(EventHandler::callback(move |event| {
        count.fetch_add(u32::from(matches!(event, CmapEvent::ConnectionCreated(_))), Ordering::SeqCst);
    }));
    driver.write_concern = Some(WriteConcern::nodes(0));
    driver.selection_criteria = Some(ReadPreference::Secondary { options: None }.into());
    let strict = ServerApi::builder().version(ServerApiVersion::V1).strict(true).build();
    for (change, help) in [
        (Box::new(|options: &mut ClientOptions| options.load_balanced = Some(true)) as Box<dyn Fn(&mut _)>, "balancer"),
        (Box::new(move |options: &mut ClientOptions| options.server_api = Some(strict.clone())), "strict"),
    ] {
        let mut wrong = driver.clone();
        change(&mut wrong);
        let error = Options::from_driver(wrong, "tests").expect_err(help);
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(help), "{error:?}");
    }
    assert!(Options::from_driver(driver.clone(), "a b").is_err(), "no name of a database");

    let backend = Options::from_driver(driver, "tests")?.namespace("ready")?.open().await?;
    let r = stm(&backend).create_ref("/r", 1_i64).await?;
    assert_eq!(r.alter(|n| n + 1).await?, 2);
    assert!(made.load(Ordering::SeqCst) > 0, "the application's handler is called");
    Ok(())
}

/// What the driver was built without is told at once, by the name of its feature.
pub(crate) async fn a_missing_feature_is_named() -> Outcome {
    let begun = Instant::now();
    for (options, feature) in [
        ("authMechanism=MONGODB-AWS", "aws-auth"),
        ("authMechanism=GSSAPI", "gssapi-auth"),
        ("authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:x", "azure-oidc"),
        ("authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:gcp,TOKEN_RESOURCE:x", "gcp-oidc"),
        ("tls=true&tlsCertificateKeyFile=/k.pem&tlsCertificateKeyFilePassword=secret-word", "cert-key-password"),
    ] {
        let url = mongo_url_of_tests().await?;
        let url = if feature == "gssapi-auth" { url.replacen("://", "://secret-word@", 1) } else { url };
        let error = open(&with(&url, &format!("timeout=30s&{options}"))).await.expect_err(feature);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(feature), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret-word"), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it tried again and again, for {:?}", begun.elapsed());
    Ok(())
}

/// A callback of the application's gives the token of OIDC. The server, which knows no such, refuses it at once.
pub(crate) async fn tokens_come_from_a_callback() -> Outcome {
    let mut driver = ClientOptions::parse(mongo_url_of_tests().await?).await?;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let callback = Callback::machine(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(IdpServerResponse::builder().access_token("secret-word".to_owned()).build()) })
    });
    let oidc = Credential::builder().mechanism(AuthMechanism::MongoDbOidc).oidc_callback(callback);
    driver.credential = Some(oidc.build());
    let error = Options::from_driver(driver, "tests")?.open().await.expect_err("a server without OIDC");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret-word"), "{error:?}");
    assert!(asked.load(Ordering::SeqCst) > 0, "the callback is asked");
    Ok(())
}
