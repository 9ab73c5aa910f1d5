//! Names that two methods of an entity would share.

use coreside::{entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[command("GET")]
    fn get(&self) -> u64 {
        7
    }

    #[command("get")]
    fn read(&self) -> u64 {
        7
    }

    fn take_2(&self) {}

    fn take2(&self) {}
}

fn main() {}
