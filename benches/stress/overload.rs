//! `overload`: more is offered than can be done, and the node has to go on as well as before.
//!
//! Each turn takes some microseconds, as those of a service do. So the capacity is that of the
//! shards, and what it costs to refuse the rest, on the same two cores, is small beside it.
//!
//! The *capacity* is the rate at which messages are handled while senders keep so few under way
//! that none is refused. Then ten times as much is offered, at times that do not depend on what
//! becomes of it.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use coreside::{Node, NodeBuilder};

use crate::memory::Memory;
use crate::run::Run;
use crate::sink::Offered;
use crate::{across, outside, rings};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// How long the overload lasts, per part [default: 60; 1 with --quick]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// Offered, as a multiple of the capacity [default: 10]
    #[arg(long, value_name = "N")]
    times: Option<f64>,

    /// How long each turn takes [default: 10]
    #[arg(long, value_name = "MICROSECONDS")]
    turn_us: Option<u64>,

    /// Shards of the node [default: 2]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,

    /// Sizes of the rings in the part that makes them small
    /// [default: 512 to 65536, each twice or four times the last]
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    ring_bytes: Vec<usize>,

    /// Asks per size of the rings [default: 400000; 20000 with --quick]
    #[arg(long, value_name = "N")]
    asks: Option<u64>,

    /// Only this part
    #[arg(long, value_name = "PART")]
    part: Option<Part>,
}

/// What is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The way in for threads.
    Outside,
    /// The way from shard to shard.
    Across,
    /// Rings as small as may be.
    Rings,
}

/// The plan of the parts that offer too much.
pub(crate) struct Plan {
    pub(crate) seconds: f64,
    pub(crate) measure_seconds: f64,
    pub(crate) times: f64,
    pub(crate) turn: Duration,
    pub(crate) shards: u16,
}

/// Bytes of run queue per shard, of each outbox, and of each ring.
pub(crate) const QUEUE_BYTES: usize = 64 << 10;
pub(crate) const OUTBOX_BYTES: usize = 64 << 10;
pub(crate) const RING_BYTES: usize = 64 << 10;
/// Messages from outside that wait at each shard.
pub(crate) const INGRESS_MAX: usize = 4096;
/// What such a message takes: its place in the queue, and a block of the heap for it.
const INGRESS_BYTES: usize = 16 + 8 + 96;
/// What else may come into memory meanwhile: pages of the shards' code and stacks, arenas of the
/// allocator for threads that begin, and this program's own books.
const CONSTANT_BYTES: usize = 8 << 20;
/// The goal: so much of the capacity is still done in overload.
const GOAL: f64 = 0.8;

pub(crate) fn run(options: &Options, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let quick = run.quick;
    let plan = Plan {
        seconds: options.seconds.unwrap_or(if quick { 1.0 } else { 60.0 }),
        measure_seconds: if quick { 0.2 } else { 2.0 },
        times: options.times.unwrap_or(10.0),
        turn: Duration::from_micros(options.turn_us.unwrap_or(10)),
        shards: options.shards.unwrap_or(2).max(1),
    };
    if !(plan.seconds > 0.0 && plan.times > 0.0) {
        return Err("overload takes some time, and offers something".into());
    }
    let wanted = |part| options.part.is_none_or(|only| only == part);
    if wanted(Part::Outside) {
        outside::run(&plan, run)?;
    }
    if wanted(Part::Across) {
        across::run(&plan, run)?;
    }
    if wanted(Part::Rings) {
        let asks = options.asks.unwrap_or(if quick { 20_000 } else { 400_000 });
        rings::run(&options.ring_bytes, asks, run)?;
    }
    Ok(())
}

/// A node with the bounds that are written above.
pub(crate) fn bounded(plan: &Plan) -> NodeBuilder {
    Node::builder()
        .shards(plan.shards.into())
        .queue_bytes_max(QUEUE_BYTES)
        .outbox_bytes_max(OUTBOX_BYTES)
        .ring_bytes(RING_BYTES)
        .ingress_max(INGRESS_MAX)
        .ask_timeout(Duration::from_secs(60))
        // One that catches up with its pace is no news.
        .on_stall(|_| ())
}

/// The sum of these bounds over a node of so many shards.
fn bound_bytes(shards: usize) -> usize {
    let between = shards * (shards - 1);
    // A run queue and an outbox are twice their size while they grow.
    shards * (QUEUE_BYTES * 2 + INGRESS_MAX * INGRESS_BYTES)
        + between * (OUTBOX_BYTES * 2 + RING_BYTES)
}

/// What a time of overload has shown.
pub(crate) struct Overload {
    pub(crate) capacities: Vec<f64>,
    /// How long, and what was handled meanwhile.
    pub(crate) seconds: f64,
    pub(crate) handled: u64,
    pub(crate) offered: Offered,
}

/// Prints both rates, and checks the memory.
pub(crate) fn report(run: &mut Run, part: &str, plan: &Plan, found: &Overload, memory: &Memory) {
    run.hide();
    let capacity = run.report.row(&format!("{part}: capacity"), "tells/s", &found.capacities);
    // Interrupted before it began, it has no rates.
    let seconds = if found.seconds < 0.01 { f64::NAN } else { found.seconds };
    let offered = found.offered.count() as f64 / seconds;
    run.report.row(&format!("{part}: offered"), "tells/s", &[offered]);
    run.report.row(&format!("{part}: offered of capacity"), "x", &[offered / capacity.median]);
    let done = found.handled as f64 / seconds;
    run.report.row(&format!("{part}: handled in overload"), "tells/s", &[done]);
    let part_done = done / capacity.median;
    run.report.row(&format!("{part}: handled of capacity"), "x", &[part_done]);
    run.report.row(&format!("{part}: refused"), "tells", &[found.offered.refused as f64]);
    let text = format!("{part}: at least {GOAL} of the capacity is done in overload");
    run.report.goal(&text, part_done, part_done >= GOAL);

    let growth = memory.growth();
    let bound = bound_bytes(plan.shards.into()) + CONSTANT_BYTES;
    let mebibytes = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    run.report.row(&format!("{part}: growth of RSS"), "MiB", &[mebibytes(growth.resident_bytes)]);
    if let Some(peak) = growth.peak_bytes {
        run.report.row(&format!("{part}: growth of VmHWM"), "MiB", &[mebibytes(peak)]);
    }
    let most = growth.peak_bytes.unwrap_or(0).max(growth.resident_bytes);
    run.report.check(
        &format!("{part}: memory grows by no more than its bounds"),
        most <= bound as u64,
        &format!(
            "{:.2} MiB of {:.2} (bounds) + {:.0} (constant)",
            mebibytes(most),
            mebibytes((bound - CONSTANT_BYTES) as u64),
            mebibytes(CONSTANT_BYTES as u64)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_of_a_lone_shard_has_no_rings() {
        assert_eq!(bound_bytes(1), QUEUE_BYTES * 2 + INGRESS_MAX * INGRESS_BYTES);
        let pair = 2 * (OUTBOX_BYTES * 2 + RING_BYTES);
        assert_eq!(bound_bytes(2), 2 * bound_bytes(1) + pair);
    }
}
