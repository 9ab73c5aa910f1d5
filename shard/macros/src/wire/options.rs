//! What stands between the parentheses of `#[wire(..)]`: on a type, on a handler, and on what was
//! added to either.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, FnArg, Ident, Item, LitInt, Meta, Pat, Path, Token};

use crate::entity;
use crate::errors::Errors;

/// The options of a type.
pub(super) struct Options {
    pub(super) krate: Path,
    pub(super) version: u16,
    pub(super) origin: Origin,
}

/// Where the type of the version before comes from.
pub(super) enum Origin {
    /// It is this one.
    Same,
    /// It is made of this one.
    Generated,
    /// It is written by hand.
    Written(Path),
    /// The type is a message, which no other type has in it.
    Message,
}

/// What `#[wire(..)]` says about a handler.
pub(crate) struct Marked {
    pub(crate) version: u16,
    /// The type of the version before, if it is written by hand.
    pub(crate) from: Option<Path>,
    /// The arguments that the version before has not.
    pub(crate) added: Vec<(Ident, Added)>,
    /// Where mistakes about versions are reported.
    span: Span,
}

/// What `#[wire(since = 2)]` says about a field, a variant or an argument.
pub(crate) struct Added {
    since: u16,
    /// Where mistakes are reported.
    attr: Attribute,
    /// What it is for whoever does not send it; its type's `Default` otherwise.
    pub(crate) default: Option<Expr>,
    /// The variant that readers of the version before are told.
    pub(super) instead: Option<Ident>,
}

const FROM_ALONE: &str = "`from` is the version before this one: say `version = 2`, or higher";
const SINCE_SYNTAX: &str = "expected `since = 2`, the version that it was added in";

impl Options {
    pub(super) fn parse(options: TokenStream, errors: &mut Errors) -> Self {
        let mut krate = None;
        let (mut version, mut from, mut message) = (None, None, false);
        let parsed = syn::meta::parser(|meta| {
            if meta.path.is_ident("crate") {
                krate = Some(entity::crate_path(&meta)?);
            } else if meta.path.is_ident("version") {
                version = Some(number(&meta)?);
            } else if meta.path.is_ident("from") {
                from = Some((meta.value()?.parse::<Path>()?, meta.path));
            } else if meta.path.is_ident("message") {
                message = true;
            } else {
                let message = "unknown option: `#[wire]` knows `version = 2`, `from = path`, \
                               `message` and `crate = path`";
                return Err(meta.error(message));
            }
            Ok(())
        });
        errors.ok(parsed.parse2(options));
        let version = version.unwrap_or(1);
        let origin = match from {
            Some((_, option)) if version < 2 => {
                errors.push(Error::new_spanned(option, FROM_ALONE));
                Origin::Same
            }
            Some((_, option)) if message => {
                let message = "the way from an old message to that of today is its `Previous`";
                errors.push(Error::new_spanned(option, message));
                Origin::Message
            }
            _ if message => Origin::Message,
            Some((from, _)) => Origin::Written(from),
            None if version < 2 => Origin::Same,
            None => Origin::Generated,
        };
        Self { krate: krate.unwrap_or_else(entity::default_crate), version, origin }
    }
}

impl Marked {
    /// Reads `#[wire]` or `#[wire(version = 2, from = Path)]` of a handler.
    pub(crate) fn parse(attr: &Attribute) -> Result<Self, Error> {
        let span = attr.path().span();
        let mut marked = Self { version: 1, from: None, added: Vec::new(), span };
        if let Meta::Path(_) = attr.meta {
            return Ok(marked);
        }
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("version") {
                marked.version = number(&meta)?;
            } else if meta.path.is_ident("from") {
                marked.from = Some(meta.value()?.parse()?);
            } else {
                let message = "unknown option: on a handler `#[wire]` knows `version = 2` and \
                               `from = path`";
                return Err(meta.error(message));
            }
            Ok(())
        })?;
        match &marked.from {
            Some(from) if marked.version < 2 => Err(Error::new_spanned(from, FROM_ALONE)),
            _ => Ok(marked),
        }
    }

    /// Adds the arguments that the version before has not.
    pub(crate) fn add(&mut self, added: Vec<(Ident, Added)>) -> Result<(), Error> {
        for (_, added) in &added {
            added.of_field()?;
            added.check(self.version, self.from.is_some())?;
        }
        self.added = added;
        Ok(())
    }

    /// Where it is written.
    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

