//! The total of a sweep begins as a default, adds up, and can be written as an answer.

use coreside::{entity, handlers};

struct Total;

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[sweep]
    fn audit(&self, total: &mut Total) {
        let _ = total;
    }

    #[sweep]
    fn remove(&self) -> bool {
        true
    }
}

fn main() {}
