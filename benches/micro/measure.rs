//! Running two programs alternately and reporting both.

use std::time::Instant;

use serde_json::{Value, json};

/// How much work a benchmark does.
pub(crate) struct Effort {
    pub(crate) quick: bool,
    /// Pairs of runs.
    pub(crate) rounds: usize,
}

impl Effort {
    pub(crate) fn new(quick: bool, rounds: Option<usize>) -> Self {
        Self { quick, rounds: rounds.unwrap_or(if quick { 3 } else { 9 }).max(1) }
    }

    /// `full`, or a hundredth of it in a quick run.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        if self.quick { (full / 100).max(1) } else { full }
    }

    /// Runs the two alternately and sums up what they return.
    pub(crate) fn compare(
        &self,
        unit: &'static str,
        mut ours: impl FnMut() -> f64,
        mut limit: impl FnMut() -> f64,
    ) -> Row {
        let mut pairs = Vec::with_capacity(self.rounds);
        for round in 0..self.rounds {
            // Who goes first changes, so that neither always finds the warmer machine.
            pairs.push(if round % 2 == 0 {
                let first = ours();
                (first, limit())
            } else {
                let first = limit();
                (ours(), first)
            });
        }
        let ours: Vec<f64> = pairs.iter().map(|(ours, _)| *ours).collect();
        Row {
            ours: median(ours.iter().copied()),
            limit: median(pairs.iter().map(|(_, limit)| *limit)),
            ratio: median(pairs.iter().map(|(ours, limit)| ours / limit)),
            min: ours.iter().copied().fold(f64::INFINITY, f64::min),
            max: ours.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            unit,
        }
    }
}

/// What a benchmark found.
pub(crate) struct Row {
    ours: f64,
    limit: f64,
    ratio: f64,
    min: f64,
    max: f64,
    unit: &'static str,
}

impl Row {
    pub(crate) const HEADER: &str =
        "row                         ours      limit   ratio  unit           min        max";

    pub(crate) fn to_text(&self, name: &str) -> String {
        format!(
            "{name:<22} {:>9.1}  {:>9.1}  {:>6.2}  {:<10} {:>8.1}   {:>8.1}",
            self.ours, self.limit, self.ratio, self.unit, self.min, self.max
        )
    }

    pub(crate) fn to_json(&self, name: &str) -> Value {
        json!({
            "bench": name, "ours": self.ours, "limit": self.limit, "ratio": self.ratio,
            "unit": self.unit, "min": self.min, "max": self.max,
        })
    }
}

/// Millions per second that `work` does, which returns how many it did.
pub(crate) fn millions_per_second(work: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    let count = work();
    count as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Nanoseconds for each of what `work` does, which returns how many it did.
pub(crate) fn nanoseconds_each(work: impl FnOnce() -> u64) -> f64 {
    1e3 / millions_per_second(work)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// A small random source (xorshift64), the same in every run.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(88_172_645_463_325_252)
    }

    /// A number below `bound`.
    #[inline(always)]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

/// Waiting in a loop: politely where others want the core too, at once where they do not.
#[derive(Default)]
pub(crate) struct Spin(u32);

impl Spin {
    #[inline(always)]
    pub(crate) fn once(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(4096) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
