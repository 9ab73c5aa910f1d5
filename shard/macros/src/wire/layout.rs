//! What would give archives of one schema different layouts: it is not in the schema, so nobody
//! could tell them apart.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Error, Item};

use crate::errors::Errors;

/// Reports all of it in `item`.
pub(super) fn check(item: &Item, errors: &mut Errors) {
    let mut check = |attrs: &[Attribute], whole: bool| {
        for attr in attrs {
            errors.ok(check_attribute(attr, whole));
        }
    };
    match item {
        Item::Struct(item) => {
            check(&item.attrs, true);
            item.fields.iter().for_each(|field| check(&field.attrs, false));
        }
        Item::Enum(item) => {
            check(&item.attrs, true);
            for variant in &item.variants {
                check(&variant.attrs, false);
                variant.fields.iter().for_each(|field| check(&field.attrs, false));
            }
            for (_, number) in item.variants.iter().filter_map(|v| v.discriminant.as_ref()) {
                let message = "on the wire variants are numbered in their order: remove the number";
                errors.push(Error::new_spanned(number, message));
            }
        }
        _ => {}
    }
}

/// Conditions on the whole type are met, or it is not there.
fn check_attribute(attr: &Attribute, whole: bool) -> Result<(), Error> {
    let is = |name| attr.path().is_ident(name);
    let names = |names: &[&str]| holds(attr.meta.to_token_stream(), names);
    if !whole && (is("cfg") || is("cfg_attr") && names(&["cfg"])) {
        let message = "all builds have to know the same type: `#[cfg]` stands on all of it";
        return Err(Error::new_spanned(attr, message));
    }
    // As `cfg_attr` as well.
    if names(&["rkyv"]) && names(&["as", "remote", "repr", "with"]) {
        let message = "a type on the wire has the layout that its fields give it: remove this";
        return Err(Error::new_spanned(attr, message));
    }
    Ok(())
}

/// Whether one of the names stands anywhere in the tokens.
fn holds(tokens: TokenStream, names: &[&str]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => names.iter().any(|name| ident == *name),
        TokenTree::Group(group) => holds(group.stream(), names),
        _ => false,
    })
}
