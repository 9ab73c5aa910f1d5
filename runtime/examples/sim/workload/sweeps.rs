//! Sweeps under load: passes over all entities while these come and go, some of them by the sweep.

use coreside::sim::{Sim, SimBuilder, SimError, SimReply};
use coreside::{AskError, Cx, Full, Visit, entity, handlers};

use crate::suite::book::{ASKS, Life, Stamp, count, draw, entities_alive, fault, note};
use crate::suite::workload::{Kind, Load, Workload, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "sweeps",
    about: "passes over all, under load",
    shape: |_| (),
    make: || Box::new(Sweeps { under_way: Vec::new() }),
};

struct Sweeps {
    under_way: Vec<SimReply<MemberCensus>>,
}

impl Workload for Sweeps {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Member>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        for _ in 0..load.batch() {
            let key = load.key();
            load.tell::<Member, _>(key, |stamp| MemberJoin { stamp }, |message| message.stamp);
        }
        if load.random.one_in(4) {
            let (handle, _) = load.entrance();
            self.under_way.push(handle.sweep::<Member, MemberCensus>());
            count("sweeps", 1);
        }
        if load.random.one_in(16) {
            // Nobody waits for what it says.
            drop(load.sim.sweep::<Member, MemberPurge>());
            count("sweeps", 1);
        }
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        settle(sim)?;
        self.under_way.push(sim.sweep::<Member, MemberCensus>());
        settle(sim)?;
        for (number, census) in self.under_way.iter().enumerate() {
            let is_last = number + 1 == self.under_way.len();
            match census.take() {
                None => note(ASKS, format!("sweep {number} has no end")),
                Some(Ok(MemberCensus { total })) if is_last && total != entities_alive() => {
                    note(ASKS, format!("a sweep found {total} of {} entities", entities_alive()));
                }
                // At its deadline, which jumps of the clock may bring near, or for want of room.
                Some(Err(AskError::Failed)) => note(ASKS, format!("sweep {number} failed")),
                Some(_) => {}
            }
        }
        sim.run_until_idle(1).map(|_| ())
    }
}

/// Is counted.
#[entity(activate = Member::begin)]
struct Member {
    number: u64,
    _life: Life,
}

#[handlers]
impl Member {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn join(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        if draw(|random, _| random.one_in(4)) {
            let to = draw(|random, scenario| random.below(scenario.keys));
            let next = Stamp::new((self.number, to));
            if let Err(Full(join)) = cx.entity::<Member>(to).join(next).try_tell() {
                join.stamp.take_back();
            }
        }
        may_fail(&stamp, cx);
    }

    #[sweep]
    fn census(&self, total: &mut u64) {
        *total += 1;
    }

    /// Sends some away; a visit that panics does so too.
    #[sweep]
    fn purge(&mut self, total: &mut u64) -> Visit {
        *total += 1;
        if fault(|scenario| scenario.panics) {
            count("panics in visits", 1);
            panic!("told to, in a visit");
        }
        if draw(|random, _| random.one_in(3)) { Visit::Stop } else { Visit::Keep }
    }
}
