//! The smallest entity: as short as a service can begin.

use coreside::{entity, handlers};

#[entity]
struct Account {
    balance: i64,
}

#[handlers]
impl Account {
    fn deposit(&mut self, amount: i64) -> i64 {
        self.balance += amount;
        self.balance
    }

    fn balance(&self) -> i64 {
        self.balance
    }
}
