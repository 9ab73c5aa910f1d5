//! `COMMAND`: which commands there are. `redis-cli` and some libraries ask before anything else.

use coreside_shard::{Args, Each, ValueWriter};

use crate::resp::intake::Intake;
use crate::resp::session::Session;
use crate::resp::session::Shared;
use crate::resp::write::Writer;

use super::unknown_subcommand;

/// What is said about one command.
struct Row {
    /// In small letters, as Redis lists them.
    name: String,
    /// Least number of words; negative, because more may follow.
    arity: i64,
    first_key: i64,
    last_key: i64,
    key_step: i64,
    is_builtin: bool,
}

/// More names are not looked up at once: each costs a look at every command, and has a long answer.
const NAMES_MAX: usize = 1024;

/// Names and least number of words of the built-in commands.
const BUILTINS: [(&str, i64); 11] = [
    ("auth", -2),
    ("client", -2),
    ("command", -1),
    ("config", -2),
    ("echo", 2),
    ("hello", -1),
    ("info", -1),
    ("ping", -1),
    ("quit", -1),
    ("reset", 1),
    ("select", 2),
];

pub(super) fn command<I: Intake>(
    session: &mut Session,
    mut args: Args<'_>,
    intake: &I,
    shared: &mut Shared,
) {
    let rows = rows_of(intake);
    let Some(verb) = args.next() else {
        session.reply(shared, |writer| write_infos(writer, rows.iter().map(Some)));
        return;
    };
    match verb.to_ascii_uppercase().as_slice() {
        b"COUNT" => session.reply(shared, |writer| writer.integer(rows.len() as i64)),
        b"LIST" => session.reply(shared, |writer| {
            writer.array(rows.len());
            for row in &rows {
                writer.bytes(row.name.as_bytes());
            }
        }),
        b"INFO" if args.is_empty() => {
            session.reply(shared, |writer| write_infos(writer, rows.iter().map(Some)));
        }
        b"INFO" | b"DOCS" if args.len() > NAMES_MAX => {
            let error = format!("ERR more than {NAMES_MAX} names at once");
            session.reply(shared, |writer| writer.error(&error));
        }
        b"INFO" => session.reply(shared, |writer| {
            let named: Vec<_> = args.map(|name| find(&rows, name)).collect();
            write_infos(writer, named.into_iter());
        }),
        b"DOCS" if args.is_empty() => {
            session.reply(shared, |writer| write_docs(writer, rows.iter()));
        }
        b"DOCS" => session.reply(shared, |writer| {
            let named: Vec<_> = args.filter_map(|name| find(&rows, name)).collect();
            write_docs(writer, named.into_iter());
        }),
        b"GETKEYS" => keys(session, args, &rows, shared),
        _ => unknown_subcommand(session, "COMMAND", verb, shared),
    }
}

fn rows_of<I: Intake>(intake: &I) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, arity) in BUILTINS {
        let name = name.to_owned();
        rows.push(Row { name, arity, first_key: 0, last_key: 0, key_step: 0, is_builtin: true });
    }
    intake.visit_commands(&mut |name, each, sweep| {
        let (arity, first_key, last_key, key_step) = match each {
            _ if sweep => (1, 0, 0, 0),
            Each::One => (-2, 1, 1, 1),
            Each::Sum | Each::Array => (-2, 1, -1, 1),
            Each::Pairs => (-3, 1, -1, 2),
        };
        let name = name.to_ascii_lowercase();
        rows.push(Row { name, arity, first_key, last_key, key_step, is_builtin: false });
    });
    rows
}

fn find<'a>(rows: &'a [Row], name: &[u8]) -> Option<&'a Row> {
    rows.iter().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// One array of ten per command, as Redis 7 has it: name, arity, flags, keys, and four empty lists.
fn write_infos<'a>(writer: &mut Writer<'_>, rows: impl ExactSizeIterator<Item = Option<&'a Row>>) {
    writer.array(rows.len());
    for row in rows {
        let Some(row) = row else {
            writer.nil();
            continue;
        };
        writer.array(10);
        writer.bytes(row.name.as_bytes());
        writer.integer(row.arity);
        writer.array(1);
        writer.status(if row.is_builtin { "fast" } else { "write" });
        writer.integer(row.first_key);
        writer.integer(row.last_key);
        writer.integer(row.key_step);
        for _ in 0..4 {
            writer.array(0);
        }
    }
}

fn write_docs<'a>(writer: &mut Writer<'_>, rows: impl ExactSizeIterator<Item = &'a Row>) {
    writer.map(rows.len());
    for row in rows {
        writer.bytes(row.name.as_bytes());
        writer.map(2);
        writer.bytes(b"summary");
        writer.bytes(if row.is_builtin {
            b"Answered by the connection"
        } else {
            b"A message to an entity"
        });
        writer.bytes(b"group");
        writer.bytes(if row.is_builtin { b"connection" } else { b"generic" });
    }
}

fn keys(session: &mut Session, mut args: Args<'_>, rows: &[Row], shared: &mut Shared) {
    let (Some(name), false) = (args.next(), args.is_empty()) else {
        session.wrong_count(b"command|getkeys", shared);
        return;
    };
    let Some(row) = find(rows, name) else {
        session.reply(shared, |writer| writer.error("ERR Invalid command specified"));
        return;
    };
    if row.first_key == 0 {
        session.reply(shared, |writer| writer.error("ERR The command has no key arguments"));
        return;
    }
    let count = if row.last_key < 0 { usize::MAX } else { 1 };
    let keys: Vec<_> = args.step_by(row.key_step as usize).take(count).collect();
    session.reply(shared, |writer| {
        writer.array(keys.len());
        for key in keys {
            writer.bytes(key);
        }
    });
}
