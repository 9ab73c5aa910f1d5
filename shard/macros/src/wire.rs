//! `#[wire]`: plain data that may travel, and the messages that are made of it.
//!
//! | module | holds |
//! |---|---|
//! | `options` | what stands between the parentheses of `#[wire(..)]` |
//! | `layout` | what would change archives and not their schema |
//! | `before` | a type as it was in the version before |

mod before;
mod layout;
mod options;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, Item, ItemEnum, ItemStruct, Type};

pub(crate) use self::before::{default_of, name_before, type_before};
pub(crate) use self::options::{Added, Marked, since};
use self::options::{Options, Origin};
use crate::errors::{Errors, at};
use crate::owner::{named_at, respan};

/// Expands `#[wire(options)]` on `item`.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(options, &mut errors);
    let Some(mut parsed) = errors.ok(parse_item(&item)) else {
        let errors = errors.into_tokens();
        return quote!(#item #errors);
    };
    let marks = options::take_added(&mut parsed, &options, &mut errors);
    layout::check(&parsed, &mut errors);
    let generated = errors.ok(expand_item(&parsed, &options, &marks));
    let errors = errors.into_tokens();
    match generated {
        Some(generated) => quote!(#generated #errors),
        None => quote!(#parsed #errors),
    }
}

fn parse_item(item: &TokenStream) -> Result<Item, Error> {
    let item = syn::parse2::<Item>(item.clone())?;
    let generics = match &item {
        Item::Struct(item) => &item.generics,
        Item::Enum(item) => &item.generics,
        other => {
            let message = "`#[wire]` stands on a struct or an enum of plain data";
            return Err(Error::new_spanned(other, message));
        }
    };
    if !generics.params.is_empty() {
        let message = "a type on the wire has no parameters: its schema is one number";
        return Err(Error::new_spanned(generics, message));
    }
    Ok(item)
}

/// The item, and what is made for it.
fn expand_item(
    item: &Item,
    options: &Options,
    marks: &[Option<Added>],
) -> Result<TokenStream, Error> {
    let (ident, shape) = match item {
        Item::Struct(item) => (&item.ident, of_struct(item, options)?),
        Item::Enum(item) if matches!(options.origin, Origin::Message) => {
            let message = "a message is a struct: a field for each argument";
            return Err(Error::new_spanned(&item.ident, message));
        }
        Item::Enum(item) => (&item.ident, of_enum(item, options)),
        _ => return Ok(TokenStream::new()),
    };
    let span = named_at(ident.span());
    let krate = respan(options.krate.to_token_stream(), span);
    let attributes = attributes(&krate, span);
    let evolution = match &options.origin {
        Origin::Message => None,
        Origin::Same => Some(before::unchanged(&krate, ident)),
        Origin::Generated => Some(before::generated(&krate, item, marks, options.version)),
        Origin::Written(path) => Some(before::written(&krate, ident, path)),
    };
    let travels = shape.implementation(&krate, ident, options.version);
    Ok(quote!(#attributes #item #travels #evolution))
}

fn of_struct(item: &ItemStruct, options: &Options) -> Result<Shape, Error> {
    let krate = respan(options.krate.to_token_stream(), named_at(item.ident.span()));
    let parts = Part::of_fields(&item.fields);
    if !matches!(options.origin, Origin::Message) {
        return Ok(Shape::of_struct(&krate, &item.ident.unraw().to_string(), &parts));
    }
    if let Fields::Unnamed(fields) = &item.fields {
        let message = "the arguments of a message have names: `struct DepositV1 { .. }`";
        return Err(Error::new_spanned(fields, message));
    }
    Ok(Shape::of_message(&krate, &parts))
}

fn of_enum(item: &ItemEnum, options: &Options) -> Shape {
    let krate = respan(options.krate.to_token_stream(), named_at(item.ident.span()));
    let variants = item.variants.iter();
    let variants = variants.map(|variant| (&variant.ident, Part::of_fields(&variant.fields)));
    Shape::of_enum(&krate, &item.ident.unraw().to_string(), variants)
}

/// The attributes that make a type an archive.
pub(crate) fn attributes(krate: &TokenStream, span: Span) -> TokenStream {
    quote_spanned! {at(span)=>
        #[derive(#krate::rkyv::Archive, #krate::rkyv::Serialize, #krate::rkyv::Deserialize)]
        #[rkyv(crate = #krate::rkyv)]
    }
}

/// A field or an argument.
pub(crate) struct Part {
    /// Empty where it has none.
    name: String,
    ty: TokenStream,
    /// Where a type that may not travel is reported: where it is written.
    span: Span,
}

impl Part {
    /// A field or argument `name`, whose type is written as `written` and expands to `ty`.
    pub(crate) fn new(name: Option<&Ident>, ty: TokenStream, written: &Type) -> Self {
        let name = name.map(|name| name.unraw().to_string()).unwrap_or_default();
        Self { name, ty, span: written.span() }
    }

    fn of_fields(fields: &Fields) -> Vec<Self> {
        let part = |field: &syn::Field| {
            Self::new(field.ident.as_ref(), field.ty.to_token_stream(), &field.ty)
        };
        fields.iter().map(part).collect()
    }

    fn schema(&self, krate: &TokenStream) -> TokenStream {
        let Self { name, ty, span } = self;
        let schema = quote_spanned!(at(*span)=> <#ty as #krate::WireType>::SCHEMA);
        match name.is_empty() {
            true => schema,
            false => quote_spanned!(at(*span)=> #krate::schema(#name, &[#schema])),
        }
    }
}

/// What a schema is made of: as the number, and as text.
pub(crate) struct Shape {
    schema: TokenStream,
    text: TokenStream,
}

impl Shape {
    fn of_struct(krate: &TokenStream, name: &str, parts: &[Part]) -> Self {
        let fields = fields(krate, parts);
        let shapes = shapes();
        let text = quote! {
            let fields: &[#krate::ShapeField] = #fields;
            #shapes.define(#name, <Self as #krate::WireType>::SCHEMA, "struct", fields)
        };
        Self { schema: schema(krate, &kind("struct", parts), parts), text }
    }

    fn of_enum<'a>(
        krate: &TokenStream,
        name: &str,
        variants: impl Iterator<Item = (&'a Ident, Vec<Part>)>,
    ) -> Self {
        let (schemas, texts): (Vec<_>, Vec<_>) = variants
            .map(|(ident, parts)| {
                let name = ident.unraw().to_string();
                let fields = fields(krate, &parts);
                let text = quote!(("", #krate::Shapes::variant(#name, #fields)));
                (schema(krate, &kind(&name, &parts), &parts), text)
            })
            .unzip();
        let shapes = shapes();
        let text = quote! {
            let variants: &[#krate::ShapeField] = &[#(#texts),*];
            #shapes.define(#name, <Self as #krate::WireType>::SCHEMA, "enum", variants)
        };
        Self { schema: quote!(#krate::schema("enum", &[#(#schemas),*])), text }
    }

    /// The arguments of a handler.
    pub(crate) fn of_message(krate: &TokenStream, parts: &[Part]) -> Self {
        let fields = fields(krate, parts);
        let text = quote!(#krate::Shapes::message(#fields));
        Self { schema: schema(krate, "message", parts), text }
    }

    /// Says that the type may travel.
    pub(crate) fn implementation(
        &self,
        krate: &TokenStream,
        ident: &Ident,
        version: u16,
    ) -> TokenStream {
        let (Self { schema, text }, shapes) = (self, shapes());
        quote_spanned! {at(ident.span())=>
            impl #krate::WireType for #ident {
                const SCHEMA: u64 = #schema;
                const VERSION: u16 = #version;

                #[allow(unused_variables, reason = "not every type is made of others")]
                fn shape(#shapes: &mut #krate::Shapes) -> ::std::string::String {
                    #text
                }
            }
        }
    }
}

/// What is made of fields without names is of another kind: else a field whose name is that of a
/// kind, as `option`, would be one.
fn kind(name: &str, parts: &[Part]) -> String {
    match parts.first() {
        Some(part) if part.name.is_empty() => format!("{name}()"),
        _ => name.to_owned(),
    }
}

fn schema(krate: &TokenStream, kind: &str, parts: &[Part]) -> TokenStream {
    let parts = parts.iter().map(|part| part.schema(krate));
    quote!(#krate::schema(#kind, &[#(#parts),*]))
}

/// What the function that writes a shape calls its argument.
fn shapes() -> Ident {
    Ident::new("shapes", Span::mixed_site())
}

/// Names and shapes of fields, in the scope of [`shapes`].
fn fields(krate: &TokenStream, parts: &[Part]) -> TokenStream {
    let shapes = shapes();
    let parts = parts.iter().map(|Part { name, ty, span }| {
        quote_spanned!(at(*span)=> (#name, <#ty as #krate::WireType>::shape(#shapes)))
    });
    quote!(&[#(#parts),*])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};

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
        assert_has(&expanded, quote!(here::schema("Sell()", &[<u32 as here::WireType>::SCHEMA])));
    }

    #[test]
    fn what_a_schema_does_not_say_is_refused() {
        for (item, expected) in [
            ("enum A { B = 1, C }", "remove the number"),
            ("struct A { #[cfg(unix)] a: u8 }", "the same type"),
            ("enum A { B, #[cfg(unix)] C }", "the same type"),
            ("enum A { B { #[cfg_attr(unix, cfg(not(unix)))] a: u8 } }", "the same type"),
            ("struct A(#[rkyv(with = Niche)] Option<u8>);", "the layout"),
            ("struct A(#[cfg_attr(unix, rkyv(with = Niche))] Option<u8>);", "the layout"),
            ("#[rkyv(as = B)] struct A(u8);", "the layout"),
            ("#[rkyv(attr(repr(packed)))] struct A(u8);", "the layout"),
        ] {
            assert_explains(&expand(quote!(), item.parse().expect("tokens")), expected);
        }
        for item in [
            "#[cfg(unix)] #[rkyv(derive(Debug), compare(PartialEq))] struct A(u8);",
            "struct A { #[cfg_attr(unix, doc = \"a\")] #[serde(with = \"b\")] a: u8 }",
        ] {
            let expanded = expand(quote!(), item.parse().expect("tokens"));
            assert_lacks(&expanded, "compile_error");
        }
    }

    #[test]
    fn version_before_is_made_without_what_was_added() {
        let item = quote!(
            pub struct Order {
                pub item: u64,
                #[wire(since = 3, default = 1)]
                pub count: u32,
            }
        );
        let expanded = expand(quote!(version = 3, crate = here), item);
        assert_has(&expanded, quote!(pub struct OrderV2));
        assert_has(&expanded, quote!(pub item: <u64 as here::Evolve>::Before));
        assert_has(
            &expanded,
            quote!(
                type Before = OrderV2;
            ),
        );
        let expanded = expanded.to_string();
        assert_eq!(expanded.matches("wire (since").count(), 0, "{expanded}");
        assert_eq!(expanded.matches("const VERSION : u16 = 2u16").count(), 1, "{expanded}");
        assert_eq!(expanded.matches("const VERSION : u16 = 3u16").count(), 1, "{expanded}");
    }

    #[test]
    fn renamed_crate_is_the_only_one_that_is_named() {
        let variants = quote!(
            enum Side {
                Buy(u8, Page),
                #[wire(since = 2, instead = Buy)]
                Sell {
                    limit: u32,
                },
                #[wire(since = 2)]
                Neither,
            }
        );
        let page = quote!(
            struct Page(#[wire(since = 2)] u8, u16);
        );
        for expanded in [
            expand(quote!(version = 2, crate = other), variants),
            expand(quote!(version = 2, crate = other), page.clone()),
            expand(
                quote!(version = 2, from = u8, crate = other),
                quote!(
                    struct Page;
                ),
            ),
            expand(
                quote!(message, crate = other),
                quote!(
                    struct Page;
                ),
            ),
        ] {
            let expanded = expanded.to_string();
            assert_lacks(&expanded, "compile_error");
            assert_lacks(&expanded, "coreside");
        }
        // Mistakes leave the type as it is.
        let expanded = expand(quote!(version = 3), page).to_string();
        assert_has(
            &expanded,
            quote!(
                struct Page(u8, u16);
            ),
        );
        assert_explains(&expanded, "remove this mark");
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
                quote!(edition = 2),
                quote!(
                    struct Page;
                ),
            ),
            "unknown option",
        );
    }
}
