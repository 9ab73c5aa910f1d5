//! `HELLO`, `AUTH` and `RESET`: who speaks, and which version of the protocol.

use coreside_shard::{Args, ValueWriter};

use crate::resp::parse::parse_i64;
use crate::resp::session::Session;
use crate::resp::session::Shared;
use crate::resp::write::Protocol;

use super::client::is_valid_name;

/// Clients compare versions to learn what they may send; this is the Redis whose texts we speak.
pub(super) const REDIS_VERSION: &str = "7.0.0";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
                           default user. Are you sure your configuration is correct?";

pub(super) const BAD_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

pub(super) fn hello(session: &mut Session, mut args: Args<'_>, shared: &mut Shared) {
    let protocol = match args.next().map(parse_i64) {
        None => session.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => {
            session.reply(shared, |writer| writer.error("NOPROTO unsupported protocol version"));
            return;
        }
        Some(None) => {
            session.reply(shared, |writer| {
                writer.error("ERR Protocol version is not an integer or out of range");
            });
            return;
        }
    };
    let name = match options(args) {
        Ok(name) => name,
        Err(line) => {
            session.reply(shared, |writer| writer.error_bytes(&line));
            return;
        }
    };
    if let Some(name) = name {
        session.name = name;
    }
    session.protocol = protocol;
    let number = session.number as i64;
    session.reply(shared, |writer| {
        writer.map(7);
        writer.bytes(b"server");
        writer.bytes(b"coreside");
        writer.bytes(b"version");
        writer.bytes(REDIS_VERSION.as_bytes());
        writer.bytes(b"proto");
        writer.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
        writer.bytes(b"id");
        writer.integer(number);
        writer.bytes(b"mode");
        writer.bytes(b"standalone");
        writer.bytes(b"role");
        writer.bytes(b"master");
        writer.bytes(b"modules");
        writer.array(0);
    });
}

/// The name that `SETNAME` gives, or the error line.
fn options(mut args: Args<'_>) -> Result<Option<Vec<u8>>, Vec<u8>> {
    let mut name = None;
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"AUTH") && args.len() >= 2 {
            let user = args.next();
            args.next();
            if user != Some(b"default") {
                return Err(WRONG_PASSWORD.into());
            }
        } else if option.eq_ignore_ascii_case(b"SETNAME") && !args.is_empty() {
            let given = args.next().unwrap_or_default();
            if !is_valid_name(given) {
                return Err(BAD_NAME.into());
            }
            name = Some(given.to_vec());
        } else {
            let mut line = b"ERR Syntax error in HELLO option '".to_vec();
            line.extend_from_slice(&option[..option.len().min(super::QUOTED_BYTES_MAX)]);
            line.push(b'\'');
            return Err(line);
        }
    }
    Ok(name)
}

pub(super) fn auth(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    match args.len() {
        0 => session.wrong_count(name, shared),
        1 => session.reply(shared, |writer| writer.error(NO_PASSWORD)),
        2 if args.next() == Some(b"default") => {
            session.reply(shared, |writer| writer.status("OK"));
        }
        2 => session.reply(shared, |writer| writer.error(WRONG_PASSWORD)),
        _ => session.reply(shared, |writer| writer.error("ERR syntax error")),
    }
}

pub(super) fn reset(session: &mut Session, name: &[u8], args: Args<'_>, shared: &mut Shared) {
    if !args.is_empty() {
        session.wrong_count(name, shared);
        return;
    }
    session.protocol = Protocol::Resp2;
    session.name.clear();
    session.reply(shared, |writer| writer.status("RESET"));
}
