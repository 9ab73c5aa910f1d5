//! Bytes to commands, in place: arguments are spans of the buffer that the bytes arrived in.
//!
//! # Invariants
//! - The parser is always fed from the first byte of the command it is in. It remembers how far it
//!   has read, so bytes are looked at once however they are cut (an unfinished count, of at most
//!   ten digits, is the exception).
//! - What it says depends on the bytes alone, never on how they were cut.
//! - No memory is taken here for a declared length, only for arguments that have arrived.

use coreside_shard::Span;

use super::limits::Limits;

/// The parser of one connection.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Arguments that the count announced and that are not read; 0 before the count is read.
    arguments_left: u32,
    /// The length of the argument being read, where it is known.
    bulk_len: Option<u32>,
    /// First byte of the part (count, length or argument) being read.
    at: usize,
    /// Bytes before this one are known to hold no end of the line being read.
    scanned: usize,
    spans: Vec<Span>,
    /// The arguments of an inline command, unquoted.
    inline: Vec<u8>,
}

/// What stands at the beginning of the buffer. `len` is how many bytes it takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not a whole command yet.
    Incomplete,
    /// Nothing to answer: an empty line, a count of 0.
    Empty { len: usize },
    /// A command; its arguments are at [`Parser::spans`] of the buffer.
    Command { len: usize },
    /// A command; its arguments are at [`Parser::spans`] of [`Parser::inline`].
    Inline { len: usize },
    /// The peer does not speak the protocol. Where its next command begins is unknown.
    Error(ProtocolError),
}

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    CountInvalid,
    CountTooLong,
    BulkExpected { found: u8 },
    BulkInvalid,
    BulkTooLong,
    InlineTooLong,
    QuotesUnbalanced,
}

impl ProtocolError {
    /// The error line in Redis's words.
    pub(crate) fn write_to(self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"ERR Protocol error: ");
        line.extend_from_slice(match self {
            Self::CountInvalid => b"invalid multibulk length",
            Self::CountTooLong => b"too big mbulk count string",
            Self::BulkExpected { .. } => b"expected '$', got '",
            Self::BulkInvalid => b"invalid bulk length",
            Self::BulkTooLong => b"too big bulk count string",
            Self::InlineTooLong => b"too big inline request",
            Self::QuotesUnbalanced => b"unbalanced quotes in request",
        });
        if let Self::BulkExpected { found } = self {
            line.extend_from_slice(&[found, b'\'']);
        }
    }
}

impl Parser {
    pub(crate) const fn new() -> Self {
        Self {
            arguments_left: 0,
            bulk_len: None,
            at: 0,
            scanned: 0,
            spans: Vec::new(),
            inline: Vec::new(),
        }
    }

    /// The arguments of the command that [`parse`](Self::parse) found, its name first.
    #[inline]
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The buffer of an inline command's arguments.
    pub(crate) fn inline(&self) -> &[u8] {
        &self.inline
    }

