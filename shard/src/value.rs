//! Arguments and answers of callers that speak bytes, whatever their protocol.
//!
//! A text protocol names a handler, a key and arguments as byte strings, and writes the answer in
//! its own syntax. [`FromArguments`] and [`ToValue`] are what stands between: the shard knows
//! types, the protocol knows syntax, and neither knows the other.

use std::fmt;

/// A stretch of the buffer in which a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The arguments of one command, taken from front to back without copying.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// The arguments that stand at `spans` of `buffer`.
    ///
    /// # Panics
    /// When it is read and a span does not lie within the buffer.
    pub fn new(buffer: &'a [u8], spans: &'a [Span]) -> Self {
        Self { buffer, spans }
    }

    /// How many arguments are left.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether all arguments are taken.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The next argument, left in place.
    pub fn peek(&self) -> Option<&'a [u8]> {
        self.spans.first().map(|span| self.slice(*span))
    }

    fn slice(&self, span: Span) -> &'a [u8] {
        &self.buffer[span.start as usize..span.start as usize + span.len as usize]
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.spans.split_first()?;
        self.spans = rest;
        Some(self.slice(*first))
    }
}

/// Why the arguments of a command do not make its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentError {
    /// Fewer or more arguments than the command takes.
    Count,
    /// An argument that should be an integer of the parameter's range is none.
    NotAnInteger,
    /// An argument that should be a number is none.
    NotANumber,
    /// An argument that should be text is not UTF-8.
    NotText,
    /// The key is not one of the entity's type; the sentence says what was expected.
    Key(&'static str),
    /// The words do not follow the command's syntax.
    Syntax,
    /// What a command says of its own arguments: the whole error line, code included.
    Message(&'static str),
}

impl fmt::Display for ArgumentError {
    /// The error line in the wording that Redis clients know, code included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("ERR wrong number of arguments"),
            Self::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::NotANumber => f.write_str("ERR value is not a valid float"),
            Self::NotText => f.write_str("ERR value is not valid UTF-8"),
            Self::Key(expected) => write!(f, "ERR {expected}"),
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::Message(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// A parameter of a handler, as read from a caller's arguments.
///
/// Most types take one argument; an `Option` takes one if there is one left; a `Vec` takes the
/// rest; a type of your own takes what its syntax needs (see `SET` of the example `kv`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a caller's bytes",
    label = "implement `FromArguments`, or mark the method `#[local]` to keep it inside the node"
)]
pub trait FromArguments: Sized {
    /// Takes what it needs from the front of `args`.
    ///
    /// # Errors
    /// What is wrong with the arguments, as the caller should read it.
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError>;
}

macro_rules! integer_arguments {
    ($($integer:ty)*) => {$(
        impl FromArguments for $integer {
            #[inline]
            fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
                let bytes = args.next().ok_or(ArgumentError::Count)?;
                <$integer>::try_from(parse_integer(bytes)?)
                    .map_err(|_| ArgumentError::NotAnInteger)
            }
        }
    )*};
}

integer_arguments!(i16 i32 i64 u16 u32 u64 usize);

impl FromArguments for f64 {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let text = String::from_arguments(args).map_err(|_| ArgumentError::NotANumber)?;
        match text.parse::<f64>() {
            Ok(number) if !number.is_nan() => Ok(number),
            _ => Err(ArgumentError::NotANumber),
        }
    }
}

impl FromArguments for bool {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        match args.next().ok_or(ArgumentError::Count)? {
            b"1" | b"true" => Ok(true),
            b"0" | b"false" => Ok(false),
            _ => Err(ArgumentError::Syntax),
        }
    }
}

impl FromArguments for Vec<u8> {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        args.next().map(<[u8]>::to_vec).ok_or(ArgumentError::Count)
    }
}

impl FromArguments for String {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let bytes = args.next().ok_or(ArgumentError::Count)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ArgumentError::NotText)
    }
}

impl<T: FromArguments> FromArguments for Option<T> {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        if args.is_empty() { Ok(None) } else { T::from_arguments(args).map(Some) }
    }
}

impl<T: FromArguments> FromArguments for Vec<T> {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let mut items = Self::with_capacity(args.len());
        while !args.is_empty() {
            items.push(T::from_arguments(args)?);
        }
        Ok(items)
    }
}

/// A decimal integer of 64 bits, signed or unsigned, written as Redis wants it: no blanks, no plus,
/// no leading zeros.
///
/// # Errors
/// [`ArgumentError::NotAnInteger`] for anything else.
pub fn parse_integer(bytes: &[u8]) -> Result<i128, ArgumentError> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    let well_formed = match digits {
        [] => false,
        [b'0'] => !negative,
        [b'0', ..] => false,
        _ => digits.len() <= 20,
    };
    if !well_formed {
        return Err(ArgumentError::NotAnInteger);
    }
    let mut value = 0u128;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ArgumentError::NotAnInteger);
        }
        value = value * 10 + u128::from(digit);
    }
    let value = value as i128;
    Ok(if negative { -value } else { value })
}

