//! The options of `#[entity]` that become `Entity::LIFE`: what follows a fault, when an entity is
//! put away, and its bounds.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Path, Token};

use super::duration;
use crate::errors::{Errors, at};

/// The options as given; `None` keeps the default of `coreside`.
#[derive(Default)]
pub(super) struct Life {
    on_fault: Option<Given<Variant>>,
    /// The first delay before a restart, and the longest.
    backoff: Option<Given<(Duration, Duration)>>,
    jitter_percent: Option<Given<u8>>,
    /// How many faults, within which time.
    faults: Option<Given<(u32, Duration)>>,
    reset: Option<Given<Duration>>,
    children: Option<Given<Variant>>,
    idle: Option<Given<Duration>>,
    resident_max: Option<Given<Expr>>,
    stash_max: Option<Given<Expr>>,
    alive: Option<Given<()>>,
}

/// An option's value, and where its name stands.
struct Given<T> {
    name: Span,
    value: T,
}

/// A value of an enum of `coreside`.
type Variant = &'static str;

impl Life {
    /// The names of the options, for the error about an unknown one.
    pub(super) const NAMES: &str = "`on_fault`, `backoff`, `jitter`, `faults`, `reset`, \
                                    `children`, `idle`, `resident`, `stash`, `alive`";

    /// Takes the option if it is one of these; returns whether it was given before.
    pub(super) fn option(&mut self, meta: &ParseNestedMeta<'_>) -> Result<Option<bool>, Error> {
        let Some(option) = meta.path.get_ident() else { return Ok(None) };
        let twice = match option.to_string().as_str() {
            "on_fault" => give(&mut self.on_fault, meta, one_of(meta, ON_FAULT)?),
            "backoff" => give(&mut self.backoff, meta, backoff(meta)?),
            "jitter" => give(&mut self.jitter_percent, meta, percent(meta)?),
            "faults" => give(&mut self.faults, meta, faults(meta)?),
            "reset" => give(&mut self.reset, meta, time(meta)?),
            "children" => give(&mut self.children, meta, one_of(meta, CHILDREN)?),
            "idle" => give(&mut self.idle, meta, time(meta)?),
            "resident" => give(&mut self.resident_max, meta, resident(meta)?),
            "stash" => give(&mut self.stash_max, meta, meta.value()?.parse()?),
            "alive" => give(&mut self.alive, meta, flag(meta)?),
            _ => return Ok(None),
        };
        Ok(Some(twice))
    }

    /// Adds a mistake for each option that another one leaves without effect. `on_passivate` is
    /// where the option of that name stands.
    pub(super) fn check(&self, on_passivate: Option<Span>, errors: &mut Errors) {
        let ends = self.on_fault.as_ref().filter(|given| ENDS.contains(&given.value));
        if self.alive.is_some() {
            let put_away = [name_of(&self.idle), name_of(&self.resident_max), on_passivate];
            for name in put_away.into_iter().flatten() {
                errors.push(Error::new(name, NEVER_PUT_AWAY));
            }
            if let Some(given) = ends {
                errors.push(Error::new(given.name, ALWAYS_RESTARTED));
            }
        } else if ends.is_some() {
            let of_restarts = [
                name_of(&self.backoff),
                name_of(&self.jitter_percent),
                name_of(&self.faults),
                name_of(&self.reset),
            ];
            for name in of_restarts.into_iter().flatten() {
                errors.push(Error::new(name, NEVER_RESTARTED));
            }
        }
    }

