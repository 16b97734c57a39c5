//! What only ZooKeeper does: faults of real servers, and what it costs.

mod ensemble;
mod faults;
mod histories;
mod limits;
mod requests;
mod restored;
mod support;
mod users;
mod watches;

use avout_conformance::servers::run_tests;

fn main() {
    run_tests(
        [
            requests::tests(),
            limits::tests(),
            users::tests(),
            faults::tests(),
            watches::tests(),
            ensemble::tests(),
            histories::tests(),
            restored::tests(),
        ]
        .into_iter()
        .flatten(),
    )
}
