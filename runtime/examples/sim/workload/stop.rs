//! The node stops under load: what was taken in is finished, every ask has its end.

use coreside::sim::{Sim, SimBuilder, SimError};

use crate::suite::run::STEPS_MAX;
use crate::suite::workload::later::{self, Desk};
use crate::suite::workload::{Kind, Load, Workload};

pub(crate) const KIND: Kind = Kind {
    name: "stop",
    about: "the node stops under load",
    shape: |scenario| {
        scenario.steps = scenario.steps.min(300);
        scenario.keys = scenario.keys.min(32);
    },
    make: || Box::new(Stop),
};

struct Stop;

impl Workload for Stop {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Desk>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        for _ in 0..load.batch() {
            later::put_one(load);
        }
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        sim.stop(STEPS_MAX).map(|_| ())
    }
}
