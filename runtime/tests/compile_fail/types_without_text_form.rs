//! Callers outside write arguments and read replies as text, unless the method is local.

use coreside::{entity, handlers};

struct Amount(i64);

#[entity]
struct Account {
    balance: i64,
}

#[handlers]
impl Account {
    fn deposit(&mut self, amount: Amount) {
        self.balance += amount.0;
    }

    fn balance(&self) -> Amount {
        Amount(self.balance)
    }
}

fn main() {}
