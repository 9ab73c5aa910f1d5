//! `panics`: a storm of panics in some entities while others are served.
//!
//! # Who drives
//! Asks and strikes come from entities inside, one of each per shard, and not from threads. On two
//! cores with two shards every further thread takes turns with a shard, in slices of milliseconds;
//! the latency of an ask would be that of the kernel's scheduler, with and without a storm. Inside,
//! nobody sleeps or is woken, and a wait is a wait for the shard. What the clients cost is part of
//! the capacity, which is measured with the same clients.
//!
//! # Latency
//! Counts from when an ask was due, not from when it was sent, so that those that were late because
//! the shard had other things to do are seen (no coordinated omission).

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use coreside::{AskError, HashKey, Node};
use coreside_shard::Placement;
use hdrhistogram::Histogram;

use crate::clock::{Pace, now_ns};
use crate::run::Run;
use crate::storm::{
    Account, AskCounts, Client, LIVES, STALE, Served, StrikeCounts, Striker, new_histogram,
    register,
};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Panics during the rounds [default: 1000000; 20000 with --quick]
    #[arg(long, value_name = "N")]
    panics: Option<u64>,

    /// Pairs of rounds, one without and one with the storm [default: 5; 2 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,

    /// Length of a round [default: 5; 0.4 with --quick]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// Offered load, as a part of the capacity [default: 0.5]
    #[arg(long, value_name = "PART")]
    load: Option<f64>,

    /// Shards of the node [default: 2]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
}

/// Served entities: few enough that each is checked one by one.
const SERVED: u64 = 4096;
/// Asks that each client has under way while the capacity is measured.
const WINDOW: u64 = 128;
/// The same for panics that are asked for.
const FLOOD_WINDOW: u64 = 64;
/// The goal for p99.9 with the storm, as a multiple of that without.
const GOAL: f64 = 1.2;
/// How long anything may take to end once nothing is added.
const END: Duration = Duration::from_secs(30);

/// The plan, once it is known what was asked for.
struct Plan {
    panics: u64,
    rounds: u32,
    seconds: f64,
    load: f64,
    shards: u16,
    /// Entities that panic; every second one restarts.
    struck: u64,
}

impl Plan {
    fn new(options: &Options, quick: bool) -> Result<Self, Box<dyn Error>> {
        let plan = Self {
            panics: options.panics.unwrap_or(if quick { 20_000 } else { 1_000_000 }),
            rounds: options.rounds.unwrap_or(if quick { 2 } else { 5 }).max(1),
            seconds: options.seconds.unwrap_or(if quick { 0.4 } else { 5.0 }),
            load: options.load.unwrap_or(0.5),
            shards: options.shards.unwrap_or(2).max(1),
            struck: if quick { 4 << 10 } else { 128 << 10 },
        };
        if !(plan.seconds > 0.0 && plan.load > 0.0) {
            return Err("a round takes more than no time, and offers more than nothing".into());
        }
        Ok(plan)
    }
}

/// A node with the keys of what drives it, one of each per shard.
struct Stage {
    node: Node,
    drivers: Vec<u64>,
}

pub(crate) fn run(options: &Options, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let plan = &Plan::new(options, run.quick)?;
    let stage = Stage::start(plan)?;
    run.report.title("panics: a storm in some entities, and the latency of others");
    let unit = if run.quick { 0.2 } else { 1.0 };
    stage.close(run, unit)?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        rates.extend(stage.close(run, unit)?);
    }
    run.hide();
    run.report.row("capacity, closed loop", "asks/s", &rates);
    let flood: Vec<_> = stage.flood(plan, run, unit)?.into_iter().collect();
    run.hide();
    let flood = run.report.row("panics as fast as may be", "panics/s", &flood).median;

    let (mut calm, mut storm, mut panic_rates) = (Vec::new(), Vec::new(), Vec::new());
    let mut offered = Vec::new();
    for round in 0..plan.rounds {
        // A machine that others use is not as fast from minute to minute: what is half of it is
        // found out for each pair. Interrupted before it is known, no pair follows.
        let Some(capacity) = stage.close(run, unit / 2.0)? else { break };
        let rate = capacity * plan.load;
        offered.push(rate);
        // Who goes first changes, so that neither always finds the warmer machine.
        for with_storm in [round % 2 == 1, round % 2 == 0] {
            if run.is_interrupted() {
                break;
            }
            run.show(format!("round {} of {}, storm: {with_storm}", round + 1, plan.rounds));
            let panics = if with_storm { plan.panics_of(round) } else { 0 };
            let before = stage.strike_counts()?.sent();
            let (latency, seconds) = stage.open(plan, run, rate, panics)?;
            if run.is_interrupted() {
                // Half a round is not to be compared.
                break;
            }
            if with_storm {
                storm.push(latency);
                let sent = stage.strike_counts()?.sent() - before;
                panic_rates.push(sent as f64 / seconds);
            } else {
                calm.push(latency);
            }
        }
    }
    run.hide();
    run.report.row("offered, open loop", "asks/s", &offered);
    report_latency(run, &calm, &storm);
    let storm = run.report.row("panics during the storm", "panics/s", &panic_rates).median;
    run.report.row("storm, of panics as fast as may be", "x", &[storm / flood]);
    run.report.row("turns reported as too long", "turns", &[stage.node.stats().stalls as f64]);
    stage.check(plan, run)
}

