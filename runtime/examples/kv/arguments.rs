//! Arguments: what stands behind the key, in the syntax of Redis 7.0 and with its errors.
//!
//! Redis counts the arguments before it looks at any, so each type here takes all that are left.

use coreside::{Args, ArgumentError, FromArguments, INLINE_BYTES_MAX, parse_integer};

use crate::value::Bytes;

/// What `SET` may be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) value: Bytes,
    pub(crate) lifetime: Lifetime,
    pub(crate) condition: Condition,
    /// Answer with the value before.
    pub(crate) get: bool,
}

const _: () = assert!(size_of::<Set>() <= 64 && size_of::<Set>() <= INLINE_BYTES_MAX);

/// How long a new value lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Endless,
    /// As long as the value before.
    Kept,
    /// Milliseconds from now.
    For(i64),
    /// Milliseconds since 1970.
    Until(i64),
}

/// Whether `SET` minds what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

pub(crate) const SET_TIME: &str = "ERR invalid expire time in 'set' command";
pub(crate) const SETEX_TIME: &str = "ERR invalid expire time in 'setex' command";
pub(crate) const PSETEX_TIME: &str = "ERR invalid expire time in 'psetex' command";

impl FromArguments for Set {
    #[inline]
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let value = Bytes::new(args.next().ok_or(ArgumentError::Count)?);
        let mut set =
            Self { value, lifetime: Lifetime::Endless, condition: Condition::Always, get: false };
        if !args.is_empty() {
            set.read_options(args)?;
        }
        Ok(set)
    }
}

impl Set {
    /// Reads the words behind the value. The number behind `EX` and its like is looked at last.
    fn read_options(&mut self, args: &mut Args<'_>) -> Result<(), ArgumentError> {
        let (mut unit, mut number) = (None, None);
        while let Some(arg) = args.next() {
            let option = c_string(arg);
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            let named = Unit::ALL.iter().find(|(name, _)| is(name)).map(|(_, unit)| *unit);
            if is("NX") && self.condition != Condition::IfPresent {
                self.condition = Condition::IfAbsent;
            } else if is("XX") && self.condition != Condition::IfAbsent {
                self.condition = Condition::IfPresent;
            } else if is("GET") {
                self.get = true;
            } else if is("KEEPTTL") && unit.is_none() {
                self.lifetime = Lifetime::Kept;
            } else if named.is_some()
                && (unit.is_none() || unit == named)
                && self.lifetime != Lifetime::Kept
                && !args.is_empty()
            {
                (unit, number) = (named, args.next());
            } else {
                return Err(ArgumentError::Syntax);
            }
        }
        if let (Some(unit), Some(number)) = (unit, number) {
            self.lifetime = unit.lifetime(number, SET_TIME)?;
        }
        Ok(())
    }
}

/// The units of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl Unit {
    const ALL: [(&str, Self); 4] = [
        ("EX", Self::Seconds),
        ("PX", Self::Milliseconds),
        ("EXAT", Self::UnixSeconds),
        ("PXAT", Self::UnixMilliseconds),
    ];

    /// The lifetime that `number` of this unit is; `wrong` is the error for one out of range.
    fn lifetime(self, number: &[u8], wrong: &'static str) -> Result<Lifetime, ArgumentError> {
        let number = parse_i64(number)?;
        let scale = match self {
            Self::Seconds | Self::UnixSeconds => 1000,
            Self::Milliseconds | Self::UnixMilliseconds => 1,
        };
        let in_range = number.checked_mul(scale).filter(|ms| *ms > 0);
        let ms = in_range.ok_or(ArgumentError::Message(wrong))?;
        Ok(match self {
            Self::Seconds | Self::Milliseconds => Lifetime::For(ms),
            Self::UnixSeconds | Self::UnixMilliseconds => Lifetime::Until(ms),
        })
    }
}

/// `seconds value` of `SETEX`.
#[derive(Debug)]
pub(crate) struct SetFor<const MILLISECONDS: bool> {
    pub(crate) value: Bytes,
    pub(crate) lifetime: Lifetime,
}

