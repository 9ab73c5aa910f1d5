//! Sweeps that take what a sweep does not have.
#![allow(unused, reason = "only the signatures matter")]

use coreside::{Cx, Visit, entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[sweep]
    fn with_context(&mut self, cx: &mut Cx<Self>) {}

    #[sweep]
    fn with_two_totals(&mut self, one: &mut u64, two: &mut u64) {}

    #[sweep]
    fn with_shared_total(&mut self, total: &u64) {}

    #[sweep(DBSIZE)]
    fn with_bare_word(&mut self) -> Visit {
        Visit::Keep
    }
}

fn main() {}
