//! One handler: its message, the turn that calls the method, and the method of the reference.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, Ident, ImplItemFn, Lit, LitStr, Meta, Receiver, ReturnType,
    Type, Visibility,
};

use crate::errors::at;
use crate::mark::Each;
use crate::owner::{Owner, named_at, respan};
use crate::parameter::{self, Argument, Parameter, Role};

/// What may send the message besides Rust code.
pub(crate) enum Reach {
    /// Callers outside, as `TYPE.METHOD` and by the bare name.
    Outside { bare: Option<LitStr>, each: Each },
    /// Nobody.
    Local,
}

/// A method that handles a message.
pub(crate) struct Handler {
    pub(crate) method: Method,
    reach: Reach,
    parameters: Vec<Parameter>,
    answer: Answer,
}

/// What a handler and a sweep take over from the method.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// The visibility, with spans of the expansion.
    pub(crate) vis: TokenStream,
    pub(crate) cfgs: Vec<Attribute>,
    docs: Vec<String>,
    deprecated: Option<Attribute>,
}

/// The return type.
struct Answer {
    /// As written; `()` if nothing is.
    written: Type,
    /// The `R` of `Later<R>`, else the same.
    reply: Type,
    /// The return type, or the method's name.
    span: Span,
}

impl Handler {
    pub(crate) fn parse(
        item: &ImplItemFn,
        receiver: &Receiver,
        reach: Reach,
    ) -> Result<Self, Error> {
        parameter::check_signature(&item.sig, receiver)?;
        let method = Method::new(item);
        if method.ident == "key" {
            let message = "the typed reference has a method `key` already: choose another name";
            return Err(Error::new_spanned(&item.sig.ident, message));
        }
        let parameters = parameter::parse_all(&item.sig.inputs)?;
        let answer = Answer::parse(&item.sig.output, &method.ident)?;
        let handler = Self { method, reach, parameters, answer };
        handler.check_fan(&item.sig.inputs)?;
        Ok(handler)
    }

    /// Whether the arguments leave room for more than one key.
    fn check_fan(&self, inputs: &impl quote::ToTokens) -> Result<(), Error> {
        let Reach::Outside { each, .. } = &self.reach else { return Ok(()) };
        let arguments_count = self.arguments().count();
        let message = match each {
            Each::Sum | Each::Array if arguments_count > 0 => {
                "with `each = sum` or `each = array` every argument is a key: the method takes \
                 none besides `cx`"
            }
            Each::Pairs if arguments_count != 1 => {
                "with `each = pairs` keys and values alternate: the method takes exactly one \
                 argument, the value"
            }
            _ => return Ok(()),
        };
        Err(Error::new_spanned(inputs, message))
    }

