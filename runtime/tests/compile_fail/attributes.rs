//! Attributes of methods that say nothing, or two things.
#![allow(unused, reason = "only the signatures matter")]

use coreside::{Cx, entity, handlers};

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[command]
    fn nothing_said(&self) {}

    #[command(name = "GET")]
    fn unknown_option(&self) {}

    #[command("GET IT")]
    fn two_words(&self) {}

    #[command("DEL", each = all)]
    fn unknown_fan(&self) {}

    #[command("DEL", each = sum)]
    fn sum_with_argument(&self, amount: i64) -> i64 {
        amount
    }

    #[command("MSET", each = pairs)]
    fn pairs_without_value(&self, cx: &mut Cx<Self>) {}

    #[command("ONE", "TWO")]
    fn two_names(&self) {}

    #[local("GET")]
    fn local_with_name(&self) {}

    #[local]
    #[command("GET")]
    fn local_command(&self) {}

    #[skip]
    #[sweep]
    fn skipped_sweep(&self) {}

    #[local]
    fn without_self() {}

    #[skip]
    const LIMIT: u64 = 7;
}

fn main() {}
