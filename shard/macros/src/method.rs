//! What a handler and a sweep take over from the method they are made of.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, Ident, ImplItemFn, Lit, Meta, Visibility};

use crate::owner::{Owner, named_at, respan};

/// A method's name and what surrounds it.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// The visibility, with spans of the expansion.
    pub(crate) vis: TokenStream,
    pub(crate) cfgs: Vec<Attribute>,
    docs: Vec<String>,
    pub(crate) deprecated: Option<Attribute>,
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

fn visibility(vis: &Visibility) -> TokenStream {
    respan(quote!(#vis), named_at(vis.span()))
}

fn doc_text(attr: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attr.meta else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
    Some(text.value())
}
