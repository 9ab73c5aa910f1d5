//! An entity that subscribes, publishes and ends as it is told, and writes down what it hears.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use coreside_shard::{Address, Cx, Entity, Handler, Key, Life, Message, Registration, Via};

thread_local! {
    /// What each listener heard, in order.
    pub(crate) static HEARD: RefCell<BTreeMap<u64, Vec<(u64, u64)>>> =
        const { RefCell::new(BTreeMap::new()) };
    /// Clones of news left before one panics.
    pub(crate) static CLONES: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Listeners subscribe when they are activated.
    pub(crate) static EAGER: Cell<bool> = const { Cell::new(false) };
    /// Messages that a broadcast could not tell.
    pub(crate) static FULL: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// What is published: by whom, and which of its messages.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) from: u64,
    pub(crate) number: u64,
}

impl Clone for News {
    fn clone(&self) -> Self {
        let left = CLONES.get();
        assert!(left > 0, "told to, in a clone");
        CLONES.set(left - 1);
        Self { ..*self }
    }
}

impl Message for News {
    type Reply = ();
}

/// What a listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    Nothing,
    Subscribe,
    Unsubscribe,
    /// Takes the subscription of another one back, so many times.
    UnsubscribeOther(u64, u32),
    SubscribeAndPublish(u64),
    Publish(u64),
    Stop,
    Panic,
    /// A clone of the news to the listeners with the keys 0 to this.
    Broadcast(u64),
}

impl Message for Do {
    type Reply = ();
}

/// An entity with a key of either width; its number is the same.
pub(crate) struct Listener<K> {
    number: u64,
    key: K,
}

pub(crate) trait ListenerKey: Key {
    const NAME: &'static str;
    const IDLE: Option<Duration>;
    fn number(self) -> u64;
}

impl ListenerKey for u64 {
    const NAME: &'static str = "listener";
    const IDLE: Option<Duration> = None;

    fn number(self) -> u64 {
        self
    }
}

impl ListenerKey for u128 {
    const NAME: &'static str = "wide-listener";
    const IDLE: Option<Duration> = Some(Duration::from_secs(1));

    fn number(self) -> u64 {
        1_000_000 + (self >> 64) as u64
    }
}

pub(crate) fn wide(id: u64) -> u128 {
    u128::from(id) << 64 | 7
}

impl<K: ListenerKey> Entity for Listener<K> {
    type Key = K;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = K::NAME;
    const LIFE: Life = Life { idle: K::IDLE, ..Life::DEFAULT };

    fn activate(key: K, cx: &mut Cx<'_, Self>) -> Self {
        if EAGER.get() {
            cx.topic::<News>("news").subscribe().try_tell().expect("room");
        }
        Self { number: key.number(), key }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<News>("news").message::<Do>("do");
    }
}

impl<K: ListenerKey> Handler<News> for Listener<K> {
    type Answer = ();

    fn handle(&mut self, news: News, cx: &mut Cx<'_, Self>) {
        assert_eq!(cx.key(), self.key);
        HEARD.with_borrow_mut(|heard| {
            heard.entry(self.number).or_default().push((news.from, news.number));
        });
    }
}

impl<K: ListenerKey> Handler<Do> for Listener<K> {
    type Answer = ();

    fn handle(&mut self, what: Do, cx: &mut Cx<'_, Self>) {
        let from = self.number;
        let subscribe = |cx: &mut Cx<'_, Self>| {
            cx.topic::<News>("news").subscribe().try_tell().expect("room");
        };
        match what {
            Do::Nothing => {}
            Do::Subscribe => subscribe(cx),
            Do::Unsubscribe => {
                cx.topic::<News>("news").unsubscribe().try_tell().expect("room");
            }
            Do::UnsubscribeOther(other, times) => {
                for _ in 0..times {
                    let topic = cx.topic::<News>("news");
                    topic.unsubscribe_entity::<Listener<u64>>(other).try_tell().expect("room");
                }
            }
            Do::SubscribeAndPublish(number) => {
                subscribe(cx);
                let news = News { from, number };
                cx.topic::<News>("news").publish(news).try_tell().expect("room");
            }
            Do::Publish(number) => {
                let news = News { from, number };
                cx.topic::<News>("news").publish(news).try_tell().expect("room");
            }
            Do::Stop => cx.stop(),
            Do::Panic => panic!("told to"),
            Do::Broadcast(count) => {
                let news = News { from, number: 0 };
                let outcome = cx.broadcast::<Listener<u64>, _>(0..count, news);
                assert_eq!(outcome.told + outcome.full.len(), count as usize);
                FULL.with_borrow_mut(|full| full.extend(outcome.full));
            }
        }
    }
}
