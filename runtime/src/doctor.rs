//! What a node would find on this machine, and what to do about it; and what it costs to send.
//!
//! Every service can offer it: [`examine`] looks, a [`Report`] is shown to people (`Display`) or to
//! programs ([`to_json`](Report::to_json)). With the feature `cli` there are options for it
//! (`DoctorOptions`), and a program of its own, `coreside-doctor`.
//!
//! # Examples
//! ```
//! use coreside::doctor::{self, Verdict};
//! use coreside::DriverChoice;
//!
//! let report = doctor::examine(DriverChoice::Auto);
//! println!("{report}");
//! assert!(report.findings.iter().any(|finding| finding.about == "driver"));
//! assert_eq!(report.can_run(), report.worst() != Verdict::Failure);
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `kernel` | what the kernel, and whoever guards it, allows |
//! | `machine` | cores, memory, limits, clock |
//! | `curve` | what sends cost by size, and which threshold follows |
//! | `json` | text for programs |
//! | `options` | the command line |

mod curve;
mod json;
mod kernel;
mod machine;
#[cfg(feature = "cli")]
mod options;

use std::fmt;

pub use coreside_net::{Calibration, SendCost};

pub use self::curve::{Curve, Threshold};
#[cfg(feature = "cli")]
pub use self::options::{DoctorOptions, ServiceCommand};
use crate::probe::DriverChoice;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// A node runs, with less than it could have.
    Warning,
    /// A node does not run.
    Failure,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing: a word that programs may look for.
    pub about: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What there is.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each thing.
    pub findings: Vec<Finding>,
}

/// Looks at this machine as a node would that has this choice of a driver.
pub fn examine(choice: DriverChoice) -> Report {
    let mut findings = kernel::findings(choice);
    findings.extend(machine::findings());
    Report { findings }
}

impl Report {
    /// Whether a node would run.
    pub fn can_run(&self) -> bool {
        self.worst() < Verdict::Failure
    }

    /// The worst of all verdicts.
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good)
    }

    /// The same for programs: an object of `can_run` and `findings`, each of which has `about`,
    /// `verdict` (`good`, `warning`, `failure`), `what`, and `advice`, which may be null.
    pub fn to_json(&self) -> String {
        json::report(self)
    }
}

impl Finding {
    fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Good, what: what.into(), advice: None }
    }

    fn warning(about: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, advice: Some(advice.into()), ..Self::good(about, what) }
    }

    fn failure(about: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(about, what, advice) }
    }
}

impl Verdict {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Report {
    /// A line for each finding, and another for what to do about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Good => "ok",
                Verdict::Warning => "warning",
                Verdict::Failure => "FAILURE",
            };
            writeln!(f, "{mark:>7}  {:<14} {}", finding.about, finding.what)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "{:>7}  {:<14} -> {advice}", "", "")?;
            }
        }
        let end = match self.worst() {
            Verdict::Good => "A node runs here with all that it can have.",
            Verdict::Warning => "A node runs here, with less than it could have.",
            Verdict::Failure => "A node does not run here.",
        };
        write!(f, "{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_as_bad_as_its_worst_finding() {
        let good = Finding::good("a", "there");
        let warning = Finding::warning("b", "less", "more");
        let failure = Finding::failure("c", "none", "some");
        for (findings, worst, can_run) in [
            (vec![], Verdict::Good, true),
            (vec![good.clone()], Verdict::Good, true),
            (vec![warning.clone(), good.clone()], Verdict::Warning, true),
            (vec![good, failure, warning], Verdict::Failure, false),
        ] {
            let report = Report { findings };
            assert_eq!((report.worst(), report.can_run()), (worst, can_run));
        }
    }

    #[test]
    fn text_has_what_to_do_below_what_there_is() {
        let findings =
            vec![Finding::good("clock", "tsc"), Finding::warning("limit", "1", "raise it")];
        let text = Report { findings }.to_string();
        let expected = "     ok  clock          tsc\n\
             warning  limit          1\n                        -> raise it\n\
             A node runs here, with less than it could have.";
        assert_eq!(text, expected);
    }
}
