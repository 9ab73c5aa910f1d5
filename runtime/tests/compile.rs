//! Compile errors are part of the interface: each likely mistake has its expected message.

#[test]
fn every_form_compiles() {
    trybuild::TestCases::new().pass("tests/compile_pass/*.rs");
}