    fn arguments(&self) -> impl Iterator<Item = &Argument> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Cx(_) => None,
            Parameter::Argument(argument) => Some(argument),
        })
    }

    pub(crate) fn expand(&self, owner: &Owner) -> TokenStream {
        let message = self.message(owner);
        let turn = self.turn(owner);
        let reference = self.reference(owner);
        quote!(#message #turn #reference)
    }

    /// The struct, and `impl Message`.
    fn message(&self, owner: &Owner) -> TokenStream {
        let Method { ident, vis, cfgs, .. } = &self.method;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let name = owner.generated(ident);
        let what = format!("The message that `{}::{ident}` handles.", owner.ident());
        let docs = self.method.docs(owner, &what);
        let fields = self.arguments().map(|argument| {
            let Argument { ident, ty } = argument;
            let ty = owner.spell_out(ty);
            let docs = format!("The argument `{}`.", ident.unraw());
            quote_spanned!(span=> #[doc = #docs] #vis #ident: #ty)
        });
        let body =
            if self.arguments().next().is_some() { quote!({ #(#fields,)* }) } else { quote!(;) };
        let reply = owner.spell_out(&self.answer.reply);
        let reply = quote_spanned!(at(self.answer.span)=> type Reply = #reply;);
        quote_spanned! {span=>
            #(#cfgs)*
            #[doc = #docs]
            #[allow(dead_code, reason = "not every message is named where it is sent")]
            #vis struct #name #body

            #(#cfgs)*
            impl #krate::Message for #name {
                #reply
            }
        }
    }

    /// `impl Handler`.
    fn turn(&self, owner: &Owner) -> TokenStream {
        let Method { ident, cfgs, deprecated, .. } = &self.method;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let path = &owner.path;
        let name = owner.generated(ident);
        let answer = owner.spell_out(&self.answer.written);
        let passed = self.parameters.iter().map(|parameter| match parameter {
            Parameter::Cx(_) => quote_spanned!(span=> cx),
            Parameter::Argument(Argument { ident, .. }) => quote_spanned!(span=> message.#ident),
        });
        let takes_cx = self.parameters.iter().any(|one| matches!(one, Parameter::Cx(_)));
        let cx = if takes_cx { quote_spanned!(span=> cx) } else { quote_spanned!(span=> _cx) };
        let message = match self.arguments().next() {
            Some(_) => quote_spanned!(span=> message),
            None => quote_spanned!(span=> _message),
        };
        let allow = deprecated.as_ref().map(
            |_| quote!(#[allow(deprecated, reason = "deprecated for senders, still handled")]),
        );
        quote_spanned! {span=>
            #(#cfgs)*
            impl #krate::Handler<#name> for #path {
                type Answer = #answer;

                #allow
                #[inline]
                fn handle(
                    &mut self,
                    #message: #name,
                    #cx: &mut #krate::Cx<'_, Self>,
                ) -> Self::Answer {
                    <#path>::#ident(self, #(#passed),*)
                }
            }
        }
    }

    /// The method of the typed reference.
    fn reference(&self, owner: &Owner) -> TokenStream {
        let Method { ident, vis, cfgs, deprecated, .. } = &self.method;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let path = &owner.path;
        let name = owner.generated(ident);
        let reference = owner.reference();
        let mut method = ident.clone();
        method.set_span(named_at(ident.span()));
        let what = format!("Prepares the message that `{}::{ident}` handles.", owner.ident());
        let docs = self.method.docs(owner, &what);
        let parameters = self.arguments().map(|argument| {
            let Argument { ident, ty } = argument;
            let ty = owner.spell_out(ty);
            quote!(#ident: #ty)
        });
        let fields: Vec<_> = self.arguments().map(|argument| &argument.ident).collect();
        let message =
            if fields.is_empty() { quote!(#name) } else { quote!(#name { #(#fields),* }) };
        quote_spanned! {span=>
            #(#cfgs)*
            impl<V: #krate::Via> #reference<V> {
                #[doc = #docs]
                #deprecated
                #[allow(dead_code, reason = "callers outside may be the only senders")]
                #[inline(always)]
                #vis fn #method(self, #(#parameters),*) -> V::Call<#path, #name> {
                    #krate::Address::<#path, V>::from(self).message(#message)
                }
            }
        }
    }

    /// The line that adds the handler to the message table, which is in scope as `table`.
    pub(crate) fn registration(&self, owner: &Owner, table: &Ident) -> TokenStream {
        let Method { ident, cfgs, .. } = &self.method;
        let name = owner.generated(ident);
        let text = ident.unraw().to_string();
        let Reach::Outside { bare, each } = &self.reach else {
            let span = at(ident.span());
            return quote_spanned!(span=> #(#cfgs)* #table.message::<#name>(#text););
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
            #table.command::<#name>(#krate::Command {
                method: #text,
                bare: #bare,
                parse: #parse,
                each: #each,
            });
        }
    }

    /// A closure that reads each argument in order and leaves none.
    fn parse_arguments(&self, owner: &Owner) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let name = owner.generated(ident);
        let fields = self.arguments().map(|argument| {
            let Argument { ident, ty } = argument;
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

    /// The bare name, to be compared with those of other methods.
    pub(crate) fn bare(&self) -> Option<&LitStr> {
        match &self.reach {
            Reach::Outside { bare, .. } => bare.as_ref(),
            Reach::Local => None,
        }
    }
}

impl Method {
    pub(crate) fn new(item: &ImplItemFn) -> Self {
        let find = |name| item.attrs.iter().filter(move |attr| attr.path().is_ident(name));
        Self {
            ident: item.sig.ident.clone(),
            vis: visibility(&item.vis),
            cfgs: find("cfg").cloned().collect(),
            docs: find("doc").filter_map(doc_text).collect(),
            deprecated: find("deprecated").next().cloned(),
        }
    }

    /// The method's docs, followed by `what` the generated item is.
    pub(crate) fn docs(&self, owner: &Owner, what: &str) -> String {
        if self.docs.is_empty() {
            return what.to_owned();
        }
        let own = self.docs.join("\n").replace("Self::", &format!("{}::", owner.ident()));
        format!("{own}\n\n{what}")
    }
}

impl Answer {
    fn parse(output: &ReturnType, method: &Ident) -> Result<Self, Error> {
        let written = match output {
            ReturnType::Default => {
                let unit: Type = syn::parse_quote!(());
                return Ok(Self { written: unit.clone(), reply: unit, span: method.span() });
            }
            ReturnType::Type(_, written) => (**written).clone(),
        };
        let reply = match &written {
            Type::Path(path) => parameter::later(&path.path).unwrap_or(&written).clone(),
            _ => written.clone(),
        };
        if let Some(hidden) = parameter::hidden_later(&reply) {
            let message = "`Later` is the whole return type: write `Later<Result<..>>`, not \
                           `Result<Later<..>, _>`";
            return Err(Error::new_spanned(hidden, message));
        }
        parameter::check_owned(&reply, Role::Reply)?;
        let span = written.span();
        Ok(Self { written, reply, span })
    }
}

fn visibility(vis: &Visibility) -> TokenStream {
    respan(quote!(#vis), named_at(vis.span()))
}

fn doc_text(attr: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attr.meta else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
    Some(text.value())
}
