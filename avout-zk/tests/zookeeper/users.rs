//! Users and what they may do.

use std::time::{Duration, Instant};

use avout_conformance::servers::{ZooKeeper, shared};
use avout_core::ErrorKind;

use crate::support::{Outcome, client, tests, two_refs};

tests![
    what_a_user_makes_is_his,
    a_wrong_password_is_refused_at_once,
    a_user_may_share,
    sasl_users_are_known_to_the_server,
];

fn with_user(url: &str, user: &str) -> String {
    url.replacen("zk://", &format!("zk://{user}@"), 1)
}

/// A namespace made by a user is closed to others, whether they have another password or none.
async fn what_a_user_makes_is_his() -> Outcome {
    let url = shared::zookeeper_url("users_own").await?;
    let stm = client(&with_user(&url, "me:canary")).await?;
    let (a, _) = two_refs(&stm).await?;
    stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?;
    stm.create_atom("/atom", 1_i64).await?.swap(|n| n + 1).await?;
    let begun = Instant::now();
    for other in [url.clone(), with_user(&url, "me:other"), with_user(&url, "you:canary")] {
        let error = client(&other).await.expect_err("a user that is not the creator");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "refusals took {:?}", begun.elapsed());
    assert_eq!(client(&with_user(&url, "me:canary")).await?.open_ref::<i64>("/a").await?.get().await?, 1);
    Ok(())
}

/// With `acl=open` others come in.
async fn a_user_may_share() -> Outcome {
    let url = shared::zookeeper_url("users_shared").await?;
    let stm = client(&format!("{}?acl=open", with_user(&url, "me:canary"))).await?;
    two_refs(&stm).await?;
    assert_eq!(client(&url).await?.open_ref::<i64>("/a").await?.get().await?, 0);
    Ok(())
}

const JAAS: &str = r#"Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required user_me="canary";
};
"#;

/// A server that knows its users by SASL.
async fn sasl_server() -> Result<(ZooKeeper, tempfile::TempDir), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let jaas = folder.path().join("jaas.conf");
    std::fs::write(&jaas, JAAS)?;
    let zk = ZooKeeper::builder()
        .config("authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider")
        .java(format!("-Djava.security.auth.login.config={}", jaas.display()))
        .start()
        .await?;
    Ok((zk, folder))
}

/// A user with his password gets in by SASL, and owns what he makes.
async fn sasl_users_are_known_to_the_server() -> Outcome {
    let (zk, _folder) = sasl_server().await?;
    let url = with_user(&zk.url("sasl"), "me:canary");
    let stm = client(&format!("{url}?auth=sasl")).await?;
    let (a, _) = two_refs(&stm).await?;
    assert_eq!(stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await?, 1);
    let error = client(&zk.url("sasl")).await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    Ok(())
}

/// A password that the server does not accept is an error at once, not after the timeout, and is not tried for ever.
async fn a_wrong_password_is_refused_at_once() -> Outcome {
    let (zk, _folder) = sasl_server().await?;
    let url = with_user(&zk.url("sasl"), "me:wrong-canary");
    let begun = Instant::now();
    let error = client(&format!("{url}?auth=sasl&timeout=30s")).await.expect_err("a wrong password");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    Ok(())
}
