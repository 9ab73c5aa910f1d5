//! An entity without a block of handlers.

use coreside::entity;

#[entity]
struct Account {
    balance: i64,
}

impl Account {
    fn balance(&self) -> i64 {
        self.balance
    }
}

fn main() {}
