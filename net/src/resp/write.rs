//! Values to bytes, in RESP2 or RESP3. Nothing is allocated beside the output buffer.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use coreside_shard::{AskError, ToValue, ValueWriter};

/// The version of the protocol that a connection has chosen with `HELLO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Resp2,
    Resp3,
}

/// Writes values to the end of a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Writer<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// Writes an answer whole, or says that it failed: a half-written reply would garble all that
    /// follow it, and what writes it is the service's own code.
    pub(crate) fn value(&mut self, value: &dyn ToValue) {
        let mark = self.mark();
        if catch_unwind(AssertUnwindSafe(|| value.write_to(self))).is_err() {
            self.cut(mark);
            self.ask_error(AskError::Failed);
        }
    }

    /// How much is written, to [`cut`](Self::cut) back to.
    pub(crate) fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written since `mark`.
    pub(crate) fn cut(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// An error line of any bytes, code included; line breaks become blanks.
    pub(crate) fn error_bytes(&mut self, line: &[u8]) {
        self.out.push(b'-');
        let start = self.out.len();
        self.out.extend_from_slice(line);
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Text that clients may show as it is; a plain string in RESP2.
    pub(crate) fn verbatim(&mut self, text: &[u8]) {
        if self.protocol == Protocol::Resp2 {
            self.bytes(text);
            return;
        }
        self.head(b'=', text.len() as u64 + 4);
        self.out.extend_from_slice(b"txt:");
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Why a request has no answer, with the code that clients can act on.
    pub(crate) fn ask_error(&mut self, error: AskError) {
        self.error_bytes(match error {
            AskError::NotSent => b"NOTSENT the request did not reach the entity; nothing was done",
            AskError::MaybeExecuted => b"MAYBE no answer came in time; the work may have been done",
            AskError::Failed => b"FAILED the entity failed in this turn; its state was dropped",
            AskError::Expired => b"EXPIRED the deadline passed before the turn; nothing was done",
            _ => b"ERR the request has no answer",
        });
    }

    /// `kind`, a number, and the end of the line.
    #[inline]
    fn head(&mut self, kind: u8, value: u64) {
        if value < 10 {
            self.out.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
        } else {
            let digits = Digits::of(value);
            self.out.push(kind);
            self.out.extend_from_slice(digits.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
    }
}

impl ValueWriter for Writer<'_> {
    fn nil(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    fn status(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a status is one line");
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn integer(&mut self, value: i64) {
        if value >= 0 {
            self.head(b':', value.unsigned_abs());
        } else {
            let digits = Digits::of(value.unsigned_abs());
            self.out.extend_from_slice(b":-");
            self.out.extend_from_slice(digits.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn double(&mut self, value: f64) {
        let mut text = Text::default();
        text.put(value);
        match self.protocol {
            Protocol::Resp2 => self.bytes(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
        });
    }

    fn bytes(&mut self, value: &[u8]) {
        // The head is at most 23 bytes; one reservation covers head, value and end.
        self.out.reserve(value.len() + 25);
        self.head(b'$', value.len() as u64);
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn error(&mut self, line: &str) {
        self.error_bytes(line.as_bytes());
    }

    fn array(&mut self, len: usize) {
        self.head(b'*', len as u64);
    }

    fn map(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.head(b'*', len as u64 * 2),
            Protocol::Resp3 => self.head(b'%', len as u64),
        }
    }
}

/// The decimal digits of a number, two at a time, from the right.
struct Digits {
    digits: [u8; Self::LEN_MAX],
    start: usize,
}

impl Digits {
    /// u64::MAX has 20 digits.
    const LEN_MAX: usize = 20;

    #[inline]
    fn of(mut value: u64) -> Self {
        let mut digits = [0; Self::LEN_MAX];
        let mut start = Self::LEN_MAX;
        while value >= 100 {
            let pair = (value % 100) as usize * 2;
            value /= 100;
            start -= 2;
            digits[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        }
        if value >= 10 {
            let pair = value as usize * 2;
            start -= 2;
            digits[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        } else {
            start -= 1;
            digits[start] = b'0' + value as u8;
        }
        Self { digits, start }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// "00" to "99", one behind the other.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[number * 2] = b'0' + number as u8 / 10;
        pairs[number * 2 + 1] = b'0' + number as u8 % 10;
        number += 1;
    }
    pairs
};

/// A floating-point number as text: the shortest digits that read back as the same number.
#[derive(Default)]
struct Text {
    text: [u8; Self::LEN_MAX],
    len: usize,
}

impl Text {
    /// Plain notation is used from 1e-7 to 1e17, so 17 digits, sign, point and six zeros at most;
    /// scientific notation is shorter.
    const LEN_MAX: usize = 32;

    fn put(&mut self, value: f64) {
        let magnitude = value.abs();
        let plain = magnitude == 0.0 || (1e-7..1e17).contains(&magnitude);
        let mut free = &mut self.text[..];
        let written = if plain || !value.is_finite() {
            write!(free, "{value}")
        } else {
            write!(free, "{value:e}")
        };
        debug_assert!(written.is_ok(), "{value:e} does not fit");
        let free_len = free.len();
        self.len = Self::LEN_MAX - free_len;
        // RESP3 has "nan", whatever the case of the language.
        self.text[..self.len].make_ascii_lowercase();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}
