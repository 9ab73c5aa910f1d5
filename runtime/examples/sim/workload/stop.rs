//! The node stops under load: what was taken in is finished, every ask has its end.

use coreside::sim::{Sim, SimError};

use crate::suite::run::STEPS_MAX;
use crate::suite::workload::later::{self, Desk};
use crate::suite::workload::ping::{self, Pinger};
use crate::suite::workload::{Kind, Load, Plain};

pub(crate) const KIND: Kind = Kind {
    name: "stop",
    about: "the node stops under load",
    shape: |scenario| {
        scenario.steps = scenario.steps.min(300);
        scenario.keys = scenario.keys.min(32);
        // A stop waits out the backoff of those for whom something waits, in many small steps.
        scenario.panics = scenario.panics.min(10);
    },
    make: || {
        Box::new(Plain {
            register: |builder| builder.entity::<Desk>().entity::<Pinger>(),
            send,
            end,
        })
    },
};

fn send(load: &mut Load<'_>) {
    // While an ask waits its shard is not done, and hides what is under way to others. So in
    // half of the runs nobody asks.
    let asks = load.scenario.seed.is_multiple_of(2);
    if asks {
        later::put_one(load);
    } else {
        ping::tell_one(load);
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    sim.stop(STEPS_MAX).map(|_| ())
}
