//! `overload`, part one: threads outside offer more than the node can do.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coreside::{Full, Handle};

use crate::clock::{Pace, now_ns};
use crate::memory::Memory;
use crate::overload::{INGRESS_MAX, Overload, Plan, bounded, report};
use crate::run::Run;
use crate::sink::{self, Offered, SINKS, Sink};

/// Threads that offer. Each sleeps between its bursts, so that the shards have the cores.
const THREADS: u16 = 2;
const NAP: Duration = Duration::from_micros(200);
const PART: &str = "outside";

/// How a thread offers.
#[derive(Clone, Copy)]
enum Manner {
    /// As much as leaves so many under way.
    Within(u64),
    /// At times, whatever becomes of it.
    At(Pace),
}

pub(crate) fn run(plan: &Plan, run: &mut Run) -> Result<(), Box<dyn Error>> {
    sink::begin(plan.turn);
    let node = bounded(plan).entity::<Sink>().start()?;
    let mut memory = Memory::begin();
    run.report.title("overload: from threads outside");
    let mut sum = Offered::default();

    // Half of what the way in holds, over all threads, so that keys that are not spread evenly do
    // not fill one shard's.
    let window = INGRESS_MAX as u64 / 2 / u64::from(THREADS);
    let mut capacities = Vec::new();
    run.show(format!("{PART}: measuring the capacity"));
    for round in 0..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = offer(&node, Manner::Within(window), &stop);
        run.pass(plan.measure_seconds / 4.0, || ());
        let (begin_ns, before) = (now_ns(), sink::handled());
        run.pass(plan.measure_seconds, || ());
        let rate = (sink::handled() - before) as f64 * 1e9 / (now_ns() - begin_ns) as f64;
        // The first round warms up.
        if round > 0 && !run.is_interrupted() {
            capacities.push(rate);
        }
        sum.merge(&join(threads, &stop)?);
        // What is left would stand in the next round's window too.
        run.until(Duration::from_secs(10), || sink::handled() == sum.accepted.count);
    }
    run.report.check_equal("outside: refused while measuring the capacity", sum.refused, 0);
    let capacity = crate::report::Spread::of(&capacities).median;

    run.show(format!("{PART}: offering {} times the capacity", plan.times));
    let begin_ns = now_ns();
    let pace = Pace {
        begin_ns,
        end_ns: begin_ns + (plan.seconds * 1e9) as u64,
        per_second: capacity * plan.times / f64::from(THREADS),
    };
    let before = sink::handled();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = offer(&node, Manner::At(pace), &stop);
    run.pass(plan.seconds, || memory.look());
    let handled = sink::handled() - before;
    let seconds = (now_ns() - begin_ns) as f64 / 1e9;
    let offered = join(threads, &stop)?;
    memory.look();
    sum.merge(&offered);
    let found = Overload { capacities, seconds, handled, offered };
    report(run, PART, plan, &found, &memory);
    sink::check(run, PART, &node, 0..SINKS, &sum)?;
    Ok(())
}

fn offer(node: &Handle, manner: Manner, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Offered>> {
    let start = |sender| {
        let (node, stop) = (node.clone(), Arc::clone(stop));
        thread::spawn(move || offer_on(&node, sender, manner, &stop))
    };
    (0..THREADS).map(start).collect()
}

fn join(threads: Vec<JoinHandle<Offered>>, stop: &AtomicBool) -> Result<Offered, &'static str> {
    stop.store(true, Ordering::Relaxed);
    let mut sum = Offered::default();
    for thread in threads {
        sum.merge(&thread.join().map_err(|_| "a thread that offers has panicked")?);
    }
    Ok(sum)
}

fn offer_on(node: &Handle, sender: u16, manner: Manner, stop: &AtomicBool) -> Offered {
    /// Offers between two looks at the flag.
    const BURST: u64 = 1024;
    let (mut offered, before) = (Offered::default(), sink::handled_of(sender.into()));
    while !stop.load(Ordering::Relaxed) {
        let wanted = match manner {
            Manner::Within(window) => {
                let handled = sink::handled_of(sender.into()) - before;
                (handled + window).saturating_sub(offered.accepted.count)
            }
            Manner::At(pace) => pace.due(now_ns()) - offered.count(),
        };
        for _ in 0..wanted.min(BURST) {
            let value = offered.count();
            let request = node.entity::<Sink>(value % SINKS).take(sender, value);
            offered.note(value, request.try_tell().map_err(|Full(message)| message));
        }
        if wanted <= BURST {
            thread::sleep(NAP);
        }
    }
    offered
}
