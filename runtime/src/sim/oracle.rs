//! What must hold in every run, and what is said when it does not.

use std::fmt;

use super::Sim;

/// A judge of a run: looks on, and says what is wrong.
///
/// An oracle that is never wrong and never right is blind: plant what it should find, and see that
/// it does.
pub trait Oracle {
    /// What it watches, in a word or two.
    fn name(&self) -> &'static str;

    /// Looks after each step.
    ///
    /// # Errors
    /// What is wrong.
    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        let _ = sim;
        Ok(())
    }

    /// Looks once nothing is left to do.
    ///
    /// # Errors
    /// What is wrong.
    fn at_rest(&mut self, sim: &Sim) -> Result<(), String> {
        let _ = sim;
        Ok(())
    }
}

/// What an oracle found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who found it.
    pub oracle: &'static str,
    /// What is wrong.
    pub what: String,
    /// Behind which step it was found.
    pub step: u64,
}

/// Why a simulation does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimError {
    /// Something that must hold does not.
    Violation(Violation),
    /// There was work left when the steps were used up.
    StillBusy {
        /// Steps so far, in all.
        steps: u64,
    },
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(Violation { oracle, what, step }) => {
                write!(f, "{oracle}: {what} (step {step})")
            }
            Self::StillBusy { steps } => write!(f, "work is left after {steps} steps"),
        }
    }
}

impl std::error::Error for SimError {}

/// Words of the longest record.
const RECORD_WORDS_MAX: u64 = 20;

/// Queues, outboxes and waiting asks stay within their bounds.
///
/// An answer may pass a queue's bound, because the asks bound their number: those that wait, and
/// those that have ended and whose answer is still kept by an entity.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Answers that entities may keep beyond the asks that wait.
    pub answers_kept_max: u64,
}

impl Oracle for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        let limits = sim.limits();
        let shards = sim.shards() as u64;
        let answers = shards * u64::from(limits.asks_max) + self.answers_kept_max;
        let above = (answers.saturating_mul(RECORD_WORDS_MAX)) as usize;
        let shard = sim.shard(sim.last_shard());
        let (queue, outbox) = shard.backlog_words();
        let queue_max = limits.queue_words_max.next_power_of_two().saturating_add(above);
        let outbox_max = limits.outbox_words_max.next_power_of_two().saturating_add(above);
        let asks = shard.asks_waiting();
        if queue > queue_max {
            return Err(format!("{queue} words wait in the run queue, at most {queue_max}"));
        }
        if outbox > outbox_max {
            return Err(format!("{outbox} words wait in an outbox, at most {outbox_max}"));
        }
        if asks > limits.asks_max as usize {
            return Err(format!("{asks} asks wait, at most {}", limits.asks_max));
        }
        Ok(())
    }
}
