//! An entity that does as its messages say, for every kind of key.

use std::cell::Cell;
use std::sync::Arc;

use coreside_shard::{
    Address, AskError, Cx, Entity, Handler, Key, Later, Life, Message, Name, OnFault, Registration,
    Registry, ReplyTo, Table, Via,
};

use crate::book::{Stamp, Witness, book, note};
use crate::shards::HASH;

thread_local! {
    /// Actors with this number panic when they are activated.
    pub(crate) static CURSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A key type of actors.
pub(crate) trait ActorKey: Key {
    const NAME: &'static str;
    /// Tells actors of different key types apart in the book.
    const NUMBER: u64;

    /// The key of actor `id`.
    fn of(id: u64) -> Self;

    /// The actor whose key this is.
    fn id(self) -> u64;
}

impl ActorKey for u64 {
    const NAME: &'static str = "actor";
    const NUMBER: u64 = 1_000_000;

    fn of(id: u64) -> Self {
        id
    }

    fn id(self) -> u64 {
        self
    }
}

impl ActorKey for u128 {
    const NAME: &'static str = "wide";
    const NUMBER: u64 = 2_000_000;

    fn of(id: u64) -> Self {
        // Half of the keys differ in one word only.
        u128::from(id) << if id.is_multiple_of(2) { 0 } else { 64 }
    }

    fn id(self) -> u64 {
        self as u64 + (self >> 64) as u64
    }
}

impl ActorKey for Name {
    const NAME: &'static str = "named";
    const NUMBER: u64 = 3_000_000;

    fn of(id: u64) -> Self {
        Name::new(id.to_string(), &HASH)
    }

    fn id(self) -> u64 {
        // Tests use small numbers.
        (0..20_000).find(|id| Self::of(*id) == self).unwrap_or(u64::MAX)
    }
}

/// What an actor does in a turn, beside answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Nothing,
    Stop,
    Panic,
    /// Its state panics while it is dropped, whenever that is.
    PanicInDrop,
    /// Stops, and its state panics while it is dropped.
    StopAndPanicInDrop,
    /// Panics, and its state panics while it is dropped.
    PanicTwice,
}

pub(crate) struct Actor<K> {
    _alive: Witness,
    id: u64,
    kept: Vec<(u64, ReplyTo<u64>)>,
    /// Turns so far.
    pub(crate) turns: u64,
    panics_in_drop: bool,
    key: K,
}

impl<K> Drop for Actor<K> {
    fn drop(&mut self) {
        if self.panics_in_drop {
            panic!("told to, in a drop");
        }
    }
}

/// Answers with its number.
pub(crate) struct Echo {
    pub(crate) stamp: Stamp,
    pub(crate) act: Act,
}

impl Message for Echo {
    type Reply = u64;
}

/// Like [`Echo`], above the inline limit in both directions.
pub(crate) struct EchoLarge {
    pub(crate) stamp: Stamp,
    act: Act,
    padding: [u64; 20],
}

impl EchoLarge {
    pub(crate) fn new(stamp: Stamp, act: Act) -> Self {
        let padding = [stamp.number; 20];
        Self { stamp, act, padding }
    }
}

pub(crate) struct LargeReply {
    pub(crate) number: u64,
    _padding: [u64; 20],
    _witness: Witness,
}

impl Message for EchoLarge {
    type Reply = LargeReply;
}

/// The reply is kept until [`Release`].
pub(crate) struct Keep(pub(crate) Stamp);

impl Message for Keep {
    type Reply = u64;
}

/// Every reply that was kept is given, each with the number of its message.
pub(crate) struct Release;

impl Message for Release {
    type Reply = ();
}

/// Asks another actor of the same key type, and answers with what that says.
pub(crate) struct Relay {
    pub(crate) stamp: Stamp,
    pub(crate) to: u64,
    /// What the other does.
    pub(crate) act: Act,
    /// What this one does when the answer comes.
    pub(crate) then: Act,
    /// Numbers told to the other before and after the ask.
    pub(crate) tells: u8,
    /// Whether this one stops before the answer comes.
    pub(crate) stop: bool,
}

impl Relay {
    pub(crate) fn new(stamp: Stamp, to: u64) -> Self {
        Self { stamp, to, act: Act::Nothing, then: Act::Nothing, tells: 0, stop: false }
    }
}

impl Message for Relay {
    type Reply = u64;
}

impl<K: ActorKey> Entity for Actor<K> {
    type Key = K;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = K::NAME;
    const LIFE: Life = Life { on_fault: OnFault::Stop, ..Life::DEFAULT };

    fn activate(key: K, _cx: &mut Cx<'_, Self>) -> Self {
        let alive = Witness::new("state");
        let cursed = CURSED.get();
        assert!(cursed.is_none_or(|id| K::of(id) != key), "told to, in an activation");
        book(|book| book.activations += 1);
        Self { _alive: alive, id: key.id(), kept: vec![], turns: 0, panics_in_drop: false, key }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Echo>("echo")
            .message::<EchoLarge>("echo_large")
            .message::<Keep>("keep")
            .message::<Release>("release")
            .message::<Relay>("relay");
    }
}

