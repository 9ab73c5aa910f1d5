//! `overload`, part two: entities offer more to those on other shards than these can do.

use std::error::Error;
use std::time::Duration;

use coreside::{AskError, AsyncCx, Cx, Full, HashKey, Node, entity, handlers};
use coreside_shard::Placement;

use crate::clock::{Pace, next_poll, now_ns};
use crate::memory::Memory;
use crate::overload::{Overload, Plan, bounded, report};
use crate::report::Spread;
use crate::run::Run;
use crate::sink::{self, Offered, SENDERS_MAX, SINKS, Sink};

const PART: &str = "across";
/// Messages that each flooder has under way while the capacity is measured.
const WINDOW: u64 = 512;
/// How long a flooder may take to end.
const END: Duration = Duration::from_secs(30);

/// How a flooder offers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Manner {
    #[default]
    Quiet,
    /// As much as leaves [`WINDOW`] under way.
    Within,
    /// At times, whatever becomes of it.
    At { pace: Pace, before: u64 },
}

/// Tells sinks on the other shards, once per poll of its own.
#[entity]
struct Flooder {
    sender: u16,
    manner: Manner,
    runs: bool,
    sinks: Vec<u64>,
    offered: Offered,
}

#[handlers]
impl Flooder {
    /// Offers to these sinks until it is [`quiet`](Self::quiet).
    #[local]
    #[interleave]
    async fn flood(sender: u16, sinks: Vec<u64>, manner: Manner, cx: AsyncCx<Self>) {
        let begin = |flooder: &mut Self| {
            (flooder.sender, flooder.sinks, flooder.runs) = (sender, sinks, true);
            flooder.manner = match manner {
                Manner::At { pace, .. } => Manner::At { pace, before: flooder.offered.count() },
                other => other,
            };
        };
        cx.with(begin).await;
        let mut over = false;
        while !over {
            // Where the queue is full, the next poll's turn offers what is due then.
            let _ = cx.entity::<Self>(cx.key()).offer().try_tell();
            next_poll().await;
            over = cx.with(|flooder| matches!(flooder.manner, Manner::Quiet)).await;
        }
        cx.with(|flooder| flooder.runs = false).await;
    }

    #[local]
    fn offer(&mut self, cx: &mut Cx<Self>) {
        let wanted = match self.manner {
            Manner::Quiet => 0,
            Manner::Within => {
                let handled = sink::handled_of(self.sender.into());
                (handled + WINDOW).saturating_sub(self.offered.accepted.count)
            }
            Manner::At { pace, before } => {
                (pace.due(now_ns()) + before).saturating_sub(self.offered.count())
            }
        };
        for _ in 0..wanted {
            let value = self.offered.count();
            let sink = self.sinks[value as usize % self.sinks.len()];
            let call = cx.entity::<Sink>(sink).take(self.sender, value);
            self.offered.note(value, call.try_tell().map_err(|Full(message)| message));
        }
    }

    #[local]
    fn quiet(&mut self) {
        self.manner = Manner::Quiet;
    }

    #[local]
    fn books(&self) -> (bool, Offered) {
        (self.runs, self.offered)
    }
}

/// The node, and by shard the flooder and the sinks.
struct Stage {
    node: Node,
    flooders: Vec<u64>,
    sinks: Vec<Vec<u64>>,
}

