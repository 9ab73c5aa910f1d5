//! The message as it was in the version before, for clients that still send it.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::Handler;
use crate::errors::at;
use crate::method::Method;
use crate::owner::Owner;
use crate::parameter::Argument;
use crate::wire::{self, Added, Part, Shape};

impl Handler {
    /// The struct of the version before, and `impl Previous`; nothing where there is none, or where
    /// it is written by hand.
    pub(super) fn previous(&self, owner: &Owner) -> Option<TokenStream> {
        let marked = self.wire.as_ref().filter(|marked| marked.from.is_none())?;
        let (name, version) = (self.generated(owner)?, marked.version);
        let before = (version > 1).then(|| wire::name_before(&name, version))?;
        let Method { ident, vis, cfgs, .. } = &self.method;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let attributes = wire::attributes(&krate, name.span());
        let method = format!("{}::{ident}", owner.ident());
        let docs = format!("Version {} of the message that `{method}` handles.", version - 1);
        let kept = || self.arguments().filter(|argument| self.added(&argument.ident).is_none());
        let fields = kept().map(|Argument { ident, ty, .. }| {
            let ty = wire::type_before(&krate, &owner.spell_out(ty));
            let docs = format!("The argument `{}`.", ident.unraw());
            quote_spanned!(span=> #[doc = #docs] #vis #ident: #ty)
        });
        let body = if kept().next().is_some() { quote!({ #(#fields,)* }) } else { quote!(;) };
        let parts = kept().map(|Argument { ident, ty, .. }| {
            Part::new(Some(ident), wire::type_before(&krate, &owner.spell_out(ty)), ty)
        });
        let shape = Shape::of_message(&krate, &parts.collect::<Vec<_>>());
        let travels = shape.implementation(&krate, &before, version - 1);
        let conversion = self.conversion(owner, &name, &before);
        Some(quote_spanned! {span=>
            #(#cfgs)*
            #[doc = #docs]
            #attributes
            #[allow(dead_code, reason = "clients send it, not this program")]
            #vis struct #before #body

            #(#cfgs)*
            #travels

            #(#cfgs)*
            #conversion
        })
    }

    /// `impl Previous`.
    fn conversion(&self, owner: &Owner, name: &Ident, before: &Ident) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let fields = self.arguments().map(|Argument { ident, ty, .. }| {
            let (here, ty) = (at(ty.span()), owner.spell_out(ty));
            match self.added(ident) {
                Some(added) => {
                    let value = owner.spell_out(wire::default_of(added, &ty));
                    quote!(#ident: #value)
                }
                None => quote_spanned! {here=>
                    #ident: <#ty as #krate::Evolve>::from_before(self.#ident)?
                },
            }
        });
        let reply = owner.spell_out(&self.answer.reply);
        let here = at(self.answer.span);
        let (reply_before, downgraded) = (
            quote_spanned!(here=> <#reply as #krate::Evolve>::Before),
            quote_spanned!(here=> <#reply as #krate::Evolve>::into_before(reply)),
        );
        quote_spanned! {span=>
            impl #krate::Previous<#name> for #before {
                type Reply = #reply_before;

                fn upgrade(self) -> ::core::result::Result<#name, #krate::Unconvertible> {
                    ::core::result::Result::Ok(#name { #(#fields),* })
                }

                fn downgrade(
                    reply: #reply,
                ) -> ::core::result::Result<Self::Reply, #krate::Unconvertible> {
                    #downgraded
                }
            }
        }
    }

    /// What is said about an argument that the version before has not.
    fn added(&self, argument: &Ident) -> Option<&Added> {
        let added = &self.wire.as_ref()?.added;
        added.iter().find(|(name, _)| name == argument).map(|(_, added)| added)
    }

    /// The line that lets clients send the version before, as `registration` does for this one.
    pub(super) fn previous_registration(
        &self,
        owner: &Owner,
        table: &Ident,
    ) -> Option<TokenStream> {
        let marked = self.wire.as_ref().filter(|marked| marked.version > 1)?;
        let Method { ident, cfgs, .. } = &self.method;
        let (message, text) = (self.message_type(owner), ident.unraw().to_string());
        Some(match &marked.from {
            Some(from) => {
                let (span, from) = (at(from.span()), owner.spell_out(from));
                quote_spanned!(span=> #(#cfgs)* #table.wire_previous::<#message, #from>(#text);)
            }
            None => {
                let name = wire::name_before(&self.generated(owner)?, marked.version);
                let name = name.to_token_stream();
                quote_spanned! {at(marked.span())=>
                    #(#cfgs)* #table.wire_previous_if_changed::<#message, #name>(#text);
                }
            }
        })
    }
}
