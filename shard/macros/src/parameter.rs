//! The parameters of a method, and which types may travel in a message.

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, Pat, PatType, PathArguments, Receiver, ReceiverKind,
    Safety, Signature, Token, Type, TypePath, TypeReference,
};

use crate::errors::at;
use crate::owner::named_at;

/// A parameter behind `self`.
pub(crate) enum Parameter {
    /// The context, wherever it stands.
    Cx(Span),
    /// What the message carries, or the message itself.
    Argument(Argument),
}

/// A field of the message, or the message itself.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    /// Boxed, as types are large. Of an archive that is looked at: what became it.
    pub(crate) ty: Box<Type>,
    /// The method takes `&Archived<T>`.
    pub(crate) viewed: bool,
}

/// The form in which a handler gets its context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// `&mut Cx<Self>`: the turn ends when the method returns.
    Turn,
    /// `&mut AsyncCx<Self>`: the turn goes on while the method waits.
    AsyncTurn,
    /// `AsyncCx<Self>`: other turns go on while the function waits.
    Interleaved,
}

/// What a parameter that is no context stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carried {
    /// A field of the message that is made of the arguments.
    Field,
    /// A message that exists already.
    Message,
}

/// The receiver of a method, or `None` for a function without `self`.
pub(crate) fn receiver(signature: &Signature) -> Option<&Receiver> {
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) => Some(receiver),
        _ => None,
    }
}

/// Checks all of a signature that depends neither on its parameters nor on who calls it.
pub(crate) fn check_signature(signature: &Signature) -> Result<(), Error> {
    if let Safety::Unsafe(token) = &signature.safety {
        return Err(Error::new_spanned(
            token,
            "a handler is called by the runtime: it cannot be unsafe",
        ));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "a handler is a plain Rust method: remove `extern`"));
    }
    if !signature.generics.params.is_empty() {
        let message = "a handler cannot be generic: its message is one type, which owns what it \
                       carries; name the types, or mark the method `#[skip]`";
        return Err(Error::new_spanned(&signature.generics, message));
    }
    Ok(())
}

/// Checks that the entity is borrowed; returns whether it may be changed.
pub(crate) fn check_receiver(receiver: &Receiver) -> Result<bool, Error> {
    match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => return Ok(mutability.is_some()),
        ReceiverKind::Typed(_, ty) => {
            if let Type::Reference(reference) = &**ty {
                return Ok(reference.mutability.is_some());
            }
        }
        _ => {}
    }
    let message = "the runtime keeps the entity between turns: take `&mut self` or `&self`, or \
                   mark the method `#[skip]`";
    Err(Error::new_spanned(receiver, message))
}

