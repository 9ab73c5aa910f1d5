//! One handler: its message, the turn that calls the method, and the method of the reference.

mod answer;
mod call;
mod message;
mod previous;
mod turn;
mod view;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, ImplItemFn, LitStr};

use self::answer::Answer;
use self::turn::Form;
use crate::mark::{Each, Marks, Reach};
use crate::method::Method;
use crate::owner::Owner;
use crate::parameter::{self, Argument, Carried, Parameter};
use crate::wire::Marked;

/// A method that handles a message.
pub(crate) struct Handler {
    pub(crate) method: Method,
    reach: Reach,
    form: Form,
    carried: Carried,
    parameters: Vec<Parameter>,
    answer: Answer,
    /// How often a message is tried that faults; `None` for once.
    tries: Option<u32>,
    /// Clients may send it as an archive.
    wire: Option<Marked>,
    /// The method looks at the message in its archive.
    archived: bool,
}

impl Handler {
    pub(crate) fn parse(item: &ImplItemFn, marks: Marks) -> Result<Self, Error> {
        let method = Method::new(item);
        if method.ident == "key" {
            let message = "the typed reference has a method `key` already: choose another name";
            return Err(Error::new_spanned(&item.sig.ident, message));
        }
        parameter::check_signature(&item.sig)?;
        let form = Form::parse(&item.sig, &marks)?;
        let carried = if marks.on { Carried::Message } else { Carried::Field };
        let archived = marks.archived.is_some();
        let inputs = &item.sig.inputs;
        let parameters = parameter::parse_all(inputs, form.context(), (carried, archived))?;
        let answer = Answer::parse(&item.sig, form, marks.fallible.as_ref())?;
        let Marks { reach, tries, wire, .. } = marks;
        let handler =
            Self { method, reach, form, carried, parameters, answer, tries, wire, archived };
        if let Some(archived) = &marks.archived {
            handler.check_archived(archived)?;
        }
        handler.check_carried(&item.sig.inputs)?;
        handler.check_fan(&item.sig.inputs)?;
        Ok(handler)
    }

    /// Whether a message that exists already is all that the method takes.
    fn check_carried(&self, inputs: &impl quote::ToTokens) -> Result<(), Error> {
        if self.carried == Carried::Field || self.arguments().count() == 1 {
            return Ok(());
        }
        let message = "`#[on]` handles a message that exists already: the method takes exactly \
                       one argument, the message";
        Err(Error::new_spanned(inputs, message))
    }

    /// Whether there is an archive to look at, for as long as the turn takes.
    fn check_archived(&self, archived: &Attribute) -> Result<(), Error> {
        let message = if self.form.is_async() {
            "an archive is lent for a turn that ends when the method returns: take the message by \
             value in an `async fn`, or write a plain `fn`"
        } else if self.wire.is_none() {
            "archives come off the network: put `#[wire]` on the method as well"
        } else if !self.arguments().any(|argument| argument.viewed) {
            "nothing is looked at: take an argument as `&Archived<T>`, or remove the attribute"
        } else {
            return Ok(());
        };
        Err(Error::new_spanned(archived, message))
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

    fn takes_cx(&self) -> bool {
        self.parameters.iter().any(|parameter| matches!(parameter, Parameter::Cx(_)))
    }

    pub(crate) fn expand(&self, owner: &Owner) -> TokenStream {
        let message = self.message(owner);
        let previous = self.previous(owner);
        let turn = if self.archived { self.turn_of_view(owner) } else { self.turn(owner) };
        let reference = self.reference(owner);
        quote!(#message #previous #turn #reference)
    }

    /// The type that is generated for the message, if one is.
    pub(crate) fn generated(&self, owner: &Owner) -> Option<Ident> {
        (self.carried == Carried::Field).then(|| owner.generated(&self.method.ident))
    }

    /// Where mistakes in what is made for the message are found: the method's name, or the type of
    /// a message that exists already.
    fn span(&self) -> Span {
        match (self.carried, self.arguments().next()) {
            (Carried::Message, Some(argument)) => argument.ty.span(),
            _ => self.method.ident.span(),
        }
    }

    /// The type of the message.
    fn message_type(&self, owner: &Owner) -> TokenStream {
        match (self.carried, self.arguments().next()) {
            (Carried::Message, Some(argument)) => owner.spell_out(&argument.ty),
            _ => {
                let generated = owner.generated(&self.method.ident);
                quote!(#generated)
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
