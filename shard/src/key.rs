//! Keys: what an entity is called within its type, as one or two words of a record.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// The words of a key as they stand in a record: word 0, and word 1 for 128-bit keys (else 0).
pub type KeyWords = [u64; 2];

/// What an entity is called within its type: a `u64`, or 128 bits (a UUID, or the hash of a name).
///
/// The trait is sealed in spirit: a record has room for one or two words, so [`WORDS`](Self::WORDS)
/// is 1 or 2. Wrap one of the three key types to give a domain type of your own its key.
pub trait Key: Copy + Eq + fmt::Debug + Send + 'static {
    /// How many words of a record the key takes: 1 or 2.
    const WORDS: usize;

    /// The key as record words; the second is 0 where [`WORDS`](Self::WORDS) is 1.
    fn to_words(self) -> KeyWords;

    /// The key from its record words.
    fn from_words(words: KeyWords) -> Self;

    /// The key that a caller outside wrote as bytes (a decimal number, a UUID, a name).
    ///
    /// # Errors
    /// A sentence that says what was expected, when the bytes do not name a key of this type.
    fn from_bytes(bytes: &[u8], hash: &HashKey) -> Result<Self, &'static str>;
}

impl Key for u64 {
    const WORDS: usize = 1;

    #[inline(always)]
    fn to_words(self) -> KeyWords {
        [self, 0]
    }

    #[inline(always)]
    fn from_words(words: KeyWords) -> Self {
        words[0]
    }

    #[inline]
    fn from_bytes(bytes: &[u8], _hash: &HashKey) -> Result<Self, &'static str> {
        parse_u64(bytes).ok_or("key is not an unsigned 64-bit integer")
    }
}

impl Key for u128 {
    const WORDS: usize = 2;

    #[inline(always)]
    fn to_words(self) -> KeyWords {
        [self as u64, (self >> 64) as u64]
    }

    #[inline(always)]
    fn from_words(words: KeyWords) -> Self {
        u128::from(words[0]) | u128::from(words[1]) << 64
    }

    fn from_bytes(bytes: &[u8], _hash: &HashKey) -> Result<Self, &'static str> {
        parse_uuid(bytes).ok_or("key is not a UUID (32 hexadecimal digits, hyphens allowed)")
    }
}

/// A key made from a name of any length (text or bytes) by a keyed 128-bit hash.
///
/// Two names share a key with a probability of about 2^-64 per 2^64 names; whoever does not know
/// the node's [`HashKey`] cannot look for such a pair. The name itself is not kept: an entity that
/// needs it stores it.
///
/// # Cost
/// One SipHash-2-4-128 of the name where the key is made, none afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Name(u128);

impl Name {
    /// The key of `name` under the hash key of the node (every node of a cluster has the same).
    pub fn new(name: impl AsRef<[u8]>, hash: &HashKey) -> Self {
        let mut hasher = SipHasher24::new_with_keys(hash.seed, hash.multiplier);
        hasher.write(name.as_ref());
        Self(hasher.finish128().as_u128())
    }
}

impl Key for Name {
    const WORDS: usize = 2;

    #[inline(always)]
    fn to_words(self) -> KeyWords {
        self.0.to_words()
    }

    #[inline(always)]
    fn from_words(words: KeyWords) -> Self {
        Self(u128::from_words(words))
    }

    #[inline]
    fn from_bytes(bytes: &[u8], hash: &HashKey) -> Result<Self, &'static str> {
        Ok(Self::new(bytes, hash))
    }
}

/// The secret under which keys are hashed, for placement, for the index, and for [`Name`]s.
///
/// Outside callers choose keys, so without a secret they could aim them all at one bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey {
    seed: u64,
    /// Odd bits and even bits in fair measure, whatever the secret is.
    multiplier: u64,
}

impl HashKey {
    /// A hash key from 128 bits that callers outside must not know.
    pub const fn new(seed: u128) -> Self {
        Self { seed: seed as u64 ^ SEED_MASK, multiplier: (seed >> 64) as u64 ^ MULTIPLIER_MASK }
    }

