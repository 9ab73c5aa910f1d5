//! `INFO`: figures of this shard's sessions and of the node, as text.

use std::fmt::Write;

use coreside_shard::Args;

use crate::resp::session::Session;
use crate::resp::session::Shared;

use super::hello::REDIS_VERSION;

/// What the sessions say about the node. The driver sets it now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The number of this shard.
    pub shard: u16,
    /// How many shards the node has.
    pub shards: u16,
    /// The port on which the node listens.
    pub tcp_port: u16,
    /// Memory of the process that is resident.
    pub rss_bytes: u64,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// Entities that are live in this shard.
    pub entities: u64,
}

const SECTIONS: [&str; 5] = ["server", "clients", "memory", "stats", "keyspace"];

pub(super) fn info(session: &mut Session, args: Args<'_>, shared: &mut Shared) {
    let everything = args.is_empty()
        || args.clone().any(|arg| {
            [&b"all"[..], b"default", b"everything"].iter().any(|all| arg.eq_ignore_ascii_case(all))
        });
    let mut text = String::new();
    for section in SECTIONS {
        let asked = args.clone().any(|arg| arg.eq_ignore_ascii_case(section.as_bytes()));
        if !(everything || asked) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let written = write_section(&mut text, section, shared);
        debug_assert!(written.is_ok(), "a string takes all");
    }
    session.reply(shared, |writer| writer.verbatim(text.as_bytes()));
}

fn write_section(text: &mut String, section: &str, shared: &Shared) -> std::fmt::Result {
    let (facts, stats) = (&shared.facts, &shared.stats);
    match section {
        "server" => write!(
            text,
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nserver_name:coreside\r\n\
             coreside_version:{}\r\nredis_mode:standalone\r\nos:Linux\r\narch_bits:64\r\n\
             multiplexing_api:io_uring\r\nprocess_id:{}\r\ntcp_port:{}\r\n\
             uptime_in_seconds:{}\r\nuptime_in_days:{}\r\nshard:{}\r\nshards:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            facts.tcp_port,
            facts.uptime_s,
            facts.uptime_s / 86_400,
            facts.shard,
            facts.shards,
        ),
        "clients" => write!(
            text,
            "# Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:0\r\n",
            shared.open, shared.limits.connections_max,
        ),
        "memory" => write!(
            text,
            "# Memory\r\nused_memory:{0}\r\nused_memory_rss:{0}\r\nmaxmemory:0\r\n\
             maxmemory_policy:noeviction\r\n",
            facts.rss_bytes,
        ),
        "stats" => write!(
            text,
            "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
             total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\n\
             total_error_replies:{}\r\n",
            stats.opened, stats.requests, stats.bytes_in, stats.bytes_out, stats.protocol_errors,
        ),
        _ if facts.entities > 0 => {
            write!(text, "# Keyspace\r\ndb0:keys={},expires=0,avg_ttl=0\r\n", facts.entities)
        }
        _ => write!(text, "# Keyspace\r\n"),
    }
}
