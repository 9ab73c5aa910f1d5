//! An entity that does whatever its messages carry: closures, so that each test says what happens.

use std::marker::PhantomData;
use std::sync::Arc;

use coreside_shard::{
    Activating, Address, Answer, AsyncCx, Cx, Entity, Handler, Later, Life, Message, OnFault,
    Registration, Registry, Sweep, Table, ToValue, ValueWriter, Via, Visit,
};

use crate::notes::{Witness, note};

/// A type of agents: what its life declares.
pub(crate) trait Sort: Sized + 'static {
    const NAME: &'static str;
    const LIFE: Life;

    fn activate_async(_key: u64, _cx: AsyncCx<Agent<Self>>) -> Option<Activating<Agent<Self>>> {
        None
    }
}

/// Restarted after a fault, as any entity by default.
pub(crate) struct Plain;

impl Sort for Plain {
    const NAME: &'static str = "plain";
    const LIFE: Life = Life::DEFAULT;
}

/// Keeps its state through faults.
pub(crate) struct Tough;

impl Sort for Tough {
    const NAME: &'static str = "tough";
    const LIFE: Life = Life { on_fault: OnFault::Resume, ..Life::DEFAULT };
}

/// At most four messages wait for it.
pub(crate) struct Tight;

impl Sort for Tight {
    const NAME: &'static str = "tight";
    const LIFE: Life = Life { stash_max: 4, ..Life::DEFAULT };
}

/// Made in the course of 10 ms; one whose key is 13 asks a plain agent of that key first.
pub(crate) struct Slow;

impl Sort for Slow {
    const NAME: &'static str = "slow";
    const LIFE: Life = Life::DEFAULT;

    fn activate_async(key: u64, cx: AsyncCx<Agent<Self>>) -> Option<Activating<Agent<Self>>> {
        Some(Box::pin(async move {
            cx.sleep(std::time::Duration::from_millis(10)).await;
            if key == 13 {
                let answer = cx.entity::<Agent<Plain>>(key).message(ask_slow(key)).await;
                note(format!("activation heard {answer:?}"));
            }
            Agent::new(key)
        }))
    }
}

/// An ask that asks the slow agent of this key in turn.
fn ask_slow(key: u64) -> Ask<Plain> {
    ask_of(move |_: &mut Agent<Plain>, cx| {
        Answered::Later(cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
            let answer = cx.entity::<Agent<Slow>>(key).message(echo(1)).await;
            note(format!("refused {answer:?}"));
            7
        }))
    })
}

pub(crate) struct Agent<S> {
    pub(crate) key: u64,
    /// For tests to use as they like.
    pub(crate) value: u64,
    pub(crate) list: Vec<u64>,
    _alive: Witness,
    sort: PhantomData<S>,
}

impl<S> Agent<S> {
    fn new(key: u64) -> Self {
        let (value, list) = (0, Vec::new());
        Self { key, value, list, _alive: Witness::new("state"), sort: PhantomData }
    }
}

/// A handler's answer: now, or in a later turn.
pub(crate) enum Answered {
    Now(u64),
    Later(Later<u64>),
}

impl Answer<u64> for Answered {
    fn into_reply(self) -> Option<u64> {
        match self {
            Self::Now(reply) => Some(reply),
            Self::Later(later) => later.into_reply(),
        }
    }
}

impl From<u64> for Answered {
    fn from(reply: u64) -> Self {
        Self::Now(reply)
    }
}

impl From<Later<u64>> for Answered {
    fn from(later: Later<u64>) -> Self {
        Self::Later(later)
    }
}

type AskBody<S> = Box<dyn FnOnce(&mut Agent<S>, &mut Cx<'_, Agent<S>>) -> Answered + Send>;
type TellBody<S> = Box<dyn FnOnce(&mut Agent<S>, &mut Cx<'_, Agent<S>>) + Send>;
type LookBody<S> = Box<dyn FnOnce(&Agent<S>, &mut Cx<'_, Agent<S>>) -> Answered + Send>;

/// Does what it carries, and answers.
pub(crate) struct Ask<S: Sort>(AskBody<S>);

/// Does what it carries.
pub(crate) struct Tell<S: Sort>(TellBody<S>);

/// Does what it carries, and only reads.
pub(crate) struct Look<S: Sort>(LookBody<S>);

/// Noted with key and time; may be sent again and again.
#[derive(Clone)]
pub(crate) struct Tick(pub(crate) u64);

/// Like [`Tick`], too large for a word, and counted while it is alive.
pub(crate) struct LargeTick {
    pub(crate) number: u64,
    _alive: Witness,
    padding: [u64; 20],
}

/// Panics when it is cloned for the second time.
pub(crate) struct BadClone(pub(crate) bool);

/// Panics when it is dropped.
pub(crate) struct BadDrop;

impl<S: Sort> Message for Ask<S> {
    type Reply = u64;
}

impl<S: Sort> Message for Tell<S> {
    type Reply = ();
}

impl<S: Sort> Message for Look<S> {
    type Reply = u64;
}

impl Message for Tick {
    type Reply = ();
}

impl Message for LargeTick {
    type Reply = ();
}

impl Message for BadClone {
    type Reply = ();
}

impl Message for BadDrop {
    type Reply = ();
}

impl LargeTick {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, _alive: Witness::new("tick"), padding: [number; 20] }
    }
}

impl Clone for LargeTick {
    fn clone(&self) -> Self {
        Self::new(self.number)
    }
}

impl Clone for BadClone {
    fn clone(&self) -> Self {
        assert!(!self.0, "told to, in a clone");
        Self(true)
    }
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        panic!("told to, in a drop");
    }
}

