//! All handlers of an entity stand in one block.

use coreside::{entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    fn one(&self) {}
}

#[handlers]
impl Account {
    fn two(&self) {}
}

fn main() {}
