//! Durations as options write them: `"150us"`, `"10ms"`, `"2s"`, `"5m"`, `"1h"`.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;

/// No clock of a shard counts further: its nanoseconds are 64 bits.
const NANOS_MAX: u128 = u64::MAX as u128;

/// The units by what they are called, with their nanoseconds.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Reads a whole number and its unit; the error says what is wrong with `text`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(unit_at);
    let Some((_, unit_nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "`{text}` is no duration: write a whole number and `us`, `ms`, `s`, `m` or `h`, as in \
             `\"150us\"`, `\"10ms\"` or `\"2s\"`"
        ));
    };
    if digits.is_empty() {
        return Err(format!("`{text}` has a unit but no number: write it as in `\"10{unit}\"`"));
    }
    let count: u128 = digits.parse().unwrap_or(u128::MAX);
    match count.checked_mul(*unit_nanos) {
        Some(0) => Err(format!("`{text}` is no time at all: a duration is more than zero")),
        Some(nanos) if nanos <= NANOS_MAX => {
            let (secs, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            Ok(Duration::new(secs as u64, nanos as u32))
        }
        _ => Err(format!("`{text}` is longer than the clock of a shard counts: 584 years")),
    }
}

/// The value as a constant, in the largest unit that `Duration` has for it.
pub(super) fn to_tokens(duration: Duration) -> TokenStream {
    let (secs, nanos) = (duration.as_secs(), duration.subsec_nanos());
    // All fit into 64 bits: `parse` saw to it.
    match nanos {
        0 => quote!(::core::time::Duration::from_secs(#secs)),
        nanos if nanos % 1_000_000 == 0 => {
            let millis = duration.as_millis() as u64;
            quote!(::core::time::Duration::from_millis(#millis))
        }
        nanos if nanos % 1_000 == 0 => {
            let micros = duration.as_micros() as u64;
            quote!(::core::time::Duration::from_micros(#micros))
        }
        _ => {
            let nanos = duration.as_nanos() as u64;
            quote!(::core::time::Duration::from_nanos(#nanos))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_written() {
        for (text, duration, tokens) in [
            ("7ns", Duration::from_nanos(7), quote!(from_nanos(7u64))),
            ("150us", Duration::from_micros(150), quote!(from_micros(150u64))),
            ("10ms", Duration::from_millis(10), quote!(from_millis(10u64))),
            ("1500ms", Duration::from_millis(1500), quote!(from_millis(1500u64))),
            ("2s", Duration::from_secs(2), quote!(from_secs(2u64))),
            ("5m", Duration::from_secs(300), quote!(from_secs(300u64))),
            ("1h", Duration::from_secs(3600), quote!(from_secs(3600u64))),
        ] {
            assert_eq!(parse(text), Ok(duration));
            assert_eq!(
                to_tokens(duration).to_string(),
                quote!(::core::time::Duration::#tokens).to_string()
            );
        }
    }

    #[test]
    fn longest_duration_is_the_clocks() {
        assert_eq!(parse("18446744073709551615ns"), Ok(Duration::from_nanos(u64::MAX)));
        for text in ["18446744073709551616ns", "5124096h", &format!("{}s", "9".repeat(60))] {
            assert!(parse(text).is_err_and(|error| error.contains("584 years")), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_explained() {
        for (text, expected) in [
            ("", "is no duration"),
            ("10", "is no duration"),
            ("10 ms", "is no duration"),
            ("1.5s", "is no duration"),
            ("-1s", "is no duration"),
            ("10sec", "is no duration"),
            ("ms", "no number"),
            ("0s", "more than zero"),
        ] {
            let error = parse(text).expect_err("not a duration");
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }
}
