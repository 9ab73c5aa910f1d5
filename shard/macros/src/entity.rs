//! `#[entity]`: the impl of `Entity`, and the typed reference.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Error, ExprPath, Fields, Generics, Ident, Item, LitStr, Path, Type, Visibility};

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

/// What stands between the parentheses of `#[entity(..)]`.
#[derive(Default)]
struct Options {
    key: Option<Type>,
    name: Option<LitStr>,
    activate: Option<ExprPath>,
    krate: Option<Path>,
}

impl Options {
    /// The options; those behind a mistake keep their defaults.
    fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let parsed = syn::meta::parser(|meta| options.option(&meta)).parse2(tokens);
        errors.ok(parsed);
        options
    }

    fn option(&mut self, meta: &ParseNestedMeta<'_>) -> Result<(), Error> {
        let twice = if meta.path.is_ident("key") {
            self.key.replace(meta.value()?.parse()?).is_some()
        } else if meta.path.is_ident("name") {
            self.name.replace(type_name(meta)?).is_some()
        } else if meta.path.is_ident("activate") {
            self.activate.replace(activate(meta)?).is_some()
        } else if meta.path.is_ident("crate") {
            self.krate.replace(crate_path(meta)?).is_some()
        } else {
            return Err(meta.error(
                "unknown option: `#[entity]` knows `key = u64`, `name = \"account\"`, \
                 `activate = path::to::function` and `crate = path`",
            ));
        };
        if twice { Err(meta.error("given twice")) } else { Ok(()) }
    }

    fn krate(&self) -> Path {
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

fn is_type_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn activate(meta: &ParseNestedMeta<'_>) -> Result<ExprPath, Error> {
    let value = meta.value()?;
    let span = value.span();
    value.parse().map_err(|_| {
        let message = "`activate` is the path of a function: `fn(Key, &mut Cx<Self>) -> Self`";
        Error::new(span, message)
    })
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
        let activate = self.activate(options, errors);
        let register = self.register(&krate);
        quote_spanned! {at(ident.span())=>
            impl #krate::Entity for #ident {
                type Key = #key;
                type Ref<V: #krate::Via> = #reference<V>;

                const NAME: &'static str = #name;

                #activate
                #register
            }
        }
    }

    fn name(&self, options: &Options, errors: &mut Errors) -> String {
        if let Some(name) = &options.name {
            return name.value();
        }
        let name = self.ident.unraw().to_string();
        if !is_type_name(&name) {
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

    fn assert_has(expanded: &TokenStream, expected: TokenStream) {
        let (expanded, expected) = (expanded.to_string(), expected.to_string());
        assert!(expanded.contains(&expected), "lacks `{expected}`:\n{expanded}");
    }

    fn assert_explains(options: TokenStream, item: TokenStream, expected: &str) {
        let expanded = expand(options, item).to_string();
        assert!(expanded.contains("compile_error"), "no error:\n{expanded}");
        assert!(expanded.contains(expected), "lacks {expected:?}:\n{expanded}");
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
        assert_explains(quote!(keys = u64), account.clone(), "unknown option");
        assert_explains(quote!(key = u64, key = u128), account.clone(), "given twice");
        assert_explains(quote!(name = "my account"), account.clone(), "ASCII letters");
        assert_explains(quote!(activate = |_, _| ()), account, "path of a function");
        assert_explains(
            quote!(),
            quote!(
                enum State {
                    On,
                    Off,
                }
            ),
            "an enum has no default",
        );
        assert_explains(
            quote!(),
            quote!(
                struct Cell<T> {
                    value: T,
                }
            ),
            "cannot be generic",
        );
        assert_explains(
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
}
