//! Sampling turns: one of some hundred is timed, and stands for those before it.
//!
//! The distance from one to the next is random, so that a pattern in the load does not meet it.

use crate::heat::Heat;
use crate::key::KeyWords;

/// Which turn is timed next, and what the timed ones say.
pub(crate) struct Sampler {
    /// Turns until the next one is timed.
    left: u32,
    /// What the next one stands for.
    weight: u32,
    pub(crate) stopwatch_ns: fn() -> u64,
    pub(crate) heat: Heat,
    next_decay_ns: u64,
}

/// The least distance; the greatest is three times as long.
const DISTANCE_MIN: u32 = 256;

/// What happened longer ago counts half.
const HALF_LIFE_NS: u64 = 10_000_000_000;

impl Sampler {
    pub(crate) fn new(stopwatch_ns: fn() -> u64) -> Self {
        Self { left: 0, weight: 1, stopwatch_ns, heat: Heat::new(), next_decay_ns: HALF_LIFE_NS }
    }

    /// Whether the next turn is to be timed.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Up to `turns` turns that are not to be timed.
    #[inline(always)]
    pub(crate) fn take(&mut self, turns: u32) -> u32 {
        let turns = turns.min(self.left);
        self.left -= turns;
        turns
    }

    /// So many of the turns that were [taken](Self::take) were not needed.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, turns: u32) {
        self.left += turns;
    }

    /// A turn is about to be timed. Returns for how many it stands.
    pub(crate) fn restart(&mut self, random: u64) -> u32 {
        let weight = self.weight;
        self.left = DISTANCE_MIN + (random % u64::from(2 * DISTANCE_MIN)) as u32;
        self.weight = self.left + 1;
        weight
    }

    /// A turn was timed.
    pub(crate) fn record(
        &mut self,
        kind: u16,
        key: KeyWords,
        (weight, took_ns): (u32, u64),
        now_ns: u64,
    ) {
        if let Some(late_ns) = now_ns.checked_sub(self.next_decay_ns) {
            let half_lives = 1 + late_ns / HALF_LIFE_NS;
            // As many leave nothing of any count.
            (0..half_lives.min(u64::BITS.into())).for_each(|_| self.heat.decay());
            self.next_decay_ns = now_ns + HALF_LIFE_NS;
        }
        self.heat.record(kind, key, weight, took_ns.saturating_mul(u64::from(weight)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_half_life_halves_also_where_nothing_was_recorded() {
        for (idle, left) in [(1, 512), (3, 128), (1000, 0)] {
            let mut sampler = Sampler::new(|| 0);
            sampler.record(1, [1, 0], (1, 1024), 0);
            sampler.record(2, [2, 0], (1, 1), idle * HALF_LIFE_NS);
            let top = sampler.heat.top_by_time(2);
            let time_ns = top.iter().find(|hot| hot.kind == 1).map_or(0, |hot| hot.time_ns);
            assert_eq!(time_ns, left, "{idle}");
        }
    }
}
