//! Which key a request is about.

use crate::random::Random;
use crate::zipf::Zipf;

/// Draws key numbers in `0..count`.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    /// Every key is equally likely.
    Uniform {
        /// The number of keys.
        count: u64,
    },
    /// Key 0 is the most popular, key 1 the next, and so on.
    Zipf(Zipf),
    /// The first `hot` keys share a part of all draws, the others what is left, each evenly.
    Hot {
        /// The number of keys.
        count: u64,
        /// How many of them are hot: from 1 to `count`.
        hot: u64,
        /// The part of the draws that hits them.
        share: f64,
    },
    /// Every key of a range once, in order: populating.
    Sequential {
        /// The key drawn next.
        next: u64,
    },
}

impl Keys {
    pub(crate) fn draw(&mut self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform { count } => random.below(*count),
            Self::Zipf(zipf) => zipf.draw(random) - 1,
            Self::Hot { count, hot, share } => {
                if *hot == *count || random.unit() < *share {
                    random.below(*hot)
                } else {
                    *hot + random.below(*count - *hot)
                }
            }
            Self::Sequential { next } => {
                let key = *next;
                *next += 1;
                key
            }
        }
    }

    /// A key other than `first`, unless there is no other.
    ///
    /// A popular key may come again and again, so the redraws are bounded and the
    /// neighbour takes over after them.
    pub(crate) fn draw_other(&mut self, first: u64, random: &mut Random) -> u64 {
        const REDRAWS_MAX: u32 = 4;
        let count = match self {
            Self::Uniform { count } | Self::Hot { count, .. } => *count,
            Self::Zipf(zipf) => zipf.count(),
            // The sequence may not be disturbed; its second key is always the next neighbour.
            Self::Sequential { .. } => return first + 1,
        };
        for _ in 0..REDRAWS_MAX {
            let key = self.draw(random);
            if key != first {
                return key;
            }
        }
        (first + 1) % count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_draw_differs_from_the_first() {
        let mut random = Random::new(1, 0);
        let hot = Keys::Hot { count: 3, hot: 1, share: 0.99 };
        for mut keys in [Keys::Uniform { count: 3 }, Keys::Zipf(Zipf::new(3, 2.0)), hot] {
            for _ in 0..10_000 {
                let first = keys.draw(&mut random);
                let second = keys.draw_other(first, &mut random);
                assert!(first < 3 && second < 3 && first != second);
            }
        }
    }

    #[test]
    fn hot_keys_have_their_share_and_all_keys_come() {
        let mut random = Random::new(1, 0);
        let mut keys = Keys::Hot { count: 50, hot: 5, share: 0.8 };
        let mut hits = [0u32; 50];
        for _ in 0..100_000 {
            hits[keys.draw(&mut random) as usize] += 1;
        }
        let hot: u32 = hits[..5].iter().sum();
        assert!((79_000..81_000).contains(&hot), "{hot}");
        assert!(hits[..5].iter().all(|hits| (15_000..17_000).contains(hits)), "{hits:?}");
        assert!(hits[5..].iter().all(|hits| (350..550).contains(hits)), "{hits:?}");
        let mut all_hot = Keys::Hot { count: 2, hot: 2, share: 0.5 };
        assert!((0..1_000).all(|_| all_hot.draw(&mut random) < 2));
    }

    #[test]
    fn a_single_key_is_its_own_partner() {
        let mut random = Random::new(1, 0);
        assert_eq!(Keys::Uniform { count: 1 }.draw_other(0, &mut random), 0);
    }

    #[test]
    fn sequential_visits_every_key_once() {
        let mut random = Random::new(1, 0);
        let mut keys = Keys::Sequential { next: 5 };
        let drawn: Vec<u64> = (0..4).map(|_| keys.draw(&mut random)).collect();
        assert_eq!(drawn, [5, 6, 7, 8]);
    }
}
