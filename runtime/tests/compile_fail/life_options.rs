//! Options of an entity's life with values of no use, or without effect beside each other.

use coreside::{Cx, entity, handlers};

#[entity(on_fault = ignore, children = all, idle = "2 min", reset = 30, stash = 8)]
struct FourMistakes {}

#[handlers]
impl FourMistakes {}

#[entity(backoff = "10s..10ms", jitter = 120, faults = "10 per minute")]
struct Backwards {}

#[handlers]
impl Backwards {}

#[entity(alive, idle = "120s", resident = 1_000, on_passivate = Kept::save, on_fault = stop)]
struct Kept {}

#[handlers]
impl Kept {
    #[skip]
    fn save(&mut self, _cx: &mut Cx<Self>) {}
}

#[entity(on_fault = escalate, backoff = "10ms..10s", faults = "3 in 1m")]
struct Escalating {}

#[handlers]
impl Escalating {}

#[entity(activate = Twice::open, activate_async = Twice::load)]
struct Twice {}

#[handlers]
impl Twice {
    fn open(_key: u64, _cx: &mut Cx<Self>) -> Self {
        Self {}
    }
}

#[entity(resident = 0)]
struct Nobody {}

#[handlers]
impl Nobody {}

#[entity(alive = true)]
struct Truly {}

#[handlers]
impl Truly {}

fn main() {}
