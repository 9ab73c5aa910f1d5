//! One command over many keys: a request per key, and one reply made of their answers.
//!
//! The reply is an error if any answer is one: that of the first such key in the order of the
//! command, so it does not depend on which shard was faster.

use std::panic::{AssertUnwindSafe, catch_unwind};

use coreside_shard::{AskError, Each, ToValue, ValueWriter};

use super::write::{Protocol, Writer};

/// The answers to one command over many keys.
#[derive(Debug)]
pub(crate) struct Gather {
    /// The reply that the answers become.
    pub(crate) sequence: u32,
    each: Each,
    /// Answers that are still to come.
    left: u32,
    /// The total of [`Each::Sum`].
    total: i64,
    /// Where the answer of each key stands in `bytes`, for [`Each::Array`].
    pieces: Vec<(u32, u32)>,
    bytes: Vec<u8>,
    /// The key whose error is the reply, and the error as written.
    error: Option<(u32, Vec<u8>)>,
}

impl Gather {
    /// A gather of the answers of `len` keys.
    pub(crate) fn new(sequence: u32, each: Each, len: u32) -> Self {
        let pieces =
            if matches!(each, Each::Array) { vec![(0, 0); len as usize] } else { Vec::new() };
        Self { sequence, each, left: len, total: 0, pieces, bytes: Vec::new(), error: None }
    }

    /// Memory held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len() + self.pieces.len() * size_of::<(u32, u32)>()
    }

    /// Whether all answers are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Takes the answer of the key number `part`.
    pub(crate) fn put(
        &mut self,
        part: u32,
        answer: Result<&dyn ToValue, AskError>,
        protocol: Protocol,
    ) {
        self.put_with(part, protocol, |probe| match answer {
            // As `Writer::value`, but the probe must see what is written.
            Ok(value) => {
                let mark = probe.inner.mark();
                if catch_unwind(AssertUnwindSafe(|| value.write_to(probe))).is_err() {
                    probe.is_error = true;
                    probe.inner.cut(mark);
                    probe.inner.ask_error(AskError::Failed);
                }
            }
            Err(error) => {
                probe.is_error = true;
                probe.inner.ask_error(error);
            }
        });
    }

    /// Takes an error in the place of the answers of `part` and of all keys behind it.
    pub(crate) fn give_up(&mut self, part: u32, unasked: u32, line: &[u8], protocol: Protocol) {
        self.left -= unasked - 1;
        self.put_with(part, protocol, |probe| {
            probe.is_error = true;
            probe.inner.error_bytes(line);
        });
    }

    /// Writes the reply.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>, protocol: Protocol) {
        debug_assert!(self.is_complete());
        if let Some((_, error)) = &self.error {
            out.extend_from_slice(error);
            return;
        }
        let mut writer = Writer::new(out, protocol);
        match self.each {
            Each::Sum => writer.integer(self.total),
            Each::Array => {
                writer.array(self.pieces.len());
                for &(start, len) in &self.pieces {
                    let start = start as usize;
                    out.extend_from_slice(&self.bytes[start..start + len as usize]);
                }
            }
            Each::One | Each::Pairs => writer.status("OK"),
        }
    }

    fn put_with(&mut self, part: u32, protocol: Protocol, write: impl FnOnce(&mut Probe<'_>)) {
        debug_assert!(self.left > 0, "every key answers once");
        self.left -= 1;
        let start = self.bytes.len();
        let mut probe = Probe {
            inner: Writer::new(&mut self.bytes, protocol),
            is_first: true,
            is_error: false,
            integer: None,
        };
        write(&mut probe);
        let (mut is_error, integer) = (probe.is_error, probe.integer);
        if matches!(self.each, Each::Sum) && !is_error {
            match integer.and_then(|integer| self.total.checked_add(integer)) {
                Some(total) => self.total = total,
                None => {
                    self.bytes.truncate(start);
                    Writer::new(&mut self.bytes, protocol)
                        .error("ERR the answers of the keys cannot be added up");
                    is_error = true;
                }
            }
        }
        let is_first_error = self.error.as_ref().is_none_or(|(other, _)| part < *other);
        if is_error && is_first_error {
            self.error = Some((part, self.bytes[start..].to_vec()));
        }
        if matches!(self.each, Each::Array) && !is_error {
            self.pieces[part as usize] = (start as u32, (self.bytes.len() - start) as u32);
        } else {
            self.bytes.truncate(start);
        }
    }
}

/// Looks at the first value on its way to the buffer.
struct Probe<'a> {
    inner: Writer<'a>,
    is_first: bool,
    is_error: bool,
    integer: Option<i64>,
}

impl Probe<'_> {
    fn look(&mut self, integer: Option<i64>) {
        if self.is_first {
            self.is_first = false;
            self.integer = integer;
        }
    }
}

impl ValueWriter for Probe<'_> {
    fn nil(&mut self) {
        self.look(Some(0));
        self.inner.nil();
    }

    fn status(&mut self, text: &str) {
        self.look(None);
        self.inner.status(text);
    }

    fn integer(&mut self, value: i64) {
        self.look(Some(value));
        self.inner.integer(value);
    }

    fn double(&mut self, value: f64) {
        self.look(None);
        self.inner.double(value);
    }

    fn boolean(&mut self, value: bool) {
        self.look(Some(i64::from(value)));
        self.inner.boolean(value);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.look(None);
        self.inner.bytes(value);
    }

    fn error(&mut self, line: &str) {
        if self.is_first {
            self.is_error = true;
        }
        self.look(None);
        self.inner.error(line);
    }

    fn array(&mut self, len: usize) {
        self.look(None);
        self.inner.array(len);
    }

    fn map(&mut self, len: usize) {
        self.look(None);
        self.inner.map(len);
    }
}
