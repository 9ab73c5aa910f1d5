//! Integers as decimal text, without branches for the sizes that key numbers have.

/// A formatted integer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl Decimal {
    /// Room that [`Self::write`] may touch: the longest `u64` has 20 digits, rounded up to words.
    pub(crate) const BYTES_MAX: usize = 24;

    pub(crate) const ZERO: Self = Self { bytes: [b'0'; Self::BYTES_MAX], len: 1 };

    pub(crate) fn new(value: u64) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        if value < 100_000_000 {
            let (text, len) = eight_digits(value as u32);
            bytes[..8].copy_from_slice(&text);
            return Self { bytes, len: len as u8 };
        }
        Self::long(value)
    }

    /// The upper digits without their leading zeros, then eight digits at a time with them.
    #[cold]
    fn long(value: u64) -> Self {
        const UNIT: u64 = 100_000_000;
        let mut bytes = [0; Self::BYTES_MAX];
        let (upper, lower) = (value / UNIT, value % UNIT);
        let head = Self::new(upper);
        let len = head.len();
        bytes[..Self::BYTES_MAX - 8].copy_from_slice(&head.bytes[..Self::BYTES_MAX - 8]);
        bytes[len..len + 8].copy_from_slice(&(digits(lower as u32) | ZEROS).to_le_bytes());
        Self { bytes, len: head.len + 8 }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Writes the text at `at` and returns the place behind it.
    ///
    /// Up to [`Self::BYTES_MAX`] bytes from `at` on are overwritten: a copy of fixed size is one
    /// move, a copy of `len` bytes is a call.
    pub(crate) fn write(&self, out: &mut [u8], at: usize) -> usize {
        if self.len <= 8 {
            out[at..at + 8].copy_from_slice(&self.bytes[..8]);
        } else {
            out[at..at + Self::BYTES_MAX].copy_from_slice(&self.bytes);
        }
        at + self.len()
    }
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The text of a number below 10^8, left-justified, and its length.
fn eight_digits(value: u32) -> ([u8; 8], u32) {
    let digits = digits(value);
    // The lowest byte is the leading digit, so leading zeros are trailing zero bytes here. The last
    // digit stays even if it is 0.
    let zeros = (digits.trailing_zeros() / 8).min(7);
    (((digits | ZEROS) >> (8 * zeros)).to_le_bytes(), 8 - zeros)
}

/// The eight digits of a number below 10^8, leading digit in the lowest byte.
///
/// Splits into halves, quarters and digits side by side in one register; the constants are
/// reciprocals in fixed point (Paul Khuong, "How to print integers really fast", 2017).
fn digits(value: u32) -> u64 {
    let fours = u64::from(value / 10_000) | (u64::from(value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - 10 * tens) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: u64) -> String {
        let mut out = [b'!'; 40];
        let end = Decimal::new(value).write(&mut out, 3);
        assert_eq!(end - 3, Decimal::new(value).len());
        String::from_utf8_lossy(&out[3..end]).into_owned()
    }

    #[test]
    fn every_length_agrees_with_the_standard_library() {
        for power in 0..20u32 {
            let base = 10u64.pow(power);
            for value in [base - 1, base, base + 1, base - base / 3, base | 0x5555] {
                assert_eq!(text(value), value.to_string());
            }
        }
        assert_eq!(text(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn small_numbers_agree_with_the_standard_library() {
        for value in (0..100_000).chain((0..100_000_000).step_by(7_919)) {
            assert_eq!(text(value), value.to_string());
        }
    }

    #[test]
    fn zero_constant_is_zero() {
        let mut out = [0; 40];
        assert_eq!(Decimal::ZERO.write(&mut out, 0), 1);
        assert_eq!(out[0], b'0');
    }
}
