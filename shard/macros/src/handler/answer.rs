//! What a handler answers: its reply, and the type that stands for it in the turn.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Attribute, Error, ReturnType, Signature, Type};

use super::turn::Form;
use crate::errors::at;
use crate::owner::Owner;
use crate::parameter::{self, Role};

/// The return type of a handler.
pub(super) struct Answer {
    /// What the asker gets: the `R` of `Later<R>` and of a fallible `Result<R, X>`, else all of it.
    pub(super) reply: Type,
    kind: Kind,
    /// The return type, or the method's name.
    pub(super) span: Span,
}

enum Kind {
    /// As written: the reply, or `Later<R>`.
    Written(Box<Type>),
    /// The reply, unless the turn fails.
    Fallible,
    /// An async turn's reply.
    Later { fallible: bool },
}

impl Answer {
    pub(super) fn parse(
        signature: &Signature,
        form: Form,
        fallible: Option<&Attribute>,
    ) -> Result<Self, Error> {
        let written = match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, written) => Some(&**written),
        };
        let span = written.map_or(signature.ident.span(), |written| written.span());
        if let Some(written) = written {
            refuse_misplaced_later(written, form)?;
        }
        let reply = match (written, fallible) {
            (_, Some(fallible)) => fallible_reply(written, fallible)?.clone(),
            (Some(written), None) => parameter::later(written).unwrap_or(written).clone(),
            (None, None) => syn::parse_quote!(()),
        };
        parameter::check_owned(&reply, Role::Reply)?;
        let kind = match (form.is_async(), fallible) {
            (true, fallible) => Kind::Later { fallible: fallible.is_some() },
            (false, Some(_)) => Kind::Fallible,
            (false, None) => Kind::Written(Box::new(written.unwrap_or(&reply).clone())),
        };
        Ok(Self { reply, kind, span })
    }

    /// Whether an `Err` of the method is a fault of its turn.
    pub(super) fn is_fallible(&self) -> bool {
        matches!(self.kind, Kind::Fallible | Kind::Later { fallible: true })
    }

    /// The type of `Handler::Answer`.
    pub(super) fn to_type(&self, owner: &Owner) -> TokenStream {
        let (span, krate) = (at(self.span), owner.krate(self.span));
        let reply = owner.spell_out(&self.reply);
        match &self.kind {
            Kind::Written(written) => owner.spell_out(written),
            Kind::Fallible => quote_spanned!(span=> #krate::Fallible<#reply>),
            Kind::Later { .. } => quote_spanned!(span=> #krate::Later<#reply>),
        }
    }
}

/// `Later` is the whole answer of a plain handler, or no part of it.
fn refuse_misplaced_later(written: &Type, form: Form) -> Result<(), Error> {
    let later = parameter::later(written);
    if form.is_async() {
        return match later.map(|_| written).or_else(|| parameter::hidden_later(written)) {
            Some(later) => {
                let message = "an async handler answers when it ends: return the reply itself, \
                               `R` in place of `Later<R>`";
                Err(Error::new_spanned(later, message))
            }
            None => Ok(()),
        };
    }
    match parameter::hidden_later(later.unwrap_or(written)) {
        Some(hidden) => {
            let message = "`Later` is the whole return type: write `Later<Result<..>>`, not \
                           `Result<Later<..>, _>`";
            Err(Error::new_spanned(hidden, message))
        }
        None => Ok(()),
    }
}

/// The `R` of the `Result<R, X>` that a fallible handler returns.
fn fallible_reply<'a>(written: Option<&'a Type>, fallible: &Attribute) -> Result<&'a Type, Error> {
    let Some(written) = written else {
        return Err(Error::new_spanned(fallible, NO_RESULT));
    };
    if parameter::later(written).is_some() {
        let message = "a fallible handler fails when it returns: write `async fn` and return \
                       `Result<R, X>` to fail later";
        return Err(Error::new_spanned(written, message));
    }
    let (reply, reason) =
        parameter::result(written).ok_or_else(|| Error::new_spanned(written, NO_RESULT))?;
    if let Some(reason) = reason {
        parameter::check_owned(reason, Role::Reason)?;
    }
    Ok(reply)
}

const NO_RESULT: &str = "a fallible handler says by `Err` that its turn failed: return \
                         `Result<R, X>`, where `R` is the reply and `X` can be displayed";
