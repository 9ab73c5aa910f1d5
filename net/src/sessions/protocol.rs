//! What a protocol says of its sessions, and of their bounds.

use std::net::SocketAddr;

use coreside_shard::Body;

use super::deadlines::Deadlines;
use super::direct::{Direct, Memory};
use super::line::Line;
use super::{Allowance, SessionId, Shared};

/// One connection of a protocol, as a state machine without I/O. Its methods are for
/// [`Sessions`](super::Sessions).
pub trait Session: Sized {
    /// The bounds of the sessions of a shard.
    type Limits: Bounds;
    /// What a session knows of its node.
    type Facts: Default;

    /// The state of a new connection.
    #[doc(hidden)]
    fn new(id: SessionId, peer: Option<SocketAddr>, shared: &Shared<Self>) -> Self;
    #[doc(hidden)]
    fn line(&mut self) -> &mut Line;
    /// How many answers are owed.
    #[doc(hidden)]
    fn owed(&self) -> u32;
    /// Memory held for bytes that are not a whole request yet.
    #[doc(hidden)]
    fn unparsed_bytes(&self) -> usize;
    /// Memory held for output: what waits to be sent, to be in order, or for the kernel to be done.
    #[doc(hidden)]
    fn output_bytes(&self) -> usize;
    /// Whether bytes of the peer are welcome, the sessions of the shard holding many or few.
    #[doc(hidden)]
    fn wants_input(&self, limits: &Self::Limits, is_crowded: bool) -> bool;
    /// How many bytes the request under way lacks, if they may be received straight into place.
    #[doc(hidden)]
    fn lacks(&self, limits: &Self::Limits) -> usize;
    /// Lends the memory for what it [lacks](Self::lacks). Until it comes back, the memory counts as
    /// unparsed.
    #[doc(hidden)]
    fn lend(&mut self, limits: &Self::Limits) -> Option<Direct>;
    /// Whether the connection has served its purpose and everything owed has been handed out.
    #[doc(hidden)]
    fn is_finished(&self) -> bool;
    /// Parses no more; the connection closes when what is owed has been sent.
    #[doc(hidden)]
    fn end(&mut self);
    /// Closes the connection without sending what is left.
    #[doc(hidden)]
    fn kill(&mut self);
    /// Tells the peer that the node stops, where the protocol has words for it.
    #[doc(hidden)]
    fn say_goodbye(&mut self, _shared: &mut Shared<Self>) {}
    /// Tells the peer that the unfinished requests of all are too many, and that it pays.
    #[doc(hidden)]
    fn refuse_input(&mut self, shared: &mut Shared<Self>);
    /// Whether the protocol's handshake is done, where it has one.
    #[doc(hidden)]
    fn is_greeted(&self) -> bool {
        true
    }
    /// Asks the peer for a sign of life, where the protocol has words for it.
    #[doc(hidden)]
    fn ping(&mut self, _shared: &mut Shared<Self>) {}
    /// A send is done: what it held back may go on.
    #[doc(hidden)]
    fn sent(&mut self, shared: &mut Shared<Self>);
    /// The shard that the connection is to go on at, if it is not this one.
    #[doc(hidden)]
    fn moves_to(&self) -> Option<u16> {
        None
    }
    /// Takes the bytes that are not parsed, for the shard where the connection goes on.
    #[doc(hidden)]
    fn take_input(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// A session that sends its requests to an intake of type `I`.
pub trait Talk<I>: Session {
    /// Whether requests should stop for now.
    #[doc(hidden)]
    fn is_congested(intake: &I) -> bool;
    /// Takes bytes of the peer and sends on the requests that are whole.
    #[doc(hidden)]
    fn receive(&mut self, input: Body<'_>, intake: &mut I, shared: &mut Shared<Self>);
    /// Takes memory back that was [lent](Session::lend), with what has come of the rest, and sends
    /// on the requests that are whole.
    #[doc(hidden)]
    fn fill(&mut self, memory: Memory, intake: &mut I, shared: &mut Shared<Self>);
    /// Goes on with bytes that waited.
    #[doc(hidden)]
    fn resume(&mut self, intake: &mut I, shared: &mut Shared<Self>);
}

/// Bounds that every protocol has.
pub trait Bounds: Copy + std::fmt::Debug {
    /// Connections of the shard. The next one is told so and closed.
    fn connections_max(&self) -> u32;
    /// Bytes of unfinished requests over all connections of the shard. Beyond it the connection
    /// that holds most is closed.
    fn unparsed_bytes_max(&self) -> usize;
    /// Output, as [`Limits`](crate::Limits) says.
    fn output(&self) -> Allowance;
    /// Messages that are not handled, as [`Limits`](crate::Limits) says.
    fn messages(&self) -> Allowance;
    /// Connections of one address, as [`Limits`](crate::Limits) says.
    fn connections_per_address_max(&self) -> u32;
    /// How long a connection may take for what it owes.
    fn deadlines(&self) -> Deadlines;
    /// Whether the bounds make sense together.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self);
}
