//! Attributes of methods that make no sense beside each other, or on what they stand.
#![allow(unused, reason = "only the signatures matter")]

use coreside::{AsyncCx, Fault, entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[retry(1)]
    fn tried_once(&mut self) {}

    #[retry = 3]
    fn tried_by_value(&mut self) {}

    #[read(all)]
    fn read_with_options(&self) {}

    #[read]
    #[read]
    fn read_twice(&self) {}

    #[read]
    #[interleave]
    async fn read_and_interleaved(cx: AsyncCx<Self>) {}

    #[fallible]
    #[sweep]
    fn fallible_sweep(&mut self) -> Result<(), String> {
        Ok(())
    }

    #[skip]
    #[retry]
    fn skipped_and_retried(&mut self) {}

    #[on]
    #[command("FAULT")]
    fn on_command(&mut self, fault: Fault) {}

    #[local]
    #[on]
    fn on_local(&mut self, fault: Fault) {}

    #[on]
    #[retry(5)]
    fn on_retried(&mut self, fault: Fault) {}

    #[read]
    fn without_self() {}

    #[fallible]
    const LIMIT: u64 = 7;
}

fn main() {}
