//! What all runs did, in a table.

use std::collections::BTreeMap;
use std::fmt;

/// Counts over all runs, by what was counted, and runs by workload.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) runs: u64,
    by_workload: BTreeMap<&'static str, u64>,
    counts: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn add<S: ToString>(&mut self, workload: &'static str, tally: &BTreeMap<S, u64>) {
        self.runs += 1;
        *self.by_workload.entry(workload).or_default() += 1;
        for (what, count) in tally {
            *self.counts.entry(what.to_string()).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{what:<32} {:>20}", grouped(*count))?;
        }
        let runs: Vec<_> = self
            .by_workload
            .iter()
            .map(|(name, runs)| format!("{name} {}", grouped(*runs)))
            .collect();
        writeln!(f, "{:<32} {}", "seeds by workload", runs.join(", "))
    }
}

/// 1000000 as 1,000,000.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
