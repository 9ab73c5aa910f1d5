//! `#[handlers]`: each method of the block, and the message table.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::{Error, Ident, ImplItem, ImplItemFn, Item, ItemImpl, LitStr, Path};

use crate::entity;
use crate::errors::{Errors, at};
use crate::handler::Handler;
use crate::mark::{self, Mark};
use crate::method::Method;
use crate::owner::Owner;
use crate::parameter;
use crate::sweep::Sweep;
use crate::wire;

/// Expands `#[handlers(options)]` on `block`.
pub(crate) fn expand(options: TokenStream, block: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let krate = parse_options(options, &mut errors);
    let Some(mut parsed) = errors.ok(parse_block(block.clone())) else {
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

fn parse_block(block: TokenStream) -> Result<ItemImpl, Error> {
    match syn::parse2::<Item>(block.clone())? {
        Item::Impl(block) => Ok(block),
        _ => {
            let message = "`#[handlers]` stands on the block of an entity's methods: \
                           `impl Account { .. }`";
            Err(Error::new_spanned(block.into_iter().next(), message))
        }
    }
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

    /// The type that is generated for the method, if one is.
    fn generated(&self, owner: &Owner) -> Option<Ident> {
        match self {
            Self::Handler(handler) => handler.generated(owner),
            Self::Sweep(sweep) => Some(owner.generated(&sweep.method.ident)),
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
    if parameter::receiver(&item.sig).is_none() && !mark::is_interleaved(&item.attrs) {
        return mark::refuse(&mut item.attrs).map(|()| None);
    }
    let entry = match Mark::take(&mut item.attrs)? {
        Mark::Skip => return Ok(None),
        Mark::Handler(mut marks) => {
            marks.add_since(wire::since(&mut item.sig.inputs)?)?;
            Entry::Handler(Box::new(Handler::parse(item, *marks)?))
        }
        Mark::Sweep { bare, words } => {
            let Some(receiver) = parameter::receiver(&item.sig) else { return Ok(None) };
            Entry::Sweep(Box::new(Sweep::parse(item, receiver, bare, words)?))
        }
    };
    Ok(Some(entry))
}

fn expand_methods(entries: &[Entry], owner: &Owner, errors: &mut Errors) -> TokenStream {
    check_bare_names(entries, errors);
    let entries = without_same_types(entries, owner, errors);
    let items = entries.iter().map(|entry| entry.expand(owner));
    let table = if entries.is_empty() { "_table" } else { "table" };
    let table = Ident::new(table, Span::mixed_site());
    let registrations = entries.iter().map(|entry| entry.registration(owner, &table));
    let span = owner.ident().span();
    let (path, krate) = (&owner.path, owner.krate(span));
    let register = quote_spanned! {at(span)=>
        impl #path {
            #[doc(hidden)]
            pub fn __coreside_handlers(#table: &mut #krate::Registration<'_, Self>) {
                #(#registrations)*
            }
        }
    };
    quote!(#(#items)* #register)
}

/// No two methods may share a bare name.
fn check_bare_names(entries: &[Entry], errors: &mut Errors) {
    let mut names = BTreeMap::new();
    for entry in unconditional(entries) {
        let Some(bare) = entry.bare() else { continue };
        let method = &entry.method().ident;
        if let Some(other) = names.insert(bare.value().to_ascii_uppercase(), method) {
            let message = format!("`{other}` has this bare name already: names ignore case");
            errors.push(Error::new_spanned(bare, message));
        }
    }
}

/// The methods but those whose generated type would be the one of an earlier method.
fn without_same_types<'a>(
    entries: &'a [Entry],
    owner: &Owner,
    errors: &mut Errors,
) -> Vec<&'a Entry> {
    let mut types = BTreeMap::new();
    let mut kept: Vec<&Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let method = &entry.method().ident;
        let Some(generated) = entry.generated(owner) else {
            kept.push(entry);
            continue;
        };
        match types.get(&generated.to_string()) {
            // The compiler says enough of two methods with one name.
            Some(other) if *other == method => {}
            Some(other) => {
                let message =
                    format!("`{other}` and `{method}` would both become `{generated}`: rename one");
                errors.push(Error::new_spanned(method, message));
            }
            None => kept.push(entry),
        }
        if entry.method().cfgs.is_empty() {
            types.insert(generated.to_string(), method);
        }
    }
    kept
}

/// Methods under `#[cfg]` are left to the compiler, which knows whether they are there.
fn unconditional(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.method().cfgs.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};

    fn expand_in_account(methods: TokenStream) -> String {
        expand(quote!(), quote!(impl Account { #methods })).to_string()
    }

    fn assert_explained(methods: TokenStream, expected: &str) {
        assert_explains(&expand_in_account(methods), expected);
    }

    #[test]
    fn handler_becomes_message_turn_call_and_row() {
        let expanded = expand_in_account(quote! {
            pub fn deposit(&mut self, amount: i64, cx: &mut Cx<Self>) -> i64 { amount }
        });
        assert_has(&expanded, quote!(pub amount: i64));
        assert_has(&expanded, quote!(impl ::coreside::Message for AccountDeposit));
        assert_has(
            &expanded,
            quote!(
                type Reply = i64;
            ),
        );
        assert_has(&expanded, quote!(impl ::coreside::Handler<AccountDeposit> for Account));
        assert_has(&expanded, quote!(<Account>::deposit(self, message.amount, cx)));
        assert_has(&expanded, quote!(impl<V: ::coreside::Via> AccountRef<V>));
        assert_has(
            &expanded,
            quote!(pub fn deposit(self, amount: i64) -> V::Call<Account, AccountDeposit>),
        );
        assert_has(&expanded, quote!(table.command::<AccountDeposit>));
        assert_has(&expanded, quote!(<i64 as ::coreside::FromArguments>::from_arguments(args)?));
        assert_lacks(&expanded, "compile_error");
    }

    #[test]
    fn reply_is_what_later_promises() {
        let expanded = expand_in_account(quote! {
            fn ask(&mut self, cx: &mut Cx<Self>) -> coreside::Later<Option<Self>> { later }
        });
        assert_has(
            &expanded,
            quote!(
                type Reply = Option<Account>;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                type Answer = coreside::Later<Option<Account>>;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                struct AccountAsk;
            ),
        );
    }

    #[test]
    fn attributes_choose_the_row_and_leave_the_block() {
        let expanded = expand_in_account(quote! {
            #[command("GET")]
            fn get(&self) -> u64 { 7 }
            #[command(each = array)]
            fn read(&self) -> u64 { 7 }
            #[local]
            fn note(&mut self, note: Box<Note>) {}
            #[sweep("DBSIZE")]
            fn count(&self, total: &mut u64) {}
            #[skip]
            fn plain(&self, borrowed: &str) {}
        });
        assert_has(&expanded, quote!(bare: ::core::option::Option::Some("GET")));
        assert_has(&expanded, quote!(each: ::coreside::Each::Array));
        assert_has(&expanded, quote!(table.message::<AccountNote>("note")));
        assert_has(
            &expanded,
            quote!(table.sweep::<AccountCount>("count", ::core::option::Option::Some("DBSIZE"))),
        );
        assert_has(&expanded, quote!(<Account>::count(entity, &mut self.total)));
        for unexpected in ["AccountPlain", "# [command", "# [local]", "# [sweep", "# [skip]"] {
            assert_lacks(&expanded, unexpected);
        }
    }

    #[test]
    fn conditional_method_is_conditional_everywhere() {
        let expanded = expand_in_account(quote! {
            #[cfg(feature = "x")]
            fn extra(&self) {}
        });
        let conditions = expanded.matches("# [cfg (feature = \"x\")]").count();
        assert_eq!(conditions, 6, "method, message, two impls, call and row:\n{expanded}");
    }

    #[test]
    fn conditional_method_on_the_wire_is_conditional_there_too() {
        let expanded = expand_in_account(quote! {
            #[cfg(feature = "x")]
            #[wire]
            fn extra(&self) {}
        });
        let conditions = expanded.matches("# [cfg (feature = \"x\")]").count();
        assert_eq!(conditions, 8, "and the schema, and its row:\n{expanded}");
        assert_has(&expanded, quote!(impl ::coreside::WireType for AccountExtra));
    }

    #[test]
    fn version_before_is_a_message_and_a_row_under_the_same_conditions() {
        let expanded = expand_in_account(quote! {
            #[cfg(feature = "x")]
            #[local]
            #[wire(version = 2)]
            fn pay(&self, amount: i64, #[wire(since = 2, default = Self::ALL)] to: u64) -> Receipt {
                it
            }
        });
        let conditions = expanded.matches("# [cfg (feature = \"x\")]").count();
        assert_eq!(conditions, 12, "and the struct of version 1, two impls and a row:\n{expanded}");
        assert_has(&expanded, quote!(amount: <i64 as ::coreside::Evolve>::Before));
        assert_has(&expanded, quote!(to: Account::ALL));
        assert_has(
            &expanded,
            quote!(
                type Reply = <Receipt as ::coreside::Evolve>::Before;
            ),
        );
        assert_has(
            &expanded,
            quote!(table.wire_previous_if_changed::<AccountPay, AccountPayV1>("pay")),
        );
    }

    #[test]
    fn docs_are_carried_over() {
        let expanded = expand_in_account(quote! {
            #[doc = " Adds to [`Self::balance`]."]
            fn deposit(&mut self) {}
        });
        assert_eq!(expanded.matches("Adds to [`Account::balance`].").count(), 2, "{expanded}");
    }

    #[test]
    fn paths_lead_to_the_entity_and_the_renamed_crate() {
        let expanded =
            expand(quote!(crate = core), quote!(impl bank::Account { fn get(&self) {} }));
        let expanded = expanded.to_string();
        assert_has(&expanded, quote!(impl core::Handler<AccountGet> for bank::Account));
        assert_has(&expanded, quote!(bank::AccountRef<V>));
    }

    #[test]
    fn renamed_crate_is_the_only_one_that_is_named() {
        let block = quote! {
            impl Account {
                fn plain(&mut self, amount: i64, cx: &mut Cx<Self>) -> Later<i64> { it }
                #[fallible]
                #[retry]
                #[command("A", each = pairs)]
                fn fallible(&mut self, value: Text) -> Result<(), Text> { it }
                #[read]
                fn read(&self) {}
                #[fallible]
                async fn turn(&mut self, cx: &mut AsyncCx<Self>) -> Result<(), Text> { it }
                #[read]
                async fn reads(&self) {}
                #[interleave]
                async fn beside(cx: AsyncCx<Self>) {}
                #[on]
                fn failed(&mut self, fault: Fault) {}
                #[local]
                fn local(&mut self) {}
                #[sweep("B", words("C"))]
                fn visit(&self, key: u64, total: &mut Total) {}
                #[wire(version = 2)]
                fn versioned(&self, key: u64, #[wire(since = 2)] text: Text) -> Text { it }
                #[wire(version = 2, from = Old)]
                fn by_hand(&self) {}
            }
        };
        let expanded = expand(quote!(crate = other), block).to_string();
        assert_lacks(&expanded, "compile_error");
        assert_lacks(&expanded.replace("__coreside_handlers", ""), "coreside");
        let options = quote!(
            crate = other,
            idle = "1s",
            backoff = "1s..2s",
            on_fault = resume,
            children = one_for_all,
            activate_async = load,
            on_stop = stop,
            on_passivate = leave
        );
        let state = quote!(
            struct Account;
        );
        let expanded = entity::expand(options, state.clone()).to_string();
        let expanded = expanded + &entity::expand(quote!(crate = other), state).to_string();
        assert_lacks(&expanded, "compile_error");
        assert_lacks(&expanded.replace("__coreside_handlers", ""), "coreside");
    }

    #[test]
    fn mistakes_are_explained() {
        assert_explained(
            quote!(
                fn go(self) {}
            ),
            "keeps the entity",
        );
        assert_explained(
            quote!(
                fn go<T>(&self, value: T) {}
            ),
            "cannot be generic",
        );
        assert_explained(
            quote!(
                fn go(&self, text: &str) {}
            ),
            "take `String`",
        );
        assert_explained(
            quote!(
                fn go(&self, keys: Vec<&[u64]>) {}
            ),
            "take `Vec<u64>`",
        );
        assert_explained(
            quote!(
                fn go(&self) -> &str {
                    ""
                }
            ),
            "return `String`",
        );
        assert_explained(
            quote!(
                fn go(&self, any: impl Sized) {}
            ),
            "name the parameter's type",
        );
        assert_explained(
            quote!(
                fn go(&self, (a, b): (u8, u8)) {}
            ),
            "in the body",
        );
        assert_explained(
            quote!(
                fn go(&self, a: &mut Cx<Self>, b: &mut Cx<Self>) {}
            ),
            "one context",
        );
        assert_explained(
            quote!(
                fn go(&self, cx: Cx<Self>) {}
            ),
            "take `cx: &mut Cx<Self>`",
        );
        assert_explained(
            quote!(
                fn go(&self) -> Option<Later<u8>> {
                    None
                }
            ),
            "whole return type",
        );
        assert_explained(
            quote!(
                fn key(&self) {}
            ),
            "choose another name",
        );
        assert_explained(
            quote!(
                #[local]
                fn go() {}
            ),
            "no `self`",
        );
        assert_explained(
            quote!(
                #[sweep]
                fn go(&self, cx: &mut Cx<Self>) {}
            ),
            "takes no `cx`",
        );
        assert_explained(
            quote!(
                #[command("A", each = sum)]
                fn go(&self, n: u8) {}
            ),
            "is a key",
        );
        assert_explained(
            quote!(
                #[command("A", each = pairs)]
                fn go(&self) {}
            ),
            "exactly one",
        );
        assert_explained(
            quote!(
                fn a_1(&self) {}
                fn a1(&self) {}
            ),
            "both become `AccountA1`",
        );
        let same_name = quote!(
            #[command("A")]
            fn a(&self) {}
            #[sweep("a")]
            fn b(&self) {}
        );
        assert_explained(same_name, "`a` has this bare name already");
    }

    #[test]
    fn wrong_blocks_are_explained() {
        for (block, expected) in [
            (quote!(impl Clone for Account {}), "not on the impl of a trait"),
            (
                quote!(
                    impl<T> Cell<T> {}
                ),
                "cannot be generic",
            ),
            (quote!(impl Cell<u8> {}), "cannot be generic"),
            (
                quote!(
                    impl (u8, u8) {}
                ),
                "needs the type of an entity",
            ),
            (
                quote!(
                    struct Account;
                ),
                "stands on the block",
            ),
        ] {
            let expanded = expand(quote!(), block).to_string();
            assert_explains(&expanded, expected);
        }
    }

    #[test]
    fn one_mistake_leaves_the_other_handlers() {
        let expanded = expand_in_account(quote! {
            fn wrong(&self, text: &str) {}
            fn right(&self) {}
        });
        assert_has(&expanded, quote!(compile_error));
        assert_has(&expanded, quote!(table.command::<AccountRight>));
    }
}
