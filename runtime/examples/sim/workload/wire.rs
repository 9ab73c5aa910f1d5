//! Messages as archives, as they come off the network: told with a word when they are handled, and
//! no more of them at a time than may be; looked at where they lie, in memory that comes back.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside::rkyv::util::AlignedVec;
use coreside::sim::{
    Body, Encode, Outside, SharedBytes, Sim, SimBuilder, SimError, Ticket, WireCall, WireError,
};
use coreside::{Archived, AskError, Cx, ToValue, View, entity, handlers};

use crate::suite::book::{Asked, Life, Stamp, count, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Workload, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "wire",
    about: "archives told and asked, and looked at where they lie",
    shape: |scenario| scenario.steps = scenario.steps.min(1500),
    make: || {
        LOG.take();
        Box::new(Wire)
    },
};

const WORD: &str = "wire";

/// Tells that one client may have under way.
const TELLS_MAX: u32 = 4;

/// The longest text.
const TEXT_BYTES_MAX: u64 = 300;

#[derive(Default)]
struct Log {
    sent: Vec<Sent>,
    /// Tells under way, by who sent them.
    tells: BTreeMap<u64, u32>,
}

/// A message, by its number.
struct Sent {
    from: u64,
    /// Until it has its turn.
    stamp: Option<Stamp>,
    /// Until it is answered.
    asked: Option<Asked>,
    /// Whether it is told, and its client not told yet that it was handled.
    owes_note: bool,
    /// What its archive lies in.
    memory: SharedBytes,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

struct Wire;

impl Workload for Wire {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Desk>().outside(Clients).oracle(Noted(WORD))
    }

    fn load(&mut self, load: &mut Load<'_>) {
        (0..load.batch()).for_each(|_| send(load));
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        end(sim)
    }
}

impl Drop for Wire {
    /// What a run has left that broke off is for its own book.
    fn drop(&mut self) {
        LOG.take();
    }
}

fn send(load: &mut Load<'_>) {
    let (key, (handle, from)) = (load.key(), load.entrance());
    let looks = load.random.one_in(2);
    let tells = load.random.one_in(2);
    let bytes = load.random.below(TEXT_BYTES_MAX) as usize;
    let timeout_ns = load.scenario.ask_timeout_ns;
    handle.with_shard(move |shard| {
        let under_way = LOG.with_borrow(|log| log.tells.get(&from).copied().unwrap_or_default());
        if tells && under_way == TELLS_MAX {
            return count("tells that wait for others", 1);
        }
        let stamp = Stamp::new((from, key));
        let asked = (!tells).then(|| Asked::new(&stamp));
        let deadline_ns = shard.now().monotonic_ns + timeout_ns;
        let number = LOG.with_borrow(|log| log.sent.len()) as u64;
        let ticket = Ticket([number, 0]);
        let (call, method) = match (tells, looks) {
            (true, true) => (WireCall::TellNoted { deadline_ns, ticket }, "look"),
            (true, false) => (WireCall::TellNoted { deadline_ns, ticket }, "take"),
            (false, true) => (WireCall::Ask { deadline_ns, ticket }, "look"),
            (false, false) => (WireCall::Ask { deadline_ns, ticket }, "take"),
        };
        let memory = archive(number, bytes);
        let row = shard.wire().iter().position(|row| row.name.1 == method);
        let body: Body<'_> = memory.body(0);
        let sent = shard.send_wire(row.unwrap_or(usize::MAX) as u16, [key, 0], body, call);
        match sent {
            Ok(()) => LOG.with_borrow_mut(|log| {
                *log.tells.entry(from).or_default() += u32::from(tells);
                let stamp = Some(stamp);
                log.sent.push(Sent { from, stamp, asked, owes_note: tells, memory });
            }),
            Err(WireError::Full) => {
                stamp.take_back();
                asked.into_iter().for_each(Asked::take_back);
                is_back(number, memory);
            }
            Err(error) => note(WORD, format!("message {number} is not sent: {error}")),
        }
    });
}

