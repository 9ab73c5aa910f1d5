//! The mistakes found in one item, reported together.

use proc_macro2::{Span, TokenStream};
use syn::Error;

/// Mistakes so far. The expansion goes on, so that none of them causes errors elsewhere.
#[derive(Default)]
pub(crate) struct Errors {
    all: Option<Error>,
}

impl Errors {
    /// Adds a mistake.
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.all {
            Some(all) => all.combine(error),
            None => self.all = Some(error),
        }
    }

    /// The value, or `None` after its mistake was added.
    pub(crate) fn ok<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// The `compile_error!` calls, nothing if all is well.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.all.map(Error::into_compile_error).unwrap_or_default()
    }
}

/// Where generated code points for `span`: the user's line, but with hygienic locals and as part of
/// the expansion, so that lints of the user's crate leave it alone.
pub(crate) fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}
