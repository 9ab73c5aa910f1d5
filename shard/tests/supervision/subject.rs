//! An entity that does as it is told, with a type for each way of life.

use std::sync::Arc;
use std::time::Duration;

use coreside_shard::{
    Activating, Address, Answer, AskError, AsyncCx, Backoff, Children, Cx, Entity, Fault, Full,
    Handler, Later, Life, Message, OnFault, Registration, Registry, Table, Terminated, Via,
};

use crate::book::{Stamp, Witness};
use crate::diary::{
    Event, Goodbye, Id, Make, id_of, log, next_make, next_try_fails, plan, planned,
};

pub(crate) const RESTART: usize = 0;
pub(crate) const STOP: usize = 1;
pub(crate) const RESUME: usize = 2;
pub(crate) const ESCALATE: usize = 3;
pub(crate) const ONE_FOR_ALL: usize = 4;
pub(crate) const REST_FOR_ONE: usize = 5;
/// Put away when idle.
pub(crate) const IDLE: usize = 6;
/// Few in memory.
pub(crate) const FEW: usize = 7;
pub(crate) const KEPT: usize = 8;
/// Small bounds and no jitter.
pub(crate) const QUICK: usize = 9;
/// Jitter, and no bound.
pub(crate) const JITTERY: usize = 10;
pub(crate) const KINDS: usize = 11;

pub(crate) const NAMES: [&str; KINDS] = [
    "restart", "stop", "resume", "escalate", "all", "rest", "idle", "few", "kept", "quick",
    "jittery",
];

pub(crate) const STASH_MAX: u32 = 8;
pub(crate) const FEW_MAX: usize = 8;
pub(crate) const IDLE_MS: u64 = 1_000;

const QUICKLY: Backoff = Backoff {
    jitter_percent: 0,
    faults_max: 3,
    within: Duration::from_millis(10_000),
    reset: Duration::from_millis(1_000),
    most: Duration::from_millis(100),
    ..Backoff::DEFAULT
};

pub(crate) const LIVES: [Life; KINDS] = [
    Life::DEFAULT,
    Life { on_fault: OnFault::Stop, ..Life::DEFAULT },
    Life { on_fault: OnFault::Resume, ..Life::DEFAULT },
    Life { on_fault: OnFault::Escalate, ..Life::DEFAULT },
    Life { children: Children::OneForAll, ..Life::DEFAULT },
    Life { children: Children::RestForOne, ..Life::DEFAULT },
    Life { idle: Some(Duration::from_millis(IDLE_MS)), ..Life::DEFAULT },
    Life { resident_max: Some(FEW_MAX), ..Life::DEFAULT },
    Life {
        keep_alive: true,
        idle: Some(Duration::from_millis(IDLE_MS)),
        resident_max: Some(1),
        backoff: QUICKLY,
        ..Life::DEFAULT
    },
    Life { backoff: QUICKLY, stash_max: STASH_MAX, ..Life::DEFAULT },
    Life { backoff: Backoff { faults_max: u32::MAX, ..Backoff::DEFAULT }, ..Life::DEFAULT },
];

/// How an async turn ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    Answer,
    Panic,
    Fail,
    Stop,
}

/// What an entity does in a turn, beside answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Nothing,
    Panic,
    Fail,
    FailAndStop,
    /// A panic, and another one in the state's drop.
    PanicTwice,
    Stop,
    Start(Id),
    StopOther(Id),
    Watch(Id),
    Unwatch(Id),
    /// An async turn that holds the state for so many milliseconds.
    Run(u64, Then),
    /// One that does not hold it.
    Interleave(u64, Then),
    /// A timer, in so many milliseconds.
    Ring(u64),
    /// A message to somebody.
    Tell(Id),
    /// An ask, whose answer is passed on.
    Ask(Id),
}

/// The answer: the number of states of the type that were made when this one was.
pub(crate) struct Do {
    pub(crate) stamp: Stamp,
    pub(crate) act: Act,
}

impl Message for Do {
    type Reply = u64;
}

