//! The entity type that an impl block belongs to, and the names made from it.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Error, Ident, Path, PathArguments, Type};

/// The entity type as the block writes it.
pub(crate) struct Owner {
    /// `Account`, or `super::Account`.
    pub(crate) path: Path,
    /// Where `coreside` is.
    krate: Path,
}

impl Owner {
    /// The owner named by the self type of a block.
    pub(crate) fn parse(self_ty: &Type, krate: Path) -> Result<Self, Error> {
        let Type::Path(ty) = self_ty else {
            return Err(Error::new_spanned(self_ty, "`#[handlers]` needs the type of an entity"));
        };
        let generic = ty.path.segments.iter().any(|segment| !segment.arguments.is_empty());
        if generic || ty.qself.is_some() {
            return Err(Error::new_spanned(self_ty, crate::entity::GENERIC));
        }
        Ok(Self { path: ty.path.clone(), krate })
    }

    /// The last segment: `Account`.
    pub(crate) fn ident(&self) -> &Ident {
        // A path that was parsed as a type has at least one segment.
        &self.path.segments[self.path.segments.len() - 1].ident
    }

    /// Where `coreside` is, for code whose errors point at `span`.
    pub(crate) fn krate(&self, span: Span) -> TokenStream {
        respan(self.krate.to_token_stream(), named_at(span))
    }

    /// The typed reference, beside the entity: `super::AccountRef`.
    pub(crate) fn reference(&self) -> Path {
        let mut path = self.path.clone();
        if let Some(last) = path.segments.last_mut() {
            last.ident = reference_of(&last.ident);
            last.arguments = PathArguments::None;
        }
        path
    }

    /// The type generated for a method: `AccountDeposit` for `deposit`.
    pub(crate) fn generated(&self, method: &Ident) -> Ident {
        let name = format!("{}{}", self.ident().unraw(), camel_case(&method.unraw().to_string()));
        Ident::new(&name, named_at(method.span()))
    }

    /// The tokens with `Self` spelled out, for use outside of the block.
    pub(crate) fn spell_out(&self, tokens: impl ToTokens) -> TokenStream {
        self.spell_out_stream(tokens.into_token_stream())
    }

    fn spell_out_stream(&self, tokens: TokenStream) -> TokenStream {
        tokens
            .into_iter()
            .flat_map(|tree| match tree {
                TokenTree::Ident(ident) if ident == "Self" => {
                    respan(self.path.to_token_stream(), ident.span())
                }
                TokenTree::Group(group) => {
                    let inner = self.spell_out_stream(group.stream());
                    let mut outer = Group::new(group.delimiter(), inner);
                    outer.set_span(group.span());
                    TokenTree::Group(outer).into()
                }
                other => other.into(),
            })
            .collect()
    }
}

/// The name of the typed reference of an entity.
pub(crate) fn reference_of(entity: &Ident) -> Ident {
    Ident::new(&format!("{}Ref", entity.unraw()), named_at(entity.span()))
}

/// For names that users write: found by them, located at `span`, and part of the expansion.
pub(crate) fn named_at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// The same tokens, pointing at `span`.
pub(crate) fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut tree| {
            if let TokenTree::Group(group) = &tree {
                let inner = respan(group.stream(), span);
                tree = TokenTree::Group(Group::new(group.delimiter(), inner));
            }
            tree.set_span(span);
            tree
        })
        .collect()
}

/// `get_range` to `GetRange`.
fn camel_case(snake: &str) -> String {
    let mut camel = String::with_capacity(snake.len());
    let mut starts_word = true;
    for letter in snake.chars() {
        if letter == '_' {
            starts_word = true;
        } else if starts_word {
            camel.extend(letter.to_uppercase());
            starts_word = false;
        } else {
            camel.push(letter);
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;
    use syn::parse_quote;

    fn owner() -> Owner {
        Owner { path: parse_quote!(bank::Account), krate: parse_quote!(::coreside) }
    }

    #[test]
    fn generated_names_join_type_and_method() {
        for (method, expected) in [
            ("deposit", "AccountDeposit"),
            ("get_range", "AccountGetRange"),
            ("_hidden", "AccountHidden"),
            ("get2", "AccountGet2"),
        ] {
            let method = Ident::new(method, Span::call_site());
            assert_eq!(owner().generated(&method), expected);
        }
        let raw = Ident::new_raw("type", Span::call_site());
        assert_eq!(owner().generated(&raw), "AccountType");
    }

    #[test]
    fn reference_stands_beside_the_entity() {
        let reference = owner().reference().to_token_stream().to_string();
        assert_eq!(reference, quote!(bank::AccountRef).to_string());
    }

    #[test]
    fn self_is_spelled_out_at_any_depth() {
        let spelled = owner().spell_out(quote!(Vec<(Self, [u8; Self::LEN])>)).to_string();
        let expected = quote!(Vec<(bank::Account, [u8; bank::Account::LEN])>).to_string();
        assert_eq!(spelled, expected);
    }
}
