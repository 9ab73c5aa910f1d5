//! Types that a form of turn cannot use: the compiler's own errors, where they belong.
#![allow(unused, reason = "only the signatures matter")]

use coreside::{Cx, Fault, entity, handlers};

struct Note;

#[entity(activate_async = Account::open, on_stop = Account::close)]
struct Account {}

#[handlers]
impl Account {
    fn open(_key: u64, _cx: &mut Cx<Self>) -> Self {
        Self {}
    }

    #[skip]
    fn close(&mut self) {}

    #[local]
    #[retry]
    fn retried_without_clone(&mut self, note: Note) {}

    #[local]
    #[fallible]
    fn reason_without_text(&mut self) -> Result<u64, Note> {
        Ok(7)
    }

    #[local]
    #[fallible]
    async fn async_reason_without_text(&mut self) -> Result<u64, Note> {
        Ok(7)
    }

    #[on]
    fn on_another_reply(&mut self, fault: Fault) -> u64 {
        7
    }
}

fn main() {}
