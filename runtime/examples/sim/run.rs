//! One run: a workload in a scenario, watched by the oracles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Once;

use coreside::sim::{Sim, SimError, Step};

use crate::suite::book::{self, entities_alive, tally, under_way};
use crate::suite::oracles::watch;
use crate::suite::scenario::Scenario;
use crate::suite::workload::{Load, Workload};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) failure: Option<Failure>,
    pub(crate) hash: u64,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    pub(crate) last_steps: Vec<Step>,
}

/// Why a run failed: an oracle's name, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) oracle: String,
    pub(crate) what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.what)
    }
}

/// Steps within which everything must come to its end once load has stopped. A run takes some
/// thousands.
pub(crate) const STEPS_MAX: u64 = 2_000_000;

/// How a run may be spoiled, for the tests of the oracles.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    pub(crate) wakes_lost_one_in: u64,
}

/// Runs a workload to its end.
pub(crate) fn run(workload: &mut dyn Workload, scenario: &Scenario, sabotage: Sabotage) -> Report {
    keep_planted_panics_quiet();
    book::open(scenario);
    let builder = Sim::builder(scenario.seed)
        .shards(scenario.shards as u16)
        .limits(scenario.limits())
        .disturbances(scenario.disturbances())
        .lose_wakes(sabotage.wakes_lost_one_in);
    let mut sim = match watch(workload.register(builder)).build() {
        Ok(sim) => sim,
        Err(error) => return Report::not_begun(&error),
    };
    let outcome = put_load_on(workload, scenario, &mut sim).and_then(|()| workload.end(&mut sim));
    let mut failure = outcome.err().map(Failure::from);
    let (hash, counts) = (sim.trace_hash(), counts(&sim));
    let last_steps = sim.last_steps().copied().collect();
    drop(sim);
    if failure.is_none() {
        failure = leftovers();
    }
    Report { failure, hash, tally: counts, last_steps }
}

fn put_load_on(
    workload: &mut dyn Workload,
    scenario: &Scenario,
    sim: &mut Sim,
) -> Result<(), SimError> {
    let mut random = sim.random("load");
    for _ in 0..scenario.steps {
        if random.one_in(scenario.load_one_in.max(1)) {
            workload.load(&mut Load::new(sim, scenario, &mut random));
        }
        sim.step()?;
    }
    Ok(())
}

/// What is left when the node is gone: nothing, or it leaks.
fn leftovers() -> Option<Failure> {
    let (states, messages) = (entities_alive(), under_way());
    (states + messages > 0).then(|| Failure {
        oracle: "leaks".to_owned(),
        what: format!("{states} states and {messages} messages were never dropped"),
    })
}

fn counts(sim: &Sim) -> BTreeMap<&'static str, u64> {
    let (stats, mut tally) = (sim.stats(), tally());
    tally.extend([
        ("steps", stats.steps),
        ("sleeps", stats.sleeps),
        ("work found at the last look", stats.stays),
        ("wake-ups", stats.wakes),
        ("naps that ended", stats.naps),
        ("clock jumps", stats.clock_jumps),
        ("wall clock set", stats.wall_steps),
        ("slow passes", stats.slow_passes),
        ("shards starved", stats.starvations),
        ("calls refused", stats.calls_refused),
        ("turns", sim.count(|stats| stats.turns)),
        ("records between shards", sim.count(|stats| stats.received)),
        ("faults", sim.count(|stats| stats.faults)),
        ("activations", sim.count(|stats| stats.activations)),
        ("no room for an entity", sim.count(|stats| stats.refused)),
        ("late answers", sim.count(|stats| stats.answers_late)),
        ("answers to entities gone", sim.count(|stats| stats.answers_unclaimed)),
    ]);
    tally
}

impl Report {
    fn not_begun(error: &dyn fmt::Display) -> Self {
        let failure = Failure { oracle: "set-up".to_owned(), what: error.to_string() };
        Self { failure: Some(failure), hash: 0, tally: BTreeMap::new(), last_steps: Vec::new() }
    }
}

impl From<SimError> for Failure {
    fn from(error: SimError) -> Self {
        match error {
            SimError::Violation(violation) => Self {
                oracle: violation.oracle.to_owned(),
                what: format!("{} (step {})", violation.what, violation.step),
            },
            other => Self { oracle: "liveness".to_owned(), what: other.to_string() },
        }
    }
}

/// What panics because a scenario says so need not be reported.
fn keep_planted_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str().is_none_or(|text| !text.starts_with("told to")) {
                report(panic);
            }
        }));
    });
}
