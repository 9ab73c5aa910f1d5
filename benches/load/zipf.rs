//! Zipf-distributed ranks by rejection-inversion.
//!
//! Rank `k` of `1..=count` comes with probability proportional to `k^-exponent`. The method is
//! that of Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone
//! discrete distributions" (ACM TOMACS 6(3), 1996): exact for any count, without a table of all
//! ranks that would fall out of the cache.
//!
//! A point under a continuous hat is drawn by inversion, rounded to a rank, and accepted if it lies
//! below that rank's bar. The acceptance test needs the hat's integral at the rank; to do without,
//! the tests of the first ranks are tabulated, and beyond them nearly every draw is so far from the
//! bar's edge that its distance alone decides (the authors' "squeeze"). What is left is one
//! logarithm and one exponential per draw.

use crate::random::Random;

/// Ranks whose test is tabulated; their 2 KiB stay in the first-level cache.
const HEAD: usize = 256;

/// A sampler of ranks.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: u64,
    hat: Hat,
    /// The hat's integral at the upper edge of the first rank, less that rank's probability.
    integral_low: f64,
    /// The hat's integral at the upper edge of the last rank.
    integral_high: f64,
    /// The least accepted area of each of the first ranks, by rank.
    accept_from: Box<[f64; HEAD]>,
    /// A point at most this far below its rank is accepted, for ranks from `HEAD` on.
    accept_within: f64,
}

impl Zipf {
    /// A sampler of ranks `1..=count`.
    ///
    /// # Panics
    /// When `count` is 0 or `exponent` is not a positive finite number; the command line admits
    /// neither.
    pub(crate) fn new(count: u64, exponent: f64) -> Self {
        assert!(count > 0, "a distribution over no keys");
        assert!(exponent > 0.0 && exponent.is_finite(), "an exponent outside its range");
        let hat = Hat::new(exponent);
        // There is no rank 0; its place is never asked for.
        let accept_from = std::array::from_fn(|rank| hat.accept_from(rank.max(1) as f64));
        let head = HEAD as f64;
        Self {
            count,
            integral_low: hat.integral(1.5) - 1.0,
            integral_high: hat.integral(count as f64 + 0.5),
            accept_from: Box::new(accept_from),
            // This distance grows with the rank, so that of the first holds for all.
            accept_within: head - hat.integral_inverse(hat.accept_from(head)),
            hat,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area =
                self.integral_high + random.unit() * (self.integral_low - self.integral_high);
            let point = self.hat.integral_inverse(area);
            let rank = ((point + 0.5) as u64).clamp(1, self.count);
            let accepted = match self.accept_from.get(rank as usize) {
                Some(&least) => area >= least,
                None => {
                    rank as f64 - point <= self.accept_within
                        || area >= self.hat.accept_from(rank as f64)
                }
            };
            if accepted {
                return rank;
            }
        }
    }
}

/// The continuous curve `x^-exponent` over the discrete probabilities.
#[derive(Clone, Debug)]
struct Hat {
    exponent: f64,
    /// `1 - exponent`, and its reciprocal.
    power: f64,
    power_inverse: f64,
    /// The exponent is so near 1 that the curve's integral is a logarithm.
    logarithmic: bool,
}

impl Hat {
    fn new(exponent: f64) -> Self {
        // Nearer than this, the integral would lose more to rounding than to the approximation.
        const NEAR: f64 = 1e-9;
        let power = 1.0 - exponent;
        Self { exponent, power, power_inverse: power.recip(), logarithmic: power.abs() < NEAR }
    }

    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// `(x^power - 1) / power`, and its limit `ln x` as `power` tends to 0.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        if self.logarithmic { log } else { (self.power * log).exp_m1() * self.power_inverse }
    }

    fn integral_inverse(&self, y: f64) -> f64 {
        if self.logarithmic {
            return y.exp();
        }
        // Rounding may push the lowest draw of a steep curve out of the logarithm's domain.
        let base = (1.0 + self.power * y).max(f64::MIN_POSITIVE);
        (base.ln() * self.power_inverse).exp()
    }

    /// The least area that is accepted for a rank.
    fn accept_from(&self, rank: f64) -> f64 {
        self.integral(rank + 0.5) - self.height(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 1_000_000;
    /// More than are tabulated.
    const RANKS: u64 = 400;

    /// Probability of each rank, by its definition.
    fn analytic(count: u64, exponent: f64) -> Vec<f64> {
        let weights: Vec<f64> = (1..=count).map(|k| (k as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    fn frequencies(count: u64, exponent: f64) -> Vec<f64> {
        let zipf = Zipf::new(count, exponent);
        let mut random = Random::new(42, 0);
        let mut hits = vec![0u32; count as usize];
        for _ in 0..DRAWS {
            hits[zipf.draw(&mut random) as usize - 1] += 1;
        }
        hits.iter().map(|&hit| f64::from(hit) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn every_rank_has_its_analytic_probability() {
        for exponent in [0.2, 0.5, 0.99, 1.0 - 1e-7, 1.0, 1.01, 2.0, 3.5] {
            let expected = analytic(RANKS, exponent);
            for (rank, (seen, exact)) in
                frequencies(RANKS, exponent).iter().zip(&expected).enumerate()
            {
                // Five standard deviations of a binomial count, and three draws of slack.
                let allowed = 5.0 * (exact / f64::from(DRAWS)).sqrt() + 3e-6;
                assert!(
                    (seen - exact).abs() <= allowed,
                    "exponent {exponent}, rank {}: {seen} instead of {exact}",
                    rank + 1
                );
            }
        }
    }

    #[test]
    fn shares_of_a_large_key_space_are_analytic() {
        let (seen, exact) = (frequencies(1_000_000, 0.99), analytic(1_000_000, 0.99));
        for bounds in [0..1, 0..10, 10..100, 100..10_000, 10_000..1_000_000] {
            let seen: f64 = seen[bounds.clone()].iter().sum();
            let exact: f64 = exact[bounds].iter().sum();
            assert!((seen - exact).abs() < 0.003, "{seen} instead of {exact}");
        }
    }

    #[test]
    fn one_key_is_always_drawn() {
        let zipf = Zipf::new(1, 0.99);
        let mut random = Random::new(5, 0);
        assert!((0..1_000).all(|_| zipf.draw(&mut random) == 1));
    }
}