/// The parameters of a handler, in order.
pub(crate) fn parse_all(
    inputs: &Punctuated<FnArg, Token![,]>,
    context: Context,
    (carried, archived): (Carried, bool),
) -> Result<Vec<Parameter>, Error> {
    let mut parameters = Vec::with_capacity(inputs.len());
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        let parameter = Parameter::parse(input, context, (carried, archived))?;
        let another = parameters.iter().any(|other| matches!(other, Parameter::Cx(_)));
        if let Parameter::Cx(span) = parameter
            && another
        {
            let message = "a turn has one context: remove the second parameter";
            return Err(Error::new(span, message));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

impl Parameter {
    fn parse(
        input: &PatType,
        context: Context,
        (carried, archived): (Carried, bool),
    ) -> Result<Self, Error> {
        if let Some(attr) = input.attrs.first() {
            let message = "a handler's parameters take no attributes: put `#[cfg]` on the method";
            return Err(Error::new_spanned(attr, message));
        }
        if is_context(&input.ty) {
            context.check(&input.ty)?;
            return Ok(Self::Cx(input.span()));
        }
        let ident = match carried {
            Carried::Field => field_name(&input.pat)?,
            Carried::Message => Ident::new("message", at(input.ty.span())),
        };
        let viewed = check_view(&input.ty, archived)?;
        let ty = viewed.unwrap_or(&input.ty);
        check_owned(ty, Role::Argument)?;
        let ty = Box::new(ty.clone());
        Ok(Self::Argument(Argument { ident, ty, viewed: viewed.is_some() }))
    }
}

/// The `T` of `&Archived<T>`, if that is what the type is; only a handler with `#[archived]` may
/// take one, and no other reference.
fn check_view(ty: &Type, archived: bool) -> Result<Option<&Type>, Error> {
    let Type::Reference(reference) = ty else { return Ok(None) };
    let message = match view(&reference.elem) {
        None if archived => {
            "an archive is looked at by its own type: take `&Archived<T>`, where \
                             `T` is the type that travels"
        }
        None => return Ok(None),
        Some(_) if !archived => {
            "a message owns what it carries: take the type by value, or put \
                                 `#[archived]` beside `#[wire]` to look at it in its archive"
        }
        Some(_) if reference.mutability.is_some() => "an archive is read only: take `&Archived<T>`",
        Some(_) if reference.lifetime.is_some() => {
            "an archive is lent for the turn: remove the lifetime"
        }
        Some(inner) => return Ok(Some(inner)),
    };
    Err(Error::new_spanned(ty, message))
}

/// The `T` of `Archived<T>`.
fn view(ty: &Type) -> Option<&Type> {
    match arguments_of(ty, "Archived")?[..] {
        [inner] => Some(inner),
        _ => None,
    }
}

/// Whether the type is a context of any kind, in any form.
pub(crate) fn is_context(ty: &Type) -> bool {
    context_name(ty).is_some_and(|name| name == "Cx" || name == "AsyncCx")
}

/// The last segment of the path that the type is, or refers to.
fn context_name(ty: &Type) -> Option<&Ident> {
    let inner = match ty {
        Type::Reference(reference) => &*reference.elem,
        other => other,
    };
    let Type::Path(TypePath { path, .. }) = inner else { return None };
    path.segments.last().map(|segment| &segment.ident)
}

impl Context {
    /// Checks that the context `ty` is the one of this form.
    fn check(self, ty: &Type) -> Result<(), Error> {
        let of_async = context_name(ty).is_some_and(|name| name == "AsyncCx");
        let lent = match ty {
            Type::Reference(reference) => reference.mutability.is_some(),
            _ => false,
        };
        let owned = !matches!(ty, Type::Reference(_));
        let message = match self {
            Self::Turn if of_async => {
                "the turn of a plain `fn` ends when it returns: take `cx: &mut Cx<Self>`, or write \
                 `async fn` to wait within the turn"
            }
            Self::Turn if !lent => "the context is lent for a turn: take `cx: &mut Cx<Self>`",
            Self::AsyncTurn if !of_async => {
                "an async handler waits within its turn: take `cx: &mut AsyncCx<Self>`"
            }
            Self::AsyncTurn if !lent => {
                "the context is lent for a turn: take `cx: &mut AsyncCx<Self>`"
            }
            Self::Interleaved if !of_async || !owned => {
                "an interleaved turn owns its context: take `cx: AsyncCx<Self>`"
            }
            _ => return Ok(()),
        };
        Err(Error::new_spanned(ty, message))
    }
}

/// The field that a parameter's pattern becomes.
fn field_name(pattern: &Pat) -> Result<Ident, Error> {
    match pattern {
        Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => {
            let mut ident = name.ident.clone();
            ident.set_span(named_at(ident.span()));
            Ok(ident)
        }
        Pat::Wild(_) => {
            let message = "the parameter becomes a field of the message: give it a name";
            Err(Error::new_spanned(pattern, message))
        }
        _ => {
            let message = "the parameter becomes a field of the message: give it a name, and take \
                           it apart in the body";
            Err(Error::new_spanned(pattern, message))
        }
    }
}

/// On which way a type travels.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// With the message.
    Argument,
    /// With the reply.
    Reply,
    /// With the fault, to the supervisor.
    Reason,
}

/// Checks that a type borrows nothing, as far as its tokens show.
pub(crate) fn check_owned(ty: &Type, role: Role) -> Result<(), Error> {
    match ty {
        Type::Reference(reference) => check_reference(reference, role),
        Type::ImplTrait(_) => {
            let message = match role {
                Role::Argument => {
                    "a message is one type: name the parameter's type instead of `impl`"
                }
                Role::Reply | Role::Reason => "a reply is one type: name it instead of `impl`",
            };
            Err(Error::new_spanned(ty, message))
        }
        Type::Path(path) => path
            .path
            .segments
            .iter()
            .try_for_each(|segment| check_generics(&segment.arguments, role)),
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(|elem| check_owned(elem, role)),
        Type::Array(array) => check_owned(&array.elem, role),
        Type::Slice(_) => Err(Error::new_spanned(ty, complaint(role, owned_form(ty)))),
        Type::Group(group) => check_owned(&group.elem, role),
        Type::Paren(paren) => check_owned(&paren.elem, role),
        _ => Ok(()),
    }
}

fn check_generics(arguments: &PathArguments, role: Role) -> Result<(), Error> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return Ok(()) };
    arguments.args.iter().try_for_each(|argument| match argument {
        GenericArgument::Type(ty) => check_owned(ty, role),
        GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => {
            Err(Error::new_spanned(lifetime, complaint(role, None)))
        }
        _ => Ok(()),
    })
}

