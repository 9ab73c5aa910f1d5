//! `impl Evolve`: a type as it was in the version before, and the way from one to the other.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Fields, Ident, Item, ItemEnum, ItemStruct, Member, Path};

use super::options::Added;
use super::{Part, Shape, attributes};
use crate::errors::at;
use crate::owner::named_at;

/// The type is what it was.
pub(super) fn unchanged(krate: &TokenStream, ident: &Ident) -> TokenStream {
    let span = at(ident.span());
    let up = quote_spanned!(span=> ::core::result::Result::Ok(before));
    let down = quote_spanned!(span=> ::core::result::Result::Ok(self));
    evolve(krate, ident, &quote!(Self), &up, &down)
}

/// The type of the version before is written by hand, as are both ways.
pub(super) fn written(krate: &TokenStream, ident: &Ident, before: &Path) -> TokenStream {
    let span = at(syn::spanned::Spanned::span(before));
    let up = quote_spanned! {span=>
        <Self as ::core::convert::TryFrom<#before>>::try_from(before)
            .map_err(|_| #krate::Unconvertible)
    };
    let down = quote_spanned! {span=>
        <#before as ::core::convert::TryFrom<Self>>::try_from(self)
            .map_err(|_| #krate::Unconvertible)
    };
    let evolve = evolve(krate, ident, &before.to_token_stream(), &up, &down);
    let alike = format!(
        "`{ident}` and its version before have the same schema, so that nobody could tell them \
         apart: give the field that means something else another name"
    );
    quote_spanned! {span=>
        #evolve

        const _: () = ::core::assert!(
            <#ident as #krate::WireType>::SCHEMA != <#before as #krate::WireType>::SCHEMA,
            #alike
        );
    }
}

/// The type of the version before is this one without what was added, and with its fields as they
/// were.
pub(super) fn generated(
    krate: &TokenStream,
    item: &Item,
    marks: &[Option<Added>],
    version: u16,
) -> TokenStream {
    match item {
        Item::Struct(item) => of_struct(krate, item, marks, version),
        Item::Enum(item) => of_enum(krate, item, marks, version),
        _ => TokenStream::new(),
    }
}

/// The name of the version before: `OrderV1` for version 2 of `Order`.
pub(crate) fn name_before(ident: &Ident, version: u16) -> Ident {
    let span = named_at(ident.span());
    format_ident!("{}V{}", ident.unraw(), version - 1, span = span)
}

fn of_struct(
    krate: &TokenStream,
    item: &ItemStruct,
    marks: &[Option<Added>],
    version: u16,
) -> TokenStream {
    let ItemStruct { ident, vis, fields, .. } = item;
    let before = name_before(ident, version);
    let group = Group::new(krate, fields, |at| marks.get(at).and_then(Option::as_ref));
    let (body, end) = (group.declaration(), matches!(fields, Fields::Unnamed(_) | Fields::Unit));
    let end = end.then(|| quote!(;));
    let declaration = quote!(#vis struct #before #body #end);
    let shape = Shape::of_struct(krate, &ident.unraw().to_string(), &group.parts);
    let up = group.up(krate, &quote!(#before), &quote!(Self));
    let down = group.down(krate, &quote!(Self), &quote!(#before));
    let span = at(ident.span());
    let (up, down) =
        (quote_spanned!(span=> match before { #up }), quote_spanned!(span=> match self { #down }));
    let evolve = evolve(krate, ident, &quote!(#before), &up, &down);
    let generated = Generated { krate, ident, before: &before, version };
    generated.with(&declaration, &shape, &evolve)
}

fn of_enum(
    krate: &TokenStream,
    item: &ItemEnum,
    marks: &[Option<Added>],
    version: u16,
) -> TokenStream {
    let ItemEnum { ident, vis, variants, .. } = item;
    let before = name_before(ident, version);
    let (mut declared, mut shapes) = (Vec::new(), Vec::new());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for (at, variant) in variants.iter().enumerate() {
        let name = &variant.ident;
        if let Some(added) = marks.get(at).and_then(Option::as_ref) {
            down.push(match &added.instead {
                Some(instead) => quote! {
                    Self::#name { .. } => ::core::result::Result::Ok(#before::#instead {}),
                },
                None => quote! {
                    Self::#name { .. } => ::core::result::Result::Err(#krate::Unconvertible),
                },
            });
            continue;
        }
        let group = Group::new(krate, &variant.fields, |_| None);
        let (body, docs) = (group.declaration(), format!("As in `{ident}::{name}`."));
        declared.push(quote!(#[doc = #docs] #name #body));
        let (was, is) = (quote!(#before::#name), quote!(Self::#name));
        up.push(group.up(krate, &was, &is));
        down.push(group.down(krate, &is, &was));
        shapes.push((name, group.parts));
    }
    let declaration = quote!(#vis enum #before { #(#declared),* });
    let shape = Shape::of_enum(krate, &ident.unraw().to_string(), shapes.into_iter());
    let span = at(ident.span());
    let up = quote_spanned!(span=> match before { #(#up)* });
    let down = quote_spanned!(span=> match self { #(#down)* });
    let evolve = evolve(krate, ident, &quote!(#before), &up, &down);
    let generated = Generated { krate, ident, before: &before, version };
    generated.with(&declaration, &shape, &evolve)
}

/// A type of the version before, in the making.
struct Generated<'a> {
    krate: &'a TokenStream,
    ident: &'a Ident,
    before: &'a Ident,
    version: u16,
}

impl Generated<'_> {
    fn with(&self, declaration: &TokenStream, shape: &Shape, evolve: &TokenStream) -> TokenStream {
        let Self { krate, ident, before, version } = self;
        let span = at(ident.span());
        let docs = format!("Version {} of `{ident}`.", version - 1);
        let attributes = attributes(krate, ident.span());
        let travels = shape.implementation(krate, before, version - 1);
        quote_spanned! {span=>
            #[doc = #docs]
            #attributes
            #[allow(dead_code, reason = "what is only answered is never read, and the reverse")]
            #declaration

            #travels

            #evolve
        }
    }
}

/// The fields of a struct or of a variant, then and now.
struct Group<'a> {
    fields: Vec<Was<'a>>,
    /// What the version before is made of.
    parts: Vec<Part>,
    style: &'a Fields,
}

/// A field.
struct Was<'a> {
    field: &'a syn::Field,
    member: Member,
    /// Its place in the version before, or what it is for whoever sends that.
    before: Result<Member, &'a Added>,
    binding: Ident,
}

impl<'a> Group<'a> {
    fn new(
        krate: &TokenStream,
        fields: &'a Fields,
        added: impl Fn(usize) -> Option<&'a Added>,
    ) -> Self {
        let mut group = Self { fields: Vec::new(), parts: Vec::new(), style: fields };
        for (at, (field, member)) in fields.iter().zip(fields.members()).enumerate() {
            let before = match added(at) {
                Some(added) => Err(added),
                None => {
                    let ty = type_before(krate, &field.ty);
                    let here = group.parts.len();
                    group.parts.push(Part::new(field.ident.as_ref(), ty, &field.ty));
                    Ok(match &member {
                        Member::Named(_) => member.clone(),
                        Member::Unnamed(_) => Member::from(here),
                    })
                }
            };
            let binding = Ident::new(&format!("field{at}"), Span::mixed_site());
            group.fields.push(Was { field, member, before, binding });
        }
        group
    }

    /// The body of the version before.
    fn declaration(&self) -> TokenStream {
        let kept = self.fields.iter().filter(|was| was.before.is_ok());
        let fields = kept.zip(&self.parts).map(|(Was { field, .. }, part)| {
            let syn::Field { vis, ident, .. } = field;
            let colon = ident.as_ref().map(|_| quote!(:));
            let docs = match ident {
                Some(ident) => format!("The field `{}`.", ident.unraw()),
                None => "A field without a name.".to_owned(),
            };
            let ty = &part.ty;
            quote!(#[doc = #docs] #vis #ident #colon #ty)
        });
        match self.style {
            Fields::Named(_) => quote!({ #(#fields),* }),
            Fields::Unnamed(_) => quote!(( #(#fields),* )),
            Fields::Unit => TokenStream::new(),
        }
    }

    /// The arm of a match that makes `now` of `before`.
    fn up(&self, krate: &TokenStream, before: &TokenStream, now: &TokenStream) -> TokenStream {
        let taken = self.fields.iter().filter_map(|Was { before, binding, .. }| {
            let member = before.as_ref().ok()?;
            Some(quote!(#member: #binding))
        });
        let made = self.fields.iter().map(|Was { field, member, before, binding }| {
            let ty = &field.ty;
            match before {
                Ok(_) => {
                    let span = at(syn::spanned::Spanned::span(ty));
                    quote_spanned! {span=>
                        #member: <#ty as #krate::Evolve>::from_before(#binding)?
                    }
                }
                Err(added) => {
                    let value = default_of(added, ty);
                    quote!(#member: #value)
                }
            }
        });
        quote!(#before { #(#taken),* } => ::core::result::Result::Ok(#now { #(#made),* }),)
    }

    /// The arm of a match that makes `before` of `now`.
    fn down(&self, krate: &TokenStream, now: &TokenStream, before: &TokenStream) -> TokenStream {
        let kept = || self.fields.iter().filter_map(|was| Some((was, was.before.as_ref().ok()?)));
        let taken = kept().map(|(Was { member, binding, .. }, _)| quote!(#member: #binding));
        let made = kept().map(|(Was { field, binding, .. }, member)| {
            let ty = &field.ty;
            quote!(#member: <#ty as #krate::Evolve>::into_before(#binding)?)
        });
        quote!(#now { #(#taken,)* .. } => ::core::result::Result::Ok(#before { #(#made),* }),)
    }
}

/// What a field or an argument is for whoever does not send it.
pub(crate) fn default_of(added: &Added, ty: &impl ToTokens) -> TokenStream {
    match &added.default {
        Some(default) => quote!(#default),
        None => {
            let span = at(syn::spanned::Spanned::span(ty));
            quote_spanned!(span=> <#ty as ::core::default::Default>::default())
        }
    }
}

/// The type as it was in the version before.
pub(crate) fn type_before(krate: &TokenStream, ty: &impl ToTokens) -> TokenStream {
    quote_spanned!(at(syn::spanned::Spanned::span(ty))=> <#ty as #krate::Evolve>::Before)
}

/// `impl Evolve` for `ident`: `up` has `before` in scope, `down` has `self`. Signatures do not say
/// `Self::Before`, as that may be a variant.
fn evolve(
    krate: &TokenStream,
    ident: &Ident,
    before: &TokenStream,
    up: &TokenStream,
    down: &TokenStream,
) -> TokenStream {
    quote_spanned! {at(ident.span())=>
        impl #krate::Evolve for #ident {
            type Before = #before;

            fn from_before(
                before: #before,
            ) -> ::core::result::Result<Self, #krate::Unconvertible> {
                #up
            }

            fn into_before(self) -> ::core::result::Result<#before, #krate::Unconvertible> {
                #down
            }
        }
    }
}