/// Tried up to three times.
pub(crate) struct Try(pub(crate) u64, pub(crate) Witness);

impl Message for Try {
    type Reply = u64;
    const TRIES: u32 = 3;

    fn duplicate(&self) -> Option<Self> {
        Some(Self(self.0, Witness::new("copy")))
    }
}

/// Panics when it is dropped.
pub(crate) struct Grenade(pub(crate) Witness);

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("told to, in a message's drop");
    }
}

impl Message for Grenade {
    type Reply = u64;
}

/// From a timer.
pub(crate) struct Bell(Witness);

impl Message for Bell {
    type Reply = ();
}

impl Clone for Bell {
    fn clone(&self) -> Self {
        Self(Witness::new("bell"))
    }
}

pub(crate) struct Subject<const N: usize> {
    _state: Witness,
    id: Id,
    /// Messages of this life.
    handled: u64,
    fuse: bool,
}

impl<const N: usize> Drop for Subject<N> {
    fn drop(&mut self) {
        if self.fuse {
            panic!("told to, in a state's drop");
        }
    }
}

/// Runs `$body` with the type of `$kind`.
macro_rules! by_kind {
    ($kind:expr, $N:ident => $body:expr) => {
        by_kind!(@ $kind, $N, $body, 0 1 2 3 4 5 6 7 8 9 10)
    };
    (@ $kind:expr, $N:ident, $body:expr, $($number:literal)*) => {
        match $kind {
            $($number => { const $N: usize = $number; $body })*
            other => panic!("there is no subject {other}"),
        }
    };
}
pub(crate) use by_kind;

pub(crate) enum Reply {
    Now(u64),
    Later(Later<u64>),
}

impl Answer<u64> for Reply {
    fn into_reply(self) -> Option<u64> {
        match self {
            Self::Now(reply) => Some(reply),
            Self::Later(later) => later.into_reply(),
        }
    }
}

impl<const N: usize> Subject<N> {
    fn new(id: Id, at_ns: u64) -> Self {
        log(at_ns, Event::Made(id));
        Self { _state: Witness::new("state"), id, handled: 0, fuse: false }
    }

    fn say_goodbye(&mut self, cx: &mut Cx<'_, Self>) {
        let id = self.id;
        match planned(id).goodbye {
            Goodbye::Plain => {}
            Goodbye::Panic => panic!("told to, in the last turn"),
            Goodbye::Fail => cx.fail("told to, in the last turn"),
            Goodbye::Slow(ms) => {
                let _ = cx.run(async move |_: &mut Self, cx: &mut AsyncCx<Self>| {
                    cx.sleep(Duration::from_millis(ms)).await;
                    log(cx.monotonic_ns(), Event::SaidAll(id));
                });
            }
            Goodbye::SlowPanic(ms) => {
                let _ = cx.run(async move |_: &mut Self, cx: &mut AsyncCx<Self>| {
                    cx.sleep(Duration::from_millis(ms)).await;
                    panic!("told to, behind the last turn");
                });
            }
            Goodbye::Tell(other) => send(other, cx),
        }
    }

    fn run(&mut self, ms: u64, then: Then, cx: &mut Cx<'_, Self>) -> Later<u64> {
        let witness = Witness::new("future");
        cx.run_fallible(async move |state: &mut Self, cx: &mut AsyncCx<Self>| {
            let _witness = witness;
            cx.sleep(Duration::from_millis(ms)).await;
            match then {
                Then::Answer => {}
                Then::Panic => panic!("told to, in an async turn"),
                Then::Fail => return Err("told to, in an async turn"),
                Then::Stop => cx.stop(),
            }
            Ok(state.handled)
        })
    }

    fn interleave(&mut self, ms: u64, then: Then, cx: &mut Cx<'_, Self>) -> Later<u64> {
        let witness = Witness::new("future");
        cx.interleave(async move |mut cx: AsyncCx<Self>| {
            let _witness = witness;
            cx.sleep(Duration::from_millis(ms)).await;
            match then {
                Then::Answer => {}
                Then::Panic | Then::Fail => panic!("told to, in an async turn"),
                Then::Stop => cx.stop(),
            }
            cx.with(|state| state.handled).await
        })
    }
}

