//! Zipf-distributed ranks by rejection-inversion.
//!
//! Rank `k` of `1..=count` comes with probability proportional to `k^-exponent`. The method is
//! that of Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone
//! discrete distributions" (ACM TOMACS 6(3), 1996): exact for any count, with no table to fall out
//! of the cache and about one power function per draw.

use crate::random::Random;

/// A sampler of ranks.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    exponent: f64,
    /// The hat's integral at the upper edge of the first rank, less that rank's probability.
    integral_low: f64,
    /// The hat's integral at the upper edge of the last rank.
    integral_high: f64,
    /// A draw whose rank lies at most this far above it needs no evaluation of the hat.
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
        let hat = Hat { exponent };
        Self {
            count: count as f64,
            exponent,
            integral_low: hat.integral(1.5) - 1.0,
            integral_high: hat.integral(count as f64 + 0.5),
            accept_within: 2.0 - hat.integral_inverse(hat.integral(2.5) - hat.height(2.0)),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count as u64
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let hat = Hat { exponent: self.exponent };
        loop {
            let area =
                self.integral_high + random.unit() * (self.integral_low - self.integral_high);
            let point = hat.integral_inverse(area);
            let rank = (point + 0.5).floor().clamp(1.0, self.count);
            // The squeeze accepts nearly always; without it each draw would cost a second power.
            if rank - point <= self.accept_within
                || area >= hat.integral(rank + 0.5) - hat.height(rank)
            {
                return rank as u64;
            }
        }
    }
}

/// The continuous curve `x^-exponent` over the discrete probabilities.
struct Hat {
    exponent: f64,
}

impl Hat {
    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// `(x^(1-e) - 1) / (1-e)`, and its limit `ln x` as `e` tends to 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = (1.0 - self.exponent) * log;
        if power.abs() < 1e-8 { log * (1.0 + power / 2.0) } else { power.exp_m1() / power * log }
    }

    fn integral_inverse(&self, y: f64) -> f64 {
        // Rounding may push the lowest draw of a steep curve below the logarithm's domain.
        let power = ((1.0 - self.exponent) * y).max(-1.0);
        let log =
            if power.abs() < 1e-8 { y * (1.0 - power / 2.0) } else { power.ln_1p() / power * y };
        log.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 1_000_000;

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
        for exponent in [0.2, 0.5, 0.99, 1.0, 1.01, 2.0, 3.5] {
            let expected = analytic(50, exponent);
            for (rank, (seen, exact)) in frequencies(50, exponent).iter().zip(&expected).enumerate()
            {
                // Five standard deviations of a binomial count, and one draw of slack.
                let allowed = 5.0 * (exact / f64::from(DRAWS)).sqrt() + 1e-6;
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
