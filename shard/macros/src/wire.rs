//! `#[wire]`: plain data that may travel, and the messages that are made of it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, Item, Path, Type};

use crate::entity;
use crate::errors::{Errors, at};
use crate::owner::{named_at, respan};

/// Expands `#[wire(options)]` on `item`.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let krate = parse_options(options, &mut errors);
    let generated = errors.ok(expand_item(&item, &krate));
    let errors = errors.into_tokens();
    match generated {
        Some((attributes, schema)) => quote!(#attributes #item #schema #errors),
        None => quote!(#item #errors),
    }
}

fn parse_options(options: TokenStream, errors: &mut Errors) -> Path {
    let mut krate = None;
    let parsed = syn::meta::parser(|meta| {
        if !meta.path.is_ident("crate") {
            return Err(meta.error("unknown option: `#[wire]` knows `crate = path`"));
        }
        krate = Some(entity::crate_path(&meta)?);
        Ok(())
    });
    errors.ok(parsed.parse2(options));
    krate.unwrap_or_else(entity::default_crate)
}

/// What stands before and behind the item.
fn expand_item(item: &TokenStream, krate: &Path) -> Result<(TokenStream, TokenStream), Error> {
    let (ident, generics, shape) = match syn::parse2::<Item>(item.clone())? {
        Item::Struct(item) => {
            let krate = quote!(#krate);
            let shape = fields_schema(&krate, "struct", &item.fields);
            (item.ident, item.generics, shape)
        }
        Item::Enum(item) => {
            let variants = item.variants.iter().map(|variant| {
                let krate = quote!(#krate);
                fields_schema(&krate, &variant.ident.unraw().to_string(), &variant.fields)
            });
            let shape = quote!(#krate::schema("enum", &[#(#variants),*]));
            (item.ident, item.generics, shape)
        }
        other => {
            let message = "`#[wire]` stands on a struct or an enum of plain data";
            return Err(Error::new_spanned(other, message));
        }
    };
    if !generics.params.is_empty() {
        let message = "a type on the wire has no parameters: its schema is one number";
        return Err(Error::new_spanned(generics, message));
    }
    let span = named_at(ident.span());
    let krate = respan(quote!(#krate), span);
    Ok((attributes(&krate, span), implementation(&krate, &ident, &shape)))
}

/// The attributes that make a type an archive.
pub(crate) fn attributes(krate: &TokenStream, span: Span) -> TokenStream {
    quote_spanned! {at(span)=>
        #[derive(#krate::rkyv::Archive, #krate::rkyv::Serialize, #krate::rkyv::Deserialize)]
        #[rkyv(crate = #krate::rkyv)]
    }
}

/// Says that the type may travel.
pub(crate) fn implementation(
    krate: &TokenStream,
    ident: &Ident,
    shape: &TokenStream,
) -> TokenStream {
    quote_spanned! {at(ident.span())=>
        impl #krate::WireType for #ident {
            const SCHEMA: u64 = #shape;
        }
    }
}

/// The schema of named fields. A type that may not travel is reported where it is written.
pub(crate) fn named_schema<'a>(
    krate: &TokenStream,
    kind: &str,
    fields: impl Iterator<Item = (&'a Ident, Type)>,
) -> TokenStream {
    let fields = fields.map(|(ident, ty)| {
        let name = ident.unraw().to_string();
        quote_spanned!(at(ty.span())=>
            #krate::schema(#name, &[<#ty as #krate::WireType>::SCHEMA]))
    });
    quote!(#krate::schema(#kind, &[#(#fields),*]))
}

fn fields_schema(krate: &TokenStream, kind: &str, fields: &Fields) -> TokenStream {
    match fields {
        Fields::Named(fields) => {
            let named = fields.named.iter();
            let named = named.filter_map(|field| Some((field.ident.as_ref()?, field.ty.clone())));
            named_schema(krate, kind, named)
        }
        Fields::Unnamed(fields) => {
            let types = fields.unnamed.iter().map(|field| {
                let ty = &field.ty;
                quote_spanned!(at(ty.span())=> <#ty as #krate::WireType>::SCHEMA)
            });
            quote!(#krate::schema(#kind, &[#(#types),*]))
        }
        Fields::Unit => quote!(#krate::schema(#kind, &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expanded::{assert_explains, assert_has};

    #[test]
    fn schema_is_made_of_names_and_types_in_order() {
        let expanded = expand(
            quote!(),
            quote!(
                pub struct Order {
                    pub item: u64,
                    pub r#type: Vec<u8>,
                }
            ),
        );
        assert_has(
            &expanded,
            quote!(::coreside::schema("item", &[<u64 as ::coreside::WireType>::SCHEMA])),
        );
        assert_has(
            &expanded,
            quote!(::coreside::schema("type", &[<Vec<u8> as ::coreside::WireType>::SCHEMA])),
        );
        assert_has(&expanded, quote!(#[rkyv(crate = ::coreside::rkyv)]));
    }

    #[test]
    fn variants_are_part_of_the_schema() {
        let expanded = expand(
            quote!(crate = here),
            quote!(
                enum Side {
                    Buy,
                    Sell(u32),
                }
            ),
        );
        assert_has(&expanded, quote!(here::schema("Buy", &[])));
        assert_has(&expanded, quote!(here::schema("Sell", &[<u32 as here::WireType>::SCHEMA])));
    }

    #[test]
    fn what_cannot_travel_is_explained() {
        assert_explains(
            &expand(
                quote!(),
                quote!(
                    fn order() {}
                ),
            ),
            "on a struct or an enum",
        );
        assert_explains(
            &expand(
                quote!(),
                quote!(
                    struct Page<T>(T);
                ),
            ),
            "has no parameters",
        );
        assert_explains(
            &expand(
                quote!(version = 2),
                quote!(
                    struct Page;
                ),
            ),
            "unknown option",
        );
    }
}
