//! Methods that cannot be the handler of one owned message.
#![allow(unused, reason = "only the signatures matter")]

use std::borrow::Cow;

use coreside::{Cx, Later, entity, handlers};

#[entity]
struct Account {
    name: String,
}

#[handlers]
impl Account {
    fn consumes(self) {}

    fn boxed(self: Box<Self>) {}

    unsafe fn trusts(&mut self) {}

    fn generic<T>(&mut self, value: T) {}

    fn lifetime<'a>(&'a self, name: &'a str) {}

    fn any(&mut self, value: impl Into<String>) {}

    fn borrows_text(&mut self, name: &str) {}

    fn borrows_bytes(&mut self, bytes: &[u8]) {}

    fn borrows_within(&mut self, names: Vec<Option<&str>>) {}

    fn borrows_perhaps(&mut self, name: Cow<'_, str>) {}

    fn borrows_mutably(&mut self, target: &mut Vec<u8>) {}

    fn lends(&self) -> &str {
        &self.name
    }

    fn lends_within(&self) -> Option<&String> {
        None
    }

    fn opaque(&self) -> impl Iterator<Item = u64> {
        [1].into_iter()
    }

    fn takes_apart(&mut self, (low, high): (u64, u64)) {}

    fn ignores(&mut self, _: u64) {}

    fn shared_context(&mut self, cx: &Cx<Self>) {}

    fn owned_context(&mut self, cx: Cx<Self>) {}

    fn two_contexts(&mut self, cx: &mut Cx<Self>, other: &mut Cx<Self>) {}

    fn conditional(&mut self, #[cfg(test)] value: u64) {}

    fn hidden_later(&mut self, cx: &mut Cx<Self>) -> Result<Later<u64>, String> {
        Err(String::new())
    }

    fn key(&self) -> u64 {
        7
    }
}

fn main() {}
