//! Virtual time, as each shard of a simulated node reads it.

use coreside_shard::Now;

use super::limits::Disturbances;
use super::random::Random;

/// One clock that never goes back, and a wall clock that may. All shards of a node read the same,
/// as deadlines travel between them.
pub(crate) struct Clock {
    random: Random,
    now_ns: u64,
    /// What the shards' clock shows when the simulation begins.
    start_ns: u64,
    wall_offset_ms: i64,
    jumps: bool,
    wall_steps: bool,
    pub(crate) jumped: u64,
    pub(crate) stepped: u64,
}

/// 14 November 2023: any day will do.
const UNIX_MS_AT_START: i64 = 1_700_000_000_000;

const MILLISECOND_NS: u64 = 1_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

impl Clock {
    pub(crate) fn new(seed: u64, disturbances: &Disturbances) -> Self {
        let mut random = Random::stream(seed, "clock");
        let start_ns = if disturbances.late_start { random.below(1 << 50) } else { 0 };
        Self {
            random,
            now_ns: 0,
            start_ns,
            wall_offset_ms: 0,
            jumps: disturbances.jumps,
            wall_steps: disturbances.wall_steps,
            jumped: 0,
            stepped: 0,
        }
    }

    /// Nanoseconds since the simulation began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What a shard reads.
    pub(crate) fn read(&self) -> Now {
        let unix_ms = UNIX_MS_AT_START + (self.now_ns / MILLISECOND_NS) as i64;
        Now {
            monotonic_ns: self.start_ns + self.now_ns,
            unix_ms: (unix_ms + self.wall_offset_ms).max(0) as u64,
        }
    }

    /// The time between two steps of shards.
    pub(crate) fn pass(&mut self) {
        let kind = self.random.below(1024);
        self.now_ns += match kind {
            0 if self.jumps => {
                self.jumped += 1;
                self.random.magnitude(MILLISECOND_NS, 3 * MINUTE_NS)
            }
            1..32 if self.jumps => self.random.magnitude(10_000, MILLISECOND_NS),
            _ => self.random.below(2_000),
        };
        if kind == 1023 && self.wall_steps {
            self.stepped += 1;
            self.wall_offset_ms += self.random.below(120_000) as i64 - 60_000;
        }
    }

    /// Time that a turn took.
    pub(crate) fn slow_turn(&mut self) {
        self.now_ns += self.random.magnitude(MILLISECOND_NS, 1_000 * MILLISECOND_NS);
    }

    /// Nothing happens before then.
    pub(crate) fn skip_to(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// From now on time passes evenly.
    pub(crate) fn calm(&mut self) {
        self.jumps = false;
        self.wall_steps = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_never_see_time_go_back() {
        let mut clock = Clock::new(3, &Disturbances::ALL);
        let mut last = clock.read();
        for _ in 0..50_000 {
            clock.pass();
            let now = clock.read();
            assert!(now.monotonic_ns >= last.monotonic_ns);
            last = now;
        }
        assert!(clock.jumped > 0 && clock.stepped > 0);
    }
}
