//! `CLIENT`: what a connection says and asks about itself.

use std::io::Write;

use coreside_shard::{Args, ValueWriter};

use crate::resp::session::Session;
use crate::resp::session::Shared;
use crate::resp::write::Protocol;

use super::hello::BAD_NAME;
use super::unknown_subcommand;
use crate::sessions::Session as _;

pub(super) fn client(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    let Some(verb) = args.next() else {
        session.wrong_count(name, shared);
        return;
    };
    let verb_upper = verb.to_ascii_uppercase();
    let expected = match verb_upper.as_slice() {
        b"ID" | b"GETNAME" | b"INFO" | b"HELP" => 0..=0,
        b"SETNAME" | b"NO-EVICT" | b"NO-TOUCH" | b"REPLY" => 1..=1,
        b"SETINFO" => 2..=2,
        b"LIST" => 0..=usize::MAX,
        _ => {
            unknown_subcommand(session, "CLIENT", verb, shared);
            return;
        }
    };
    if !expected.contains(&args.len()) {
        let full_name = [b"client|", verb].concat();
        session.wrong_count(&full_name, shared);
        return;
    }
    let first = args.next().unwrap_or_default();
    match verb_upper.as_slice() {
        b"ID" => {
            let number = session.number as i64;
            session.reply(shared, |writer| writer.integer(number));
        }
        b"GETNAME" => get_name(session, shared),
        b"SETNAME" => set_name(session, first, shared),
        b"SETINFO" => set_info(session, first, shared),
        // A list of one: a session knows nothing of the others.
        b"INFO" | b"LIST" => info(session, shared),
        b"HELP" => session.reply(shared, |writer| {
            writer.array(HELP.len());
            for line in HELP {
                writer.status(line);
            }
        }),
        b"REPLY" => reply_mode(session, first, shared),
        _ => on_or_off(session, first, shared),
    }
}

const HELP: [&str; 10] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "ID",
    "INFO",
    "LIST",
    "NO-EVICT (ON|OFF)",
    "NO-TOUCH (ON|OFF)",
    "REPLY ON",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "SETNAME <name>",
];

/// Printable ASCII without blanks, as Redis wants it. The empty name takes the name away.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

const NAME_BYTES_MAX: usize = 1024;

fn get_name(session: &mut Session, shared: &mut Shared) {
    let name = std::mem::take(&mut session.name);
    session.reply(shared, |writer| {
        if name.is_empty() {
            writer.nil();
        } else {
            writer.bytes(&name);
        }
    });
    session.name = name;
}

fn set_name(session: &mut Session, name: &[u8], shared: &mut Shared) {
    if is_valid_name(name) {
        session.name = name.to_vec();
        session.reply(shared, |writer| writer.status("OK"));
    } else {
        session.reply(shared, |writer| writer.error(BAD_NAME));
    }
}

/// Libraries introduce themselves; it is taken and not kept.
fn set_info(session: &mut Session, attribute: &[u8], shared: &mut Shared) {
    if attribute.eq_ignore_ascii_case(b"LIB-NAME") || attribute.eq_ignore_ascii_case(b"LIB-VER") {
        session.reply(shared, |writer| writer.status("OK"));
    } else {
        let mut line = b"ERR Unrecognized option '".to_vec();
        line.extend_from_slice(&attribute[..attribute.len().min(super::QUOTED_BYTES_MAX)]);
        line.push(b'\'');
        session.reply(shared, |writer| writer.error_bytes(&line));
    }
}

fn info(session: &mut Session, shared: &mut Shared) {
    let mut text = Vec::new();
    let protocol = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let number = session.number;
    let written = match session.peer {
        Some(peer) => write!(text, "id={number} addr={peer} name="),
        None => write!(text, "id={number} addr= name="),
    };
    debug_assert!(written.is_ok(), "a vector takes all");
    text.extend_from_slice(&session.name);
    let omem = session.output_bytes();
    let written = writeln!(
        text,
        " flags=N db=0 sub=0 psub=0 multi=-1 qbuf={} omem={omem} cmd=client user=default \
         resp={protocol}",
        session.unparsed_bytes(),
    );
    debug_assert!(written.is_ok(), "a vector takes all");
    session.reply(shared, |writer| writer.verbatim(&text));
}

/// Without replies there would be nothing to order, and errors would go unseen.
fn reply_mode(session: &mut Session, mode: &[u8], shared: &mut Shared) {
    session.reply(shared, |writer| {
        if mode.eq_ignore_ascii_case(b"ON") {
            writer.status("OK");
        } else if mode.eq_ignore_ascii_case(b"OFF") || mode.eq_ignore_ascii_case(b"SKIP") {
            writer.error("ERR CLIENT REPLY OFF and SKIP are not supported: every command answers");
        } else {
            writer.error("ERR syntax error");
        }
    });
}

fn on_or_off(session: &mut Session, value: &[u8], shared: &mut Shared) {
    session.reply(shared, |writer| {
        if value.eq_ignore_ascii_case(b"ON") || value.eq_ignore_ascii_case(b"OFF") {
            writer.status("OK");
        } else {
            writer.error("ERR syntax error");
        }
    });
}
