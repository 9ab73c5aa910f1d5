//! Rows of figures, and checks that hold or not.

use serde_json::{Value, json};

/// What a run found, printed as it comes.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Value>,
    broken: usize,
}

/// Median, least and greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of no figures at all, it is not a number.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self { median: f64::NAN, min: f64::NAN, max: f64::NAN };
        };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(low, high), min: *min, max: *max }
    }
}

impl Report {
    /// Begins a part of the output.
    pub(crate) fn title(&self, text: &str) {
        println!("\n{text}\n{:<40} {:>14} {:>14} {:>14}", "", "median", "min", "max");
    }

    /// A figure with its spread; nothing is shown of what was not measured.
    pub(crate) fn row(&mut self, name: &str, unit: &str, values: &[f64]) -> Spread {
        let spread = Spread::of(values);
        if !spread.median.is_finite() {
            return spread;
        }
        let Spread { median, min, max } = spread;
        println!(
            "{name:<40} {:>14} {:>14} {:>14}  {unit}",
            figure(median),
            figure(min),
            figure(max)
        );
        self.lines.push(json!({
            "row": name, "unit": unit, "median": median, "min": min, "max": max, "values": values,
        }));
        spread
    }

    /// A speed that is aimed at: it fails no run.
    pub(crate) fn goal(&mut self, text: &str, found: f64, is_met: bool) {
        if found.is_finite() {
            let verdict = if is_met { "met" } else { "missed" };
            println!("goal   {text}: {verdict}, {found:.3}");
            self.lines.push(json!({ "goal": text, "met": is_met, "found": found }));
        }
    }

    /// Something that has to be so.
    pub(crate) fn check(&mut self, claim: &str, holds: bool, found: &str) {
        let verdict = if holds { "holds" } else { "BROKEN" };
        println!("{verdict:<6} {claim}: {found}");
        self.lines.push(json!({ "check": claim, "holds": holds, "found": found }));
        self.broken += usize::from(!holds);
    }

    /// Two counts that have to be the same.
    pub(crate) fn check_equal(&mut self, claim: &str, found: u64, expected: u64) {
        self.check(claim, found == expected, &format!("{found} of {expected}"));
    }

    pub(crate) fn all_held(&self) -> bool {
        self.broken == 0
    }

    /// One object per line.
    pub(crate) fn to_json(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Whole numbers from a hundred on; three digits behind the point below.
fn figure(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn what_was_not_measured_leaves_no_line() {
        let mut report = Report::default();
        report.row("nothing", "x", &[]);
        report.row("nothing by nothing", "x", &[f64::NAN]);
        report.goal("nothing", f64::NAN, false);
        assert_eq!(report.to_json(), "");
        report.row("something", "x", &[1.0]);
        report.goal("something", 1.0, false);
        assert_eq!(report.to_json().lines().count(), 2);
        assert!(report.all_held(), "a goal is no check");
    }

    #[test]
    fn one_broken_check_is_remembered() {
        let mut report = Report::default();
        report.check_equal("one is one", 1, 1);
        assert!(report.all_held());
        report.check_equal("one is two", 1, 2);
        report.check_equal("two is two", 2, 2);
        assert!(!report.all_held());
        assert_eq!(report.to_json().lines().count(), 3);
    }
}