impl<const MILLISECONDS: bool> FromArguments for SetFor<MILLISECONDS> {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let (Some(number), Some(value), true) = (args.next(), args.next(), args.is_empty()) else {
            return Err(ArgumentError::Count);
        };
        let lifetime = if MILLISECONDS {
            Unit::Milliseconds.lifetime(number, PSETEX_TIME)?
        } else {
            Unit::Seconds.lifetime(number, SETEX_TIME)?
        };
        Ok(Self { value: Bytes::new(value), lifetime })
    }
}

/// The one value of `SETNX`, `GETSET` and `APPEND`, and each of `MSET`.
impl FromArguments for Bytes {
    #[inline]
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        only(args).map(Self::new)
    }
}

/// What `INCRBY` adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Increment(pub(crate) i64);

impl FromArguments for Increment {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        only(args).and_then(parse_i64).map(Self)
    }
}

/// What `DECRBY` adds: the negative of what it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decrement(pub(crate) i64);

impl FromArguments for Decrement {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let number = only(args).and_then(parse_i64)?;
        let negative = number.checked_neg();
        negative.map(Self).ok_or(ArgumentError::Message("ERR decrement would overflow"))
    }
}

/// `time [NX | XX | GT | LT]` of `EXPIRE`.
#[derive(Debug)]
pub(crate) enum Expiry {
    At(ExpiryAt),
    /// There is no such option.
    Unknown(Box<[u8]>),
}

/// A time in the unit of the command, and when it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExpiryAt {
    pub(crate) time: i64,
    /// Only if the key has no end yet.
    pub(crate) nx: bool,
    /// Only if it has one.
    pub(crate) xx: bool,
    /// Only if the new end is later.
    pub(crate) gt: bool,
    /// Only if the new end is earlier.
    pub(crate) lt: bool,
}

impl FromArguments for Expiry {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let time = args.next().ok_or(ArgumentError::Count)?;
        let mut at = ExpiryAt::default();
        while let Some(arg) = args.next() {
            let option = c_string(arg);
            let Some(flag) = at.flag(option) else {
                args.for_each(drop);
                return Ok(Self::Unknown(without_line_end(option).into()));
            };
            *flag = true;
        }
        if at.nx && (at.xx || at.gt || at.lt) {
            return Err(ArgumentError::Message(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if at.gt && at.lt {
            return Err(ArgumentError::Message(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        at.time = parse_i64(time)?;
        Ok(Self::At(at))
    }
}

impl ExpiryAt {
    fn flag(&mut self, option: &[u8]) -> Option<&mut bool> {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("NX") => Some(&mut self.nx),
            () if is("XX") => Some(&mut self.xx),
            () if is("GT") => Some(&mut self.gt),
            () if is("LT") => Some(&mut self.lt),
            () => None,
        }
    }

    /// Whether a key with the end `current` gets the end `new`. To have no end is to end last.
    pub(crate) fn allows(&self, current: Option<i64>, new: i64) -> bool {
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| new <= current)
            || self.lt && current.is_some_and(|current| new >= current))
    }
}

/// The one argument there must be.
#[inline]
fn only<'a>(args: &mut Args<'a>) -> Result<&'a [u8], ArgumentError> {
    match (args.next(), args.is_empty()) {
        (Some(arg), true) => Ok(arg),
        _ => Err(ArgumentError::Count),
    }
}

fn parse_i64(bytes: &[u8]) -> Result<i64, ArgumentError> {
    i64::try_from(parse_integer(bytes)?).map_err(|_| ArgumentError::NotAnInteger)
}

