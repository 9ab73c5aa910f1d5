//! Counts the replies in a byte stream without keeping them.
//!
//! A load generator needs three facts of a reply: that it ended, where it ended, and whether it was
//! an error. So this is a skipper rather than a parser: it holds no value, no stack for nested
//! values and no bytes, and may be fed a stream cut at any place.
//!
//! Nesting needs no stack because RESP announces the number of children in advance: `owed` counts
//! the values still to come until the reply is whole, and an array merely adds to it.

use crate::errors::{ErrorLog, TEXT_BYTES_MAX};

/// What can follow in a stream that no longer makes sense: nothing, so the connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum ScanError {
    /// No RESP value starts with this byte.
    UnknownType(u8),
    /// A length line holds something else than a number in range.
    BadLength,
}

impl std::fmt::Display for ScanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownType(byte) => {
                write!(f, "a reply starts with '{}', which is not RESP", byte.escape_ascii())
            }
            Self::BadLength => write!(f, "a reply announces a length that is not a number"),
        }
    }
}

/// The position of one connection inside its stream of replies.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// Values still to come until the present reply is whole; 0 between replies.
    owed: u64,
    /// The present top-level value is a RESP3 push, which answers no request.
    push: bool,
    /// The beginning of an error's text, of fixed capacity.
    text: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next byte is the type of a value.
    Type,
    /// Inside a line of no interest.
    Line,
    /// Inside an error's line.
    ErrorLine,
    /// Inside the line that announces a length.
    Length { kind: u8, negative: bool, digits: u64 },
    /// Inside a bulk string or its line end.
    Payload { left: u64 },
    /// Inside a RESP3 bulk error or its line end.
    ErrorPayload { left: u64 },
}

/// No reply announces more than this, in bytes or in children; Redis' own limit is 512 MiB.
const LENGTH_MAX: u64 = 1 << 32;

impl Scanner {
    pub(crate) fn new() -> Self {
        let text = Vec::with_capacity(TEXT_BYTES_MAX);
        Self { state: State::Type, owed: 0, push: false, text }
    }

    /// Goes through `bytes` and returns how many replies ended in them.
    pub(crate) fn scan(&mut self, bytes: &[u8], errors: &mut ErrorLog) -> Result<u64, ScanError> {
        let mut replies = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.state {
                State::Type => {
                    // The commonest reply of all, whole and alone.
                    if self.owed == 0
                        && let Some(after) = rest.strip_prefix(b"+OK\r\n")
                    {
                        rest = after;
                        replies += 1;
                        continue;
                    }
                    rest = self.enter_value(rest)?;
                }
                State::Line => match line_end(rest) {
                    Some(end) => {
                        rest = &rest[end + 1..];
                        replies += self.end_value();
                    }
                    None => return Ok(replies),
                },
                State::Length { kind, negative, digits } => {
                    rest = self.length_line(rest, kind, negative, digits, &mut replies)?;
                }
                State::Payload { left } => {
                    let taken = left.min(rest.len() as u64);
                    rest = &rest[taken as usize..];
                    self.state = State::Payload { left: left - taken };
                    if taken == left {
                        replies += self.end_value();
                    }
                }
                State::ErrorLine | State::ErrorPayload { .. } => {
                    rest = self.error(rest, errors, &mut replies);
                }
            }
        }
        Ok(replies)
    }

    /// Takes the type byte, of which there is at least one.
    fn enter_value<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], ScanError> {
        let kind = rest[0];
        if self.owed == 0 {
            self.owed = 1;
            self.push = kind == b'>';
        }
        self.state = match kind {
            b'+' | b':' | b'_' | b'#' | b',' | b'(' => State::Line,
            b'$' | b'*' | b'=' | b'%' | b'~' | b'>' | b'|' | b'!' => {
                State::Length { kind, negative: false, digits: 0 }
            }
            b'-' => {
                self.text.clear();
                State::ErrorLine
            }
            unknown => return Err(ScanError::UnknownType(unknown)),
        };
        Ok(&rest[1..])
    }

    fn length_line<'a>(
        &mut self,
        rest: &'a [u8],
        kind: u8,
        mut negative: bool,
        mut digits: u64,
        replies: &mut u64,
    ) -> Result<&'a [u8], ScanError> {
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                b'0'..=b'9' if digits < LENGTH_MAX => digits = digits * 10 + u64::from(byte - b'0'),
                b'-' if digits == 0 && !negative => negative = true,
                b'\r' => {}
                b'\n' => {
                    *replies += self.announced(kind, if negative { None } else { Some(digits) });
                    return Ok(&rest[at + 1..]);
                }
                _ => return Err(ScanError::BadLength),
            }
        }
        self.state = State::Length { kind, negative, digits };
        Ok(&[])
    }

    /// A length line has ended; a negative length stands for nil.
    fn announced(&mut self, kind: u8, length: Option<u64>) -> u64 {
        const LINE_END_BYTES: u64 = 2;
        self.state = State::Type;
        match (kind, length) {
            (b'$' | b'=', Some(bytes)) => {
                self.state = State::Payload { left: bytes + LINE_END_BYTES };
                0
            }
            (b'!', Some(bytes)) => {
                self.text.clear();
                self.state = State::ErrorPayload { left: bytes + LINE_END_BYTES };
                0
            }
            (b'%', Some(pairs)) => {
                self.owed += 2 * pairs;
                self.end_value()
            }
            // Attributes precede the value they describe and are none themselves.
            (b'|', pairs) => {
                self.owed += 2 * pairs.unwrap_or(0);
                0
            }
            (_, Some(children)) => {
                self.owed += children;
                self.end_value()
            }
            (_, None) => self.end_value(),
        }
    }

    fn error<'a>(&mut self, rest: &'a [u8], errors: &mut ErrorLog, replies: &mut u64) -> &'a [u8] {
        let (seen, ended) = match self.state {
            State::ErrorPayload { left } => {
                let taken = left.min(rest.len() as u64);
                self.state = State::ErrorPayload { left: left - taken };
                (taken as usize, taken == left)
            }
            _ => line_end(rest).map_or((rest.len(), false), |end| (end + 1, true)),
        };
        let room = TEXT_BYTES_MAX - self.text.len();
        self.text.extend_from_slice(&rest[..seen.min(room)]);
        if ended {
            errors.record(self.text.trim_ascii_end());
            *replies += self.end_value();
        }
        &rest[seen..]
    }

    /// One value has ended; returns 1 if a reply ended with it.
    fn end_value(&mut self) -> u64 {
        self.state = State::Type;
        self.owed -= 1;
        u64::from(self.owed == 0 && !self.push)
    }
}

