//! `#[handlers]`: each method of the block, and the message table.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::{Error, Ident, ImplItem, ImplItemFn, ItemImpl, LitStr, Path, Receiver};

use crate::entity;
use crate::errors::{Errors, at};
use crate::handler::{Handler, Method, Reach};
use crate::mark::{self, Mark};
use crate::owner::Owner;
use crate::parameter;
use crate::sweep::Sweep;

/// Expands `#[handlers(options)]` on `block`.
pub(crate) fn expand(options: TokenStream, block: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let krate = parse_options(options, &mut errors);
    let Some(mut parsed) = errors.ok(syn::parse2::<ItemImpl>(block.clone())) else {
        let errors = errors.into_tokens();
        return quote!(#block #errors);
    };
    let methods = take_methods(&mut parsed, &mut errors);
    let generated = errors
        .ok(check_block(&parsed).and_then(|()| Owner::parse(&parsed.self_ty, krate)))
        .map(|owner| expand_methods(&methods, &owner, &mut errors));
    let errors = errors.into_tokens();
    quote!(#parsed #generated #errors)
}

fn parse_options(options: TokenStream, errors: &mut Errors) -> Path {
    let mut krate = None;
    let parsed = syn::meta::parser(|meta| {
        if !meta.path.is_ident("crate") {
            return Err(meta.error("unknown option: `#[handlers]` knows `crate = path`"));
        }
        krate = Some(entity::crate_path(&meta)?);
        Ok(())
    });
    errors.ok(parsed.parse2(options));
    krate.unwrap_or_else(entity::default_crate)
}

fn check_block(block: &ItemImpl) -> Result<(), Error> {
    if let Some((path, _)) = &block.trait_ {
        let message = "`#[handlers]` stands on the entity's own block, `impl Account { .. }`, not \
                       on the impl of a trait";
        return Err(Error::new_spanned(path, message));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, entity::GENERIC));
    }
    Ok(())
}

/// A method that takes part in the message table.
enum Entry {
    Handler(Box<Handler>),
    Sweep(Box<Sweep>),
}

impl Entry {
    fn method(&self) -> &Method {
        match self {
            Self::Handler(handler) => &handler.method,
            Self::Sweep(sweep) => &sweep.method,
        }
    }

    fn bare(&self) -> Option<&LitStr> {
        match self {
            Self::Handler(handler) => handler.bare(),
            Self::Sweep(sweep) => sweep.bare(),
        }
    }

    fn expand(&self, owner: &Owner) -> TokenStream {
        match self {
            Self::Handler(handler) => handler.expand(owner),
            Self::Sweep(sweep) => sweep.expand(owner),
        }
    }

    fn registration(&self, owner: &Owner, table: &Ident) -> TokenStream {
        match self {
            Self::Handler(handler) => handler.registration(owner, table),
            Self::Sweep(sweep) => sweep.registration(owner, table),
        }
    }
}

/// Reads the methods that are not skipped, and removes our attributes from all items.
fn take_methods(block: &mut ItemImpl, errors: &mut Errors) -> Vec<Entry> {
    let mut entries = Vec::new();
    for item in &mut block.items {
        match item {
            ImplItem::Fn(item) => entries.extend(errors.ok(take_method(item)).flatten()),
            ImplItem::Const(item) => {
                errors.ok(mark::refuse(&mut item.attrs));
            }
            ImplItem::Type(item) => {
                errors.ok(mark::refuse(&mut item.attrs));
            }
            _ => {}
        }
    }
    entries
}

fn take_method(item: &mut ImplItemFn) -> Result<Option<Entry>, Error> {
    if parameter::receiver(&item.sig).is_none() {
        return mark::refuse(&mut item.attrs).map(|()| None);
    }
    let mark = Mark::take(&mut item.attrs)?;
    let Some(receiver) = parameter::receiver(&item.sig) else { return Ok(None) };
    let entry = match mark {
        Mark::Skip => return Ok(None),
        Mark::Local => handler(item, receiver, Reach::Local)?,
        Mark::Command { bare, each } => handler(item, receiver, Reach::Outside { bare, each })?,
        Mark::Sweep { bare } => Entry::Sweep(Box::new(Sweep::parse(item, receiver, bare)?)),
    };
    Ok(Some(entry))
}

fn handler(item: &ImplItemFn, receiver: &Receiver, reach: Reach) -> Result<Entry, Error> {
    Handler::parse(item, receiver, reach).map(|handler| Entry::Handler(Box::new(handler)))
}

fn expand_methods(entries: &[Entry], owner: &Owner, errors: &mut Errors) -> TokenStream {
    check_names(entries, owner, errors);
    let items = entries.iter().map(|entry| entry.expand(owner));
    let table = if entries.is_empty() { "_table" } else { "table" };
    let table = Ident::new(table, Span::mixed_site());
    let registrations = entries.iter().map(|entry| entry.registration(owner, &table));
    let Owner { krate, path } = owner;
    let register = quote_spanned! {at(owner.ident().span())=>
        impl #path {
            #[doc(hidden)]
            pub fn __coreside_register(#table: &mut #krate::Registration<'_, Self>) {
                #(#registrations)*
            }
        }
    };
    quote!(#(#items)* #register)
}

/// Two methods may share neither a bare name nor a generated type. Methods under `#[cfg]` are left
/// to the compiler, which knows whether both are there.
fn check_names(entries: &[Entry], owner: &Owner, errors: &mut Errors) {
    let mut bare_names = BTreeMap::new();
    let mut types = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.method().cfgs.is_empty()) {
        let ident = &entry.method().ident;
        if let Some(bare) = entry.bare()
            && let Some(other) = bare_names.insert(bare.value().to_ascii_uppercase(), ident)
        {
            let message = format!("the bare name of `{other}` already; names ignore case");
            errors.push(Error::new_spanned(bare, message));
        }
        let generated = owner.generated(ident);
        if let Some(other) = types.insert(generated.to_string(), ident)
            && other != ident
        {
            let message =
                format!("`{other}` and `{ident}` would both become `{generated}`: rename one");
            errors.push(Error::new_spanned(ident, message));
        }
    }
}
