//! `activate` names a function of a key and a context.

use coreside::{entity, handlers};

#[entity(activate = Account::new)]
struct Account {}

#[handlers]
impl Account {
    fn new() -> Self {
        Self {}
    }
}

#[entity(key = u128, activate = open)]
struct Session {}

fn open(_key: u64, _cx: &mut coreside::Cx<Session>) -> Session {
    Session {}
}

#[handlers]
impl Session {}

#[entity(activate = Door::missing)]
struct Door {}

#[handlers]
impl Door {}

fn main() {}
