//! The attributes that a method may carry: what it is (`#[command]`, `#[local]`, `#[sweep]`,
//! `#[skip]`), and how it handles its message (`#[read]`, `#[interleave]`, `#[fallible]`,
//! `#[retry]`, `#[on]`, `#[wire]`, `#[archived]`).

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, LitInt, LitStr, Meta, Token};

use crate::wire::{Added, Marked};

/// What the attributes of a method say it is.
pub(crate) enum Mark {
    /// The handler of a message.
    Handler(Box<Marks>),
    /// A pass over all live entities; one of `words` may follow the command.
    Sweep { bare: Option<LitStr>, words: Vec<LitStr> },
    /// Not a handler.
    Skip,
}

/// What the attributes of a handler say about its message and its turn. An attribute is kept where
/// a mistake may have to point at it.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) reach: Reach,
    pub(crate) read: Option<Attribute>,
    pub(crate) interleave: Option<Attribute>,
    pub(crate) fallible: Option<Attribute>,
    /// How often a message is tried that faults; `None` for once.
    pub(crate) tries: Option<u32>,
    pub(crate) on: bool,
    /// Clients may send it as an archive.
    pub(crate) wire: Option<Marked>,
    /// It looks at its message in the archive.
    pub(crate) archived: Option<Attribute>,
}

/// What may send the message besides Rust code.
pub(crate) enum Reach {
    /// Callers outside, as `TYPE.METHOD` and by the bare name.
    Outside { bare: Option<LitStr>, each: Each },
    /// Nobody.
    Local,
}

impl Default for Reach {
    fn default() -> Self {
        Self::Outside { bare: None, each: Each::One }
    }
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
        check_pairs(&ours)?;
        let mut marks = Marks::default();
        for attr in ours {
            match name_of(&attr).as_str() {
                "sweep" => return Self::sweep(&attr),
                "skip" => return plain(&attr).map(|()| Self::Skip),
                _ => marks.add(attr)?,
            }
        }
        Ok(Self::Handler(Box::new(marks)))
    }

    fn sweep(attr: &Attribute) -> Result<Self, Error> {
        let (bare, words) = match attr.meta {
            Meta::Path(_) => (None, Vec::new()),
            _ => attr.parse_args_with(sweep_arguments)?,
        };
        Ok(Self::Sweep { bare, words })
    }
}

impl Marks {
    fn add(&mut self, attr: Attribute) -> Result<(), Error> {
        match name_of(&attr).as_str() {
            "command" => self.reach = command(&attr)?,
            "retry" => self.tries = Some(tries(&attr)?),
            "wire" => self.wire = Some(Marked::parse(&attr)?),
            other => {
                plain(&attr)?;
                match other {
                    "local" => self.reach = Reach::Local,
                    "read" => self.read = Some(attr),
                    "interleave" => self.interleave = Some(attr),
                    "fallible" => self.fallible = Some(attr),
                    "archived" => self.archived = Some(attr),
                    _ => (self.on, self.reach) = (true, Reach::Local),
                }
            }
        }
        Ok(())
    }
}

impl Marks {
    /// Adds what the arguments say about the versions that they are in.
    pub(crate) fn add_since(&mut self, added: Vec<(Ident, Added)>) -> Result<(), Error> {
        match (&mut self.wire, added.first()) {
            (Some(wire), _) => wire.add(added),
            (None, None) => Ok(()),
            (None, Some((argument, _))) => {
                let message = "only what travels has versions: put `#[wire(version = 2)]` on the \
                               method";
                Err(Error::new_spanned(argument, message))
            }
        }
    }
}

/// Whether a function without `self` is meant to be a handler.
pub(crate) fn is_interleaved(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident("interleave"))
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

/// What a method may be: one of these.
const KINDS: &[&str] = &["command", "local", "sweep", "skip"];
/// How it handles its message: several of these.
const MANNERS: &[&str] = &["read", "interleave", "fallible", "retry", "on", "wire", "archived"];

const COMMAND_ALONE: &str = "every method is a command already: say its bare name as in \
                             `#[command(\"GET\")]`, or remove the attribute";
const COMMAND_SYNTAX: &str = "expected a bare name such as `\"GET\"`, or `each = ..` with one of \
                              `one`, `sum`, `array`, `pairs`";
