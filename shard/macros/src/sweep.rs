//! One sweep: the type that holds a total and visits the entities of a shard.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ImplItemFn, LitStr, PatType, Receiver, ReturnType, Type};

use crate::errors::at;
use crate::method::Method;
use crate::owner::Owner;
use crate::parameter::{self, Role};

/// A method that is called for every live entity.
pub(crate) struct Sweep {
    pub(crate) method: Method,
    bare: Option<LitStr>,
    /// Words that may follow the command.
    words: Vec<LitStr>,
    parameters: Vec<Parameter>,
    /// The return type, where the method says if the entity stays.
    verdict: Option<Span>,
}

/// A parameter behind `self`, at most one of each kind.
enum Parameter {
    /// By value: the key of the entity.
    Key,
    /// `&mut T`: the total of the shard. Boxed, as types are large.
    Total(Box<Type>),
}

impl Sweep {
    pub(crate) fn parse(
        item: &ImplItemFn,
        receiver: &Receiver,
        bare: Option<LitStr>,
        words: Vec<LitStr>,
    ) -> Result<Self, Error> {
        if let Some(token) = &item.sig.asyncness {
            let message =
                "a sweep visits one entity after the other and cannot wait: remove `async`";
            return Err(Error::new_spanned(token, message));
        }
        parameter::check_signature(&item.sig)?;
        parameter::check_receiver(receiver)?;
        let mut parameters = Vec::new();
        for input in &item.sig.inputs {
            let FnArg::Typed(input) = input else { continue };
            let parameter = Parameter::parse(input)?;
            let kind = std::mem::discriminant(&parameter);
            if parameters.iter().any(|other| std::mem::discriminant(other) == kind) {
                return Err(Error::new_spanned(input, PARAMETERS));
            }
            parameters.push(parameter);
        }
        let verdict = match &item.sig.output {
            ReturnType::Type(_, ty) if !parameter::is_unit(ty) => Some(ty.span()),
            _ => None,
        };
        Ok(Self { method: Method::new(item), bare, words, parameters, verdict })
    }

    fn total(&self) -> Option<&Type> {
        self.parameters.iter().find_map(|parameter| match parameter {
            Parameter::Key => None,
            Parameter::Total(ty) => Some(&**ty),
        })
    }

    pub(crate) fn expand(&self, owner: &Owner) -> TokenStream {
        let path = &owner.path;
        let Method { ident, vis, cfgs, .. } = &self.method;
        let name = owner.generated(ident);
        let what = format!("The sweep of `{}::{ident}`: the total of a pass.", owner.ident());
        let docs = self.method.docs(owner, &what);
        let visit = self.visit(owner);
        let total = self.total().map(|ty| owner.spell_out(ty)).unwrap_or_else(|| quote!(()));
        let span = self.total().map_or(ident.span(), |ty| ty.span());
        let (span, krate) = (at(span), owner.krate(span));
        let merge = match self.total() {
            Some(_) => quote_spanned! {span=>
                <#total as ::core::ops::AddAssign>::add_assign(&mut self.total, other.total)
            },
            None => quote_spanned!(span=> let () = other.total),
        };
        quote_spanned! {span=>
            #(#cfgs)*
            #[doc = #docs]
            #[allow(dead_code, reason = "callers outside may be the only ones to sweep")]
            #vis struct #name {
                /// What the visited entities added.
                #vis total: #total,
            }

            #(#cfgs)*
            impl ::core::default::Default for #name {
                fn default() -> Self {
                    Self { total: <#total as ::core::default::Default>::default() }
                }
            }

            #(#cfgs)*
            impl #krate::Sweep<#path> for #name {
                #visit

                fn merge(&mut self, other: Self) {
                    #merge;
                }
            }

            #(#cfgs)*
            impl #krate::ToValue for #name {
                fn write_to(&self, out: &mut dyn #krate::ValueWriter) {
                    <#total as #krate::ToValue>::write_to(&self.total, out);
                }
            }
        }
    }

    fn visit(&self, owner: &Owner) -> TokenStream {
        let path = &owner.path;
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let passed = self.parameters.iter().map(|parameter| match parameter {
            Parameter::Key => quote_spanned!(span=> key),
            Parameter::Total(_) => quote_spanned!(span=> &mut self.total),
        });
        let takes_key = self.parameters.iter().any(|one| matches!(one, Parameter::Key));
        let key = if takes_key { quote_spanned!(span=> key) } else { quote_spanned!(span=> _key) };
        let body = match self.verdict {
            Some(verdict) => quote_spanned!(at(verdict)=> <#path>::#ident(entity, #(#passed),*)),
            None => {
                quote_spanned!(span=> <#path>::#ident(entity, #(#passed),*); #krate::Visit::Keep)
            }
        };
        quote_spanned! {span=>
            fn visit(
                &mut self,
                #key: <#path as #krate::Entity>::Key,
                entity: &mut #path,
            ) -> #krate::Visit {
                #body
            }
        }
    }

    /// The line that adds the sweep to the message table.
    pub(crate) fn registration(&self, owner: &Owner, table: &Ident) -> TokenStream {
        let Method { ident, cfgs, .. } = &self.method;
        let name = owner.generated(ident);
        let text = ident.unraw().to_string();
        let bare = match &self.bare {
            Some(bare) => quote!(::core::option::Option::Some(#bare)),
            None => quote!(::core::option::Option::None),
        };
        let words = &self.words;
        if words.is_empty() {
            quote_spanned!(at(ident.span())=> #(#cfgs)* #table.sweep::<#name>(#text, #bare);)
        } else {
            quote_spanned! {at(ident.span())=>
                #(#cfgs)* #table.sweep_with_words::<#name>(#text, #bare, &[#(#words),*]);
            }
        }
    }

    pub(crate) fn bare(&self) -> Option<&LitStr> {
        self.bare.as_ref()
    }
}

impl Parameter {
    fn parse(input: &PatType) -> Result<Self, Error> {
        if let Some(attr) = input.attrs.first() {
            return Err(Error::new_spanned(attr, "a sweep's parameters take no attributes"));
        }
        if parameter::is_context(&input.ty) {
            let message = "a sweep has no turn to send from: it takes no `cx`";
            return Err(Error::new_spanned(input, message));
        }
        match &*input.ty {
            Type::Reference(total) if total.mutability.is_some() => {
                parameter::check_owned(&total.elem, Role::Reply)?;
                Ok(Self::Total(total.elem.clone()))
            }
            Type::Reference(_) => Err(Error::new_spanned(input, PARAMETERS)),
            _ => Ok(Self::Key),
        }
    }
}

const PARAMETERS: &str = "besides `self`, a sweep takes at most the key by value (`key: u64`) and \
                          the total of the pass (`total: &mut Total`)";
