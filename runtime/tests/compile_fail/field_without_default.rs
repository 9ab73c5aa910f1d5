//! An entity without `activate` needs a default for every field.

use coreside::{entity, handlers};

struct Connection;

#[entity]
struct Session {
    requests: u64,
    connection: Connection,
}

#[handlers]
impl Session {
    fn requests(&self) -> u64 {
        self.requests
    }
}

fn main() {}
