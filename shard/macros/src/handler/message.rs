//! The message: a struct with a field per argument, and `impl Message`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::Handler;
use crate::errors::at;
use crate::method::Method;
use crate::owner::Owner;
use crate::parameter::Argument;
use crate::wire::{self, Part, Shape};

impl Handler {
    /// The struct, and `impl Message`; nothing for a message that exists already.
    pub(super) fn message(&self, owner: &Owner) -> Option<TokenStream> {
        let name = self.generated(owner)?;
        let Method { ident, vis, cfgs, .. } = &self.method;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let what = format!("The message that `{}::{ident}` handles.", owner.ident());
        let docs = self.method.docs(owner, &what);
        let fields = self.arguments().map(|argument| {
            let Argument { ident, ty, .. } = argument;
            let ty = owner.spell_out(ty);
            let docs = format!("The argument `{}`.", ident.unraw());
            quote_spanned!(span=> #[doc = #docs] #vis #ident: #ty)
        });
        let body =
            if self.arguments().next().is_some() { quote!({ #(#fields,)* }) } else { quote!(;) };
        let reply = owner.spell_out(&self.answer.reply);
        let reply = quote_spanned!(at(self.answer.span)=> type Reply = #reply;);
        let retry = self.retry(owner);
        let (archive, travels) = self.archive(owner).unzip();
        let travels = travels.map(|travels| quote!(#(#cfgs)* #travels));
        Some(quote_spanned! {span=>
            #(#cfgs)*
            #[doc = #docs]
            #archive
            #[allow(dead_code, reason = "not every message is named where it is sent")]
            #vis struct #name #body

            #(#cfgs)*
            impl #krate::Message for #name {
                #reply
                #retry
            }

            #travels
        })
    }

    /// What makes the message one that may travel: attributes of the struct, and an impl.
    fn archive(&self, owner: &Owner) -> Option<(TokenStream, TokenStream)> {
        let (name, marked) = (self.generated(owner)?, self.wire.as_ref()?);
        let krate = owner.krate(name.span());
        let parts = self
            .arguments()
            .map(|Argument { ident, ty, .. }| Part::new(Some(ident), owner.spell_out(ty), ty));
        let shape = Shape::of_message(&krate, &parts.collect::<Vec<_>>());
        let attributes = wire::attributes(&krate, name.span());
        Some((attributes, shape.implementation(&krate, &name, marked.version)))
    }

    /// How often the message is tried, and the copy for the next try. A field without `Clone` is
    /// reported at the argument's type.
    fn retry(&self, owner: &Owner) -> Option<TokenStream> {
        let tries = self.tries?;
        let fields = self.arguments().map(|argument| {
            let Argument { ident, ty, .. } = argument;
            let span = at(ty.span());
            let ty = owner.spell_out(ty);
            quote_spanned!(span=> #ident: <#ty as ::core::clone::Clone>::clone(&self.#ident))
        });
        let fields = quote!(#(#fields),*);
        Some(quote_spanned! {at(self.method.ident.span())=>
            const TRIES: u32 = #tries;

            fn duplicate(&self) -> ::core::option::Option<Self> {
                ::core::option::Option::Some(Self { #fields })
            }
        })
    }
}