/// Where an answer is written, in the syntax of the caller's protocol.
///
/// Exactly one value is written per answer; `array(n)` and `map(n)` count as one with the `n`
/// values (or `n` pairs) that follow them.
pub trait ValueWriter {
    /// There is no value.
    fn nil(&mut self);
    /// A short status text such as `OK`; must not contain line breaks.
    fn status(&mut self, text: &str);
    /// An integer.
    fn integer(&mut self, value: i64);
    /// A floating-point number.
    fn double(&mut self, value: f64);
    /// A truth value.
    fn boolean(&mut self, value: bool);
    /// A string of any bytes.
    fn bytes(&mut self, value: &[u8]);
    /// An error line that begins with its code (`ERR`, `WRONGTYPE`, ..); line breaks become blanks.
    fn error(&mut self, line: &str);
    /// The head of `len` values.
    fn array(&mut self, len: usize);
    /// The head of `len` pairs of key and value.
    fn map(&mut self, len: usize);
}

/// An answer that callers outside can read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written as an answer to a caller outside",
    label = "implement `ToValue`, or mark the method `#[local]` to keep it inside the node"
)]
pub trait ToValue {
    /// Writes exactly one value.
    fn write_to(&self, out: &mut dyn ValueWriter);
}

impl ToValue for () {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.status("OK");
    }
}

impl ToValue for bool {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.boolean(*self);
    }
}

macro_rules! integer_values {
    ($($integer:ty)*) => {$(
        impl ToValue for $integer {
            /// A value beyond 63 bits is written as a string of digits.
            fn write_to(&self, out: &mut dyn ValueWriter) {
                match i64::try_from(*self) {
                    Ok(value) => out.integer(value),
                    Err(_) => out.bytes(self.to_string().as_bytes()),
                }
            }
        }
    )*};
}

integer_values!(i16 i32 i64 i128 u16 u32 u64 u128 usize);

impl ToValue for f64 {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.double(*self);
    }
}

impl ToValue for Vec<u8> {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.bytes(self);
    }
}

impl ToValue for String {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.bytes(self.as_bytes());
    }
}

impl ToValue for &'static str {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.status(self);
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        match self {
            Some(value) => value.write_to(out),
            None => out.nil(),
        }
    }
}

impl<T: ToValue, E: fmt::Display> ToValue for Result<T, E> {
    /// An error is written as its text, behind the code `ERR` unless it brings one of its own.
    fn write_to(&self, out: &mut dyn ValueWriter) {
        match self {
            Ok(value) => value.write_to(out),
            Err(error) => {
                let text = error.to_string();
                if has_code(&text) {
                    out.error(&text);
                } else {
                    out.error(&format!("ERR {text}"));
                }
            }
        }
    }
}

impl<T: ToValue> ToValue for Vec<T> {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.array(self.len());
        for value in self {
            value.write_to(out);
        }
    }
}

impl<A: ToValue, B: ToValue> ToValue for (A, B) {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.array(2);
        self.0.write_to(out);
        self.1.write_to(out);
    }
}

impl<A: ToValue, B: ToValue, C: ToValue> ToValue for (A, B, C) {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.array(3);
        self.0.write_to(out);
        self.1.write_to(out);
        self.2.write_to(out);
    }
}

/// Whether an error line begins with a code: two or more capital letters, then a blank.
fn has_code(line: &str) -> bool {
    let capitals = line.bytes().take_while(u8::is_ascii_uppercase).count();
    capitals >= 2 && line.as_bytes().get(capitals) == Some(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args_of<'a>(text: &'a str, spans: &'a mut Vec<Span>) -> Args<'a> {
        let mut start = 0;
        for word in text.split(' ') {
            spans.push(Span { start, len: word.len() as u32 });
            start += word.len() as u32 + 1;
        }
        Args::new(text.as_bytes(), spans)
    }

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        assert_eq!(parse_integer(b"-9223372036854775808"), Ok(i128::from(i64::MIN)));
        assert_eq!(parse_integer(b"0"), Ok(0));
        for bad in [&b""[..], b"-", b"+1", b" 1", b"1 ", b"01", b"-0", b"1e3", b"0x10"] {
            assert_eq!(parse_integer(bad), Err(ArgumentError::NotAnInteger), "{bad:?}");
        }
        let mut spans = Vec::new();
        let mut args = args_of("9223372036854775808", &mut spans);
        assert_eq!(i64::from_arguments(&mut args), Err(ArgumentError::NotAnInteger));
    }

    #[test]
    fn each_parameter_takes_its_share() {
        let mut spans = Vec::new();
        let mut args = args_of("7 text 1.5 a b", &mut spans);
        assert_eq!(u64::from_arguments(&mut args), Ok(7));
        assert_eq!(String::from_arguments(&mut args).as_deref(), Ok("text"));
        assert_eq!(f64::from_arguments(&mut args), Ok(1.5));
        assert_eq!(
            Vec::<String>::from_arguments(&mut args),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(Option::<u64>::from_arguments(&mut args), Ok(None));
        assert_eq!(u64::from_arguments(&mut args), Err(ArgumentError::Count));
    }

    #[test]
    fn error_text_keeps_its_own_code() {
        assert!(has_code("WRONGTYPE Operation against a key"));
        assert!(has_code("ERR no"));
        for bare in ["no such account", "E", "I am", "WRONGTYPE"] {
            assert!(!has_code(bare), "{bare}");
        }
    }
}
