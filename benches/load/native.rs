//! The native protocol's side of the load generator.
//!
//! A message is given as the signature of its handler with an expression for each argument. From
//! the signature come the id and the schema that the handshake names, and the layout of the
//! archive; so the generator drives any service without knowing its types. Each message is compiled
//! once into a frame in which nothing but the key, the call and the numbers changes.

/// The call numbers of one connection, and since when each counts.
pub(crate) mod calls;
/// Answers, out of a stream of frames.
pub(crate) mod frames;
/// The handshake: which messages go by which numbers.
pub(crate) mod handshake;
/// Messages, compiled into frames.
pub(crate) mod message;
/// Types of arguments and replies: their schema and their layout.
pub(crate) mod shape;
/// The text of signatures and types, word by word.
pub(crate) mod words;

#[cfg(test)]
mod tests;
