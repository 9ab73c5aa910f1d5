//! The commands that a session answers itself: what clients say before and between requests.
//!
//! Texts are those of Redis 7.0, because clients match on some of them. There are no passwords, so
//! `AUTH` behaves as in a Redis without any.

mod client;
mod command;
mod hello;
mod info;

pub use self::info::Facts;

use coreside_shard::{Args, ValueWriter};

use super::intake::Intake;
use super::parse::parse_i64;
use super::session::{Handled, Session, Shared};
use crate::sessions::Session as _;

/// A command that the session answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Auth,
    Client,
    Command,
    Config,
    Echo,
    Hello,
    Info,
    Ping,
    Quit,
    Reset,
    Select,
}

impl Builtin {
    /// The built-in of that name, in any case.
    #[inline]
    pub(crate) fn find(name: &[u8]) -> Option<Self> {
        // Every request passes here, so the common names of entities' commands leave early.
        if !(4..=7).contains(&name.len()) {
            return None;
        }
        let mut word = [0; 8];
        word[..name.len()].copy_from_slice(name);
        // Clears the bit that tells a small letter from a capital; what is no letter stays none.
        match (u64::from_le_bytes(word) & 0xdfdf_dfdf_dfdf_dfdf).to_le_bytes() {
            [b'P', b'I', b'N', b'G', 0, ..] => Some(Self::Ping),
            [b'E', b'C', b'H', b'O', 0, ..] => Some(Self::Echo),
            [b'A', b'U', b'T', b'H', 0, ..] => Some(Self::Auth),
            [b'Q', b'U', b'I', b'T', 0, ..] => Some(Self::Quit),
            [b'I', b'N', b'F', b'O', 0, ..] => Some(Self::Info),
            [b'H', b'E', b'L', b'L', b'O', 0, ..] => Some(Self::Hello),
            [b'R', b'E', b'S', b'E', b'T', 0, ..] => Some(Self::Reset),
            [b'C', b'L', b'I', b'E', b'N', b'T', 0, ..] => Some(Self::Client),
            [b'C', b'O', b'N', b'F', b'I', b'G', 0, ..] => Some(Self::Config),
            [b'S', b'E', b'L', b'E', b'C', b'T', 0, ..] => Some(Self::Select),
            [b'C', b'O', b'M', b'M', b'A', b'N', b'D', 0] => Some(Self::Command),
            _ => None,
        }
        .filter(|_| name.is_ascii() && !name.contains(&0) && !name.contains(&b' '))
    }
}

/// Answers a built-in command; `args` are those behind the name.
#[cold]
pub(crate) fn answer<I: Intake>(
    builtin: Builtin,
    session: &mut Session,
    name: &[u8],
    args: Args<'_>,
    intake: &mut I,
    shared: &mut Shared,
) -> Handled {
    match builtin {
        Builtin::Ping => ping(session, name, args, shared),
        Builtin::Echo => echo(session, name, args, shared),
        Builtin::Select => select(session, name, args, shared),
        Builtin::Quit => {
            session.reply(shared, |writer| writer.status("OK"));
            session.end();
        }
        Builtin::Info => info::info(session, args, shared),
        Builtin::Config => config(session, name, args, shared),
        Builtin::Client => client::client(session, name, args, shared),
        Builtin::Command => command::command(session, args, intake, shared),
        Builtin::Auth => hello::auth(session, name, args, shared),
        // They change how replies are written, so all replies before them must be written first.
        Builtin::Hello if session.owed() > 0 => return Handled::Hold,
        Builtin::Reset if session.owed() > 0 => return Handled::Hold,
        Builtin::Hello => hello::hello(session, args, shared),
        Builtin::Reset => hello::reset(session, name, args, shared),
    }
    Handled::Done
}

/// Says that there is no such command, as Redis says it.
#[cold]
pub(crate) fn unknown_command(
    session: &mut Session,
    name: &[u8],
    args: Args<'_>,
    shared: &mut Shared,
) {
    let mut line = b"ERR unknown command '".to_vec();
    line.extend_from_slice(&name[..name.len().min(QUOTED_BYTES_MAX)]);
    line.extend_from_slice(b"', with args beginning with: ");
    let start = line.len();
    for arg in args {
        let quoted_len = line.len() - start;
        if quoted_len >= QUOTED_BYTES_MAX {
            break;
        }
        line.push(b'\'');
        line.extend_from_slice(&arg[..arg.len().min(QUOTED_BYTES_MAX - quoted_len)]);
        line.extend_from_slice(b"' ");
    }
    session.reply(shared, |writer| writer.error_bytes(&line));
}

/// How much of a caller's words an error repeats.
const QUOTED_BYTES_MAX: usize = 128;

fn ping(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    match (args.next(), args.is_empty()) {
        (None, _) => session.reply(shared, |writer| writer.status("PONG")),
        (Some(text), true) => session.reply(shared, |writer| writer.bytes(text)),
        (Some(_), false) => session.wrong_count(name, shared),
    }
}

fn echo(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    match (args.next(), args.is_empty()) {
        (Some(text), true) => session.reply(shared, |writer| writer.bytes(text)),
        _ => session.wrong_count(name, shared),
    }
}

fn select(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    let (Some(number), true) = (args.next(), args.is_empty()) else {
        session.wrong_count(name, shared);
        return;
    };
    match parse_i64(number) {
        Some(0) => session.reply(shared, |writer| writer.status("OK")),
        Some(_) => session.reply(shared, |writer| writer.error("ERR DB index is out of range")),
        None => session.reply(shared, |writer| {
            writer.error("ERR value is not an integer or out of range");
        }),
    }
}

/// Benchmarks ask whether writes go to disk before they start. There is nothing else to configure.
fn config(session: &mut Session, name: &[u8], mut args: Args<'_>, shared: &mut Shared) {
    let Some(verb) = args.next() else {
        session.wrong_count(name, shared);
        return;
    };
    if !verb.eq_ignore_ascii_case(b"GET") {
        unknown_subcommand(session, "CONFIG", verb, shared);
        return;
    }
    if args.is_empty() {
        session.wrong_count(b"config|get", shared);
        return;
    }
    let known = [("save", ""), ("appendonly", "no"), ("databases", "1")];
    let asked = |pair: &(&str, &str)| {
        args.clone().any(|arg| arg == b"*" || arg.eq_ignore_ascii_case(pair.0.as_bytes()))
    };
    let count = known.iter().filter(|pair| asked(pair)).count();
    session.reply(shared, |writer| {
        writer.map(count);
        for (key, value) in known.iter().filter(|pair| asked(pair)) {
            writer.bytes(key.as_bytes());
            writer.bytes(value.as_bytes());
        }
    });
}

fn unknown_subcommand(session: &mut Session, command: &str, verb: &[u8], shared: &mut Shared) {
    let mut line = b"ERR unknown subcommand '".to_vec();
    line.extend_from_slice(&verb[..verb.len().min(QUOTED_BYTES_MAX)]);
    line.extend_from_slice(b"'. Try ");
    line.extend_from_slice(command.as_bytes());
    line.extend_from_slice(b" HELP.");
    session.reply(shared, |writer| writer.error_bytes(&line));
}
