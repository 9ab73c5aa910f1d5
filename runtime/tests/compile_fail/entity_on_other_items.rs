//! `#[entity]` where there is no single state that could be made for a key.

use coreside::{entity, handlers};

#[entity]
struct Cell<T> {
    value: T,
}

#[entity]
enum Door {
    Open,
    Closed,
}

#[handlers]
impl Door {}

#[entity]
fn account() {}

#[entity]
trait Account {}

fn main() {}