/// The archive of either message.
fn archive(number: u64, bytes: usize) -> SharedBytes {
    let mut archive = Vec::new();
    let text = vec![number as u8; bytes];
    // Both messages have the same fields.
    if let Err(error) = (DeskLook { number, text }).encode(&mut archive) {
        note(WORD, format!("message {number} is no archive: {error}"));
    }
    let mut memory = AlignedVec::new();
    memory.extend_from_slice(&archive);
    SharedBytes::new(memory)
}

/// Nobody looks into the memory of a message that is gone.
fn is_back(number: u64, memory: SharedBytes) {
    if memory.take(0).1 {
        note(WORD, format!("the memory of message {number} is kept, and the message is gone"));
    }
}

/// Whoever sent something.
struct Clients;

impl Outside for Clients {
    fn answer(&mut self, ticket: Ticket, _answer: Result<&dyn ToValue, AskError>) {
        note(WORD, format!("{ticket:?} was not given to a command"));
    }

    fn answer_wire(&mut self, ticket: Ticket, answer: Result<&dyn Encode, AskError>) {
        let number = ticket.0[0];
        let Some((asked, owed_note)) = LOG.with_borrow_mut(|log| {
            let sent = log.sent.get_mut(number as usize)?;
            let owed_note = std::mem::take(&mut sent.owes_note);
            if owed_note {
                *log.tells.entry(sent.from).or_default() -= 1;
            }
            Some((sent.asked.take(), owed_note))
        }) else {
            return note(WORD, format!("message {number} is answered, and was not sent"));
        };
        match (asked, owed_note) {
            (Some(asked), _) => asked.end(answer.map(|reply| number_of(number, reply))),
            (None, true) => count("tells noted", 1),
            (None, false) => note(WORD, format!("message {number} is answered again")),
        }
    }
}

/// A reply is a number.
fn number_of(message: u64, reply: &dyn Encode) -> u64 {
    let mut archive = Vec::new();
    let encoded = reply.encode(&mut archive);
    match (encoded, archive.as_slice().try_into()) {
        (Ok(()), Ok(bytes)) => u64::from_le_bytes(bytes),
        _ => {
            note(WORD, format!("the reply to message {message} is {archive:?}"));
            0
        }
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    // A letter keeps its message, and that the memory it lies in.
    let letters = (0..sim.shards()).flat_map(|number| sim.shard(number).dead_letters());
    let kept: Vec<u64> = letters
        .filter_map(|letter| letter.message::<Desk, View<DeskLook>>())
        .map(|view| view.number.to_native())
        .collect();
    let log = LOG.take();
    for (number, sent) in (0..).zip(log.sent) {
        if sent.owes_note {
            note(WORD, format!("nobody says that message {number} was handled"));
        }
        if !kept.contains(&number) {
            is_back(number, sent.memory);
        }
    }
    sim.run_until_idle(1).map(|_| ())
}

/// The turn of message `number` begins at `desk`.
fn arrive(desk: u64, number: u64, text: &[u8]) -> Option<Stamp> {
    let stamp = LOG.with_borrow_mut(|log| log.sent.get_mut(number as usize)?.stamp.take());
    let Some(mut stamp) = stamp else {
        note(WORD, format!("message {number} came twice, or was not sent"));
        return None;
    };
    stamp.arrive(desk);
    if text.iter().any(|byte| *byte != number as u8) {
        note(WORD, format!("the text of message {number} is another"));
    }
    Some(stamp)
}

/// Reads.
#[entity(activate = Desk::begin, backoff = "1ms..2ms", faults = "1000000 in 1m")]
struct Desk {
    number: u64,
    _life: Life,
}

#[handlers]
impl Desk {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    #[wire]
    #[archived]
    fn look(&mut self, number: u64, text: &Archived<Vec<u8>>, cx: &mut Cx<Self>) -> u64 {
        self.read(number, text, cx)
    }

    #[local]
    #[wire]
    fn take(&mut self, number: u64, text: Vec<u8>, cx: &mut Cx<Self>) -> u64 {
        self.read(number, &text, cx)
    }

    #[skip]
    fn read(&mut self, number: u64, text: &[u8], cx: &mut Cx<Self>) -> u64 {
        let Some(stamp) = arrive(self.number, number, text) else { return 0 };
        may_fail(&stamp, cx);
        stamp.reply()
    }
}
