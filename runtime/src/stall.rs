//! Stalls: turns that keep a shard from everybody else for too long, and who they belong to.
//!
//! A turn costs nothing more for being watched. While its shard is awake, a timer interrupts the
//! shard's own thread about every millisecond; the handler of that signal looks which turn is under
//! way and whether it is still the one of earlier ticks (`tick`). What it finds goes through a
//! bounded queue to the node's reporter, a thread that sleeps otherwise (`reporter`): finding the
//! names of a backtrace takes longer than most stalls, so it is not done on a shard. A turn that
//! never ends is reported the same way, while it goes on.
//!
//! # Reports
//! One per turn, when it has ended; and one more, before that, for a turn that hangs.

use std::fmt;
use std::time::Duration;

use coreside_shard::{KeyWords, TurnSeen};

mod reporter;
mod tick;

pub(crate) use reporter::{Reporter, Sightings, Sink};
pub(crate) use tick::Watch;

use crate::node::NodeBuilder;

/// When turns are reported. Whatever is counted in milliseconds here is seen to about one.
///
/// # Signals
/// Shards are looked at by a timer that interrupts them with SIGURG. The handler for it is
/// installed with the first node that is watched, and stays; it passes on to the one before what is
/// none of its own, and system calls of handlers are restarted where the kernel can do so. Those
/// that the kernel does not restart (`man 7 signal`: `poll`, `nanosleep`, reads with a timeout) may
/// end early with EINTR in turns that block. A handler of the service's own that is installed later
/// has to pass on likewise, or gets the ticks and nothing is seen: use [`OFF`](Self::OFF) then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallConfig {
    /// A turn that lasts so long is a stall: it is counted and reported (default: 2 ms).
    pub after: Duration,
    /// One that lasts so long is reported with a backtrace of where it was then (default: 25 ms).
    pub backtrace_after: Duration,
    /// One that lasts so long is reported before it has ended (default: 1 s).
    pub hang_after: Duration,
    /// Reports per second and shard; what is beyond is counted only (default: 10).
    pub reports_per_second_max: u32,
}

impl StallConfig {
    /// Nothing is watched, and nothing ticks.
    pub const OFF: Self = Self {
        after: Duration::MAX,
        backtrace_after: Duration::MAX,
        hang_after: Duration::MAX,
        reports_per_second_max: 0,
    };

    fn is_off(&self) -> bool {
        self.after == Duration::MAX
    }
}

impl NodeBuilder {
    /// When a turn that keeps its shard for too long is reported ([`StallConfig::OFF`]: never).
    pub fn stalls(mut self, config: StallConfig) -> Self {
        self.stalls = config;
        self
    }

    /// Who is told of such turns, on a thread of its own (default: the standard error).
    pub fn on_stall(mut self, sink: impl FnMut(StallReport) + Send + 'static) -> Self {
        self.stall_sink = Sink(Box::new(sink));
        self
    }
}

impl Default for StallConfig {
    fn default() -> Self {
        Self {
            after: Duration::from_millis(2),
            backtrace_after: Duration::from_millis(25),
            hang_after: Duration::from_secs(1),
            reports_per_second_max: 10,
        }
    }
}

/// A turn that kept its shard for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallReport {
    /// The number of the shard.
    pub shard: u16,
    /// The entity type, where the turn was an entity's.
    pub entity: Option<&'static str>,
    /// The words of the entity's key, the second 0 where keys have one.
    pub key: Option<KeyWords>,
    /// What it was about: the message's name; where the turn took an answer, that of the ask.
    pub message: String,
    /// How long the turn was seen under way: it lasted at most some milliseconds more.
    pub lasted: Duration,
    /// Whether the turn has ended.
    pub ended: bool,
    /// Where the turn was when it had lasted for [`StallConfig::backtrace_after`].
    pub backtrace: Option<String>,
    /// Reports of this shard that were left out since the last, because there were too many.
    pub suppressed: u64,
}

impl fmt::Display for StallReport {
    /// One line, and the backtrace behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.ended { "lasted" } else { "has not ended for" };
        write!(f, "shard {}: a turn {verb} {} ms: ", self.shard, self.lasted.as_millis())?;
        if let Some(entity) = self.entity {
            f.write_str(entity)?;
            match self.key {
                Some([key, 0]) => write!(f, " {key}, ")?,
                Some([low, high]) => write!(f, " {high:016x}{low:016x}, ")?,
                None => f.write_str(", ")?,
            }
        }
        f.write_str(&self.message)?;
        if self.suppressed > 0 {
            write!(f, " ({} reports left out before)", self.suppressed)?;
        }
        if let Some(backtrace) = &self.backtrace {
            write!(f, "\n{}", backtrace.trim_end())?;
        }
        Ok(())
    }
}

/// The most frames of a backtrace: the turn's own are the first of them.
const FRAMES_MAX: usize = 64;

/// What the signal handler knows of a stalled turn. Plain words: it is copied, never made up.
#[derive(Clone, Copy)]
pub(crate) struct Sighting {
    turn: TurnSeen,
    lasted_ns: u64,
    ended: bool,
    /// Addresses within functions, the innermost first.
    frames: [usize; FRAMES_MAX],
    frame_count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_one_line_and_its_backtrace() {
        let report = StallReport {
            shard: 3,
            entity: Some("Account"),
            key: Some([42, 0]),
            message: "deposit".to_owned(),
            lasted: Duration::from_micros(5_400),
            ended: true,
            backtrace: None,
            suppressed: 0,
        };
        let line = report.to_string();
        assert_eq!(line, "shard 3: a turn lasted 5 ms: Account 42, deposit");
        let hang = StallReport {
            key: Some([1, 16]),
            ended: false,
            backtrace: Some("  spin\n".to_owned()),
            suppressed: 7,
            ..report
        };
        let text = "shard 3: a turn has not ended for 5 ms: Account \
                    00000000000000100000000000000001, deposit (7 reports left out before)\n  spin";
        assert_eq!(hang.to_string(), text);
    }
}
