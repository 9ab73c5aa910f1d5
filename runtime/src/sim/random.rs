//! Random numbers for simulations: many independent streams from one seed.

/// One stream of random numbers. The same seed and label give the same numbers, in every build and
/// on every machine.
///
/// Whatever draws has a stream of its own, so a draw that is added to one purpose does not shift
/// the others, and an old seed still tells most of its old story.
///
/// xoshiro256++ (Blackman and Vigna 2019), its state filled by SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream called `label` of a seed.
    pub fn stream(seed: u64, label: &str) -> Self {
        // FNV-1a: spreads short labels well enough for SplitMix64 to do the rest.
        let of_label = label.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut start = mix(seed) ^ of_label;
        let state = std::array::from_fn(|_| {
            start = start.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(start)
        });
        Self { state }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let bits = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        bits
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// When `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        // Uneven by less than `end` in 2^64.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// When `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "no number is from {low} to {high}");
        low + self.below((high - low).saturating_add(1))
    }

    /// A number from `low` to `high` whose magnitude is drawn first, so that small ones are as
    /// frequent as large ones.
    ///
    /// # Panics
    /// When `low` is 0 or above `high`.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        assert!(low > 0, "0 has no magnitude");
        let doublings = (high / low).ilog2();
        let around = low << self.below(u64::from(doublings) + 1);
        self.between(around, high.min(around.saturating_mul(2)))
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True `count` times in a thousand.
    pub fn per_mille(&mut self, count: u32) -> bool {
        self.below(1000) < u64::from(count)
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// SplitMix64's output function.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_do_not_depend_on_each_other() {
        let numbers = |seed, label| {
            let mut random = Random::stream(seed, label);
            [(); 8].map(|()| random.bits())
        };
        assert_eq!(numbers(1, "clock"), numbers(1, "clock"));
        assert_ne!(numbers(1, "clock"), numbers(1, "schedule"));
        assert_ne!(numbers(1, "clock"), numbers(2, "clock"));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::stream(7, "test");
        let mut seen = [false; 5];
        for _ in 0..1_000 {
            seen[random.between(0, 4) as usize] = true;
            assert!((3..=1_000).contains(&random.magnitude(3, 1_000)));
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.between(9, 9), 9);
        random.between(0, u64::MAX);
    }
}
