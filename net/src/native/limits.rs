//! Every bound of a session. What a peer sends beyond one of them costs the peer, never the node.

use std::time::Duration;

use crate::sessions::{Allowance, Bounds, Deadlines};

/// The bounds of the native sessions of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest frame, both ways. A longer one is a protocol error; a longer reply an error.
    pub frame_bytes_max: u32,
    /// Message types that a client may name in its hello.
    pub messages_max: u16,
    /// Asks of one connection that wait for their answers; parsing pauses at this number, and the
    /// welcome says it.
    pub calls_max: u32,
    /// Tells of one connection that are not handled; the welcome says it. Who sends more is closed.
    pub tells_max: u32,
    /// How many messages of one connection to one entity should at most be under way, as the
    /// welcome says, so that a slow entity does not use up what its neighbours need. The default is
    /// what the stash of an entity takes (see [`Life`](coreside_shard::Life)). It is left to the
    /// client to keep to it; word of tells that were handled comes for half as many at once.
    pub entity_messages_max: u16,
    /// Bytes of messages of one connection that are not handled, past which it is not parsed
    /// further.
    pub message_bytes_pause: usize,
    /// Such bytes over all connections of the shard, those that are gone included. Past half of it
    /// each connection may have only its share: that half, divided by the connections there are. So
    /// it may be exceeded by one message of each.
    pub message_bytes_total_max: usize,
    /// Bytes of a connection that wait because it may not be parsed further, past which it is not
    /// read either.
    pub input_bytes_pause: usize,
    /// The most such bytes over all connections of the shard. Beyond it the connection that holds
    /// most is closed.
    pub input_bytes_total_max: usize,
    /// Bytes of output, unsent or expected, past which a connection is neither parsed nor read.
    pub output_bytes_pause: usize,
    /// Bytes of output past which a connection is closed.
    pub output_bytes_max: usize,
    /// Bytes of output over all connections of the shard. Past half of it a connection pauses once
    /// it has its share, as with messages. Beyond it, of those whose peers have taken nothing for
    /// 50 ms, the one with most is closed; beyond twice as much, the one with most of all.
    pub output_bytes_total_max: usize,
    /// Connections of the shard. The next one is told so and closed.
    pub connections_max: u32,
    /// Connections of one address on the shard, of one /64 for IPv6. Those from the machine itself
    /// are not counted: proxies come from there.
    pub connections_per_address_max: u32,
    /// How long a connection may take for what it owes.
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 256 * 1024,
            messages_max: 4096,
            calls_max: 4096,
            tells_max: 4096,
            entity_messages_max: 128,
            message_bytes_pause: 16 * 1024 * 1024,
            message_bytes_total_max: 256 * 1024 * 1024,
            input_bytes_pause: 64 * 1024,
            input_bytes_total_max: 256 * 1024 * 1024,
            output_bytes_pause: 1024 * 1024,
            output_bytes_max: 64 * 1024 * 1024,
            output_bytes_total_max: 256 * 1024 * 1024,
            connections_max: 10_000,
            connections_per_address_max: 1000,
            deadlines: Deadlines {
                first_byte: Some(Duration::from_secs(2)),
                handshake: Some(Duration::from_secs(5)),
                idle: Some(Duration::from_secs(60)),
                stall: Some(Duration::from_secs(30)),
            },
        }
    }
}

impl Bounds for Limits {
    fn connections_max(&self) -> u32 {
        self.connections_max
    }

    fn unparsed_bytes_max(&self) -> usize {
        self.input_bytes_total_max
    }

    fn output(&self) -> Allowance {
        Allowance { pause: self.output_bytes_pause, total_max: self.output_bytes_total_max }
    }

    fn messages(&self) -> Allowance {
        Allowance { pause: self.message_bytes_pause, total_max: self.message_bytes_total_max }
    }

    fn connections_per_address_max(&self) -> u32 {
        self.connections_per_address_max
    }

    fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    fn check(&self) {
        assert!(self.frame_bytes_max >= 1024, "a handshake must fit into a frame");
        assert!(self.frame_bytes_max <= 1 << 30, "lengths have 32 bits");
        assert!(self.calls_max >= 1, "a session must be able to ask");
        assert!(self.tells_max >= 1, "a session must be able to tell");
        assert!(self.entity_messages_max >= 1, "an entity must be able to get a message");
        // Else the client could have no credit left while word of what was handled waits for more.
        assert!(u32::from(self.entity_messages_max) <= self.tells_max, "a part of them");
    }
}
