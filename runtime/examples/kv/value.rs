//! Values: bytes and integers, the short ones in place.

use std::sync::Arc;

use coreside::parse_integer;

/// What is stored under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: there is no such key.
    #[default]
    Absent,
    /// What a counter became; its bytes are its decimal digits.
    Integer(i64),
    Bytes(Bytes),
}

/// A string of bytes. A short one stands in place; a long one is shared with the replies that are
/// on their way, so that no reading copies it.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Short {
        len: u8,
        bytes: [u8; SHORT_BYTES_MAX],
    },
    /// The first `len` bytes of `buffer`.
    Long {
        len: u32,
        buffer: Arc<[u8]>,
    },
}

/// What fits 32 bytes beside a tag and a length.
const SHORT_BYTES_MAX: usize = 30;

/// The longest value, as in Redis (`proto-max-bulk-len`).
pub(crate) const VALUE_BYTES_MAX: usize = 512 << 20;

/// A value that grows gets twice the room it needs, but no more than this to spare.
const SPARE_BYTES_MAX: usize = 1 << 20;

const _: () = {
    assert!(size_of::<Bytes>() == 32);
    assert!(size_of::<Value>() == 32);
};

impl Value {
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value as a counter reads it, where an absent one is 0; `None` when it is no integer.
    pub(crate) fn to_integer(&self) -> Option<i64> {
        match self {
            Self::Absent => Some(0),
            Self::Integer(value) => Some(*value),
            Self::Bytes(bytes) => {
                parse_integer(bytes.as_slice()).ok().and_then(|value| value.try_into().ok())
            }
        }
    }

    /// How many bytes it has; an absent value has none.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Integer(value) => Digits::of(*value).as_slice().len(),
            Self::Bytes(bytes) => bytes.as_slice().len(),
        }
    }

    /// Adds bytes at the end and returns the new length.
    pub(crate) fn append(&mut self, more: Bytes) -> usize {
        match self {
            Self::Absent => *self = Self::Bytes(more),
            Self::Integer(value) => {
                let mut bytes = Bytes::new(Digits::of(*value).as_slice());
                bytes.append(more.as_slice());
                *self = Self::Bytes(bytes);
            }
            Self::Bytes(bytes) => bytes.append(more.as_slice()),
        }
        self.len()
    }
}

impl Bytes {
    /// # Cost
    /// One allocation for more than 30 bytes, none otherwise.
    #[inline]
    pub(crate) fn new(slice: &[u8]) -> Self {
        if slice.len() <= SHORT_BYTES_MAX {
            let mut bytes = [0; SHORT_BYTES_MAX];
            bytes[..slice.len()].copy_from_slice(slice);
            Self::Short { len: slice.len() as u8, bytes }
        } else {
            Self::Long { len: slice.len() as u32, buffer: Arc::from(slice) }
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long { len, buffer } => &buffer[..*len as usize],
        }
    }

    /// # Cost
    /// A copy of `more`; a copy of it all when there is no room or a reply shares the buffer.
    fn append(&mut self, more: &[u8]) {
        let len_before = self.as_slice().len();
        let len_after = len_before + more.len();
        match self {
            Self::Short { len, bytes } if len_after <= SHORT_BYTES_MAX => {
                bytes[len_before..len_after].copy_from_slice(more);
                *len = len_after as u8;
            }
            Self::Long { len, buffer } if len_after <= buffer.len() => {
                Arc::make_mut(buffer)[len_before..len_after].copy_from_slice(more);
                *len = len_after as u32;
            }
            _ => {
                let room = len_after + len_after.min(SPARE_BYTES_MAX);
                let mut buffer: Arc<[u8]> = std::iter::repeat_n(0, room).collect();
                let bytes = Arc::make_mut(&mut buffer);
                bytes[..len_before].copy_from_slice(self.as_slice());
                bytes[len_before..len_after].copy_from_slice(more);
                *self = Self::Long { len: len_after as u32, buffer };
            }
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

/// The decimal digits of an integer, without an allocation.
pub(crate) struct Digits {
    digits: [u8; Self::LEN_MAX],
    start: usize,
}

impl Digits {
    /// i64::MIN has 19 digits and a sign.
    const LEN_MAX: usize = 20;

    pub(crate) fn of(value: i64) -> Self {
        let mut digits = [0; Self::LEN_MAX];
        let mut start = Self::LEN_MAX;
        let mut rest = value.unsigned_abs();
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            start -= 1;
            digits[start] = b'-';
        }
        Self { digits, start }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for value in [0, 1, -1, 9, 10, -10, 99, 100, 1_234_567, i64::MAX, i64::MIN] {
            assert_eq!(Digits::of(value).as_slice(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn appending_makes_the_value_that_a_vector_makes() {
        for step in [0, 1, 7, 29, 30, 31, 100, 5000] {
            let (mut value, mut model) = (Value::Absent, Vec::new());
            for round in 0..40u8 {
                let more = vec![round; step];
                model.extend_from_slice(&more);
                assert_eq!(value.append(Bytes::new(&more)), model.len());
                assert_eq!(value, Value::Bytes(Bytes::new(&model)));
            }
        }
    }

    #[test]
    fn appending_leaves_a_reply_on_its_way_alone() {
        let mut value = Value::Bytes(Bytes::new(&[7; 100]));
        value.append(Bytes::new(&[8; 100]));
        let reply = value.clone();
        value.append(Bytes::new(b"x"));
        assert_eq!((reply.len(), value.len()), (200, 201));
        assert_eq!(reply, Value::Bytes(Bytes::new(&[[7; 100], [8; 100]].concat())));
    }

    #[test]
    fn counter_is_appended_to_as_its_digits() {
        let mut value = Value::Integer(-12);
        assert_eq!(value.len(), 3);
        assert_eq!(value.append(Bytes::new(b"34")), 5);
        assert_eq!(value.to_integer(), Some(-1234));
    }

    #[test]
    fn only_what_redis_takes_for_an_integer_is_one() {
        for bad in ["", " 1", "1 ", "+1", "01", "-0", "1.0", "9223372036854775808", "abc"] {
            assert_eq!(Value::Bytes(Bytes::new(bad.as_bytes())).to_integer(), None, "{bad:?}");
        }
        let least = Value::Bytes(Bytes::new(b"-9223372036854775808"));
        assert_eq!(least.to_integer(), Some(i64::MIN));
    }
}