    /// Memory held for the command being read, beside its bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.spans.len() * size_of::<Span>()
    }

    /// Bytes that the argument being read lacks, of `have` bytes of its command; 0 where its length
    /// is not known yet.
    pub(crate) fn lacking_bytes(&self, have: usize) -> usize {
        self.bulk_len.map_or(0, |len| (self.at + len as usize + 2).saturating_sub(have))
    }

    /// Forgets the command; the next bytes begin another one (or the same one again).
    #[inline]
    pub(crate) fn restart(&mut self) {
        self.arguments_left = 0;
        self.bulk_len = None;
        self.at = 0;
        self.scanned = 0;
        self.spans.clear();
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans = Vec::new();
        }
        if self.inline.capacity() > INLINE_KEPT_BYTES_MAX {
            self.inline = Vec::new();
        }
    }

    /// Reads on. `bytes` begins with the first byte of the command and holds at least the bytes of
    /// the call before.
    #[inline]
    pub(crate) fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Parsed {
        match self.try_parse(bytes, limits) {
            Ok(parsed) => parsed,
            Err(error) => Parsed::Error(error),
        }
    }

    fn try_parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        if self.arguments_left == 0 {
            match bytes.first() {
                None => return Ok(Parsed::Incomplete),
                Some(b'*') => {}
                Some(_) => return self.parse_inline(bytes, limits),
            }
            let Some((count, next)) = self.count(bytes, limits, ProtocolError::CountTooLong)?
            else {
                return Ok(Parsed::Incomplete);
            };
            let count = count.ok_or(ProtocolError::CountInvalid)?;
            if count <= 0 {
                return Ok(Parsed::Empty { len: next });
            }
            self.arguments_left = u32::try_from(count)
                .ok()
                .filter(|count| *count <= limits.arguments_max)
                .ok_or(ProtocolError::CountInvalid)?;
            self.at = next;
        }
        self.parse_arguments(bytes, limits)
    }

    #[inline]
    fn parse_arguments(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        loop {
            let len = match self.bulk_len {
                Some(len) => len,
                None => {
                    let Some((len, next)) = self.bulk_len(bytes, limits)? else {
                        return Ok(Parsed::Incomplete);
                    };
                    self.at = next;
                    len
                }
            };
            let end = self.at + len as usize + 2;
            if bytes.len() < end {
                self.bulk_len = Some(len);
                return Ok(Parsed::Incomplete);
            }
            // Redis does not look at the two bytes behind an argument, so neither do we.
            self.spans.push(Span { start: self.at as u32, len });
            self.bulk_len = None;
            self.at = end;
            self.arguments_left -= 1;
            if self.arguments_left == 0 {
                return Ok(Parsed::Command { len: end });
            }
        }
    }

    /// The length of the next argument and where the argument begins.
    #[inline]
    fn bulk_len(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<(u32, usize)>, ProtocolError> {
        let Some((len, next)) = self.count(bytes, limits, ProtocolError::BulkTooLong)? else {
            return Ok(None);
        };
        if bytes[self.at] != b'$' {
            return Err(ProtocolError::BulkExpected { found: bytes[self.at] });
        }
        let len = len.and_then(|len| u32::try_from(len).ok()).ok_or(ProtocolError::BulkInvalid)?;
        if len > limits.bulk_bytes_max {
            return Err(ProtocolError::BulkInvalid);
        }
        Ok(Some((len, next)))
    }

    /// The number behind the first byte of the line at `self.at` (`None` if there is no number) and
    /// where the next line begins; nothing if the line is not whole.
    #[inline(always)]
    fn count(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        // Almost all counts have one to three digits and are whole.
        if let Some([_, first @ b'1'..=b'9', rest @ ..]) = bytes.get(self.at..) {
            let mut value = i64::from(first - b'0');
            for (index, byte) in rest.iter().take(9).enumerate() {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    if *byte == b'\r' && rest.len() > index + 1 {
                        return Ok(Some((Some(value), self.at + 2 + index + 2)));
                    }
                    break;
                }
                value = value * 10 + i64::from(digit);
            }
        }
        self.count_of_any_line(bytes, limits, too_long)
    }

    #[cold]
    fn count_of_any_line(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        let Some(end) = self.line_end(bytes, b'\r', limits, too_long)? else {
            return Ok(None);
        };
        // Redis wants a byte behind the carriage return and does not care which.
        if end + 1 == bytes.len() {
            self.scanned = end;
            return Ok(None);
        }
        // The line may end with its first byte, where a kind should stand.
        let number = bytes[self.at..end].get(1..).and_then(parse_i64);
        Ok(Some((number, end + 2)))
    }

    /// The index of the first `terminator` at or behind `self.at`, searched once.
    fn line_end(
        &mut self,
        bytes: &[u8],
        terminator: u8,
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(self.at);
        let end = bytes[from..].iter().position(|byte| *byte == terminator).map(|n| from + n);
        self.scanned = end.unwrap_or(bytes.len());
        if self.scanned - self.at > limits.line_bytes_max { Err(too_long) } else { Ok(end) }
    }

    fn parse_inline(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        let Some(end) = self.line_end(bytes, b'\n', limits, ProtocolError::InlineTooLong)? else {
            return Ok(Parsed::Incomplete);
        };
        self.inline.clear();
        unquote(&bytes[..end], &mut self.inline, &mut self.spans)?;
        let len = end + 1;
        Ok(if self.spans.is_empty() { Parsed::Empty { len } } else { Parsed::Inline { len } })
    }
}

/// Beyond this, the memory of a command's spans is given back when the command is done.
const SPANS_KEPT_MAX: usize = 64;
const INLINE_KEPT_BYTES_MAX: usize = 1024;

/// A decimal number as Redis's `string2ll` takes it: no blanks, no plus, no leading zeros.
pub(crate) fn parse_i64(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Negative numbers reach one further, so that is the side to count on.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Splits a line into arguments by the rules of `redis-cli`: blanks separate; double quotes take
/// the escapes `\n \r \t \b \a \xHH`, single quotes take `\'`; a closing quote ends its argument.
///
/// A NUL counts as a blank. (Redis ends the line there and drops what follows.)
fn unquote(line: &[u8], out: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [byte, tail @ ..] = rest
            && is_blank(*byte)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = out.len();
        rest = unquote_one(rest, out)?;
        spans.push(Span { start: start as u32, len: (out.len() - start) as u32 });
    }
}

/// Appends the argument at the front of `rest` to `out`; returns what is behind it.
fn unquote_one<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Ok(rest),
            [b' ' | b'\n' | b'\r' | b'\t' | 0, tail @ ..] => return Ok(tail),
            [b'"', tail @ ..] => return unquote_quoted(tail, b'"', out),
            [b'\'', tail @ ..] => return unquote_quoted(tail, b'\'', out),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

fn unquote_quoted<'a>(
    mut rest: &'a [u8],
    quote: u8,
    out: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Err(ProtocolError::QuotesUnbalanced),
            [byte, tail @ ..] if *byte == quote => {
                return match tail {
                    [next, ..] if !is_blank(*next) => Err(ProtocolError::QuotesUnbalanced),
                    _ => Ok(tail),
                };
            }
            [b'\\', b'x', high, low, tail @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = tail;
            }
            [b'\\', byte, tail @ ..] if quote == b'"' => {
                out.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => {
                out.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

/// What C's `isspace` takes for a blank, and NUL.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}
