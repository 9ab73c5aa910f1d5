//! What the macros accept and what they say to mistakes: compile errors are part of the interface.
//!
//! `TRYBUILD=overwrite cargo test --test compile` writes the expected messages anew; read the
//! difference before you keep it. Only mistakes whose messages are ours, or depend on where our
//! expansion points, have a file here: the wording of other errors belongs to the compiler.

#[test]
fn every_form_compiles() {
    trybuild::TestCases::new().pass("tests/compile_pass/*.rs");
}

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
