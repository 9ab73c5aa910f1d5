//! The turn: `impl Handler`, which calls the method.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, Signature};

use super::Handler;
use crate::errors::at;
use crate::mark::Marks;
use crate::owner::Owner;
use crate::parameter::{self, Argument, Carried, Context, Parameter};

/// How the method uses the entity, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `fn(&mut self)`: alone, until it returns.
    Plain,
    /// `#[read] fn(&self)`: until it returns.
    Read,
    /// `async fn(&mut self)`: alone, also while it waits.
    Async,
    /// `#[read] async fn(&self)`: with other reads, also while it waits.
    AsyncRead,
    /// `#[interleave] async fn(cx)`: not while it waits.
    Interleaved,
}

impl Form {
    pub(super) fn parse(signature: &Signature, marks: &Marks) -> Result<Self, Error> {
        let form = Self::of_signature(signature, marks)?;
        let message = match form {
            Self::AsyncRead => {
                "an async read is not alone with the entity and cannot fail it: let the reply be \
                 the `Result`, or remove `#[read]`"
            }
            Self::Interleaved => {
                "an interleaved turn is not alone with the entity and cannot fail it: let the \
                 reply be the `Result`, or take `&mut self` in place of `#[interleave]`"
            }
            _ => return Ok(form),
        };
        match &marks.fallible {
            Some(fallible) => Err(Error::new_spanned(fallible, message)),
            None => Ok(form),
        }
    }

    fn of_signature(signature: &Signature, marks: &Marks) -> Result<Self, Error> {
        let receiver = parameter::receiver(signature);
        let of_async = signature.asyncness.is_some();
        if let Some(interleave) = &marks.interleave {
            if let Some(receiver) = receiver {
                let message = "an interleaved turn does not hold the entity while it waits: \
                               remove `self`, and reach the state by `cx.with(..)`";
                return Err(Error::new_spanned(receiver, message));
            }
            if !of_async {
                let message =
                    "an interleaved turn waits: write `async fn`, or remove the attribute";
                return Err(Error::new_spanned(interleave, message));
            }
            return Ok(Self::Interleaved);
        }
        let changes = match receiver {
            Some(receiver) => parameter::check_receiver(receiver)?,
            None => false,
        };
        match &marks.read {
            None if of_async => Ok(Self::Async),
            None => Ok(Self::Plain),
            Some(_) if changes => {
                let message = "reads share the entity: take `&self`, or remove `#[read]`";
                Err(Error::new_spanned(receiver, message))
            }
            Some(_) if of_async => Ok(Self::AsyncRead),
            Some(_) => Ok(Self::Read),
        }
    }

    pub(super) fn is_async(self) -> bool {
        matches!(self, Self::Async | Self::AsyncRead | Self::Interleaved)
    }

    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::AsyncRead)
    }

    /// The context that the method may take.
    pub(super) fn context(self) -> Context {
        match self {
            Self::Plain | Self::Read => Context::Turn,
            Self::Async | Self::AsyncRead => Context::AsyncTurn,
            Self::Interleaved => Context::Interleaved,
        }
    }
}