    /// The bits that it was made from, for those who are to find the shard of a key by themselves.
    /// Whoever knows them can aim keys at one bucket.
    pub const fn secret(&self) -> u128 {
        (self.seed ^ SEED_MASK) as u128 | ((self.multiplier ^ MULTIPLIER_MASK) as u128) << 64
    }

    /// The hash of a one-word key: 64 bits, all of them usable.
    ///
    /// A folded multiplication, as wyhash and foldhash use it: the key is masked by one secret
    /// word, multiplied by the other to 128 bits, and both halves are combined.
    ///
    /// # Cost
    /// One 64x64 multiplication: about 4 cycles.
    #[inline(always)]
    pub fn hash_one(&self, word: u64) -> u64 {
        fold(word ^ self.seed, self.multiplier)
    }

    /// The hash of a two-word key.
    #[inline(always)]
    pub fn hash_two(&self, words: KeyWords) -> u64 {
        fold(fold(words[0] ^ self.seed, self.multiplier) ^ words[1], self.multiplier)
    }

    /// The hash of a key of either width.
    #[inline(always)]
    pub fn hash<K: Key>(&self, key: K) -> u64 {
        self.hash_words::<K>(key.to_words())
    }

    /// The hash of a key's words.
    #[inline(always)]
    pub(crate) fn hash_words<K: Key>(&self, words: KeyWords) -> u64 {
        if K::WORDS == 1 { self.hash_one(words[0]) } else { self.hash_two(words) }
    }
}

impl fmt::Debug for HashKey {
    /// Keeps the secret out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// Two of wyhash's constants: dense, so that a weak secret still mixes.
const SEED_MASK: u64 = 0xa076_1d64_78bd_642f;
const MULTIPLIER_MASK: u64 = 0xe703_7ed1_a0b4_28db;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A decimal number without sign, blanks or leading plus, as a key is written.
fn parse_u64(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    let mut value = 0u64;
    for &byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

fn parse_uuid(bytes: &[u8]) -> Option<u128> {
    let mut value = 0u128;
    let mut digits = 0;
    for &byte in bytes {
        if byte == b'-' {
            continue;
        }
        let digit = char::from(byte).to_digit(16)?;
        value = value << 4 | u128::from(digit);
        digits += 1;
        if digits > 32 {
            return None;
        }
    }
    (digits == 32).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: HashKey = HashKey::new(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);

    #[test]
    fn key_survives_the_trip_through_its_words() {
        assert_eq!(u64::from_words(7u64.to_words()), 7);
        let wide = 0x1111_2222_3333_4444_5555_6666_7777_8888_u128;
        assert_eq!(u128::from_words(wide.to_words()), wide);
        let name = Name::new("alice", &HASH);
        assert_eq!(Name::from_words(name.to_words()), name);
    }

    #[test]
    fn decimal_key_is_read_strictly() {
        assert_eq!(u64::from_bytes(b"18446744073709551615", &HASH), Ok(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1x", b"18446744073709551616", b"1.0"] {
            assert!(u64::from_bytes(bad, &HASH).is_err(), "{bad:?} was taken for a key");
        }
    }

    #[test]
    fn uuid_key_is_read_with_and_without_hyphens() {
        let plain = u128::from_bytes(b"67e5504410b1426f9247bb680e5fe0c8", &HASH);
        assert_eq!(plain, u128::from_bytes(b"67e55044-10b1-426f-9247-bb680e5fe0c8", &HASH));
        assert_eq!(plain, Ok(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8));
        assert!(u128::from_bytes(b"67e5504410b1426f9247bb680e5fe0", &HASH).is_err());
    }

    #[test]
    fn hash_spreads_consecutive_keys_over_all_its_bits() {
        for shift in [0, 12, 24, 40, 52] {
            let mut counts = [0u32; 4096];
            for key in 0..409_600u64 {
                counts[(HASH.hash(key) >> shift) as usize & 4095] += 1;
            }
            let worst = counts.iter().max().copied().unwrap_or(0);
            assert!(worst < 160, "bits {shift}..: {worst} keys in one of 4096 cells, 100 expected");
        }
    }

    #[test]
    fn name_depends_on_the_secret() {
        assert_ne!(Name::new("alice", &HASH), Name::new("alice", &HashKey::new(1)));
    }
}
