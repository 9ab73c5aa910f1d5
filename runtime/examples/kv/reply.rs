//! Replies: what a turn answers, small enough to travel in its record.

use coreside::{INLINE_BYTES_MAX, ToValue, ValueWriter};

use crate::value::{Digits, Value};

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The bytes of a value; nil for an absent one.
    Value(Value),
    /// An integer.
    Integer(i64),
    /// A status such as `OK`.
    Status(&'static str),
    /// An error line, code included.
    Error(&'static str),
    /// `EXPIRE` does not know this word.
    UnknownOption(Box<[u8]>),
}

const _: () = assert!(size_of::<Reply>() <= 40 && size_of::<Reply>() <= INLINE_BYTES_MAX);

impl Reply {
    pub(crate) const NIL: Self = Self::Value(Value::Absent);
    pub(crate) const OK: Self = Self::Status("OK");
    pub(crate) const NOT_AN_INTEGER: Self =
        Self::Error("ERR value is not an integer or out of range");
    pub(crate) const OVERFLOW: Self = Self::Error("ERR increment or decrement would overflow");
    pub(crate) const TOO_LONG: Self =
        Self::Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
}

impl ToValue for Reply {
    #[inline]
    fn write_to(&self, out: &mut dyn ValueWriter) {
        match self {
            Self::Value(Value::Bytes(bytes)) => out.bytes(bytes.as_slice()),
            Self::Value(Value::Integer(value)) => out.bytes(Digits::of(*value).as_slice()),
            Self::Value(Value::Absent) => out.nil(),
            Self::Integer(value) => out.integer(*value),
            Self::Status(text) => out.status(text),
            Self::Error(line) => out.error(line),
            Self::UnknownOption(word) => {
                out.error(&format!("ERR Unsupported option {}", String::from_utf8_lossy(word)));
            }
        }
    }
}
