//! What tests say of an expansion.

use std::fmt::Display;

use proc_macro2::TokenStream;

/// The expansion holds these tokens next to each other.
pub(crate) fn assert_has(expanded: &impl Display, expected: TokenStream) {
    // How blanks are set depends on where tokens come from.
    let plain = |tokens: String| tokens.replace(' ', "");
    let (expanded, expected) = (expanded.to_string(), expected.to_string());
    let found = plain(expanded.clone()).contains(&plain(expected.clone()));
    assert!(found, "lacks `{expected}`:\n{expanded}");
}

/// The text is nowhere in the expansion.
pub(crate) fn assert_lacks(expanded: &impl Display, unexpected: &str) {
    let expanded = expanded.to_string();
    assert!(!expanded.contains(unexpected), "has `{unexpected}`:\n{expanded}");
}

/// The expansion is an error whose message contains `expected`.
pub(crate) fn assert_explains(expanded: &impl Display, expected: &str) {
    let expanded = expanded.to_string();
    assert!(expanded.contains("compile_error"), "no error:\n{expanded}");
    assert!(expanded.contains(expected), "lacks {expected:?}:\n{expanded}");
}