/// The place of the first line feed.
///
/// Lines are short (an integer, a status), so eight bytes at a time in a register beat a call to a
/// wide search.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let differing = u64::from_le_bytes(*word) ^ (LOW * u64::from(b'\n'));
        let zero = differing.wrapping_sub(LOW) & !differing & HIGH;
        if zero != 0 {
            return Some(at + zero.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte == b'\n').map(|found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the number of replies and of errors in it.
    const STREAMS: &[(&[u8], u64, u64)] = &[
        (b"+OK\r\n", 1, 0),
        (b"+OK\r\n+OK\r\n:12345678901234567\r\n+PONG\r\n", 4, 0),
        (b"$5\r\nhello\r\n$0\r\n\r\n$-1\r\n", 3, 0),
        (b"$11\r\n+OK\r\n-ERR x\r\n:1\r\n", 2, 0),
        (b"*0\r\n*-1\r\n*3\r\n:1\r\n$1\r\na\r\n+x\r\n", 3, 0),
        (b"*2\r\n*2\r\n:1\r\n*1\r\n:2\r\n*0\r\n+OK\r\n", 2, 0),
        (b"-ERR no\r\n+OK\r\n-WRONGTYPE Operation\r\n", 3, 2),
        (b"*2\r\n-ERR inner\r\n:5\r\n", 1, 1),
        (b"_\r\n#t\r\n,1.5\r\n(12345\r\n=5\r\ntxt:a\r\n!5\r\nERR x\r\n", 6, 1),
        (b"%1\r\n+a\r\n:1\r\n~2\r\n:1\r\n:2\r\n", 2, 0),
        (b">2\r\n+message\r\n$1\r\nx\r\n:1\r\n", 1, 0),
        (b"|1\r\n+ttl\r\n:10\r\n*1\r\n:1\r\n:2\r\n", 2, 0),
    ];

    #[test]
    fn every_split_gives_the_same_counts() {
        for &(stream, replies, error_count) in STREAMS {
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let mut scanner = Scanner::new();
                    let mut errors = ErrorLog::default();
                    let mut seen = 0;
                    for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                        seen += scanner.scan(part, &mut errors).expect("valid RESP");
                    }
                    let shown = stream.escape_ascii();
                    assert_eq!(seen, replies, "{shown} cut at {first} and {second}");
                    assert_eq!(errors.count(), error_count, "{shown} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn a_reply_counts_only_with_its_last_byte() {
        for &(stream, replies, _) in STREAMS {
            let mut scanner = Scanner::new();
            let mut errors = ErrorLog::default();
            let body = &stream[..stream.len() - 1];
            assert_eq!(scanner.scan(body, &mut errors), Ok(replies - 1));
        }
    }

    #[test]
    fn error_texts_survive_splits() {
        let mut errors = ErrorLog::default();
        let mut scanner = Scanner::new();
        for byte in b"-ERR unknown command\r\n!5\r\nERR b\r\n" {
            scanner.scan(&[*byte], &mut errors).expect("valid RESP");
        }
        let texts: Vec<&str> = errors.texts().map(|(text, _)| text).collect();
        assert_eq!(texts, ["ERR unknown command", "ERR b"]);
    }

    #[test]
    fn endless_error_texts_are_cut() {
        let mut errors = ErrorLog::default();
        let mut scanner = Scanner::new();
        let line = [b"-".as_slice(), &[b'x'; 10_000], b"\r\n+OK\r\n"].concat();
        assert_eq!(scanner.scan(&line, &mut errors), Ok(2));
        assert!(errors.texts().all(|(text, _)| text.len() == TEXT_BYTES_MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        let scan = |bytes: &[u8]| Scanner::new().scan(bytes, &mut ErrorLog::default());
        assert_eq!(scan(b"HTTP/1.1 400\r\n"), Err(ScanError::UnknownType(b'H')));
        assert_eq!(scan(b"$x\r\n"), Err(ScanError::BadLength));
        assert_eq!(scan(b"*99999999999999999999999\r\n"), Err(ScanError::BadLength));
    }

    #[test]
    fn line_ends_are_found_at_every_distance() {
        for length in 0..40 {
            let mut line = vec![b'\r'; length];
            assert_eq!(line_end(&line), None);
            line.push(b'\n');
            line.extend_from_slice(b"\n\n\n\n\n\n\n\n");
            assert_eq!(line_end(&line), Some(length));
        }
    }
}
