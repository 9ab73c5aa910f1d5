//! The lock file's text: made for people who read a difference, and read back line by line.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{LockedMessage, LockedType, WireLock, WireLockError};

/// What the file begins with.
const HEAD: &str = "\
# What clients of the last release send, and what they read. A test compares it with the tree: see
# `NodeBuilder::assert_wire_lock`. Written with each release, by CORESIDE_WIRE_LOCK=release in its
# environment; not by hand, but to remove what is no longer supported.
";

const MESSAGE: &str = "message ";
const TYPE: &str = "type ";
const INDENT: &str = "    ";

impl fmt::Display for WireLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        for (name, versions) in &self.messages {
            for LockedMessage { version, id, schema, key_bits, shape, .. } in versions {
                writeln!(f, "\n{MESSAGE}{name}")?;
                writeln!(f, "{INDENT}version {version}")?;
                writeln!(f, "{INDENT}id {id:016x}")?;
                writeln!(f, "{INDENT}schema {schema:016x}")?;
                writeln!(f, "{INDENT}key {key_bits}")?;
                writeln!(f, "{INDENT}{shape}")?;
            }
        }
        let messages = self.messages.values().flatten();
        let types: BTreeSet<_> = messages.flat_map(|message| &message.types).collect();
        for LockedType { name, lines } in types {
            writeln!(f, "\n{TYPE}{name}")?;
            lines.iter().try_for_each(|line| writeln!(f, "{INDENT}{line}"))?;
        }
        Ok(())
    }
}

impl FromStr for WireLock {
    type Err = WireLockError;

    fn from_str(text: &str) -> Result<Self, WireLockError> {
        let mut lock = Self::default();
        let mut types = Vec::new();
        let mut lines = Lines { rest: text.lines().collect(), at: 0 };
        while let Some(line) = lines.head() {
            if let Some(name) = line.strip_prefix(MESSAGE) {
                let message = LockedMessage {
                    version: lines.number("version ", 10)?,
                    id: lines.number("id ", 16)?,
                    schema: lines.number("schema ", 16)?,
                    key_bits: lines.number("key ", 10)?,
                    shape: lines.indented().ok_or_else(|| lines.error())?.to_owned(),
                    types: BTreeSet::new(),
                    is_previous: false,
                };
                lock.messages.entry(name.to_owned()).or_default().push(message);
            } else if let Some(name) = line.strip_prefix(TYPE) {
                let body = std::iter::from_fn(|| lines.indented().map(str::to_owned)).collect();
                types.push(LockedType { name: name.to_owned(), lines: body });
            } else {
                return Err(lines.error());
            }
        }
        for message in lock.messages.values_mut().flatten() {
            message.types = within(&message.shape, &types);
        }
        Ok(lock)
    }
}

/// Those of `types` that `shape` names, and that they name in turn.
fn within(shape: &str, types: &[LockedType]) -> BTreeSet<LockedType> {
    let mut found = BTreeSet::new();
    let mut texts = vec![shape];
    while let Some(text) = texts.pop() {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        for name in text.split(|letter| !is_part(letter)) {
            for ty in types.iter().filter(|ty| ty.name == name) {
                if found.insert(ty.clone()) {
                    texts.extend(ty.lines.iter().map(String::as_str));
                }
            }
        }
    }
    found
}

/// The lines of a lock file, and where it is read.
struct Lines<'a> {
    rest: Vec<&'a str>,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line that begins something.
    fn head(&mut self) -> Option<&'a str> {
        while let Some(line) = self.rest.get(self.at) {
            self.at += 1;
            if !line.trim().is_empty() && !line.starts_with('#') {
                return Some(line);
            }
        }
        None
    }

    /// The next line, if it belongs to what has begun.
    fn indented(&mut self) -> Option<&'a str> {
        let line = self.rest.get(self.at)?.strip_prefix(INDENT)?;
        self.at += 1;
        Some(line)
    }

    /// The number behind `label` on the next line.
    fn number<N: TryFrom<u64>>(&mut self, label: &str, radix: u32) -> Result<N, WireLockError> {
        self.indented()
            .and_then(|line| line.strip_prefix(label))
            .and_then(|digits| u64::from_str_radix(digits, radix).ok())
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| self.error())
    }

    /// The line that was read last is not what was written.
    fn error(&self) -> WireLockError {
        WireLockError::Malformed { line: self.at }
    }
}
