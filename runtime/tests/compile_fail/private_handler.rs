//! The visibility of a method is the visibility of the call, too.

mod bank {
    #[coreside::entity]
    pub struct Account {}

    #[coreside::handlers]
    impl Account {
        fn deposit(&mut self, amount: i64) -> i64 {
            amount
        }
    }
}

fn call<V: coreside::Via>(account: bank::AccountRef<V>) {
    account.deposit(5);
}

fn main() {}
