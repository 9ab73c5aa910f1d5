//! `#[entity]`: the impl of `Entity`, and the typed reference.

mod duration;
mod life;
mod options;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Fields, Generics, Ident, Item, Path, Visibility};

use self::options::Options;
pub(crate) use self::options::{crate_path, default_crate};
use crate::errors::{Errors, at};
use crate::owner::{named_at, reference_of, respan};

/// Why there are no generic entities.
pub(crate) const GENERIC: &str =
    "an entity cannot be generic: callers outside name its type; write one type per use";

/// Expands `#[entity(options)]` on `item`.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(options, &mut errors);
    let generated = errors
        .ok(syn::parse2::<Item>(item.clone()))
        .and_then(|parsed| errors.ok(State::parse(parsed)))
        .map(|state| state.expand(&options, &mut errors));
    let errors = errors.into_tokens();
    quote!(#item #generated #errors)
}

/// The item that `#[entity]` stands on.
struct State {
    vis: Visibility,
    ident: Ident,
    /// `None` for an enum.
    fields: Option<Fields>,
}

impl State {
    fn parse(item: Item) -> Result<Self, Error> {
        let (vis, ident, generics, fields) = match item {
            Item::Struct(item) => (item.vis, item.ident, item.generics, Some(item.fields)),
            Item::Enum(item) => (item.vis, item.ident, item.generics, None),
            other => {
                let message = "`#[entity]` stands on a struct or an enum: the state of one entity";
                return Err(Error::new_spanned(first_token(other), message));
            }
        };
        refuse_generics(&generics)?;
        Ok(Self { vis, ident, fields })
    }

    fn expand(&self, options: &Options, errors: &mut Errors) -> TokenStream {
        let implementation = self.implementation(options, errors);
        let reference = self.reference(&options.krate());
        quote!(#implementation #reference)
    }

    fn implementation(&self, options: &Options, errors: &mut Errors) -> TokenStream {
        let krate = options.krate();
        let ident = &self.ident;
        let reference = reference_of(ident);
        let key = options.key.clone().unwrap_or_else(|| syn::parse_quote!(u64));
        let name = self.name(options, errors);
        let life = options.life.expand(&krate);
        let activate = self.activate(options, errors);
        let last_turns = self.last_turns(options);
        let register = self.register(&krate);
        quote_spanned! {at(ident.span())=>
            impl #krate::Entity for #ident {
                type Key = #key;
                type Ref<V: #krate::Via> = #reference<V>;

                const NAME: &'static str = #name;
                #life

                #activate
                #last_turns
                #register
            }
        }
    }

    fn name(&self, options: &Options, errors: &mut Errors) -> String {
        if let Some(name) = &options.name {
            return name.value();
        }
        let name = self.ident.unraw().to_string();
        if !options::is_type_name(&name) {
            let message = "callers outside write this name in ASCII: add `name = \"..\"`";
            errors.push(Error::new_spanned(&self.ident, message));
        }
        name
    }