/// Tells somebody nothing in particular.
fn send<const N: usize>(other: Id, cx: &mut Cx<'_, Subject<N>>) {
    let stamp = Stamp::new((1_000_000 + N as u64 * 1_000 + cx.key(), way(other)));
    let message = Do { stamp, act: Act::Nothing };
    let sent = by_kind!(other.0, M => cx.entity::<Subject<M>>(other.1).message(message).try_tell());
    if let Err(Full(message)) = sent {
        message.stamp.take_back();
    }
}

/// An entity as the book knows it.
pub(crate) fn way(id: Id) -> u64 {
    id.0 as u64 * 1_000_000 + id.1
}

impl<const N: usize> Entity for Subject<N> {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = NAMES[N];
    const LIFE: Life = LIVES[N];

    fn activate(key: u64, cx: &mut Cx<'_, Self>) -> Self {
        let id = Id(N, key);
        let mut plan_of = planned(id);
        match next_make(id) {
            Make::Panic => panic!("told to, in an activation"),
            Make::Fail => cx.fail("told to, in an activation"),
            Make::Stop => cx.stop(),
            Make::Quiet => {
                cx.receive_timeout(Duration::from_millis(50), Bell(Witness::new("bell")))
            }
            Make::Run => {
                let _ = cx.run(async move |_: &mut Self, cx: &mut AsyncCx<Self>| {
                    cx.sleep(Duration::from_millis(1)).await;
                });
            }
            Make::RunPanic => {
                let _ = cx.run(async move |_: &mut Self, _: &mut AsyncCx<Self>| {
                    panic!("told to, in a step of an activation");
                });
            }
            _ => {}
        }
        if let Some(child) = plan_of.restarts.take() {
            by_kind!(child.0, M => cx.start::<Subject<M>>(child.1)).expect("room");
        }
        Self::new(id, cx.monotonic_ns())
    }

    fn activate_async(key: u64, cx: AsyncCx<Self>) -> Option<Activating<Self>> {
        let id = Id(N, key);
        let plan_of = planned(id);
        let ms = match plan_of.make {
            Make::AtOnce | Make::PanicAtOnce => 0,
            Make::Slow(ms) | Make::SlowPanic(ms) => ms,
            _ => return None,
        };
        if plan_of.makes == 0 {
            return None;
        }
        let witness = Witness::new("future");
        plan(id, crate::diary::Plan { makes: plan_of.makes - 1, ..plan_of });
        Some(Box::pin(async move {
            let _witness = witness;
            if ms > 0 {
                cx.sleep(Duration::from_millis(ms)).await;
            }
            if matches!(plan_of.make, Make::PanicAtOnce | Make::SlowPanic(_)) {
                panic!("told to, in an async activation");
            }
            Self::new(id, cx.monotonic_ns())
        }))
    }

    fn on_passivate(&mut self, cx: &mut Cx<'_, Self>) {
        log(cx.monotonic_ns(), Event::SaidPassivate(self.id));
        self.say_goodbye(cx);
    }

    fn on_stop(&mut self, cx: &mut Cx<'_, Self>) {
        log(cx.monotonic_ns(), Event::SaidStop(self.id));
        self.say_goodbye(cx);
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Do>("do").message::<Try>("try").message::<Grenade>("grenade");
        table.message::<Bell>("bell").message::<Fault>("fault");
        table.message::<Terminated>("terminated");
    }
}

impl<const N: usize> Handler<Do> for Subject<N> {
    type Answer = Reply;

