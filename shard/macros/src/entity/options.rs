//! What stands between the parentheses of `#[entity(..)]`.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Error, ExprPath, LitStr, Path, Token, Type};

use super::life::Life;
use crate::errors::Errors;

/// The options as given.
#[derive(Default)]
pub(super) struct Options {
    pub(super) key: Option<Type>,
    pub(super) name: Option<LitStr>,
    pub(super) activate: Option<ExprPath>,
    /// Excludes `activate`.
    pub(super) activate_async: Option<ExprPath>,
    pub(super) on_stop: Option<ExprPath>,
    pub(super) on_passivate: Option<ExprPath>,
    pub(super) life: Life,
    krate: Option<Path>,
}

impl Options {
    /// The options; one with a mistake keeps its default, and so do those behind one that cannot
    /// be read to its end.
    pub(super) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let parser = syn::meta::parser(|meta| match options.option(&meta) {
            Err(error) if meta.input.is_empty() || meta.input.peek(Token![,]) => {
                errors.push(error);
                Ok(())
            }
            result => result,
        });
        let parsed = parser.parse2(tokens);
        errors.ok(parsed);
        options.check(errors);
        options
    }

    fn option(&mut self, meta: &ParseNestedMeta<'_>) -> Result<(), Error> {
        let twice = if let Some(twice) = self.life.option(meta)? {
            twice
        } else if meta.path.is_ident("key") {
            self.key.replace(meta.value()?.parse()?).is_some()
        } else if meta.path.is_ident("name") {
            self.name.replace(type_name(meta)?).is_some()
        } else if meta.path.is_ident("activate") {
            self.activate.replace(function(meta, ACTIVATE)?).is_some()
        } else if meta.path.is_ident("activate_async") {
            self.activate_async.replace(function(meta, ACTIVATE_ASYNC)?).is_some()
        } else if meta.path.is_ident("on_stop") {
            self.on_stop.replace(function(meta, ON_STOP)?).is_some()
        } else if meta.path.is_ident("on_passivate") {
            self.on_passivate.replace(function(meta, ON_PASSIVATE)?).is_some()
        } else if meta.path.is_ident("crate") {
            self.krate.replace(crate_path(meta)?).is_some()
        } else {
            return Err(meta.error(format_args!(
                "unknown option: `#[entity]` knows `key`, `name`, `activate`, `activate_async`, \
                 `on_stop`, `on_passivate`, {} and `crate`",
                Life::NAMES
            )));
        };
        if twice { Err(meta.error("given twice")) } else { Ok(()) }
    }

    /// Adds a mistake for each option that contradicts another.
    fn check(&mut self, errors: &mut Errors) {
        self.life.check(self.on_passivate.as_ref().map(Spanned::span), errors);
        if let (Some(_), Some(function)) = (&self.activate, &self.activate_async) {
            let message = "`activate` and `activate_async` exclude each other: an entity begins in \
                           one way";
            errors.push(Error::new_spanned(function, message));
            self.activate_async = None;
        }
    }

    pub(super) fn krate(&self) -> Path {
        self.krate.clone().unwrap_or_else(default_crate)
    }
}

/// Where `coreside` is unless an option says otherwise.
pub(crate) fn default_crate() -> Path {
    syn::parse_quote!(::coreside)
}

/// The value of `crate = path`.
pub(crate) fn crate_path(meta: &ParseNestedMeta<'_>) -> Result<Path, Error> {
    Path::parse_mod_style(meta.value()?)
}

fn type_name(meta: &ParseNestedMeta<'_>) -> Result<LitStr, Error> {
    let name: LitStr = meta.value()?.parse()?;
    if !is_type_name(&name.value()) {
        return Err(Error::new_spanned(name, NOT_A_NAME));
    }
    Ok(name)
}

const NOT_A_NAME: &str =
    "the name of an entity type is ASCII letters, digits, `_`, `-` or `:`, such as `\"account\"`";

/// Whether callers outside can write `text` as the name of a type.
pub(super) fn is_type_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

const ACTIVATE: &str = "`activate` is the path of a function: `fn(Key, &mut Cx<Self>) -> Self`";
const ACTIVATE_ASYNC: &str = "`activate_async` is the path of a function: \
                              `async fn(Key, AsyncCx<Self>) -> Self`";
const ON_STOP: &str = "`on_stop` is the path of a function: `fn(&mut Self, &mut Cx<Self>)`";
const ON_PASSIVATE: &str =
    "`on_passivate` is the path of a function: `fn(&mut Self, &mut Cx<Self>)`";

fn function(meta: &ParseNestedMeta<'_>, message: &str) -> Result<ExprPath, Error> {
    let value = meta.value()?;
    let span = value.span();
    value.parse().map_err(|_| Error::new(span, message))
}