    fn activate(&self, options: &Options, errors: &mut Errors) -> TokenStream {
        let krate = options.krate();
        let (key, cx) = (quote!(<Self as #krate::Entity>::Key), quote!(&mut #krate::Cx<'_, Self>));
        if let Some(function) = &options.activate {
            return quote_spanned! {at(function.span())=>
                fn activate(key: #key, cx: #cx) -> Self {
                    #function(key, cx)
                }
            };
        }
        if let Some(function) = &options.activate_async {
            return quote_spanned! {at(function.span())=>
                fn activate(_key: #key, _cx: #cx) -> Self {
                    ::core::unreachable!("`activate_async` makes the state")
                }

                fn activate_async(
                    key: #key,
                    cx: #krate::AsyncCx<Self>,
                ) -> ::core::option::Option<#krate::Activating<Self>> {
                    ::core::option::Option::Some(::std::boxed::Box::pin(#function(key, cx)))
                }
            };
        }
        let state = match &self.fields {
            Some(fields) => default_fields(fields),
            None => {
                let message = "an enum has no default per field: say how an entity begins by \
                               `#[entity(activate = path::to::function)]`";
                errors.push(Error::new_spanned(&self.ident, message));
                quote!(::core::unreachable!())
            }
        };
        quote_spanned! {at(self.ident.span())=>
            fn activate(_key: #key, _cx: #cx) -> Self {
                #state
            }
        }
    }

    /// `on_stop` and `on_passivate`, where an option names a function for them.
    fn last_turns(&self, options: &Options) -> TokenStream {
        let krate = options.krate();
        let on_stop = ("on_stop", &options.on_stop);
        let on_passivate = ("on_passivate", &options.on_passivate);
        [on_stop, on_passivate]
            .into_iter()
            .filter_map(|(name, function)| Some((name, function.as_ref()?)))
            .map(|(name, function)| {
                let name = Ident::new(name, function.span());
                quote_spanned! {at(function.span())=>
                    fn #name(&mut self, cx: &mut #krate::Cx<'_, Self>) {
                        #function(self, cx)
                    }
                }
            })
            .collect()
    }

    /// Calls the function that `#[handlers]` adds to the type. Where there is none, a trait's
    /// function of the same name is found instead, whose bound says what is missing.
    fn register(&self, krate: &Path) -> TokenStream {
        let ident = &self.ident;
        let message = format!("`{ident}` has no handlers");
        let label = format!("write `#[handlers] impl {ident} {{ .. }}`, even if it stays empty");
        let table = quote!(&mut #krate::Registration<'_, #ident>);
        quote_spanned! {at(ident.span())=>
            fn register(table: #table) {
                #[diagnostic::on_unimplemented(message = #message, label = #label)]
                trait HandlersAttribute {}
                #[allow(dead_code, reason = "only reached where #[handlers] is missing")]
                trait WithoutHandlers: ::core::marker::Sized {
                    fn __coreside_handlers(_table: #table)
                    where
                        Self: HandlersAttribute,
                    {
                    }
                }
                impl WithoutHandlers for #ident {}
                <#ident>::__coreside_handlers(table);
            }
        }
    }

    fn reference(&self, krate: &Path) -> TokenStream {
        let ident = &self.ident;
        let reference = reference_of(ident);
        let span = at(ident.span());
        let vis = &self.vis;
        let vis = respan(quote!(#vis), named_at(vis.span()));
        let text = ident.unraw().to_string();
        let docs = format!("The address of an entity of type `{text}`, with a method per handler.");
        let address = quote!(#krate::Address<#ident, V>);
        quote_spanned! {span=>
            #[doc = #docs]
            #vis struct #reference<V> {
                address: #address,
            }

            impl<V: #krate::Via> #reference<V> {
                /// The key of the entity.
                #[allow(dead_code, reason = "generated for whoever needs it")]
                pub fn key(&self) -> <#ident as #krate::Entity>::Key {
                    self.address.key()
                }
            }

            impl<V> ::core::convert::From<#address> for #reference<V> {
                #[inline(always)]
                fn from(address: #address) -> Self {
                    Self { address }
                }
            }

            impl<V> ::core::convert::From<#reference<V>> for #address {
                #[inline(always)]
                fn from(reference: #reference<V>) -> Self {
                    reference.address
                }
            }

            impl<V> ::core::clone::Clone for #reference<V>
            where
                #address: ::core::clone::Clone,
            {
                fn clone(&self) -> Self {
                    Self { address: ::core::clone::Clone::clone(&self.address) }
                }
            }

            impl<V: #krate::Via> ::core::fmt::Debug for #reference<V> {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    ::core::write!(f, "{}({:?})", #text, self.key())
                }
            }
        }
    }
}

