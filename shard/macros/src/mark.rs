//! The attributes that a method may carry: `#[command]`, `#[local]`, `#[sweep]`, `#[skip]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, LitStr, Meta, Token};

/// What the attribute of a method says about it.
pub(crate) enum Mark {
    /// Callers outside may name it by `TYPE.METHOD`, and by `bare`.
    Command { bare: Option<LitStr>, each: Each },
    /// No caller outside.
    Local,
    /// A pass over all live entities; one of `words` may follow the command.
    Sweep { bare: Option<LitStr>, words: Vec<LitStr> },
    /// Not a handler.
    Skip,
}

/// Whether a command takes one key or many; see `coreside::Each`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Each {
    One,
    Sum,
    Array,
    Pairs,
}

impl Each {
    /// The value as a path.
    pub(crate) fn to_path(self, krate: &TokenStream) -> TokenStream {
        match self {
            Self::One => quote!(#krate::Each::One),
            Self::Sum => quote!(#krate::Each::Sum),
            Self::Array => quote!(#krate::Each::Array),
            Self::Pairs => quote!(#krate::Each::Pairs),
        }
    }
}

impl Mark {
    /// Removes our attributes from `attrs`. A method without any is a command without a bare name.
    pub(crate) fn take(attrs: &mut Vec<Attribute>) -> Result<Self, Error> {
        let ours = take_ours(attrs);
        let Some((first, more)) = ours.split_first() else {
            return Ok(Self::Command { bare: None, each: Each::One });
        };
        if let Some(second) = more.first() {
            let message = format!(
                "`#[{}]` and `#[{}]` exclude each other: a method is one of command, local \
                 message, sweep, or skipped",
                name_of(first),
                name_of(second),
            );
            return Err(Error::new_spanned(second, message));
        }
        Self::parse(first)
    }

    fn parse(attr: &Attribute) -> Result<Self, Error> {
        match name_of(attr).as_str() {
            "command" => {
                let Meta::List(_) = attr.meta else {
                    return Err(Error::new_spanned(attr, COMMAND_ALONE));
                };
                let Arguments { bare, each } = attr.parse_args()?;
                if bare.is_none() && each.is_none() {
                    return Err(Error::new_spanned(attr, COMMAND_ALONE));
                }
                Ok(Self::Command { bare, each: each.unwrap_or(Each::One) })
            }
            "sweep" => {
                let (bare, words) = match attr.meta {
                    Meta::Path(_) => (None, Vec::new()),
                    _ => attr.parse_args_with(sweep_arguments)?,
                };
                Ok(Self::Sweep { bare, words })
            }
            "local" => plain(attr).map(|()| Self::Local),
            _ => plain(attr).map(|()| Self::Skip),
        }
    }
}

/// Removes our attributes from something that cannot be a handler, and complains of the first.
pub(crate) fn refuse(attrs: &mut Vec<Attribute>) -> Result<(), Error> {
    match take_ours(attrs).first() {
        None => Ok(()),
        Some(attr) => {
            let name = name_of(attr);
            let message = format!("`#[{name}]` stands on methods: this has no `self`");
            Err(Error::new_spanned(attr, message))
        }
    }
}

const COMMAND_ALONE: &str = "every method is a command already: say its bare name as in \
                             `#[command(\"GET\")]`, or remove the attribute";
const COMMAND_SYNTAX: &str = "expected a bare name such as `\"GET\"`, or `each = ..` with one of \
                              `one`, `sum`, `array`, `pairs`";
const SWEEP_SYNTAX: &str = "expected a bare name, as in `#[sweep(\"DBSIZE\")]`";
const SWEEP_WORDS: &str = "expected `words(\"..\", ..)`: words that may follow the command";

fn take_ours(attrs: &mut Vec<Attribute>) -> Vec<Attribute> {
    attrs.extract_if(.., |attr| is_ours(attr)).collect()
}

fn is_ours(attr: &Attribute) -> bool {
    ["command", "local", "sweep", "skip"].iter().any(|name| attr.path().is_ident(name))
}

fn name_of(attr: &Attribute) -> String {
    attr.path().to_token_stream().to_string()
}

fn plain(attr: &Attribute) -> Result<(), Error> {
    match attr.meta {
        Meta::Path(_) => Ok(()),
        _ => {
            let message = format!("`#[{}]` takes no options", name_of(attr));
            Err(Error::new_spanned(attr, message))
        }
    }
}

/// What stands between the parentheses of `#[command(..)]`.
struct Arguments {
    bare: Option<LitStr>,
    each: Option<Each>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let mut arguments = Self { bare: None, each: None };
        while !input.is_empty() {
            let start = input.span();
            let twice = if input.peek(LitStr) {
                arguments.bare.replace(bare_name(input)?).is_some()
            } else {
                let option: Ident = input.parse().map_err(|_| Error::new(start, COMMAND_SYNTAX))?;
                if option != "each" {
                    return Err(Error::new(start, COMMAND_SYNTAX));
                }
                input.parse::<Token![=]>().map_err(|_| Error::new(start, COMMAND_SYNTAX))?;
                arguments.each.replace(each(input)?).is_some()
            };
            if twice {
                return Err(Error::new(start, "given twice"));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

fn each(input: ParseStream<'_>) -> Result<Each, Error> {
    let span = input.span();
    let word: Option<Ident> = input.parse().ok();
    match word.map(|word| word.to_string()).as_deref() {
        Some("one") => Ok(Each::One),
        Some("sum") => Ok(Each::Sum),
        Some("array") => Ok(Each::Array),
        Some("pairs") => Ok(Each::Pairs),
        _ => Err(Error::new(span, "`each` is one of `one`, `sum`, `array`, `pairs`")),
    }
}

/// `"FLUSHALL"`, and perhaps `, words("ASYNC", "SYNC")`.
fn sweep_arguments(input: ParseStream<'_>) -> Result<(Option<LitStr>, Vec<LitStr>), Error> {
    let bare = bare_name(input)?;
    if input.is_empty() {
        return Ok((Some(bare), Vec::new()));
    }
    input.parse::<Token![,]>()?;
    let option: Ident = input.parse().map_err(|_| input.error(SWEEP_WORDS))?;
    if option != "words" {
        return Err(Error::new_spanned(option, SWEEP_WORDS));
    }
    let list;
    syn::parenthesized!(list in input);
    let words = list.parse_terminated(bare_name, Token![,])?;
    Ok((Some(bare), words.into_iter().collect()))
}

fn bare_name(input: ParseStream<'_>) -> Result<LitStr, Error> {
    let span = input.span();
    let name: LitStr = input.parse().map_err(|_| Error::new(span, SWEEP_SYNTAX))?;
    let text = name.value();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "a bare name is one word of printable ASCII, such as `\"GET\"`";
        return Err(Error::new_spanned(name, message));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn mark(attrs: Vec<Attribute>) -> Result<Mark, String> {
        let mut attrs = attrs;
        Mark::take(&mut attrs).map_err(|error| error.to_string())
    }

    fn complaint(attrs: Vec<Attribute>) -> String {
        match mark(attrs) {
            Ok(_) => String::new(),
            Err(complaint) => complaint,
        }
    }

    #[test]
    fn command_has_a_bare_name_and_a_fan_in_any_order() {
        let marks = [
            mark(vec![parse_quote!(#[command("DEL", each = sum)])]),
            mark(vec![parse_quote!(#[command(each = sum, "DEL",)])]),
        ];
        for mark in marks {
            let Ok(Mark::Command { bare: Some(bare), each }) = mark else {
                panic!("not a command with a bare name")
            };
            assert_eq!((bare.value().as_str(), each), ("DEL", Each::Sum));
        }
    }

    #[test]
    fn only_our_attributes_are_taken() {
        let mut attrs: Vec<Attribute> =
            vec![parse_quote!(#[inline]), parse_quote!(#[local]), parse_quote!(#[cfg(test)])];
        assert!(matches!(Mark::take(&mut attrs), Ok(Mark::Local)));
        assert_eq!(attrs.len(), 2);
    }

    #[test]
    fn wrong_attributes_are_explained() {
        let cases: [(Vec<Attribute>, &str); 10] = [
            (vec![parse_quote!(#[command])], "remove the attribute"),
            (vec![parse_quote!(#[command()])], "remove the attribute"),
            (vec![parse_quote!(#[command(name = "GET")])], "expected a bare name"),
            (vec![parse_quote!(#[command("GET", each = some)])], "`each` is one of"),
            (vec![parse_quote!(#[command("GET", "SET")])], "given twice"),
            (vec![parse_quote!(#[command("GET IT")])], "one word"),
            (vec![parse_quote!(#[sweep(7)])], "DBSIZE"),
            (vec![parse_quote!(#[local("GET")])], "`#[local]` takes no options"),
            (vec![parse_quote!(#[skip(all)])], "`#[skip]` takes no options"),
            (vec![parse_quote!(#[local]), parse_quote!(#[sweep])], "exclude each other"),
        ];
        for (attrs, expected) in cases {
            let complaint = complaint(attrs);
            assert!(complaint.contains(expected), "{complaint:?} lacks {expected:?}");
        }
    }
}