/// Ends all agents; counts them.
#[derive(Default)]
pub(crate) struct Clear(pub(crate) u64);

impl<S: Sort> Sweep<Agent<S>> for Clear {
    fn visit(&mut self, _key: u64, _agent: &mut Agent<S>) -> Visit {
        self.0 += 1;
        Visit::Stop
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl ToValue for Clear {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        self.0.write_to(out);
    }
}

/// An ask of an agent of this sort.
pub(crate) fn ask_of<S: Sort, A: Into<Answered>>(
    body: impl FnOnce(&mut Agent<S>, &mut Cx<'_, Agent<S>>) -> A + Send + 'static,
) -> Ask<S> {
    Ask(Box::new(move |agent, cx| body(agent, cx).into()))
}

pub(crate) fn ask<A: Into<Answered>>(
    body: impl FnOnce(&mut Agent<Plain>, &mut Cx<'_, Agent<Plain>>) -> A + Send + 'static,
) -> Ask<Plain> {
    ask_of(body)
}

pub(crate) fn tell_of<S: Sort>(
    body: impl FnOnce(&mut Agent<S>, &mut Cx<'_, Agent<S>>) + Send + 'static,
) -> Tell<S> {
    Tell(Box::new(body))
}

pub(crate) fn tell(
    body: impl FnOnce(&mut Agent<Plain>, &mut Cx<'_, Agent<Plain>>) + Send + 'static,
) -> Tell<Plain> {
    tell_of(body)
}

pub(crate) fn look_of<S: Sort, A: Into<Answered>>(
    body: impl FnOnce(&Agent<S>, &mut Cx<'_, Agent<S>>) -> A + Send + 'static,
) -> Look<S> {
    Look(Box::new(move |agent, cx| body(agent, cx).into()))
}

pub(crate) fn look<A: Into<Answered>>(
    body: impl FnOnce(&Agent<Plain>, &mut Cx<'_, Agent<Plain>>) -> A + Send + 'static,
) -> Look<Plain> {
    look_of(body)
}

/// Answers with `reply`.
pub(crate) fn echo<S: Sort>(reply: u64) -> Ask<S> {
    ask_of(move |_, _| reply)
}

/// Notes the key of its agent and `line`.
pub(crate) fn noting<S: Sort>(line: impl ToString + Send + 'static) -> Tell<S> {
    tell_of(move |agent, _| note(format!("{} {}", agent.key, line.to_string())))
}

impl<S: Sort> Entity for Agent<S> {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = S::NAME;
    const LIFE: Life = S::LIFE;

    fn activate(key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self::new(key)
    }

    fn activate_async(key: u64, cx: AsyncCx<Self>) -> Option<Activating<Self>> {
        S::activate_async(key, cx)
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Ask<S>>("ask")
            .message::<Tell<S>>("tell")
            .message::<Look<S>>("look")
            .message::<Tick>("tick")
            .message::<LargeTick>("large_tick")
            .message::<BadClone>("bad_clone")
            .message::<BadDrop>("bad_drop")
            .sweep::<Clear>("clear", None);
    }
}

impl<S: Sort> Handler<Ask<S>> for Agent<S> {
    type Answer = Answered;

    fn handle(&mut self, Ask(body): Ask<S>, cx: &mut Cx<'_, Self>) -> Answered {
        body(self, cx)
    }
}

impl<S: Sort> Handler<Tell<S>> for Agent<S> {
    type Answer = ();

    fn handle(&mut self, Tell(body): Tell<S>, cx: &mut Cx<'_, Self>) {
        body(self, cx);
    }
}

impl<S: Sort> Handler<Look<S>> for Agent<S> {
    type Answer = Answered;
    const READ: bool = true;

    fn handle(&mut self, _: Look<S>, _: &mut Cx<'_, Self>) -> Answered {
        unreachable!("it only reads")
    }

    fn read(&self, Look(body): Look<S>, cx: &mut Cx<'_, Self>) -> Answered {
        body(self, cx)
    }
}

impl<S: Sort> Handler<Tick> for Agent<S> {
    type Answer = ();

    fn handle(&mut self, Tick(number): Tick, cx: &mut Cx<'_, Self>) {
        self.value += 1;
        note(format!("{} tick {number} at {}", self.key, cx.monotonic_ns() / 1_000_000));
    }
}

impl<S: Sort> Handler<LargeTick> for Agent<S> {
    type Answer = ();

    fn handle(&mut self, tick: LargeTick, _: &mut Cx<'_, Self>) {
        assert_eq!(tick.padding, [tick.number; 20]);
        self.value += 1;
        note(format!("{} large tick {}", self.key, tick.number));
    }
}

impl<S: Sort> Handler<BadClone> for Agent<S> {
    type Answer = ();

    fn handle(&mut self, _: BadClone, _: &mut Cx<'_, Self>) {}
}

impl<S: Sort> Handler<BadDrop> for Agent<S> {
    type Answer = ();

    fn handle(&mut self, bad: BadDrop, _: &mut Cx<'_, Self>) {
        std::mem::forget(bad);
    }
}

/// All sorts of agents.
pub(crate) fn table() -> Arc<Table> {
    let mut registry = Registry::new();
    registry
        .entity::<Agent<Plain>>()
        .entity::<Agent<Tough>>()
        .entity::<Agent<Tight>>()
        .entity::<Agent<Slow>>();
    registry.build().expect("names differ")
}