/// Options end where C strings end.
fn c_string(arg: &[u8]) -> &[u8] {
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An error line that repeats a word leaves out the line breaks at its end.
fn without_line_end(word: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
    word.iter().rposition(is_text).map_or(&[], |last| &word[..=last])
}

#[cfg(test)]
mod tests {
    use coreside_shard::Span;

    use super::*;

    fn read<T: FromArguments>(text: &str) -> Result<T, ArgumentError> {
        let mut spans = Vec::new();
        let mut start = 0;
        for word in text.split(' ') {
            spans.push(Span { start, len: word.len() as u32 });
            start += word.len() as u32 + 1;
        }
        let mut args = Args::new(text.as_bytes(), &spans);
        let read = T::from_arguments(&mut args);
        assert!(read.is_err() || args.is_empty(), "{text}: something is left");
        read
    }

    fn set(lifetime: Lifetime, condition: Condition, get: bool) -> Result<Set, ArgumentError> {
        Ok(Set { value: Bytes::new(b"v"), lifetime, condition, get })
    }

    #[test]
    fn set_takes_its_options_in_any_order_and_case() {
        use Condition::{Always, IfAbsent, IfPresent};
        let cases = [
            ("v", set(Lifetime::Endless, Always, false)),
            ("v ex 5", set(Lifetime::For(5000), Always, false)),
            ("v nx PX 5 Get", set(Lifetime::For(5), IfAbsent, true)),
            ("v EXAT 5 XX", set(Lifetime::Until(5000), IfPresent, false)),
            ("v PXAT 5 NX NX", set(Lifetime::Until(5), IfAbsent, false)),
            ("v EX 5 EX 6", set(Lifetime::For(6000), Always, false)),
            ("v GET KEEPTTL", set(Lifetime::Kept, Always, true)),
        ];
        for (text, expected) in cases {
            assert_eq!(read::<Set>(text), expected, "{text}");
        }
    }

    #[test]
    fn set_refuses_what_redis_refuses() {
        let syntax = [
            "NX XX",
            "EX",
            "EX 5 PX 5",
            "KEEPTTL EX 5",
            "EX 5 KEEPTTL",
            "PERSIST",
            "EX x NOPE",
            "",
        ];
        for options in syntax {
            assert_eq!(read::<Set>(&format!("v {options}")), Err(ArgumentError::Syntax));
        }
        for number in ["x", "", "1.5", "9223372036854775808"] {
            let outcome = read::<Set>(&format!("v EX {number}"));
            assert_eq!(outcome, Err(ArgumentError::NotAnInteger), "{number}");
        }
        for number in ["0", "-1", "9223372036854776"] {
            let outcome = read::<Set>(&format!("v EX {number}"));
            assert_eq!(outcome, Err(ArgumentError::Message(SET_TIME)), "{number}");
        }
    }

    #[test]
    fn count_is_looked_at_before_the_arguments() {
        assert_eq!(read::<Increment>("x y").err(), Some(ArgumentError::Count));
        assert_eq!(read::<SetFor<false>>("x").err(), Some(ArgumentError::Count));
        assert_eq!(read::<SetFor<true>>("x y z").err(), Some(ArgumentError::Count));
    }

    #[test]
    fn expire_looks_at_options_before_the_time() {
        let unknown = |text| match read::<Expiry>(text) {
            Ok(Expiry::Unknown(word)) => String::from_utf8(word.into()).ok(),
            _ => None,
        };
        assert_eq!(unknown("x NX nope GT").as_deref(), Some("nope"));
        assert_eq!(unknown("5 a\nb\r\n").as_deref(), Some("a\nb"));
        assert!(matches!(read::<Expiry>("x NX gt").err(), Some(ArgumentError::Message(_))));
        assert_eq!(read::<Expiry>("x NX").err(), Some(ArgumentError::NotAnInteger));
    }

    #[test]
    fn no_end_counts_as_the_last_end() {
        let (gt, lt) = (
            ExpiryAt { gt: true, ..ExpiryAt::default() },
            ExpiryAt { lt: true, ..ExpiryAt::default() },
        );
        assert!(!gt.allows(None, 5) && gt.allows(Some(4), 5) && !gt.allows(Some(5), 5));
        assert!(lt.allows(None, 5) && lt.allows(Some(6), 5) && !lt.allows(Some(5), 5));
    }
}
