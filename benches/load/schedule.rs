//! When the requests of an open loop are due.
//!
//! A schedule is arithmetic, not a queue: it knows the next due time only. A client that falls
//! behind leaves the schedule behind too and catches up from there, so a backlog of any length
//! costs no memory, and no due time is ever moved because the target was slow.

use crate::random::Random;

const SECOND_NS: f64 = 1e9;

/// The due times of one thread's share of a rate.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    next_ns: f64,
    interval_ns: f64,
    /// Present for Poisson arrivals.
    random: Option<Random>,
    start_ns: f64,
    taken: u64,
}

impl Schedule {
    /// Evenly spaced due times. `thread` of `threads` takes its turn among the others', so that
    /// together they are evenly spaced too.
    pub(crate) fn constant(start_ns: u64, rate: f64, thread: usize, threads: usize) -> Self {
        let start_ns = start_ns as f64 + SECOND_NS / rate * thread as f64;
        let interval_ns = SECOND_NS * threads as f64 / rate;
        Self { next_ns: start_ns, interval_ns, random: None, start_ns, taken: 0 }
    }

    /// Independent arrivals with exponential gaps; shares of a Poisson process are such processes.
    pub(crate) fn poisson(start_ns: u64, rate: f64, threads: usize, random: Random) -> Self {
        let interval_ns = SECOND_NS * threads as f64 / rate;
        let start_ns = start_ns as f64;
        let mut schedule =
            Self { next_ns: start_ns, interval_ns, random: Some(random), start_ns, taken: 0 };
        schedule.advance();
        schedule.taken = 0;
        schedule
    }

    /// When the next request is due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// The next request has been taken.
    pub(crate) fn advance(&mut self) {
        self.taken += 1;
        self.next_ns = match &mut self.random {
            // From the start rather than from the last: a sum of rounded intervals would drift.
            None => self.start_ns + self.interval_ns * self.taken as f64,
            Some(random) => self.next_ns - (1.0 - random.unit()).ln() * self.interval_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn due_in_a_second(schedule: &mut Schedule) -> u64 {
        let mut due = 0;
        while schedule.due_ns() < SECOND {
            due += 1;
            schedule.advance();
        }
        due
    }

    #[test]
    fn constant_rates_are_exact() {
        for rate in [1.0, 3.0, 7_000.0, 333_333.0] {
            let mut schedule = Schedule::constant(0, rate, 0, 1);
            assert!((due_in_a_second(&mut schedule) as f64 - rate).abs() <= 1.0);
        }
    }

    #[test]
    fn constant_rates_do_not_drift() {
        let mut schedule = Schedule::constant(5, 3_000_000.0, 0, 1);
        for _ in 0..30_000_000 {
            schedule.advance();
        }
        assert_eq!(schedule.due_ns(), 10 * SECOND + 5);
    }

    #[test]
    fn threads_interleave() {
        let mut first = Schedule::constant(0, 1_000.0, 0, 2);
        let second = Schedule::constant(0, 1_000.0, 1, 2);
        assert_eq!((first.due_ns(), second.due_ns()), (0, 1_000_000));
        first.advance();
        assert_eq!(first.due_ns(), 2_000_000);
    }

    #[test]
    fn poisson_has_the_rate_and_the_spread_of_its_name() {
        let mut schedule = Schedule::poisson(0, 100_000.0, 1, Random::new(9, 0));
        let (mut gaps, mut last) = (Vec::new(), 0);
        while schedule.due_ns() < 10 * SECOND {
            gaps.push((schedule.due_ns() - last) as f64);
            last = schedule.due_ns();
            schedule.advance();
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((9_900.0..10_100.0).contains(&mean), "{mean}");
        // An exponential distribution's deviation is its mean.
        assert!((9_800.0..10_200.0).contains(&variance.sqrt()), "{}", variance.sqrt());
    }
}
