//! A shard of functions: what it answers depends on the request alone, when it answers on the test.

#![allow(dead_code, reason = "every test uses a part of it")]

use coreside_net::native;
use coreside_net::resp::{Entry, Intake};
use coreside_shard::{
    Args, ArgumentError, AskError, Body, CallError, Each, KeyWords, Outside, Ticket, ToValue,
    ValueWriter, WireCall, WireError, WireRow,
};

/// The fake's commands, with their number.
pub(crate) const COMMANDS: [(&str, Each, bool); 7] = [
    ("GET", Each::One, false),
    ("SET", Each::One, false),
    ("DEL", Each::Sum, false),
    ("MGET", Each::Array, false),
    ("MSET", Each::Pairs, false),
    ("DBSIZE", Each::One, true),
    ("KV.SHAPES", Each::One, false),
];

/// Takes requests, and answers them when it is told to.
#[derive(Default)]
pub(crate) struct Fake {
    /// Every request taken so far: the command's name, the key, the arguments.
    pub(crate) seen: Vec<Vec<Vec<u8>>>,
    pub(crate) waiting: Vec<(Ticket, Reply)>,
    pub(crate) congested: bool,
}

/// An answer to come.
pub(crate) enum Reply {
    Nil,
    Status(&'static str),
    Integer(i64),
    Bytes(Vec<u8>),
    Line(&'static str),
    Shapes,
    Failed(AskError),
}

impl ToValue for Reply {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        match self {
            Self::Nil => out.nil(),
            Self::Status(text) => out.status(text),
            Self::Integer(value) => out.integer(*value),
            Self::Bytes(bytes) => out.bytes(bytes),
            Self::Line(line) => out.error(line),
            Self::Shapes => {
                out.map(2);
                out.status("list");
                out.array(4);
                out.boolean(true);
                out.boolean(false);
                out.double(1.5);
                out.nil();
                out.bytes(b"key");
                out.integer(-12_345);
            }
            Self::Failed(_) => unreachable!("sent as an error"),
        }
    }
}

impl Fake {
    /// Answers the waiting request number `index`.
    pub(crate) fn answer(&mut self, index: usize, outside: &mut dyn Outside) {
        let (ticket, reply) = self.waiting.remove(index);
        match reply {
            Reply::Failed(error) => outside.answer(ticket, Err(error)),
            reply => outside.answer(ticket, Ok(&reply)),
        }
    }

    /// Answers all that wait, in the order of their requests.
    pub(crate) fn answer_all(&mut self, outside: &mut dyn Outside) {
        while !self.waiting.is_empty() {
            self.answer(0, outside);
        }
    }

    fn reply(id: usize, key: &[u8]) -> Reply {
        match (id, key) {
            (_, b"failed") => Reply::Failed(AskError::Failed),
            (_, b"expired") => Reply::Failed(AskError::Expired),
            (_, b"wrong") => Reply::Line("WRONGTYPE not\r\nthis"),
            (0 | 3, b"nil") => Reply::Nil,
            (0 | 3, b"big") => Reply::Bytes(vec![b'B'; 10_000]),
            (0 | 3, _) => Reply::Bytes([b"value of ", key].concat()),
            (2, b"text") => Reply::Status("text"),
            (2, b"huge") => Reply::Integer(i64::MAX),
            (2, _) => Reply::Integer(key.len() as i64),
            (5, _) => Reply::Integer(77),
            (6, _) => Reply::Shapes,
            _ => Reply::Status("OK"),
        }
    }
}

impl Intake for Fake {
    type Id = usize;

    fn find(&self, name: &[u8]) -> Option<Entry<usize>> {
        let id = COMMANDS.iter().position(|row| row.0.as_bytes().eq_ignore_ascii_case(name))?;
        Some(Entry { id, each: COMMANDS[id].1, sweep: COMMANDS[id].2 })
    }

    fn ask(
        &mut self,
        id: usize,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        let mut words = vec![COMMANDS[id].0.as_bytes().to_vec(), key.to_vec()];
        words.extend(args.map(<[u8]>::to_vec));
        match key {
            b"full" => return Err(CallError::Full),
            b"nan" => return Err(CallError::Argument(ArgumentError::NotAnInteger)),
            _ => {}
        }
        let arguments = if matches!(id, 1 | 4) { 3 } else { 2 };
        if words.len() != arguments {
            return Err(CallError::Argument(ArgumentError::Count));
        }
        self.waiting.push((ticket, Self::reply(id, key)));
        self.seen.push(words);
        Ok(())
    }

    fn ask_sweep(
        &mut self,
        id: usize,
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        if !args.is_empty() {
            return Err(CallError::Argument(ArgumentError::Count));
        }
        self.waiting.push((ticket, Self::reply(id, b"")));
        self.seen.push(vec![COMMANDS[id].0.as_bytes().to_vec()]);
        Ok(())
    }

    fn is_congested(&self) -> bool {
        self.congested
    }

    fn visit_commands(&self, visit: &mut dyn FnMut(&str, Each, bool)) {
        for (name, each, sweep) in COMMANDS {
            visit(name, each, sweep);
        }
    }
}

/// It has no messages: whoever greets it is told so.
impl native::Intake for Fake {
    fn messages(&self) -> &[WireRow] {
        &[]
    }

    fn send(&mut self, _: u16, _: KeyWords, _: Body<'_>, _: WireCall) -> Result<(), WireError> {
        Err(WireError::Invalid)
    }

    fn is_congested(&self) -> bool {
        self.congested
    }

    fn deadline_ns(&self, time_us: u32) -> u64 {
        u64::from(time_us)
    }
}
