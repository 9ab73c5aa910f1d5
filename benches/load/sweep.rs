//! Latency at a range of rates.

use crate::failure::Failure;
use crate::run::{Crew, Outcome};

/// One rate, and what came of it.
pub(crate) struct Point {
    /// Requests per second that were asked for.
    pub(crate) rate: f64,
    pub(crate) outcome: Outcome,
}

/// A curve.
pub(crate) struct Curve {
    /// What a closed loop found first, if the rates were to be parts of it.
    pub(crate) capacity: Option<Outcome>,
    /// By ascending rate.
    pub(crate) points: Vec<Point>,
}

impl Curve {
    /// Ctrl-C ended it early.
    pub(crate) fn interrupted(&self) -> bool {
        self.outcomes().any(|outcome| outcome.interrupted)
    }

    /// Error replies in all of it.
    pub(crate) fn errors(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.tally.errors.count()).sum()
    }

    /// Requests that were sent and never answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.tally.unanswered).sum()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.capacity.iter().chain(self.points.iter().map(|point| &point.outcome))
    }
}

/// Measures each of `rates`; without any, `points` even parts of what a closed loop achieves.
///
/// # Errors
/// When the target fails.
pub(crate) fn sweep(crew: &mut Crew<'_>, rates: &[f64], points: u16) -> Result<Curve, Failure> {
    let mut curve = Curve { capacity: None, points: Vec::new() };
    let mut rates = rates.to_vec();
    if rates.is_empty() {
        let capacity = crew.measure(None)?;
        if capacity.tally.replies > 0 && capacity.tally.unanswered == 0 {
            rates = parts(capacity.tally.rate(), points);
        }
        curve.capacity = Some(capacity);
    }
    for rate in rates {
        if curve.interrupted() {
            break;
        }
        let outcome = crew.measure(Some(rate))?;
        // What is still owed would be counted at the next point.
        let owes = outcome.tally.unanswered > 0;
        curve.points.push(Point { rate, outcome });
        if owes {
            break;
        }
    }
    Ok(curve)
}

/// `points` even parts of `capacity`, the last of them all of it, in three digits.
fn parts(capacity: f64, points: u16) -> Vec<f64> {
    let part = |point| round(capacity * f64::from(point) / f64::from(points));
    (1..=points).map(part).collect()
}

fn round(rate: f64) -> f64 {
    const DIGITS: i32 = 3;
    let unit = 10f64.powi(rate.log10().floor() as i32 + 1 - DIGITS);
    (rate / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_even_parts_in_few_digits() {
        let rates = parts(123_456.0, 4);
        let expected = [30_900.0, 61_700.0, 92_600.0, 123_000.0];
        assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rates:?}");
        assert!(parts(0.5, 100).iter().all(|rate| *rate > 0.0));
    }
}
