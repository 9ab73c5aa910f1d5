//! `#[handlers]` where there is no block of an entity's own methods.

use coreside::{entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {}

#[handlers]
impl Clone for Account {
    fn clone(&self) -> Self {
        Self {}
    }
}

struct Cell<T>(T);

#[handlers]
impl<T> Cell<T> {
    fn get(&self) -> u64 {
        7
    }
}

#[handlers]
impl Cell<u64> {
    fn get_u64(&self) -> u64 {
        self.0
    }
}

#[handlers]
struct Door {}

#[handlers]
mod account {}

fn main() {}
