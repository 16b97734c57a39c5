//! What the compiler says of mistakes that are easily made: it names what to mend.
//!
//! They are here and not with the facade, since each run compiles a crate's dependencies anew, and the drivers' take minutes. The words are
//! those of one version of the compiler: with `TRYBUILD=overwrite` a run writes them as they are.

/// Each program under `compile_fail` is refused, in the words beside it.
#[test]
fn mistakes_are_named() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
