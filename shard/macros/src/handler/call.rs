//! How the message is sent: the method of the typed reference, and the row in the message table.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;

use super::Handler;
use crate::errors::at;
use crate::mark::Reach;
use crate::method::Method;
use crate::owner::{Owner, named_at};
use crate::parameter::{Argument, Carried};

impl Handler {
    /// The method of the typed reference.
    pub(super) fn reference(&self, owner: &Owner) -> TokenStream {
        let Method { ident, vis, cfgs, deprecated, .. } = &self.method;
        let (span, krate) = (at(self.span()), owner.krate(self.span()));
        let path = &owner.path;
        let message_type = self.message_type(owner);
        let reference = owner.reference();
        let mut method = ident.clone();
        method.set_span(named_at(ident.span()));
        let what = format!("Prepares the message that `{}::{ident}` handles.", owner.ident());
        let docs = self.method.docs(owner, &what);
        let parameters = self.arguments().map(|argument| {
            let Argument { ident, ty, .. } = argument;
            let ty = owner.spell_out(ty);
            quote!(#ident: #ty)
        });
        let message = self.made_message(owner);
        quote_spanned! {span=>
            #(#cfgs)*
            impl<V: #krate::Via> #reference<V> {
                #[doc = #docs]
                #deprecated
                #[allow(dead_code, reason = "callers outside may be the only senders")]
                #[inline(always)]
                #vis fn #method(self, #(#parameters),*) -> V::Call<#path, #message_type> {
                    #krate::Address::<#path, V>::from(self).message(#message)
                }
            }
        }
    }

    /// The message, made of the parameters of the reference's method.
    fn made_message(&self, owner: &Owner) -> TokenStream {
        let fields: Vec<_> = self.arguments().map(|argument| &argument.ident).collect();
        let name = self.message_type(owner);
        match self.carried {
            Carried::Message => quote!(#(#fields)*),
            Carried::Field if fields.is_empty() => quote!(#name),
            Carried::Field => quote!(#name { #(#fields),* }),
        }
    }

    /// The line that adds the handler to the message table, which is in scope as `table`.
    pub(crate) fn registration(&self, owner: &Owner, table: &Ident) -> TokenStream {
        let Method { ident, cfgs, .. } = &self.method;
        let message = self.message_type(owner);
        let text = ident.unraw().to_string();
        let span = at(self.answer.span);
        // Whether the reply may travel is found out here.
        let way = if self.archived { quote!(wire_archived) } else { quote!(wire) };
        let wire = self.wire.as_ref().map(|_| {
            let previous = self.previous_registration(owner, table);
            quote_spanned!(span=> #(#cfgs)* #table.#way::<#message>(#text); #previous)
        });
        let Reach::Outside { bare, each } = &self.reach else {
            let span = at(self.span());
            return quote_spanned!(span=> #(#cfgs)* #table.message::<#message>(#text); #wire);
        };
        let bare = match bare {
            Some(bare) => quote!(::core::option::Option::Some(#bare)),
            None => quote!(::core::option::Option::None),
        };
        // Whether the reply has a text form is found out here.
        let (span, krate) = (at(self.answer.span), owner.krate(self.answer.span));
        let each = each.to_path(&krate);
        let parse = self.parse_arguments(owner);
        quote_spanned! {span=>
            #(#cfgs)*
            #table.command::<#message>(#krate::Command {
                method: #text,
                bare: #bare,
                parse: #parse,
                each: #each,
            });
            #wire
        }
    }

    /// A closure that reads each argument in order and leaves none.
    fn parse_arguments(&self, owner: &Owner) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let name = owner.generated(ident);
        let fields = self.arguments().map(|argument| {
            let Argument { ident, ty, .. } = argument;
            let ty = owner.spell_out(ty);
            quote_spanned!(span=> #ident: <#ty as #krate::FromArguments>::from_arguments(args)?)
        });
        quote_spanned! {span=>
            |args| {
                let message = #name { #(#fields),* };
                if args.is_empty() {
                    ::core::result::Result::Ok(message)
                } else {
                    ::core::result::Result::Err(#krate::ArgumentError::Count)
                }
            }
        }
    }
}