    /// The constant, or nothing where no option is given.
    pub(super) fn expand(&self, krate: &Path) -> Option<TokenStream> {
        let variant = |of: &str, given: &Given<Variant>| {
            let [of, variant] = [of, given.value].map(|name| Ident::new(name, given.name));
            quote_spanned!(at(given.name)=> #krate::#of::#variant)
        };
        let fields: Vec<_> = [
            field(&self.on_fault, "on_fault", |given| variant("OnFault", given)),
            self.backoff_field(krate),
            field(&self.children, "children", |given| variant("Children", given)),
            field(&self.idle, "idle", |given| some(duration::to_tokens(given.value))),
            field(&self.resident_max, "resident_max", |given| some(&given.value)),
            field(&self.stash_max, "stash_max", |given| given.value.to_token_stream()),
            field(&self.alive, "keep_alive", |_| quote!(true)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if fields.is_empty() {
            return None;
        }
        Some(quote! {
            #[allow(clippy::needless_update, reason = "all fields of a part may be given")]
            const LIFE: #krate::Life = #krate::Life {
                #(#fields,)*
                ..#krate::Life::DEFAULT
            };
        })
    }

    /// `backoff: Backoff { .. }`, which several options fill.
    fn backoff_field(&self, krate: &Path) -> Option<TokenStream> {
        let fields: Vec<_> = [
            field(&self.backoff, "first", |given| duration::to_tokens(given.value.0)),
            field(&self.backoff, "most", |given| duration::to_tokens(given.value.1)),
            field(&self.jitter_percent, "jitter_percent", |given| given.value.to_token_stream()),
            field(&self.faults, "faults_max", |given| given.value.0.to_token_stream()),
            field(&self.faults, "within", |given| duration::to_tokens(given.value.1)),
            field(&self.reset, "reset", |given| duration::to_tokens(given.value)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if fields.is_empty() {
            return None;
        }
        Some(quote! {
            backoff: #krate::Backoff {
                #(#fields,)*
                ..#krate::Backoff::DEFAULT
            }
        })
    }
}

const ON_FAULT: &[(&str, Variant)] =
    &[("restart", "Restart"), ("resume", "Resume"), ("stop", "Stop"), ("escalate", "Escalate")];
/// What ends an entity by its first fault.
const ENDS: &[Variant] = &["Stop", "Escalate"];
const CHILDREN: &[(&str, Variant)] =
    &[("one_for_one", "OneForOne"), ("one_for_all", "OneForAll"), ("rest_for_one", "RestForOne")];

const NEVER_PUT_AWAY: &str = "an entity that is kept `alive` is never put away: remove one of the \
                              two options";
const ALWAYS_RESTARTED: &str = "an entity that is kept `alive` is restarted after every fault: \
                                remove `alive`, or choose `restart` or `resume`";
const NEVER_RESTARTED: &str = "an entity that ends by its fault is not restarted: remove this, or \
                               choose `on_fault = restart`";
const BACKOFF: &str = "expected the first delay before a restart and the longest, as in \
                       `backoff = \"10ms..10s\"`";
const FAULTS: &str = "expected a number of faults and the time they fall in, as in \
                      `faults = \"10 in 60s\"`";
const PERCENT: &str = "`jitter` is a share of the delay in percent, from 0 to 100";

/// Keeps the value; returns whether there was one.
fn give<T>(place: &mut Option<Given<T>>, meta: &ParseNestedMeta<'_>, value: T) -> bool {
    place.replace(Given { name: meta.path.span(), value }).is_some()
}

fn name_of<T>(given: &Option<Given<T>>) -> Option<Span> {
    given.as_ref().map(|given| given.name)
}

/// `name: value`, where the option was given.
fn field<T>(
    given: &Option<Given<T>>,
    name: &str,
    value: impl FnOnce(&Given<T>) -> TokenStream,
) -> Option<TokenStream> {
    let given = given.as_ref()?;
    let field = Ident::new(name, given.name);
    let value = value(given);
    Some(quote_spanned!(at(given.name)=> #field: #value))
}

fn some(value: impl ToTokens) -> TokenStream {
    quote!(::core::option::Option::Some(#value))
}

fn one_of(meta: &ParseNestedMeta<'_>, words: &[(&'static str, Variant)]) -> Result<Variant, Error> {
    let value = meta.value()?;
    let span = value.span();
    let word: Option<Ident> = value.parse().ok();
    let found = word.and_then(|word| words.iter().find(|(known, _)| word == known));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(known, _)| format!("`{known}`")).collect();
        let option = meta.path.to_token_stream();
        Error::new(span, format!("`{option}` is one of {}", known.join(", ")))
    })
}

/// The text of an option, which `example` shows.
fn text(meta: &ParseNestedMeta<'_>, example: &str) -> Result<LitStr, Error> {
    let value = meta.value()?;
    let span = value.span();
    value.parse().map_err(|_| Error::new(span, example))
}

fn time(meta: &ParseNestedMeta<'_>) -> Result<Duration, Error> {
    let text =
        text(meta, "expected a duration in quotes, as in `\"150us\"`, `\"10ms\"` or `\"2s\"`")?;
    duration::parse(&text.value()).map_err(|error| Error::new_spanned(text, error))
}

fn backoff(meta: &ParseNestedMeta<'_>) -> Result<(Duration, Duration), Error> {
    let text = text(meta, BACKOFF)?;
    let value = text.value();
    let fail = |error: String| Error::new_spanned(&text, error);
    let (first, most) = value.split_once("..").ok_or_else(|| fail(BACKOFF.to_owned()))?;
    let delays = (duration::parse(first).map_err(fail)?, duration::parse(most).map_err(fail)?);
    if delays.0 > delays.1 {
        let message =
            format!("the first delay, `{first}`, is longer than the longest, `{most}`: swap them");
        return Err(fail(message));
    }
    Ok(delays)
}

fn faults(meta: &ParseNestedMeta<'_>) -> Result<(u32, Duration), Error> {
    let text = text(meta, FAULTS)?;
    let value = text.value();
    let fail = |error: String| Error::new_spanned(&text, error);
    let (count, within) = value.split_once(" in ").ok_or_else(|| fail(FAULTS.to_owned()))?;
    let count = count.parse().map_err(|_| fail(FAULTS.to_owned()))?;
    let within = duration::parse(within).map_err(fail)?;
    if count == 0 {
        let message = "an entity that may not fail once is not restarted: write `on_fault = stop`";
        return Err(fail(message.to_owned()));
    }
    Ok((count, within))
}

fn percent(meta: &ParseNestedMeta<'_>) -> Result<u8, Error> {
    let value = meta.value()?;
    let span = value.span();
    let percent: LitInt = value.parse().map_err(|_| Error::new(span, PERCENT))?;
    match percent.base10_parse() {
        Ok(value @ 0..=100) => Ok(value),
        _ => Err(Error::new_spanned(percent, PERCENT)),
    }
}

fn resident(meta: &ParseNestedMeta<'_>) -> Result<Expr, Error> {
    let count: Expr = meta.value()?.parse()?;
    if let Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) = &count
        && number.base10_parse::<u64>().is_ok_and(|number| number == 0)
    {
        return Err(Error::new_spanned(count, "a shard holds at least one entity in memory"));
    }
    Ok(count)
}

fn flag(meta: &ParseNestedMeta<'_>) -> Result<(), Error> {
    if meta.input.peek(Token![=]) {
        return Err(meta.input.error("`alive` takes no value: write it, or leave it out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::expand;
    use crate::expanded::{assert_explains, assert_has, assert_lacks};

    fn expand_account(options: TokenStream) -> TokenStream {
        expand(
            options,
            quote!(
                struct Account;
            ),
        )
    }

    #[test]
    fn every_option_becomes_a_field() {
        let expanded = expand_account(quote! {
            on_fault = resume, backoff = "10ms..2s", jitter = 25, faults = "7 in 1m", reset = "90s",
            children = rest_for_one, idle = "1h", resident = RESIDENT_MAX / 2, stash = 16
        });
        assert_lacks(&expanded, "compile_error");
        let expected = quote! {
            const LIFE: ::coreside::Life = ::coreside::Life {
                on_fault: ::coreside::OnFault::Resume,
                backoff: ::coreside::Backoff {
                    first: ::core::time::Duration::from_millis(10u64),
                    most: ::core::time::Duration::from_secs(2u64),
                    jitter_percent: 25u8,
                    faults_max: 7u32,
                    within: ::core::time::Duration::from_secs(60u64),
                    reset: ::core::time::Duration::from_secs(90u64),
                    ..::coreside::Backoff::DEFAULT
                },
                children: ::coreside::Children::RestForOne,
                idle: ::core::option::Option::Some(::core::time::Duration::from_secs(3600u64)),
                resident_max: ::core::option::Option::Some(RESIDENT_MAX / 2),
                stash_max: 16,
                ..::coreside::Life::DEFAULT
            };
        };
        assert_has(&expanded, expected);
    }

    #[test]
    fn option_that_is_not_given_keeps_its_default() {
        let expanded = expand_account(quote!(alive, crate = core));
        let expected = quote!(
            const LIFE: core::Life = core::Life { keep_alive: true, ..core::Life::DEFAULT };
        );
        assert_has(&expanded, expected);
    }

    #[test]
    fn words_are_variants() {
        for (options, expected) in [
            (quote!(on_fault = restart), quote!(OnFault::Restart)),
            (quote!(on_fault = stop), quote!(OnFault::Stop)),
            (quote!(on_fault = escalate), quote!(OnFault::Escalate)),
            (quote!(children = one_for_one), quote!(Children::OneForOne)),
            (quote!(children = one_for_all), quote!(Children::OneForAll)),
        ] {
            assert_has(&expand_account(options), expected);
        }
    }

    #[test]
    fn wrong_values_are_explained() {
        for (options, expected) in [
            (quote!(on_fault = ignore), "`on_fault` is one of `restart`, `resume`,"),
            (quote!(on_fault = "stop"), "`on_fault` is one of"),
            (quote!(children = all), "`children` is one of `one_for_one`,"),
            (quote!(backoff = "10ms"), "the first delay before a restart and the longest"),
            (quote!(backoff = 10), "the first delay before a restart and the longest"),
            (quote!(backoff = "10..20s"), "`10` is no duration"),
            (quote!(backoff = "10s..10ms"), "`10s`, is longer than the longest, `10ms`"),
            (quote!(backoff = "0s..10ms"), "more than zero"),
            (quote!(jitter = 101), "from 0 to 100"),
            (quote!(jitter = "20%"), "from 0 to 100"),
            (quote!(faults = 10), "as in `faults = \\\"10 in 60s\\\"`"),
            (quote!(faults = "ten in 60s"), "expected a number of faults"),
            (quote!(faults = "0 in 60s"), "write `on_fault = stop`"),
            (quote!(faults = "3 in 60"), "`60` is no duration"),
            (quote!(reset = 30), "expected a duration in quotes"),
            (quote!(idle = "2 min"), "`2 min` is no duration"),
            (quote!(idle = "1h", idle = "2h"), "given twice"),
            (quote!(resident = 0), "at least one"),
            (quote!(alive = true), "takes no value"),
        ] {
            assert_explains(&expand_account(options), expected);
        }
    }

    #[test]
    fn contradictions_are_explained() {
        for (options, expected) in [
            (quote!(alive, idle = "120s"), NEVER_PUT_AWAY),
            (quote!(resident = 10, alive), NEVER_PUT_AWAY),
            (quote!(alive, on_passivate = Self::save), NEVER_PUT_AWAY),
            (quote!(alive, on_fault = stop), ALWAYS_RESTARTED),
            (quote!(alive, on_fault = escalate), ALWAYS_RESTARTED),
            (quote!(on_fault = stop, backoff = "1s..2s"), NEVER_RESTARTED),
            (quote!(on_fault = escalate, jitter = 5), NEVER_RESTARTED),
            (quote!(faults = "10 in 60s", on_fault = stop), NEVER_RESTARTED),
            (quote!(reset = "30s", on_fault = stop), NEVER_RESTARTED),
        ] {
            assert_explains(&expand_account(options), expected);
        }
    }

    #[test]
    fn every_mistake_is_reported_and_the_rest_is_kept() {
        let expanded = expand_account(quote!(idle = "soon", jitter = 200, reset = "5s"));
        assert_explains(&expanded, "`soon` is no duration");
        assert_explains(&expanded, "from 0 to 100");
        assert_has(&expanded, quote!(reset: ::core::time::Duration::from_secs(5u64)));
    }
}
