//! What is looked at in its archive is lent for the turn: it cannot be kept.

use coreside::{Archived, entity, handlers};

#[entity]
#[derive(Default)]
struct Keeper {
    kept: Option<&'static Archived<String>>,
}

#[handlers]
impl Keeper {
    #[local]
    #[wire]
    #[archived]
    fn keep(&mut self, text: &Archived<String>) {
        self.kept = Some(text);
    }
}

fn main() {}