impl Plan {
    /// The rounds' shares add up to all panics.
    fn panics_of(&self, round: u32) -> u64 {
        let (rounds, round) = (u64::from(self.rounds), u64::from(round));
        self.panics * (round + 1) / rounds - self.panics * round / rounds
    }
}

fn report_latency(run: &mut Run, calm: &[Histogram<u64>], storm: &[Histogram<u64>]) {
    let micros = |histograms: &[Histogram<u64>], quantile| -> Vec<f64> {
        histograms.iter().map(|h| h.value_at_quantile(quantile) as f64 / 1e3).collect()
    };
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let (without, with) = (micros(calm, quantile), micros(storm, quantile));
        run.report.row(&format!("{name} without storm"), "µs", &without);
        run.report.row(&format!("{name} with storm"), "µs", &with);
        let ratios: Vec<f64> =
            with.iter().zip(&without).map(|(with, without)| with / without).collect();
        let spread = run.report.row(&format!("{name} ratio"), "x", &ratios);
        if quantile == 0.999 {
            let text = format!("p99.9 with the storm at most {GOAL} times that without");
            run.report.goal(&text, spread.median, spread.median <= GOAL);
        }
    }
}

impl Stage {
    fn start(plan: &Plan) -> Result<Self, Box<dyn Error>> {
        let hash_key = HashKey::new(0x5eed);
        let node = register(Node::builder())
            .shards(plan.shards.into())
            .hash_key(hash_key)
            // Longer than anything here takes: an ask without answer would leave its effect open.
            .ask_timeout(END * 4)
            // Both are counted. A panic was asked for, and a turn that catches up with its pace is
            // no news.
            .on_fault(|_, _| ())
            .on_stall(|_| ())
            .start()?;
        let placement = Placement::even(plan.shards);
        let on = |shard| (0u64..).find(|key| placement.shard(hash_key.hash(*key)) == shard);
        let drivers = (0..plan.shards).filter_map(on).collect();
        Ok(Self { node, drivers })
    }

    /// Sum of what the clients count.
    fn ask_counts(&self) -> Result<AskCounts, AskError> {
        let mut sum = AskCounts::default();
        for key in &self.drivers {
            let counts = self.node.entity::<Client>(*key).counts().wait()?;
            sum.outstanding += counts.outstanding;
            sum.answered += counts.answered;
            sum.failed += counts.failed;
        }
        Ok(sum)
    }

    /// Sum of what the strikers count.
    fn strike_counts(&self) -> Result<StrikeCounts, AskError> {
        let mut sum = StrikeCounts::default();
        for key in &self.drivers {
            let counts = self.node.entity::<Striker>(*key).counts().wait()?;
            sum.fragile += counts.fragile;
            sum.sturdy += counts.sturdy;
            sum.refused += counts.refused;
            sum.outstanding += counts.outstanding;
            sum.unexpected += counts.unexpected;
        }
        Ok(sum)
    }

    /// Answers per second in a closed loop; `None` where it was interrupted.
    fn close(&self, run: &Run, seconds: f64) -> Result<Option<f64>, Box<dyn Error>> {
        run.show("measuring the capacity");
        for key in &self.drivers {
            self.node.entity::<Client>(*key).close(SERVED, WINDOW).wait()?;
        }
        run.pass(seconds / 4.0, || ());
        let (begin_ns, before) = (now_ns(), self.ask_counts()?.answered);
        run.pass(seconds, || ());
        let answered = self.ask_counts()?.answered - before;
        let rate = answered as f64 * 1e9 / (now_ns() - begin_ns) as f64;
        self.quiet(run)?;
        Ok((!run.is_interrupted()).then_some(rate))
    }

    /// Panics per second when each is waited for; `None` where it was interrupted.
    fn flood(&self, plan: &Plan, run: &Run, seconds: f64) -> Result<Option<f64>, Box<dyn Error>> {
        run.show("panics without anything else");
        for key in &self.drivers {
            self.node.entity::<Striker>(*key).flood(plan.struck, FLOOD_WINDOW).wait()?;
        }
        let sum = |counts: StrikeCounts| counts.sent() - counts.outstanding;
        let (begin_ns, before) = (now_ns(), sum(self.strike_counts()?));
        run.pass(seconds, || ());
        let ended = sum(self.strike_counts()?) - before;
        let rate = ended as f64 * 1e9 / (now_ns() - begin_ns) as f64;
        self.quiet(run)?;
        Ok((!run.is_interrupted()).then_some(rate))
    }

