//! The laws of `avout-conformance`.

mod support;

fn main() {
    avout_conformance::run(support::Shelf)
}