    fn handle(&mut self, mut message: Do, cx: &mut Cx<'_, Self>) -> Reply {
        message.stamp.arrive(way(self.id));
        log(cx.monotonic_ns(), Event::Handled(self.id, message.stamp.number));
        self.handled += 1;
        match message.act {
            Act::Nothing => {}
            Act::Panic => panic!("told to, in a turn"),
            Act::Fail => cx.fail("told to, in a turn"),
            Act::FailAndStop => {
                cx.stop();
                cx.fail("told to, in a turn");
            }
            Act::PanicTwice => {
                self.fuse = true;
                panic!("told to, in a turn");
            }
            Act::Stop => cx.stop(),
            Act::Start(id) => by_kind!(id.0, M => cx.start::<Subject<M>>(id.1)).expect("room"),
            Act::StopOther(id) => {
                by_kind!(id.0, M => cx.stop_entity::<Subject<M>>(id.1)).expect("room");
            }
            Act::Watch(id) => by_kind!(id.0, M => cx.watch::<Subject<M>>(id.1)).expect("room"),
            Act::Unwatch(id) => by_kind!(id.0, M => cx.unwatch::<Subject<M>>(id.1)),
            Act::Run(ms, then) => return Reply::Later(self.run(ms, then, cx)),
            Act::Interleave(ms, then) => return Reply::Later(self.interleave(ms, then, cx)),
            Act::Ring(ms) => {
                let bell = Bell(Witness::new("bell"));
                cx.after(Duration::from_millis(ms), bell).map(drop).unwrap_or_default();
            }
            Act::Tell(other) => send(other, cx),
            Act::Ask(other) => return self.pass_on(other, cx),
        }
        Reply::Now(self.handled)
    }
}

impl<const N: usize> Subject<N> {
    fn pass_on(&mut self, other: Id, cx: &mut Cx<'_, Self>) -> Reply {
        let (later, to) = cx.later::<u64>();
        let stamp = Stamp::new((1_000_000 + N as u64 * 1_000 + cx.key(), way(other)));
        let (message, witness) = (Do { stamp, act: Act::Nothing }, Witness::new("continuation"));
        let then = move |_: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<'_, Self>| {
            let _witness = witness;
            cx.reply(to, answer.unwrap_or(u64::MAX));
        };
        let refused = by_kind!(other.0, M => {
            let call = cx.entity::<Subject<M>>(other.1).message(message);
            call.ask(then).err().map(|refused| refused.message)
        });
        if let Some(message) = refused {
            message.stamp.take_back();
        }
        Reply::Later(later)
    }
}

impl<const N: usize> Handler<Try> for Subject<N> {
    type Answer = u64;

    fn handle(&mut self, message: Try, cx: &mut Cx<'_, Self>) -> u64 {
        log(cx.monotonic_ns(), Event::Tried(self.id));
        if next_try_fails(self.id) {
            panic!("told to, in a try");
        }
        self.handled += 1;
        message.0
    }
}

impl<const N: usize> Handler<Grenade> for Subject<N> {
    type Answer = u64;

    fn handle(&mut self, grenade: Grenade, _cx: &mut Cx<'_, Self>) -> u64 {
        drop(grenade);
        0
    }
}

impl<const N: usize> Handler<Bell> for Subject<N> {
    type Answer = ();

    fn handle(&mut self, _: Bell, cx: &mut Cx<'_, Self>) {
        log(cx.monotonic_ns(), Event::Rang(self.id));
    }
}

impl<const N: usize> Handler<Fault> for Subject<N> {
    type Answer = ();

    fn handle(&mut self, fault: Fault, cx: &mut Cx<'_, Self>) {
        log(cx.monotonic_ns(), Event::Fault(self.id, fault));
    }
}

impl<const N: usize> Handler<Terminated> for Subject<N> {
    type Answer = ();

    fn handle(&mut self, terminated: Terminated, cx: &mut Cx<'_, Self>) {
        let event = Event::Terminated(self.id, id_of(terminated.entity), terminated.end);
        log(cx.monotonic_ns(), event);
    }
}

pub(crate) fn table() -> Arc<Table> {
    let mut registry = Registry::new();
    for kind in 0..KINDS {
        by_kind!(kind, N => { registry.entity::<Subject<N>>(); });
    }
    registry.entity::<crate::wide::Wide>();
    registry.build().expect("names and numbers differ")
}
