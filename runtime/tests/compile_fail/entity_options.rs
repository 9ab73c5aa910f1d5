//! Options of `#[entity]` that do not exist, contradict each other, or have values of no use.

use coreside::{entity, handlers};

#[entity(keys = u64)]
struct UnknownOption {}

#[handlers]
impl UnknownOption {}

#[entity(key = u64, key = u128)]
struct KeyTwice {}

#[handlers]
impl KeyTwice {}

#[entity(name = "my account")]
struct NameOfTwoWords {}

#[handlers]
impl NameOfTwoWords {}

#[entity(activate = |_, _| ActivatedByClosure {})]
struct ActivatedByClosure {}

#[handlers]
impl ActivatedByClosure {}

#[entity]
struct Köln {}

#[handlers]
impl Köln {}

#[entity]
struct UnknownOptionOfHandlers {}

#[handlers(sweeps(audit = Audit))]
impl UnknownOptionOfHandlers {}

fn main() {}