/// Every field as its type's default. A type without one is reported at the field, with a note that
/// names `default_or_give_activate`.
fn default_fields(fields: &Fields) -> TokenStream {
    let values = fields.members().zip(fields).map(|(member, field)| {
        let ty = &field.ty;
        let cfgs = field.attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
        quote_spanned!(at(ty.span())=> #(#cfgs)* #member: default_or_give_activate::<#ty>())
    });
    quote! {
        #[allow(dead_code, reason = "an entity without fields needs no default")]
        fn default_or_give_activate<T: ::core::default::Default>() -> T {
            T::default()
        }
        Self { #(#values),* }
    }
}

fn refuse_generics(generics: &Generics) -> Result<(), Error> {
    if generics.params.is_empty() { Ok(()) } else { Err(Error::new_spanned(generics, GENERIC)) }
}

fn first_token(item: Item) -> TokenStream {
    quote!(#item).into_iter().take(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};

    fn assert_explained(options: TokenStream, item: TokenStream, expected: &str) {
        assert_explains(&expand(options, item), expected);
    }

    #[test]
    fn options_have_their_defaults() {
        let account = quote!(
            pub struct Account {
                balance: i64,
            }
        );
        let expanded = expand(quote!(), account.clone());
        assert_has(&expanded, account);
        assert_has(&expanded, quote!(impl ::coreside::Entity for Account));
        assert_has(
            &expanded,
            quote!(
                type Key = u64;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                const NAME: &'static str = "Account";
            ),
        );
        assert_has(&expanded, quote!(balance: default_or_give_activate::<i64>()));
        assert_has(&expanded, quote!(pub struct AccountRef<V>));
        for unexpected in ["LIFE", "activate_async", "on_stop", "on_passivate", "compile_error"] {
            assert_lacks(&expanded, unexpected);
        }
    }

    #[test]
    fn options_are_taken_as_written() {
        let options =
            quote!(key = Name, name = "acc", activate = Account::open, crate = coreside_shard);
        let expanded = expand(
            options,
            quote!(
                enum Account {
                    Open,
                    Closed,
                }
            ),
        );
        assert_has(&expanded, quote!(impl coreside_shard::Entity for Account));
        assert_has(
            &expanded,
            quote!(
                type Key = Name;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                const NAME: &'static str = "acc";
            ),
        );
        assert_has(&expanded, quote!(Account::open(key, cx)));
    }

    #[test]
    fn state_can_be_made_by_a_future() {
        let expanded = expand(
            quote!(activate_async = Account::load),
            quote!(
                struct Account {
                    balance: i64,
                }
            ),
        );
        assert_has(
            &expanded,
            quote!(fn activate_async(
                key: <Self as ::coreside::Entity>::Key,
                cx: ::coreside::AsyncCx<Self>,
            ) -> ::core::option::Option<::coreside::Activating<Self>>),
        );
        assert_has(
            &expanded,
            quote!(::core::option::Option::Some(::std::boxed::Box::pin(Account::load(key, cx)))),
        );
        assert_lacks(&expanded, "default_or_give_activate");
        assert_lacks(&expanded, "compile_error");
    }

    #[test]
    fn last_turns_call_the_functions_named() {
        let options = quote!(on_stop = Self::close, on_passivate = put_away);
        let expanded = expand(
            options,
            quote!(
                struct Account;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                fn on_stop(&mut self, cx: &mut ::coreside::Cx<'_, Self>) {
                    Self::close(self, cx)
                }
            ),
        );
        assert_has(
            &expanded,
            quote!(
                fn on_passivate(&mut self, cx: &mut ::coreside::Cx<'_, Self>) {
                    put_away(self, cx)
                }
            ),
        );
    }

    #[test]
    fn conditional_and_unnamed_fields_start_as_default() {
        let expanded = expand(
            quote!(),
            quote!(
                struct Pair(u8, #[cfg(test)] String);
            ),
        );
        assert_has(&expanded, quote!(0: default_or_give_activate::<u8>()));
        assert_has(&expanded, quote!(#[cfg(test)] 1: default_or_give_activate::<String>()));
    }

    #[test]
    fn mistakes_are_explained() {
        let account = quote!(
            struct Account {}
        );
        assert_explained(quote!(keys = u64), account.clone(), "unknown option");
        assert_explained(quote!(key = u64, key = u128), account.clone(), "given twice");
        assert_explained(quote!(name = "my account"), account.clone(), "ASCII letters");
        for option in
            [quote!(activate), quote!(activate_async), quote!(on_stop), quote!(on_passivate)]
        {
            assert_explained(quote!(#option = |_, _| ()), account.clone(), "path of a function");
        }
        let twice = quote!(activate = Account::open, activate_async = Account::load);
        assert_explained(twice, account, "in one way");
        assert_explained(
            quote!(),
            quote!(
                enum State {
                    On,
                    Off,
                }
            ),
            "an enum has no default",
        );
        assert_explained(
            quote!(),
            quote!(
                struct Cell<T> {
                    value: T,
                }
            ),
            "cannot be generic",
        );
        assert_explained(
            quote!(),
            quote!(
                fn account() {}
            ),
            "on a struct or an enum",
        );
    }

    #[test]
    fn mistaken_option_leaves_the_entity_usable() {
        let expanded = expand(
            quote!(keys = u64),
            quote!(
                struct Account {}
            ),
        );
        assert_has(&expanded, quote!(impl ::coreside::Entity for Account));
    }

    #[test]
    fn mistaken_value_leaves_the_options_behind_it() {
        let expanded = expand(
            quote!(name = "my account", key = Name),
            quote!(
                struct Account {}
            ),
        );
        assert_explains(&expanded, "ASCII letters");
        assert_has(
            &expanded,
            quote!(
                type Key = Name;
            ),
        );
    }
}
