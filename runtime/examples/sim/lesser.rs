//! Makes a failing scenario smaller: its numbers are lowered one at a time while it still fails.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::farm::{Task, Verdict, Worker};
use crate::suite::scenario::FIELDS;

/// Runs spent on one scenario.
const TRIES_MAX: usize = 400;

/// Time spent on one scenario: a run that hangs takes long to say so.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The smallest scenario found that fails as `task` does, by the same oracle.
pub(crate) fn lesser(task: &Task, verdict: &Verdict) -> Task {
    let mut worker = Worker::new();
    let mut best = task.clone();
    let mut tries = 0;
    let began = Instant::now();
    let is_spent = |tries| tries == TRIES_MAX || began.elapsed() > TIME_MAX;
    let oracle = |verdict: &Verdict| verdict.failure.as_ref().map(|failure| failure.oracle.clone());
    let wanted = oracle(verdict);
    loop {
        let before = best.scenario.clone();
        for (_, place, least) in FIELDS {
            // From the greatest leap to the smallest; where one succeeds, the next begin there.
            let leaps: [fn(u64, u64) -> u64; 4] = [
                |_, least| least,
                |value, least| least + (value - least) / 2,
                |value, least| least + (value - least) * 3 / 4,
                |value, _| value.saturating_sub(1),
            ];
            for leap in leaps {
                loop {
                    let value = *place(&mut best.scenario);
                    let lower = leap(value, *least);
                    if value <= *least || lower >= value || lower < *least || is_spent(tries) {
                        break;
                    }
                    tries += 1;
                    show(tries);
                    let mut candidate = best.clone();
                    *place(&mut candidate.scenario) = lower;
                    if oracle(&worker.run(&candidate)) != wanted {
                        break;
                    }
                    best = candidate;
                }
            }
        }
        if best.scenario == before || is_spent(tries) {
            if stderr().is_terminal() {
                eprint!("\r\x1b[K");
            }
            return best;
        }
    }
}

fn show(tries: usize) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[Kmaking it smaller: try {tries}");
        // Only for the eye.
        let _ = stderr().flush();
    }
}
