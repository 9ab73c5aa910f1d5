//! Versions of messages and of types that make no sense.
#![allow(unused, reason = "only the attributes matter")]

use coreside::{entity, handlers, wire};

#[wire(version = 0)]
struct BeforeAll {}

#[wire(version = 2)]
struct SinceLater {
    #[wire(since = 3)]
    field: u8,
}

#[wire(version = 3)]
struct SinceBefore {
    #[wire(since = 2)]
    field: u8,
}

#[wire]
struct SinceAlways {
    #[wire(since = 1)]
    field: u8,
}

#[wire(from = u8)]
struct FromWithoutVersion {}

#[wire(version = 2)]
enum FieldOfVariant {
    One(#[wire(since = 2)] u8),
}

#[wire(version = 2)]
struct Marked {
    #[wire(version = 2)]
    field: u8,
}

#[wire(message)]
struct Unnamed(u8);

#[wire(message)]
enum NoMessage {}

/// Euros, then cents.
#[wire(version = 2, from = Alike)]
struct Cents {
    amount: i64,
}

#[wire]
struct Alike {
    amount: i64,
}

impl From<Alike> for Cents {
    fn from(euros: Alike) -> Self {
        Self { amount: euros.amount * 100 }
    }
}

impl From<Cents> for Alike {
    fn from(cents: Cents) -> Self {
        Self { amount: cents.amount / 100 }
    }
}

#[wire]
struct NoWayBack {}

#[wire]
enum Numbered {
    One = 1,
}

#[wire]
struct NotEverywhere {
    #[cfg(unix)]
    field: u8,
    #[rkyv(with = coreside::rkyv::with::Identity)]
    other: u8,
}

#[entity]
struct Account {}

#[handlers]
impl Account {
    #[wire(versions = 2)]
    fn unknown(&mut self) {}

    #[wire(from = u8)]
    fn from_alone(&mut self) {}

    fn local(&mut self, #[wire(since = 2)] amount: i64) {}

    #[wire]
    fn without_version(&mut self, #[wire(since = 2)] amount: i64) {}

    #[wire(version = 2, from = NoWayBack)]
    fn no_way(&mut self, amount: i64) {}
}

fn main() {}