fn check_reference(reference: &TypeReference, role: Role) -> Result<(), Error> {
    if reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static") {
        return check_owned_behind_static(&reference.elem, role);
    }
    let mut message = complaint(role, owned_form(&reference.elem));
    if reference.mutability.is_some() && matches!(role, Role::Argument) {
        message += "; the context is known by its type, `&mut Cx<Self>`";
    }
    Err(Error::new_spanned(reference, message))
}

/// `&'static str` and `&'static [T]` are as good as owned.
fn check_owned_behind_static(ty: &Type, role: Role) -> Result<(), Error> {
    match ty {
        Type::Slice(slice) => check_owned(&slice.elem, role),
        other => check_owned(other, role),
    }
}

fn complaint(role: Role, owned: Option<String>) -> String {
    let owned = owned.unwrap_or_else(|| "an owned type".to_owned());
    match role {
        Role::Argument => format!("a message owns what it carries: take {owned}"),
        Role::Reply => {
            format!("a reply leaves the entity and cannot borrow from it: return {owned}")
        }
        Role::Reason => format!("the reason of a fault outlives the turn: fail with {owned}"),
    }
}

/// What to write in place of a reference to `ty`, where that is short.
fn owned_form(ty: &Type) -> Option<String> {
    match ty {
        Type::Slice(slice) => simple_name(&slice.elem).map(|elem| format!("`Vec<{elem}>`")),
        other => match simple_name(other)?.as_str() {
            "str" => Some("`String`".to_owned()),
            name => Some(format!("`{name}`")),
        },
    }
}

fn simple_name(ty: &Type) -> Option<String> {
    let Type::Path(TypePath { qself: None, path, .. }) = ty else { return None };
    path.get_ident().map(|ident| ident.unraw().to_string())
}

/// The `R` of `Later<R>`, if that is what the type is.
pub(crate) fn later(ty: &Type) -> Option<&Type> {
    match arguments_of(ty, "Later")?[..] {
        [reply] => Some(reply),
        _ => None,
    }
}

/// The `R` of `Result<R, X>`, and the `X` where it is written, if that is what the type is.
pub(crate) fn result(ty: &Type) -> Option<(&Type, Option<&Type>)> {
    match arguments_of(ty, "Result")?[..] {
        [reply] => Some((reply, None)),
        [reply, reason] => Some((reply, Some(reason))),
        _ => None,
    }
}

/// The type arguments of a path that ends with `name`.
fn arguments_of<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let Type::Path(TypePath { path, .. }) = ty else { return None };
    path.segments.last().filter(|segment| segment.ident == name).map(type_arguments)
}

/// A `Later` within another type, where the runtime would not find it.
pub(crate) fn hidden_later(ty: &Type) -> Option<&Type> {
    let types: Vec<&Type> = match ty {
        Type::Path(path) => path.path.segments.iter().flat_map(type_arguments).collect(),
        Type::Tuple(tuple) => tuple.elems.iter().collect(),
        _ => Vec::new(),
    };
    types.into_iter().find_map(|inner| match inner {
        _ if later(inner).is_some() => Some(inner),
        _ => hidden_later(inner),
    })
}

fn type_arguments(segment: &syn::PathSegment) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// Whether the type is written `()`.
pub(crate) fn is_unit(ty: &Type) -> bool {
    ty.to_token_stream().to_string() == "()"
}