const SWEEP_SYNTAX: &str = "expected a bare name, as in `#[sweep(\"DBSIZE\")]`";
const SWEEP_WORDS: &str = "expected `words(\"..\", ..)`: words that may follow the command";
const RETRY_SYNTAX: &str = "expected how often the message is tried in all, from 2 to 100, as in \
                            `#[retry(5)]`; `#[retry]` is three times";

/// No attribute stands twice, and none beside one that makes no sense with it.
fn check_pairs(attrs: &[Attribute]) -> Result<(), Error> {
    for (at, second) in attrs.iter().enumerate() {
        for first in &attrs[..at] {
            if let Some(message) = contradiction(&name_of(first), &name_of(second)) {
                return Err(Error::new_spanned(second, message));
            }
        }
    }
    Ok(())
}

/// Why two attributes cannot stand on one method, in either order.
fn contradiction(first: &str, second: &str) -> Option<String> {
    if first == second {
        return Some(format!("`#[{first}]` is given twice"));
    }
    if KINDS.contains(&first) && KINDS.contains(&second) {
        return Some(format!(
            "`#[{first}]` and `#[{second}]` exclude each other: a method is one of command, local \
             message, sweep, or skipped"
        ));
    }
    let mut pair = [first, second];
    pair.sort_unstable();
    let reason = match pair {
        [manner, "sweep"] if MANNERS.contains(&manner) => {
            "a sweep visits entities and handles no message"
        }
        [manner, "skip"] if MANNERS.contains(&manner) => "a skipped method handles no message",
        ["command", "on"] => {
            "callers outside only name messages that are made of a method's arguments, and `#[on]` \
             takes a message that exists already"
        }
        ["on", "wire"] => {
            "a message that exists already travels by the name of a method that makes it"
        }
        ["archived", "on"] => "a message that exists already is no archive",
        ["archived", "interleave"] => {
            "an interleaved turn goes on when the archive is gone: take the message by value"
        }
        ["local", "on"] => "a message that exists already has no name outside: remove `#[local]`",
        ["on", "retry"] => {
            "how often a message is tried is said where its type is written: `Message::TRIES`"
        }
        ["interleave", "read"] => {
            "an interleaved turn holds up nobody while it waits, and reaches the state by \
             `cx.with(..)` alone"
        }
        _ => return None,
    };
    Some(format!("`#[{first}]` and `#[{second}]` exclude each other: {reason}"))
}

fn take_ours(attrs: &mut Vec<Attribute>) -> Vec<Attribute> {
    attrs.extract_if(.., |attr| is_ours(attr)).collect()
}