    /// Latencies at a fixed rate while `panics` happen; also how long it took.
    fn open(
        &self,
        plan: &Plan,
        run: &Run,
        rate: f64,
        panics: u64,
    ) -> Result<(Histogram<u64>, f64), Box<dyn Error>> {
        let length_ns = (plan.seconds * 1e9) as u64;
        // A moment ahead, so that all drivers are there when it begins.
        let begin_ns = now_ns() + 20_000_000;
        let each = |total: f64| Pace {
            begin_ns,
            end_ns: begin_ns + length_ns,
            per_second: total / f64::from(plan.shards),
        };
        let storm = each(panics as f64 / plan.seconds);
        let asks = each(rate);
        for key in &self.drivers {
            if panics > 0 {
                self.node.entity::<Striker>(*key).strike_at(plan.struck, storm).try_tell().ok();
            }
            let record_ns = begin_ns + length_ns / 10;
            self.node.entity::<Client>(*key).open(asks, record_ns).try_tell().ok();
        }
        run.pass(asks.end_ns.saturating_sub(now_ns()) as f64 / 1e9 + 0.01, || ());
        if run.is_interrupted() {
            self.quiet(run)?;
        }
        let seconds = (now_ns().min(asks.end_ns) - begin_ns.min(now_ns())) as f64 / 1e9;
        self.until_ended(run)?;
        let mut sum = new_histogram().ok_or("no histogram has such bounds")?;
        for key in &self.drivers {
            if let Some(latency) = self.node.entity::<Client>(*key).latency().wait()? {
                sum.add(latency)?;
            }
        }
        self.quiet(run)?;
        Ok((sum, seconds))
    }

    fn quiet(&self, run: &Run) -> Result<(), Box<dyn Error>> {
        for key in &self.drivers {
            self.node.entity::<Client>(*key).quiet().wait()?;
            self.node.entity::<Striker>(*key).quiet().wait()?;
        }
        self.until_ended(run)
    }

    /// Waits for all asks of clients and strikers.
    fn until_ended(&self, run: &Run) -> Result<(), Box<dyn Error>> {
        let ended = run.until(END, || {
            self.ask_counts().is_ok_and(|counts| counts.outstanding == 0)
                && self.strike_counts().is_ok_and(|counts| counts.outstanding == 0)
        });
        if ended { Ok(()) } else { Err("asks of an entity have no end".into()) }
    }

    /// What has to be exact.
    fn check(&self, plan: &Plan, run: &mut Run) -> Result<(), Box<dyn Error>> {
        let (strikes, clients) = (self.strike_counts()?, self.ask_counts()?);
        let sent = strikes.sent();
        let fragile = plan.struck / 2;
        // Each has a first life, if it was ever struck, and one after each fault.
        let lives = strikes.fragile + fragile.min(strikes.fragile);
        run.until(END, || {
            self.node.stats().faults >= sent && LIVES.load(Ordering::Relaxed) >= lives
        });
        // One more would have come by now.
        run.until(Duration::from_millis(200), || false);
        run.report.check_equal(
            "every panic is counted as one fault",
            self.node.stats().faults,
            sent,
        );
        if !run.is_interrupted() && sent > fragile * 4 {
            let made = LIVES.load(Ordering::Relaxed);
            run.report.check_equal("every restart makes one state anew", made, lives);
        }
        let stale = STALE.load(Ordering::Relaxed);
        run.report.check_equal("no restarted entity has its old state", stale, 0);
        run.report.check_equal("no strike was refused", strikes.refused, 0);
        let unexpected = strikes.unexpected;
        run.report.check_equal("every asker of a fault is told so", unexpected, 0);
        let mut resumed = 0;
        for key in (1..plan.struck).step_by(2) {
            resumed += self.node.entity::<crate::storm::Sturdy>(key).panics().wait()?;
        }
        run.report.check_equal("resumed entities keep their state", resumed, strikes.sturdy);
        run.report.check_equal("every ask of the served has its reply", clients.failed, 0);

        let mut expected = vec![Account::default(); SERVED as usize];
        for key in &self.drivers {
            let accounts = self.node.entity::<Client>(*key).accounts().wait()?;
            expected.iter_mut().zip(accounts).for_each(|(sum, account)| sum.add(account));
        }
        let mut exact = 0;
        for (key, expected) in (0..).zip(&expected) {
            exact += u64::from(self.node.entity::<Served>(key).account().wait()? == *expected);
        }
        run.report.check_equal("served entities with exactly their state", exact, SERVED);
        let asked = expected.iter().map(|account| account.turns).sum();
        run.report.check_equal("replies are those of the served turns", clients.answered, asked);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_rounds_add_up() {
        let options = Options { panics: Some(1_000_003), rounds: Some(7), ..Options::default() };
        let plan = Plan::new(&options, false).expect("a plan");
        assert_eq!((0..7).map(|round| plan.panics_of(round)).sum::<u64>(), 1_000_003);
    }

    #[test]
    fn rounds_without_length_are_refused() {
        let options = Options { seconds: Some(0.0), ..Options::default() };
        assert!(Plan::new(&options, true).is_err());
    }
}
