//! The parameters of a method, and which types may travel in a message.

use proc_macro2::Span;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, Pat, PatType, Path, PathArguments, Receiver,
    ReceiverKind, Safety, Signature, Token, Type, TypePath, TypeReference,
};

use crate::owner::named_at;

/// A parameter behind `self`.
pub(crate) enum Parameter {
    /// `cx: &mut Cx<Self>`, wherever it stands.
    Cx(Span),
    /// What the message carries.
    Argument(Argument),
}

/// A field of the message.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    /// Boxed, as types are large.
    pub(crate) ty: Box<Type>,
}

/// The receiver of a method, or `None` for a function without `self`.
pub(crate) fn receiver(signature: &Signature) -> Option<&Receiver> {
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) => Some(receiver),
        _ => None,
    }
}

/// Checks all of a signature that does not depend on its parameters.
pub(crate) fn check_signature(signature: &Signature, receiver: &Receiver) -> Result<(), Error> {
    if let Some(token) = &signature.asyncness {
        let message = "async handlers are not supported yet: return `Later<R>`, which `cx.later()` \
                       makes, and answer in a later turn";
        return Err(Error::new_spanned(token, message));
    }
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
    let by_reference = match &receiver.kind {
        ReceiverKind::Reference(..) => true,
        ReceiverKind::Typed(_, ty) => matches!(**ty, Type::Reference(_)),
        _ => false,
    };
    if !by_reference {
        let message = "the runtime keeps the entity between turns: take `&mut self` or `&self`, \
                       or mark the method `#[skip]`";
        return Err(Error::new_spanned(receiver, message));
    }
    Ok(())
}

/// The parameters of a handler, in order.
pub(crate) fn parse_all(inputs: &Punctuated<FnArg, Token![,]>) -> Result<Vec<Parameter>, Error> {
    let mut parameters = Vec::with_capacity(inputs.len());
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        let parameter = Parameter::parse(input)?;
        let another = parameters.iter().any(|other| matches!(other, Parameter::Cx(_)));
        if let Parameter::Cx(span) = parameter
            && another
        {
            return Err(Error::new(span, "a turn has one `Cx`: remove the second parameter"));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

impl Parameter {
    fn parse(input: &PatType) -> Result<Self, Error> {
        if let Some(attr) = input.attrs.first() {
            let message = "a handler's parameters take no attributes: put `#[cfg]` on the method";
            return Err(Error::new_spanned(attr, message));
        }
        if is_cx(&input.ty)? {
            return Ok(Self::Cx(input.span()));
        }
        let ident = field_name(&input.pat)?;
        check_owned(&input.ty, Role::Argument)?;
        Ok(Self::Argument(Argument { ident, ty: input.ty.clone() }))
    }
}

/// Whether the type is `&mut Cx<..>`; an error if it is a `Cx` in any other form.
pub(crate) fn is_cx(ty: &Type) -> Result<bool, Error> {
    let inner = match ty {
        Type::Reference(reference) => &*reference.elem,
        other => other,
    };
    let Type::Path(TypePath { path, .. }) = inner else { return Ok(false) };
    if path.segments.last().is_none_or(|segment| segment.ident != "Cx") {
        return Ok(false);
    }
    match ty {
        Type::Reference(reference) if reference.mutability.is_some() => Ok(true),
        _ => {
            Err(Error::new_spanned(ty, "the context is lent for a turn: take `cx: &mut Cx<Self>`"))
        }
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
                Role::Reply => "a reply is one type: name it instead of `impl`",
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

/// The `R` of `Later<R>`, if that is what the path is.
pub(crate) fn later(path: &Path) -> Option<&Type> {
    let last = path.segments.last().filter(|segment| segment.ident == "Later")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(reply)) if arguments.args.len() == 1 => Some(reply),
        _ => None,
    }
}

/// A `Later` within another type, where the runtime would not find it.
pub(crate) fn hidden_later(ty: &Type) -> Option<&Type> {
    let types: Vec<&Type> = match ty {
        Type::Path(path) => path.path.segments.iter().flat_map(type_arguments).collect(),
        Type::Tuple(tuple) => tuple.elems.iter().collect(),
        _ => Vec::new(),
    };
    types.into_iter().find_map(|inner| match inner {
        Type::Path(path) if later(&path.path).is_some() => Some(inner),
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
