//! What the macros accept and what they say to mistakes: compile errors are part of the interface.
//!
//! `TRYBUILD=overwrite cargo test --test compile` writes the expected messages anew; read the
//! difference before you keep it. Only mistakes whose messages are ours, or depend on where our
//! expansion points, have a file here: the wording of other errors belongs to the compiler.

#[allow(dead_code, reason = "it has to compile")]
mod account;
// As if others used them, so that their lints hold for all that the macros write.
#[allow(clippy::type_complexity, reason = "every form, also those that few would choose")]
pub mod every_form;
pub mod life;

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