fn is_ours(attr: &Attribute) -> bool {
    KINDS.iter().chain(MANNERS).any(|name| attr.path().is_ident(name))
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

fn command(attr: &Attribute) -> Result<Reach, Error> {
    let Meta::List(_) = attr.meta else {
        return Err(Error::new_spanned(attr, COMMAND_ALONE));
    };
    let Arguments { bare, each } = attr.parse_args()?;
    if bare.is_none() && each.is_none() {
        return Err(Error::new_spanned(attr, COMMAND_ALONE));
    }
    Ok(Reach::Outside { bare, each: each.unwrap_or(Each::One) })
}

fn tries(attr: &Attribute) -> Result<u32, Error> {
    if let Meta::Path(_) = attr.meta {
        return Ok(3);
    }
    let tries: LitInt = attr.parse_args().map_err(|_| Error::new_spanned(attr, RETRY_SYNTAX))?;
    match tries.base10_parse() {
        Ok(count @ 2..=100) => Ok(count),
        _ => Err(Error::new_spanned(tries, RETRY_SYNTAX)),
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

    fn marks(attrs: Vec<Attribute>) -> Marks {
        match mark(attrs) {
            Ok(Mark::Handler(marks)) => *marks,
            Ok(_) => panic!("not a handler"),
            Err(complaint) => panic!("{complaint}"),
        }
    }

    fn complaint(attrs: Vec<Attribute>) -> String {
        match mark(attrs) {
            Ok(_) => String::new(),
            Err(complaint) => complaint,
        }
    }

    #[test]
    fn command_has_a_bare_name_and_a_fan_in_any_order() {
        for attr in [
            parse_quote!(#[command("DEL", each = sum)]),
            parse_quote!(#[command(each = sum, "DEL",)]),
        ] {
            let Reach::Outside { bare: Some(bare), each } = marks(vec![attr]).reach else {
                panic!("not a command with a bare name")
            };
            assert_eq!((bare.value().as_str(), each), ("DEL", Each::Sum));
        }
    }

    #[test]
    fn only_our_attributes_are_taken() {
        let mut attrs: Vec<Attribute> =
            vec![parse_quote!(#[inline]), parse_quote!(#[local]), parse_quote!(#[cfg(test)])];
        let Ok(Mark::Handler(marks)) = Mark::take(&mut attrs) else { panic!("not a handler") };
        assert!(matches!(marks.reach, Reach::Local));
        assert_eq!(attrs.len(), 2);
    }

    #[test]
    fn manners_combine_with_a_kind_and_with_each_other() {
        let marks = marks(vec![
            parse_quote!(#[fallible]),
            parse_quote!(#[command("GET")]),
            parse_quote!(#[retry(7)]),
            parse_quote!(#[read]),
        ]);
        assert!(marks.fallible.is_some() && marks.read.is_some() && marks.interleave.is_none());
        assert!(matches!(marks.reach, Reach::Outside { bare: Some(_), .. }));
        assert_eq!((marks.tries, marks.on), (Some(7), false));
    }

    #[test]
    fn message_that_exists_already_is_local() {
        let marks = marks(vec![parse_quote!(#[on])]);
        assert!(marks.on && matches!(marks.reach, Reach::Local));
    }

    #[test]
    fn retry_alone_is_three_tries() {
        assert_eq!(marks(vec![parse_quote!(#[retry])]).tries, Some(3));
        assert_eq!(marks(vec![]).tries, None);
    }

    #[test]
    fn wrong_attributes_are_explained() {
        let cases: [(Vec<Attribute>, &str); 16] = [
            (vec![parse_quote!(#[command])], "remove the attribute"),
            (vec![parse_quote!(#[command()])], "remove the attribute"),
            (vec![parse_quote!(#[command(name = "GET")])], "expected a bare name"),
            (vec![parse_quote!(#[command("GET", each = some)])], "`each` is one of"),
            (vec![parse_quote!(#[command("GET", "SET")])], "given twice"),
            (vec![parse_quote!(#[command("GET IT")])], "one word"),
            (vec![parse_quote!(#[sweep(7)])], "DBSIZE"),
            (vec![parse_quote!(#[local("GET")])], "`#[local]` takes no options"),
            (vec![parse_quote!(#[skip(all)])], "`#[skip]` takes no options"),
            (vec![parse_quote!(#[read(all)])], "`#[read]` takes no options"),
            (vec![parse_quote!(#[on(Fault)])], "`#[on]` takes no options"),
            (vec![parse_quote!(#[retry(1)])], "from 2 to 100"),
            (vec![parse_quote!(#[retry(101)])], "from 2 to 100"),
            (vec![parse_quote!(#[retry("often")])], "from 2 to 100"),
            (vec![parse_quote!(#[retry()])], "from 2 to 100"),
            (vec![parse_quote!(#[retry = 3])], "from 2 to 100"),
        ];
        for (attrs, expected) in cases {
            let complaint = complaint(attrs);
            assert!(complaint.contains(expected), "{complaint:?} lacks {expected:?}");
        }
    }

    #[test]
    fn senseless_pairs_are_explained_in_either_order() {
        let cases: [(Attribute, Attribute, &str); 11] = [
            (parse_quote!(#[local]), parse_quote!(#[sweep]), "is one of command"),
            (parse_quote!(#[read]), parse_quote!(#[read]), "given twice"),
            (parse_quote!(#[retry]), parse_quote!(#[sweep]), "visits entities"),
            (parse_quote!(#[on]), parse_quote!(#[sweep]), "visits entities"),
            (parse_quote!(#[fallible]), parse_quote!(#[skip]), "a skipped method"),
            (parse_quote!(#[on]), parse_quote!(#[command("GET")]), "exists already"),
            (parse_quote!(#[on]), parse_quote!(#[local]), "remove `#[local]`"),
            (parse_quote!(#[on]), parse_quote!(#[retry]), "`Message::TRIES`"),
            (parse_quote!(#[read]), parse_quote!(#[interleave]), "holds up nobody"),
            (parse_quote!(#[archived]), parse_quote!(#[interleave]), "by value"),
            (parse_quote!(#[archived]), parse_quote!(#[on]), "is no archive"),
        ];
        for (one, other, expected) in cases {
            for attrs in [vec![one.clone(), other.clone()], vec![other.clone(), one.clone()]] {
                let complaint = complaint(attrs);
                assert!(complaint.contains(expected), "{complaint:?} lacks {expected:?}");
            }
        }
    }
}
