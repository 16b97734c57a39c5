//! The servers for tests keep their promises.

mod servers {
    mod cleanup;
    mod groups;
    mod proxies;
    mod single;
    mod support;

    pub(crate) use cleanup::child;

    pub(crate) fn all() -> Vec<avout_conformance::servers::ServerTest> {
        [single::tests(), cleanup::tests(), proxies::tests(), groups::tests()].into_iter().flatten().collect()
    }
}

fn main() {
    if let Ok(task) = std::env::var("AVOUT_SERVERS_CHILD") {
        return servers::child(&task).expect("what its parent asked for");
    }
    avout_conformance::servers::run_tests(servers::all());
}
