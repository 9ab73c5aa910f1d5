//! The turn of a method that looks at its message in the archive: `impl ViewHandler`, and
//! `impl Handler` for the message from within the node, which becomes an archive first.

use proc_macro2::TokenStream;
use quote::quote_spanned;

use super::Handler;
use crate::errors::at;
use crate::owner::Owner;

impl Handler {
    /// `impl Handler` and `impl ViewHandler`.
    pub(super) fn turn_of_view(&self, owner: &Owner) -> TokenStream {
        let cfgs = &self.method.cfgs;
        let (span, krate) = (at(self.span()), owner.krate(self.span()));
        let path = &owner.path;
        let message = self.message_type(owner);
        let answer = self.answer.to_type(owner);
        let (by_value, view) = (self.by_value(owner), self.view(owner));
        quote_spanned! {span=>
            #(#cfgs)*
            impl #krate::Handler<#message> for #path {
                type Answer = #answer;

                #by_value
            }

            #(#cfgs)*
            impl #krate::ViewHandler<#message> for #path {
                #view
            }
        }
    }

    /// What a message from within the node does.
    fn by_value(&self, owner: &Owner) -> TokenStream {
        let span = at(self.method.ident.span());
        let krate = owner.krate(self.method.ident.span());
        let (message, answer) = (self.message_type(owner), self.answer.to_type(owner));
        let turn = |receiver, name, called| {
            quote_spanned! {span=>
                #[inline]
                fn #name(
                    #receiver,
                    message: #message,
                    cx: &mut #krate::Cx<'_, Self>,
                ) -> #answer {
                    #krate::look(&message, |message| {
                        <Self as #krate::ViewHandler<#message>>::#called(self, message, cx)
                    })
                }
            }
        };
        let handle = turn(
            quote_spanned!(span=> &mut self),
            quote_spanned!(span=> handle),
            quote_spanned!(span=> handle_view),
        );
        if !self.form.is_read() {
            return handle;
        }
        let read = turn(
            quote_spanned!(span=> &self),
            quote_spanned!(span=> read),
            quote_spanned!(span=> read_view),
        );
        quote_spanned!(span=> const READ: bool = true; #handle #read)
    }

    /// What a message does that is in its archive.
    fn view(&self, owner: &Owner) -> TokenStream {
        let span = at(self.method.ident.span());
        let krate = owner.krate(self.method.ident.span());
        let message = self.message_type(owner);
        let (attrs, cx, body) = (self.attrs(), self.outer_cx(), self.body(owner));
        let turn = |receiver, name, cx, body| {
            quote_spanned! {span=>
                #attrs
                fn #name(
                    #receiver,
                    message: &#krate::Archived<#message>,
                    #cx: &mut #krate::Cx<'_, Self>,
                ) -> <Self as #krate::Handler<#message>>::Answer {
                    #body
                }
            }
        };
        let (own, shared) = (quote_spanned!(span=> &mut self), quote_spanned!(span=> &self));
        let (handle, read) = (quote_spanned!(span=> handle_view), quote_spanned!(span=> read_view));
        if !self.form.is_read() {
            return turn(own, handle, cx, body);
        }
        let reads = quote_spanned! {span=>
            <Self as #krate::ViewHandler<#message>>::read_view(self, message, cx)
        };
        let handle = turn(own, handle, quote_spanned!(span=> cx), reads);
        let read = turn(shared, read, cx, body);
        quote_spanned!(span=> #handle #read)
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};
    use crate::handlers::expand;

    fn expand_in_book(methods: TokenStream) -> String {
        expand(quote!(), quote!(impl Book { #methods })).to_string()
    }

    #[test]
    fn archived_handler_is_given_a_view_of_each_argument() {
        let expanded = expand_in_book(quote! {
            #[local]
            #[wire]
            #[archived]
            fn place(&mut self, order: &Archived<Order>, limit: i64, cx: &mut Cx<Self>) -> u64 { 7 }
        });
        assert_lacks(&expanded, "compile_error");
        assert_lacks(&expanded, "archived]");
        assert_has(&expanded, quote!(order: Order));
        assert_has(&expanded, quote!(impl ::coreside::ViewHandler<BookPlace> for Book));
        assert_has(&expanded, quote!(message: &::coreside::Archived<BookPlace>));
        assert_has(
            &expanded,
            quote!(<Book>::place(self, &message.order, ::coreside::unarchived(&message.limit), cx)),
        );
        assert_has(&expanded, quote!(::coreside::look));
        assert_has(&expanded, quote!(fn place(self, order: Order, limit: i64)));
        assert_has(&expanded, quote!(table.wire_archived::<BookPlace>("place")));
    }

    #[test]
    fn archived_read_only_reads() {
        let expanded = expand_in_book(quote! {
            #[read]
            #[local]
            #[wire]
            #[archived]
            fn has(&self, order: &Archived<Order>) -> bool { true }
        });
        assert_has(
            &expanded,
            quote!(
                const READ: bool = true;
            ),
        );
        assert_has(
            &expanded,
            quote!(<Self as ::coreside::ViewHandler<BookHas>>::read_view(self, message, cx)),
        );
    }

    #[test]
    fn mistakes_are_explained() {
        for (method, expected) in [
            ("#[archived] fn go(&self, a: &Archived<A>) {}", "put `#[wire]`"),
            ("#[wire] fn go(&self, a: &Archived<A>) {}", "put `#[archived]`"),
            ("#[wire] #[archived] fn go(&self, a: A) {}", "nothing is looked at"),
            ("#[wire] #[archived] fn go(&self, a: &A) {}", "take `&Archived<T>`"),
            ("#[wire] #[archived] fn go(&self, a: &mut Archived<A>) {}", "read only"),
            ("#[wire] #[archived] fn go(&self, a: &'static Archived<A>) {}", "the lifetime"),
            ("#[wire] #[archived] async fn go(&self, a: &Archived<A>) {}", "by value"),
        ] {
            let method = method.parse().expect("tokens");
            assert_explains(&expand_in_book(method), expected);
        }
    }
}