impl Handler {
    /// `impl Handler`.
    pub(super) fn turn(&self, owner: &Owner) -> TokenStream {
        let cfgs = &self.method.cfgs;
        let (span, krate) = (at(self.span()), owner.krate(self.span()));
        let path = &owner.path;
        let message = self.message_type(owner);
        let answer = self.answer.to_type(owner);
        let turn = if self.form.is_read() { self.read(owner) } else { self.handle(owner) };
        quote_spanned! {span=>
            #(#cfgs)*
            impl #krate::Handler<#message> for #path {
                type Answer = #answer;

                #turn
            }
        }
    }

    fn handle(&self, owner: &Owner) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let (attrs, message, cx) = (self.attrs(), self.message_parameter(owner), self.outer_cx());
        // Not `Self::Answer`, which may be a variant.
        let (body, answer) = (self.body(owner), self.answer.to_type(owner));
        quote_spanned! {span=>
            #attrs
            fn handle(
                &mut self,
                #message,
                #cx: &mut #krate::Cx<'_, Self>,
            ) -> #answer {
                #body
            }
        }
    }

    /// `read`, and `handle`, which does the same.
    fn read(&self, owner: &Owner) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let (attrs, message, cx) = (self.attrs(), self.message_parameter(owner), self.outer_cx());
        let message_type = self.message_type(owner);
        let (body, answer) = (self.body(owner), self.answer.to_type(owner));
        quote_spanned! {span=>
            const READ: bool = true;

            #[inline]
            fn handle(
                &mut self,
                message: #message_type,
                cx: &mut #krate::Cx<'_, Self>,
            ) -> #answer {
                <Self as #krate::Handler<#message_type>>::read(self, message, cx)
            }

            #attrs
            fn read(
                &self,
                #message,
                #cx: &mut #krate::Cx<'_, Self>,
            ) -> #answer {
                #body
            }
        }
    }

    /// What stands above the function that calls the method.
    pub(super) fn attrs(&self) -> TokenStream {
        let span = at(self.method.ident.span());
        let allow = self.method.deprecated.as_ref().map(
            |_| quote!(#[allow(deprecated, reason = "deprecated for senders, still handled")]),
        );
        quote_spanned!(span=> #allow #[inline])
    }

    fn message_parameter(&self, owner: &Owner) -> TokenStream {
        let span = at(self.method.ident.span());
        let message = self.message_type(owner);
        match self.arguments().next() {
            Some(_) => quote_spanned!(span=> message: #message),
            None => quote_spanned!(span=> _message: #message),
        }
    }

    /// The name of the shard's context in the generated function, which may not need it.
    pub(super) fn outer_cx(&self) -> TokenStream {
        let span = at(self.method.ident.span());
        if self.takes_cx() || self.form.is_async() || self.answer.is_fallible() {
            quote_spanned!(span=> cx)
        } else {
            quote_spanned!(span=> _cx)
        }
    }

    /// Calls the method, at once or in an async turn.
    pub(super) fn body(&self, owner: &Owner) -> TokenStream {
        let ident = &self.method.ident;
        let (span, krate) = (at(ident.span()), owner.krate(ident.span()));
        let path = &owner.path;
        let passed: Vec<_> = self.passed(&krate).collect();
        let inner_cx =
            if self.takes_cx() { quote_spanned!(span=> cx) } else { quote_spanned!(span=> _cx) };
        let lent_cx = quote_spanned!(span=> #inner_cx: &mut #krate::AsyncCx<Self>);
        let fallible = self.answer.is_fallible();
        match self.form {
            Form::Plain | Form::Read => {
                let called = quote_spanned!(span=> <#path>::#ident(self, #(#passed),*));
                if fallible { self.fail_on_error(owner, &called) } else { called }
            }
            Form::Async => {
                let run = if fallible {
                    quote_spanned!(at(self.answer.span)=> run_fallible)
                } else {
                    quote_spanned!(span=> run)
                };
                quote_spanned! {span=>
                    cx.#run(async move |this: &mut Self, #lent_cx| {
                        <#path>::#ident(this, #(#passed),*).await
                    })
                }
            }
            Form::AsyncRead => quote_spanned! {span=>
                cx.run_read(async move |this: &Self, #lent_cx| {
                    <#path>::#ident(this, #(#passed),*).await
                })
            },
            Form::Interleaved => quote_spanned! {span=>
                cx.interleave(async move |#inner_cx: #krate::AsyncCx<Self>| {
                    <#path>::#ident(#(#passed),*).await
                })
            },
        }
    }

    /// Turns the `Err` of a plain handler into a fault of its turn.
    fn fail_on_error(&self, owner: &Owner, called: &TokenStream) -> TokenStream {
        let (span, krate) = (at(self.answer.span), owner.krate(self.answer.span));
        quote_spanned! {span=>
            match #called {
                ::core::result::Result::Ok(reply) => #krate::Fallible::Reply(reply),
                ::core::result::Result::Err(error) => {
                    cx.fail(error);
                    #krate::Fallible::Failed
                }
            }
        }
    }

    /// The arguments of the call, in the method's order.
    fn passed(&self, krate: &TokenStream) -> impl Iterator<Item = TokenStream> {
        let span = at(self.method.ident.span());
        self.parameters.iter().map(move |parameter| match (parameter, self.carried) {
            (Parameter::Cx(_), _) => quote_spanned!(span=> cx),
            (Parameter::Argument(_), Carried::Message) => quote_spanned!(span=> message),
            (Parameter::Argument(Argument { ident, viewed, .. }), Carried::Field) => {
                match (self.archived, viewed) {
                    (true, true) => quote_spanned!(span=> &message.#ident),
                    (true, false) => quote_spanned!(span=> #krate::unarchived(&message.#ident)),
                    (false, _) => quote_spanned!(span=> message.#ident),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};
    use crate::handlers::expand;

    fn expand_in_account(methods: TokenStream) -> String {
        expand(quote!(), quote!(impl Account { #methods })).to_string()
    }

    fn expanded(methods: TokenStream) -> String {
        let expanded = expand_in_account(methods);
        assert_lacks(&expanded, "compile_error");
        expanded
    }

    #[test]
    fn async_handler_runs_an_exclusive_turn() {
        let expanded = expanded(quote! {
            async fn send(&mut self, to: u64, cx: &mut AsyncCx<Self>, amount: i64) -> bool { true }
        });
        assert_has(
            &expanded,
            quote!(
                type Reply = bool;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                type Answer = ::coreside::Later<bool>;
            ),
        );
        assert_has(
            &expanded,
            quote!(cx.run(async move |this: &mut Self, cx: &mut ::coreside::AsyncCx<Self>| {
                <Account>::send(this, message.to, cx, message.amount).await
            })),
        );
        assert_lacks(&expanded, "READ");
    }

    #[test]
    fn async_handler_needs_no_context() {
        let expanded = expanded(quote!(
            async fn go(&self) {}
        ));
        assert_has(
            &expanded,
            quote!(
                type Answer = ::coreside::Later<()>;
            ),
        );
        assert_has(&expanded, quote!(_cx: &mut ::coreside::AsyncCx<Self>));
        assert_has(&expanded, quote!(&mut self, _message: AccountGo));
        assert_has(&expanded, quote!(<Account>::go(this,).await));
    }

    #[test]
    fn interleaved_handler_has_no_state() {
        let expanded = expanded(quote! {
            #[interleave]
            #[local]
            async fn fetch(url: String, cx: AsyncCx<Self>) -> Vec<u8> { body }
        });
        assert_has(
            &expanded,
            quote!(cx.interleave(async move |cx: ::coreside::AsyncCx<Self>| {
                <Account>::fetch(message.url, cx).await
            })),
        );
        assert_has(&expanded, quote!(table.message::<AccountFetch>("fetch")));
        assert_lacks(&expanded, "interleave]");
    }

    #[test]
    fn function_without_self_and_mark_is_left_alone() {
        let expanded = expanded(quote!(
            async fn load(key: u64, cx: AsyncCx<Self>) -> Self {
                it
            }
        ));
        assert_lacks(&expanded, "AccountLoad");
    }

    #[test]
    fn read_is_called_in_place_of_handle() {
        let expanded = expanded(quote! {
            #[read]
            #[command("GET")]
            fn balance(&self, unit: u8) -> i64 { 7 }
        });
        assert_has(
            &expanded,
            quote!(
                const READ: bool = true;
            ),
        );
        assert_has(
            &expanded,
            quote!(<Self as ::coreside::Handler<AccountBalance>>::read(self, message, cx)),
        );
        assert_has(&expanded, quote!(&self, message: AccountBalance, _cx: &mut ::coreside::Cx));
        assert_has(&expanded, quote!(<Account>::balance(self, message.unit)));
        assert_has(&expanded, quote!(bare: ::core::option::Option::Some("GET")));
    }

    #[test]
    fn async_read_runs_beside_other_reads() {
        let expanded = expanded(quote! {
            #[read]
            async fn report(&self, cx: &mut AsyncCx<Self>) -> String { text }
        });
        assert_has(
            &expanded,
            quote!(
                const READ: bool = true;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                type Answer = ::coreside::Later<String>;
            ),
        );
        assert_has(
            &expanded,
            quote!(cx.run_read(async move |this: &Self, cx: &mut ::coreside::AsyncCx<Self>| {
                <Account>::report(this, cx).await
            })),
        );
    }

    #[test]
    fn error_of_a_fallible_handler_is_a_fault() {
        let expanded = expanded(quote! {
            #[fallible]
            fn withdraw(&mut self, amount: i64) -> Result<i64, &'static str> { Ok(amount) }
        });
        assert_has(
            &expanded,
            quote!(
                type Reply = i64;
            ),
        );
        assert_has(
            &expanded,
            quote!(
                type Answer = ::coreside::Fallible<i64>;
            ),
        );
        assert_has(&expanded, quote!(match <Account>::withdraw(self, message.amount)));
        assert_has(&expanded, quote!(Ok(reply) => ::coreside::Fallible::Reply(reply)));
        assert_has(&expanded, quote!(cx.fail(error);));
    }

    #[test]
    fn error_of_a_fallible_async_handler_is_a_fault() {
        let expanded = expanded(quote! {
            #[fallible]
            async fn save(&mut self) -> io::Result<()> { Ok(()) }
        });
        assert_has(
            &expanded,
            quote!(
                type Reply = ();
            ),
        );
        assert_has(
            &expanded,
            quote!(
                type Answer = ::coreside::Later<()>;
            ),
        );
        assert_has(&expanded, quote!(cx.run_fallible));
        assert_has(&expanded, quote!(<Account>::save(this,).await));
    }

    #[test]
    fn retried_message_can_be_copied() {
        let expanded = expanded(quote! {
            #[retry(5)]
            fn send(&mut self, to: u64, text: String) {}
            #[retry]
            fn flush(&mut self) {}
        });
        assert_has(
            &expanded,
            quote!(
                const TRIES: u32 = 5u32;
            ),
        );
        assert_has(&expanded, quote!(to: <u64 as ::core::clone::Clone>::clone(&self.to)));
        assert_has(&expanded, quote!(text: <String as ::core::clone::Clone>::clone(&self.text)));
        assert_has(
            &expanded,
            quote!(
                const TRIES: u32 = 3u32;
            ),
        );
        assert_has(&expanded, quote!(::core::option::Option::Some(Self {})));
    }

    #[test]
    fn message_that_exists_already_is_passed_on() {
        let expanded = expanded(quote! {
            #[on]
            pub fn child_failed(&mut self, Fault { count, .. }: Fault, cx: &mut Cx<Self>) {}
        });
        assert_has(&expanded, quote!(impl ::coreside::Handler<Fault> for Account));
        assert_has(&expanded, quote!(<Account>::child_failed(self, message, cx)));
        assert_has(
            &expanded,
            quote!(pub fn child_failed(self, message: Fault) -> V::Call<Account, Fault>),
        );
        assert_has(&expanded, quote!(::from(self).message(message)));
        assert_has(&expanded, quote!(table.message::<Fault>("child_failed")));
        assert_lacks(&expanded, "AccountChildFailed");
        assert_lacks(&expanded, "Reply");
    }

    #[test]
    fn two_messages_may_share_all_but_the_type() {
        let expanded = expanded(quote! {
            #[on]
            fn a_1(&mut self, one: One) {}
            #[on]
            fn a1(&mut self, two: Two) {}
        });
        assert_has(&expanded, quote!(table.message::<Two>("a1")));
    }

    #[test]
    fn mistakes_are_explained() {
        for (method, expected) in [
            ("fn go(&mut self, cx: &mut AsyncCx<Self>) {}", "write `async fn`"),
            ("async fn go(&mut self, cx: &mut Cx<Self>) {}", "take `cx: &mut AsyncCx<Self>`"),
            ("async fn go(&mut self, cx: AsyncCx<Self>) {}", "take `cx: &mut AsyncCx<Self>`"),
            ("async fn go(&mut self) -> Later<u8> { 7 }", "answers when it ends"),
            ("async fn go(&mut self) -> Option<Later<u8>> { None }", "answers when it ends"),
            ("#[interleave] async fn go(&self) {}", "remove `self`"),
            ("#[interleave] fn go(cx: AsyncCx<Self>) {}", "write `async fn`"),
            ("#[interleave] async fn go(cx: &mut AsyncCx<Self>) {}", "owns its context"),
            ("#[interleave] async fn go(cx: &mut Cx<Self>) {}", "owns its context"),
            ("#[interleave] #[fallible] async fn go() -> Result<(), u8> {}", "cannot fail it"),
            ("#[interleave] #[skip] async fn go() {}", "exclude each other"),
            ("#[read] fn go(&mut self) {}", "take `&self`"),
            ("#[read] async fn go(self: &mut Self) {}", "take `&self`"),
            ("#[read] #[fallible] async fn go(&self) -> Result<(), u8> {}", "cannot fail it"),
            ("#[fallible] fn go(&self) {}", "return `Result<R, X>`"),
            ("#[fallible] fn go(&self) -> Option<u8> { None }", "return `Result<R, X>`"),
            ("#[fallible] fn go(&self) -> Later<Result<u8, u8>> { it }", "to fail later"),
            ("#[fallible] fn go(&self) -> Result<u8, &str> { Ok(7) }", "fail with `String`"),
            ("#[fallible] fn go(&self) -> Result<&str, u8> { Ok(it) }", "return `String`"),
            ("#[on] fn go(&self) {}", "exactly one argument"),
            ("#[on] fn go(&self, a: A, b: B) {}", "exactly one argument"),
            ("#[on] fn go(&self, message: &Fault) {}", "take `Fault`"),
            ("#[sweep] async fn go(&self) {}", "remove `async`"),
            ("#[sweep] fn go(&self, cx: &AsyncCx<Self>) {}", "takes no `cx`"),
            ("#[read] fn go() {}", "no `self`"),
        ] {
            let method = method.parse().expect("tokens");
            assert_explains(&expand_in_account(method), expected);
        }
    }
}