impl Added {
    /// Takes the mark out of `attrs`.
    fn take(attrs: &mut Vec<Attribute>) -> Result<Option<Self>, Error> {
        let ours: Vec<_> = attrs.extract_if(.., |attr| attr.path().is_ident("wire")).collect();
        let Some(attr) = ours.first() else { return Ok(None) };
        if let Some(second) = ours.get(1) {
            return Err(Error::new_spanned(second, "`#[wire]` is given twice"));
        }
        let (mut since, mut default, mut instead) = (None, None, None);
        if let Meta::Path(_) = attr.meta {
            return Err(Error::new_spanned(attr, SINCE_SYNTAX));
        }
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("since") {
                since = Some(number(&meta)?);
            } else if meta.path.is_ident("default") {
                default = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("instead") {
                instead = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error(SINCE_SYNTAX));
            }
            Ok(())
        })?;
        let since = since.ok_or_else(|| Error::new_spanned(attr, SINCE_SYNTAX))?;
        Ok(Some(Self { since, attr: attr.clone(), default, instead }))
    }

    /// A field, or an argument, is something for whoever has not heard of it.
    fn of_field(&self) -> Result<(), Error> {
        match &self.instead {
            Some(instead) => Err(Error::new_spanned(instead, "`instead` stands on variants")),
            None => Ok(()),
        }
    }

    fn of_variant(&self) -> Result<(), Error> {
        match &self.default {
            Some(default) => Err(Error::new_spanned(default, "`default` stands on fields")),
            None => Ok(()),
        }
    }

    fn of_part_of_variant(&self) -> Result<(), Error> {
        let message = "a variant's fields have no versions of their own: add another variant, or \
                       let the field be a struct that has";
        Err(Error::new_spanned(&self.attr, message))
    }

    /// Whether it was added in the version that is made now.
    fn check(&self, version: u16, by_hand: bool) -> Result<(), Error> {
        let since = self.since;
        let message = if by_hand {
            "the version before is written by hand (`from`): remove this mark".to_owned()
        } else if since < version {
            format!("version {version} and the one before both have it: remove this mark")
        } else if since > version {
            format!("say `version = {since}` where `#[wire]` begins")
        } else if since < 2 {
            "nothing is before version 1: remove this mark".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new_spanned(&self.attr, message))
    }
}

/// Takes the marks off the fields or the variants of a type; one for each of them. All are off
/// afterwards, mistakes or not.
pub(super) fn take_added(
    item: &mut Item,
    options: &Options,
    errors: &mut Errors,
) -> Vec<Option<Added>> {
    let by_hand = matches!(options.origin, Origin::Written(_) | Origin::Message);
    let mut take = |attrs: &mut Vec<Attribute>, check: fn(&Added) -> Result<(), Error>| {
        let added = errors.ok(Added::take(attrs)).flatten()?;
        let checked = check(&added).and_then(|()| added.check(options.version, by_hand));
        errors.ok(checked).map(|()| added)
    };
    let mut marks = Vec::new();
    match item {
        Item::Struct(item) => {
            for field in &mut item.fields {
                marks.push(take(&mut field.attrs, Added::of_field));
            }
        }
        Item::Enum(item) => {
            for variant in &mut item.variants {
                marks.push(take(&mut variant.attrs, Added::of_variant));
                for field in &mut variant.fields {
                    take(&mut field.attrs, Added::of_part_of_variant);
                }
            }
        }
        _ => {}
    }
    marks
}

/// Takes the marks off the arguments of a method.
pub(crate) fn since(
    inputs: &mut Punctuated<FnArg, Token![,]>,
) -> Result<Vec<(Ident, Added)>, Error> {
    let mut marks = Vec::new();
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        let Some(added) = Added::take(&mut input.attrs)? else { continue };
        match &*input.pat {
            Pat::Ident(pat) => marks.push((pat.ident.clone(), added)),
            other => {
                return Err(Error::new_spanned(other, "an argument that was added has a name"));
            }
        }
    }
    Ok(marks)
}

fn number(meta: &ParseNestedMeta<'_>) -> Result<u16, Error> {
    let number: LitInt = meta.value()?.parse()?;
    match number.base10_parse() {
        Ok(0) | Err(_) => {
            let message = "versions are numbers from 1 to 65,535";
            Err(Error::new_spanned(number.to_token_stream(), message))
        }
        Ok(number) => Ok(number),
    }
}
