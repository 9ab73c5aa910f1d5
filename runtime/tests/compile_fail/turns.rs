//! Methods whose form says one thing and whose attributes or context another.
#![allow(unused, reason = "only the signatures matter")]

use coreside::{AsyncCx, Cx, Fault, Later, entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    fn plain_with_async_context(&mut self, cx: &mut AsyncCx<Self>) {}

    async fn async_with_plain_context(&mut self, cx: &mut Cx<'_, Self>) {}

    async fn owned_context(&mut self, cx: AsyncCx<Self>) {}

    async fn shared_context(&mut self, cx: &AsyncCx<Self>) {}

    async fn promises(&mut self) -> Later<u64> {
        unreachable!()
    }

    async fn borrows(&mut self, text: &str) {}

    #[interleave]
    async fn interleaved_with_state(&mut self, cx: AsyncCx<Self>) {}

    #[interleave]
    fn interleaved_without_waiting(cx: AsyncCx<Self>) {}

    #[interleave]
    async fn interleaved_with_lent_context(cx: &mut AsyncCx<Self>) {}

    #[interleave]
    #[fallible]
    async fn interleaved_and_fallible(cx: AsyncCx<Self>) -> Result<u64, String> {
        Ok(7)
    }

    #[read]
    fn read_that_writes(&mut self) {}

    #[read]
    #[fallible]
    async fn async_read_that_fails(&self) -> Result<u64, String> {
        Ok(7)
    }

    #[fallible]
    fn fallible_without_result(&mut self) -> u64 {
        7
    }

    #[fallible]
    fn fallible_without_reply(&mut self) {}

    #[fallible]
    fn fallible_later(&mut self) -> Later<Result<u64, String>> {
        unreachable!()
    }

    #[fallible]
    async fn fallible_for_a_borrowed_reason(&mut self) -> Result<u64, &str> {
        Ok(7)
    }

    #[on]
    fn on_nothing(&mut self, cx: &mut Cx<Self>) {}

    #[on]
    fn on_two(&mut self, fault: Fault, text: String) {}

    #[on]
    fn on_a_reference(&mut self, fault: &Fault) {}

    #[sweep]
    async fn sweep_that_waits(&mut self) {}
}

fn main() {}
