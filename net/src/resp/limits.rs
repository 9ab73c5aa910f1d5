//! Every bound of a session. What a peer sends beyond one of them costs the peer, never the node.

use std::time::Duration;

use super::underway::PART_BITS;
use crate::sessions::{Allowance, Bounds, Deadlines};

/// The bounds of the sessions of one shard. The defaults are those of Redis where it has one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest line without a length before it: an inline command, a count. Longer lines are a
    /// protocol error.
    pub line_bytes_max: usize,
    /// The most arguments of one command, its name included.
    pub arguments_max: u32,
    /// The longest argument.
    pub bulk_bytes_max: u32,
    /// The most bytes of a connection that wait for the rest of their command. Beyond it the
    /// connection is closed. At most 2 GiB, because spans have 32 bits.
    pub query_bytes_max: usize,
    /// The most such bytes over all connections of the shard. Beyond it the connection that holds
    /// most is closed.
    pub query_bytes_total_max: usize,
    /// Unread bytes past which a connection that may not be parsed further is not read either.
    pub query_bytes_pause: usize,
    /// Bytes of output, unsent or expected, past which a connection is neither parsed nor read.
    pub output_bytes_pause: usize,
    /// Bytes of output past which a connection is closed.
    pub output_bytes_max: usize,
    /// Bytes of output over all connections of the shard. Past half of it a connection pauses once
    /// it has its share: that half, divided by the connections there are. Beyond it, of those whose
    /// peers have taken nothing for 50 ms, the one with most is closed; beyond twice as much, the
    /// one with most of all.
    pub output_bytes_total_max: usize,
    /// Bytes of commands of one connection that are not answered, past which it is not parsed
    /// further.
    pub message_bytes_pause: usize,
    /// Such bytes over all connections of the shard, those that are gone included. Past half of it
    /// each connection may have only its share, as with output. So it may be exceeded by one
    /// command of each.
    pub message_bytes_total_max: usize,
    /// Commands of one connection that wait for their answers; parsing pauses at this number.
    pub pipeline_max: u32,
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
            line_bytes_max: 64 * 1024,
            arguments_max: 1024 * 1024,
            bulk_bytes_max: 512 * 1024 * 1024,
            query_bytes_max: 1024 * 1024 * 1024,
            query_bytes_total_max: 256 * 1024 * 1024,
            query_bytes_pause: 64 * 1024,
            output_bytes_pause: 1024 * 1024,
            output_bytes_max: 64 * 1024 * 1024,
            output_bytes_total_max: 256 * 1024 * 1024,
            message_bytes_pause: 16 * 1024 * 1024,
            message_bytes_total_max: 256 * 1024 * 1024,
            pipeline_max: 4096,
            connections_max: 10_000,
            connections_per_address_max: 1000,
            // Redis has none of them. Pools connect ahead of need, so a first byte may be late, and
            // a client that has nothing to ask is no reason to close.
            deadlines: Deadlines {
                first_byte: Some(Duration::from_secs(30)),
                handshake: Some(Duration::from_secs(5)),
                idle: None,
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
        self.query_bytes_total_max
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
        assert!(self.query_bytes_max <= 1 << 31, "spans have 32 bits");
        assert!(self.output_bytes_max <= 1 << 31, "spans have 32 bits");
        assert!(self.arguments_max < 1 << PART_BITS, "keys of a command are numbered");
        assert!(self.pipeline_max >= 1, "a session must be able to ask");
    }
}