impl<K: ActorKey> Actor<K> {
    fn act(&mut self, act: Act, cx: &mut Cx<'_, Self>) {
        match act {
            Act::Nothing => {}
            Act::Stop => cx.stop(),
            Act::Panic => panic!("told to"),
            Act::PanicInDrop => self.panics_in_drop = true,
            Act::StopAndPanicInDrop => {
                self.panics_in_drop = true;
                cx.stop();
            }
            Act::PanicTwice => {
                self.panics_in_drop = true;
                panic!("told to, the first of two");
            }
        }
    }

    fn arrive(&mut self, stamp: &mut Stamp, cx: &Cx<'_, Self>) {
        if self.key != cx.key() {
            note(format!("{:?} has the turn of {:?}", self.key, cx.key()));
        }
        self.turns += 1;
        stamp.arrive(K::NUMBER + self.id);
    }

    fn tell(&mut self, to: u64, cx: &mut Cx<'_, Self>) {
        let stamp = Stamp::new((K::NUMBER + self.id, K::NUMBER + to));
        let echo = Echo { stamp, act: Act::Nothing };
        if let Err(full) = cx.entity::<Self>(K::of(to)).message(echo).try_tell() {
            full.0.stamp.take_back();
        }
    }
}

impl<K: ActorKey> Handler<Echo> for Actor<K> {
    type Answer = u64;

    fn handle(&mut self, mut echo: Echo, cx: &mut Cx<'_, Self>) -> u64 {
        self.arrive(&mut echo.stamp, cx);
        self.act(echo.act, cx);
        echo.stamp.number
    }
}

impl<K: ActorKey> Handler<EchoLarge> for Actor<K> {
    type Answer = LargeReply;

    fn handle(&mut self, mut echo: EchoLarge, cx: &mut Cx<'_, Self>) -> LargeReply {
        self.arrive(&mut echo.stamp, cx);
        self.act(echo.act, cx);
        LargeReply {
            number: echo.padding[19],
            _padding: echo.padding,
            _witness: Witness::new("reply"),
        }
    }
}

impl<K: ActorKey> Handler<Keep> for Actor<K> {
    type Answer = Later<u64>;

    fn handle(&mut self, Keep(mut stamp): Keep, cx: &mut Cx<'_, Self>) -> Later<u64> {
        self.arrive(&mut stamp, cx);
        let (later, reply_to) = cx.later();
        self.kept.push((stamp.number, reply_to));
        later
    }
}

impl<K: ActorKey> Handler<Release> for Actor<K> {
    type Answer = ();

    fn handle(&mut self, _: Release, cx: &mut Cx<'_, Self>) {
        for (number, reply_to) in self.kept.drain(..) {
            cx.reply(reply_to, number);
        }
    }
}

impl<K: ActorKey> Handler<Relay> for Actor<K> {
    type Answer = Later<u64>;

    fn handle(&mut self, mut relay: Relay, cx: &mut Cx<'_, Self>) -> Later<u64> {
        self.arrive(&mut relay.stamp, cx);
        let (later, reply_to) = cx.later();
        let Relay { to, act, then, tells, stop, .. } = relay;
        (0..tells).for_each(|_| self.tell(to, cx));
        let witness = Witness::new("continuation");
        let answer = move |actor: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<'_, _>| {
            let _witness = witness;
            cx.reply(reply_to, answer.unwrap_or_else(error_of));
            actor.act(then, cx);
        };
        let stamp = Stamp::new((K::NUMBER + self.id, K::NUMBER + to));
        let ask = cx.entity::<Self>(K::of(to)).message(Echo { stamp, act }).ask(answer);
        if let Err(refused) = ask {
            refused.message.stamp.take_back();
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        (0..tells).for_each(|_| self.tell(to, cx));
        if stop {
            cx.stop();
        }
        later
    }
}

/// What a relay answers instead of a number: this plus the error it got.
pub(crate) const ERROR: u64 = 1 << 60;

pub(crate) fn error_of(error: AskError) -> u64 {
    ERROR
        + match error {
            AskError::NotSent => 0,
            AskError::MaybeExecuted => 1,
            AskError::Failed => 2,
            AskError::Expired => 3,
            _ => 4,
        }
}

/// The table with actors of every key type, and what else `register` adds.
pub(crate) fn table_with(register: impl FnOnce(&mut Registry)) -> Arc<Table> {
    let mut registry = Registry::new();
    registry.entity::<Actor<u64>>().entity::<Actor<u128>>().entity::<Actor<Name>>();
    register(&mut registry);
    registry.build().expect("the names differ")
}

pub(crate) fn table() -> Arc<Table> {
    table_with(|_| ())
}