pub(crate) fn run(plan: &Plan, run: &mut Run) -> Result<(), Box<dyn Error>> {
    if plan.shards < 2 || usize::from(plan.shards) > SENDERS_MAX {
        return Err(format!("there are 2 to {SENDERS_MAX} shards between which to tell").into());
    }
    sink::begin(plan.turn);
    let stage = Stage::start(plan)?;
    let mut memory = Memory::begin();
    run.report.title("overload: between shards");

    let mut capacities = Vec::new();
    run.show(format!("{PART}: measuring the capacity"));
    for round in 0..4 {
        stage.flood(Manner::Within)?;
        run.pass(plan.measure_seconds / 4.0, || ());
        let (begin_ns, before) = (now_ns(), sink::handled());
        run.pass(plan.measure_seconds, || ());
        let rate = (sink::handled() - before) as f64 * 1e9 / (now_ns() - begin_ns) as f64;
        // The first round warms up.
        if round > 0 && !run.is_interrupted() {
            capacities.push(rate);
        }
        stage.quiet(run)?;
    }
    let calm = stage.books()?.1;
    run.report.check_equal("across: refused while measuring the capacity", calm.refused, 0);

    run.show(format!("{PART}: offering {} times the capacity", plan.times));
    let begin_ns = now_ns();
    let pace = Pace {
        begin_ns,
        end_ns: begin_ns + (plan.seconds * 1e9) as u64,
        per_second: Spread::of(&capacities).median * plan.times / f64::from(plan.shards),
    };
    let before = sink::handled();
    stage.flood(Manner::At { pace, before: 0 })?;
    run.pass(plan.seconds, || memory.look());
    let handled = sink::handled() - before;
    let seconds = (now_ns() - begin_ns) as f64 / 1e9;
    stage.quiet(run)?;
    memory.look();
    let sum = stage.books()?.1;
    let offered = Offered {
        accepted: sink::Total {
            count: sum.accepted.count - calm.accepted.count,
            sum: sum.accepted.sum.wrapping_sub(calm.accepted.sum),
        },
        refused: sum.refused,
        mistaken: sum.mistaken,
    };
    let found = Overload { capacities, seconds, handled, offered };
    report(run, PART, plan, &found, &memory);
    let keys = stage.sinks.iter().flatten().copied();
    sink::check(run, PART, &stage.node, keys, &sum)?;
    Ok(())
}

impl Stage {
    fn start(plan: &Plan) -> Result<Self, Box<dyn Error>> {
        let hash_key = HashKey::new(0x5eed);
        let node = bounded(plan).hash_key(hash_key).entity::<Sink>().entity::<Flooder>().start()?;
        let placement = Placement::even(plan.shards);
        let on = |shard| {
            let placement = placement.clone();
            (0u64..).filter(move |key| placement.shard(hash_key.hash(*key)) == shard)
        };
        let flooders = (0..plan.shards).filter_map(|shard| on(shard).next()).collect();
        let each = (SINKS / u64::from(plan.shards)).max(1) as usize;
        let sinks = (0..plan.shards).map(|shard| on(shard).take(each).collect()).collect();
        Ok(Self { node, flooders, sinks })
    }

    /// Has every flooder offer to the sinks of all other shards, in turn.
    fn flood(&self, manner: Manner) -> Result<(), &'static str> {
        for (shard, flooder) in (0u16..).zip(&self.flooders) {
            let own = usize::from(shard);
            let of_others = self.sinks.iter().enumerate().filter(|(at, _)| *at != own);
            // By place before shard, so that no ring gets all at once.
            let each = self.sinks[own].len();
            let others: Vec<_> = of_others.map(|(_, sinks)| sinks).collect();
            let keys = (0..each).flat_map(|at| others.iter().map(move |sinks| sinks[at]));
            let request =
                self.node.entity::<Flooder>(*flooder).flood(shard, keys.collect(), manner);
            request.try_tell().map_err(|_| "the way in is full before anything was offered")?;
        }
        Ok(())
    }

    fn quiet(&self, run: &Run) -> Result<(), Box<dyn Error>> {
        for key in &self.flooders {
            self.node.entity::<Flooder>(*key).quiet().wait()?;
        }
        let ended = run.until(END, || self.books().is_ok_and(|(runs, _)| !runs));
        if ended { Ok(()) } else { Err("a flooder does not end".into()) }
    }

    /// Whether any flooder runs, and the sum of what they offered.
    fn books(&self) -> Result<(bool, Offered), AskError> {
        let (mut any, mut sum) = (false, Offered::default());
        for key in &self.flooders {
            let (runs, offered) = self.node.entity::<Flooder>(*key).books().wait()?;
            any |= runs;
            sum.merge(&offered);
        }
        Ok((any, sum))
    }
}
