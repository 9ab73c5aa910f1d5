//! What happened to entities, in order, and what each of them is told to do when nobody tells it:
//! in its activation and in its last turn. One diary per thread, as the book.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside_shard::{End, EntityId, Fault};

/// Which subject: the number of its type, and its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Id(pub(crate) usize, pub(crate) u64);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A state was made.
    Made(Id),
    /// A message had its turn.
    Handled(Id, u64),
    /// A message that may be tried again had a turn.
    Tried(Id),
    /// A supervisor got this.
    Fault(Id, Fault),
    /// A watcher got this.
    Terminated(Id, Id, End),
    /// `on_stop` ran.
    SaidStop(Id),
    /// `on_passivate` ran.
    SaidPassivate(Id),
    /// What a goodbye had to wait for is done.
    SaidAll(Id),
    /// The message of a timer.
    Rang(Id),
}

/// How an entity's state is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Make {
    #[default]
    Plain,
    Panic,
    Fail,
    /// It stops again behind its first message.
    Stop,
    /// It waits for a time without messages.
    Quiet,
    /// It begins an async turn that takes a millisecond.
    Run,
    /// It begins an async turn that panics in its first step.
    RunPanic,
    /// Asynchronously, in no time.
    AtOnce,
    /// Asynchronously, with a panic in the first step.
    PanicAtOnce,
    /// Asynchronously, in so many milliseconds.
    Slow(u64),
    SlowPanic(u64),
}

/// What an entity does in its last turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Goodbye {
    #[default]
    Plain,
    Panic,
    Fail,
    /// An async turn of so many milliseconds.
    Slow(u64),
    SlowPanic(u64),
    /// A message to somebody.
    Tell(Id),
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    pub(crate) make: Make,
    /// Activations for which `make` holds; the others are plain.
    pub(crate) makes: u32,
    pub(crate) goodbye: Goodbye,
    /// It starts its child anew whenever it hears of a fault or an end.
    pub(crate) restarts: Option<Id>,
    /// Retried messages that fail before one does well.
    pub(crate) failing_tries: u32,
}

#[derive(Default)]
struct Diary {
    events: Vec<(u64, Event)>,
    plans: BTreeMap<Id, Plan>,
}

thread_local! {
    static DIARY: RefCell<Diary> = RefCell::new(Diary::default());
}

pub(crate) fn log(at_ns: u64, event: Event) {
    DIARY.with_borrow_mut(|diary| diary.events.push((at_ns, event)));
}

/// Everything so far.
pub(crate) fn events() -> Vec<Event> {
    timed().into_iter().map(|(_, event)| event).collect()
}

/// Everything so far, each with its time.
pub(crate) fn timed() -> Vec<(u64, Event)> {
    DIARY.with_borrow(|diary| diary.events.clone())
}

pub(crate) fn count(which: impl Fn(&Event) -> bool) -> usize {
    DIARY.with_borrow(|diary| diary.events.iter().filter(|(_, event)| which(event)).count())
}

/// The states of an entity that were made so far.
pub(crate) fn made(id: Id) -> usize {
    count(|event| *event == Event::Made(id))
}

/// What a supervisor heard so far.
pub(crate) fn faults(supervisor: Id) -> Vec<Fault> {
    let own = |event| match event {
        Event::Fault(of, fault) if of == supervisor => Some(fault),
        _ => None,
    };
    events().into_iter().filter_map(own).collect()
}

/// What a watcher was told so far.
pub(crate) fn terminations(watcher: Id) -> Vec<(Id, End)> {
    let own = |event| match event {
        Event::Terminated(of, who, end) if of == watcher => Some((who, end)),
        _ => None,
    };
    events().into_iter().filter_map(own).collect()
}

/// The numbers of the messages that an entity handled, in order.
pub(crate) fn handled(id: Id) -> Vec<u64> {
    let own = |event| match event {
        Event::Handled(of, number) if of == id => Some(number),
        _ => None,
    };
    events().into_iter().filter_map(own).collect()
}

pub(crate) fn plan(id: Id, plan: Plan) {
    DIARY.with_borrow_mut(|diary| diary.plans.insert(id, plan));
}

pub(crate) fn planned(id: Id) -> Plan {
    DIARY.with_borrow(|diary| diary.plans.get(&id).copied().unwrap_or_default())
}

/// How the next state of an entity is to be made.
pub(crate) fn next_make(id: Id) -> Make {
    DIARY.with_borrow_mut(|diary| match diary.plans.get_mut(&id) {
        Some(plan) if plan.makes > 0 => {
            plan.makes -= 1;
            plan.make
        }
        _ => Make::Plain,
    })
}

/// Whether the next try of a message is to fail.
pub(crate) fn next_try_fails(id: Id) -> bool {
    DIARY.with_borrow_mut(|diary| match diary.plans.get_mut(&id) {
        Some(plan) if plan.failing_tries > 0 => {
            plan.failing_tries -= 1;
            true
        }
        _ => false,
    })
}

/// Begins a new diary, and forgets what was planned.
pub(crate) fn clear() {
    DIARY.with_borrow_mut(|diary| *diary = Diary::default());
}

/// Which subject the runtime speaks of.
pub(crate) fn id_of(entity: EntityId) -> Id {
    let kind = crate::subject::NAMES.iter().position(|name| *name == entity.type_name());
    Id(kind.expect("a subject"), entity.key_words()[0])
}
