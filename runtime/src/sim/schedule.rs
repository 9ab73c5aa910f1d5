//! Which shard goes next.

use super::random::Random;

/// A choice among the shards that may go on, drawn from the seed.
pub(crate) struct Schedule {
    random: Random,
    kind: Kind,
    /// By shard, for [`Kind::Weighted`].
    weights: Vec<u64>,
    last: usize,
    /// Steps for which the last shard goes on.
    burst: u64,
    /// A shard that is left out, and for how many steps.
    starved: (usize, u64),
    pub(crate) starvations: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each as likely as any other.
    Fair,
    /// In turn.
    Round,
    /// One of them up to a hundred times more often than another.
    Weighted,
    /// The same one for some steps, then another.
    Bursts,
}

impl Schedule {
    pub(crate) fn new(seed: u64, shards: u16, starving: bool) -> Self {
        let mut random = Random::stream(seed, "schedule");
        let kind = match starving {
            true => *random.pick(&[Kind::Fair, Kind::Weighted, Kind::Weighted, Kind::Bursts]),
            false => *random.pick(&[Kind::Fair, Kind::Round]),
        };
        let weights = (0..shards).map(|_| random.magnitude(1, 100)).collect();
        let starved = (usize::MAX, if starving { 0 } else { u64::MAX });
        Self { random, kind, weights, last: 0, burst: 0, starved, starvations: 0 }
    }

    /// One of the shards whose bit is set in `ready`.
    ///
    /// # Panics
    /// When none is.
    pub(crate) fn next(&mut self, ready: u64) -> usize {
        assert!(ready != 0, "one of the shards may go on");
        let ready = self.without_the_starved(ready);
        let chosen = match self.kind {
            Kind::Fair => nth(ready, self.random.below(u64::from(ready.count_ones()))),
            Kind::Round => {
                let behind = ready & (u64::MAX << self.last << 1);
                (if behind == 0 { ready } else { behind }).trailing_zeros() as usize
            }
            Kind::Weighted => self.weighted(ready),
            Kind::Bursts if self.burst > 0 && ready & (1 << self.last) != 0 => {
                self.burst -= 1;
                self.last
            }
            Kind::Bursts => {
                self.burst = self.random.magnitude(1, 64);
                nth(ready, self.random.below(u64::from(ready.count_ones())))
            }
        };
        self.last = chosen;
        chosen
    }

    /// How often an idle shard looks again before it sleeps.
    pub(crate) fn spins(&mut self) -> u64 {
        if self.random.one_in(2) { 0 } else { self.random.below(8) }
    }

    /// From now on every shard goes about as often as any other.
    pub(crate) fn calm(&mut self) {
        self.kind = Kind::Fair;
        self.starved = (usize::MAX, u64::MAX);
    }

    fn without_the_starved(&mut self, ready: u64) -> u64 {
        let (shard, steps) = self.starved;
        match steps {
            u64::MAX => return ready,
            0 if self.random.one_in(128) => {
                let shard = self.random.below(self.weights.len() as u64) as usize;
                self.starved = (shard, self.random.magnitude(8, 512));
                self.starvations += 1;
            }
            0 => return ready,
            _ => self.starved = (shard, steps - 1),
        }
        let others = ready & !(1 << self.starved.0);
        // Left out, unless nobody else has anything to do.
        if others == 0 { ready } else { others }
    }

    fn weighted(&mut self, ready: u64) -> usize {
        let shards = || (0..self.weights.len()).filter(|shard| ready & (1 << shard) != 0);
        let sum = shards().map(|shard| self.weights[shard]).sum();
        let mut at = self.random.below(sum);
        for shard in shards() {
            if at < self.weights[shard] {
                return shard;
            }
            at -= self.weights[shard];
        }
        ready.trailing_zeros() as usize
    }
}

/// The position of the `n`th bit that is set.
fn nth(bits: u64, n: u64) -> usize {
    let mut bits = bits;
    for _ in 0..n {
        bits &= bits - 1;
    }
    bits.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shards_that_may_go_on_are_chosen_and_each_of_them_is() {
        for seed in 0..40 {
            let mut schedule = Schedule::new(seed, 5, seed % 2 == 0);
            let mut seen = 0;
            for _ in 0..20_000 {
                let chosen = schedule.next(0b1_0110);
                seen |= 1 << chosen;
            }
            assert_eq!(seen, 0b1_0110, "seed {seed}");
        }
    }
}
