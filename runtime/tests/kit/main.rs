//! What the kit promises to those who test their entities with it.

mod by_example;
mod groups;
mod methods;
mod others;
