//! What the kit promises of entities that use topics and pools, or that always run.

use std::time::Duration;

use coreside::kit::Kit;
use coreside::{AskError, Cx, Hub, Later, Message, Publish, Single, entity, handlers};

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Price {
    cents: u64,
}

impl Message for Price {
    type Reply = ();
}

/// Publishes each order, and hears of all.
#[entity]
struct Desk {
    heard: Vec<u64>,
    readers: u64,
    words: u64,
}

#[handlers]
impl Desk {
    fn open(&mut self, cx: &mut Cx<Self>) -> Later<bool> {
        let (later, to) = cx.later();
        let then = |_: &mut Self, taken: Result<bool, AskError>, cx: &mut Cx<Self>| {
            cx.reply(to, taken.unwrap_or(false));
        };
        if let Err(refused) = cx.topic::<Price>("prices").subscribe().ask(then) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }

    fn close(&mut self, cx: &mut Cx<Self>) -> bool {
        cx.topic::<Price>("prices").unsubscribe().try_tell().is_ok()
    }

    /// Has somebody else hear of all.
    fn open_other(&mut self, key: u64, cx: &mut Cx<Self>) -> bool {
        cx.topic::<Price>("prices").subscribe_entity::<Self>(key).try_tell().is_ok()
    }

    fn order(&mut self, cents: u64, cx: &mut Cx<Self>) -> bool {
        let told = cx.topic::<Price>("prices").publish(Price { cents }).try_tell();
        told.is_ok() && cx.topic::<Price>("copies").publish(Price { cents }).try_tell().is_ok()
    }

    fn announce(&mut self, cx: &mut Cx<Self>) -> Later<u64> {
        cx.run(async move |this, cx| {
            let published = cx.topic::<Price>("prices").publish(Price { cents: 1 });
            this.readers = published.await.unwrap_or(u64::MAX);
            this.readers
        })
    }

    fn count_words(&mut self, text: String, cx: &mut Cx<Self>) -> Later<u64> {
        cx.run(async move |this, cx| {
            this.words += cx.pool::<Parser>().words(text).await.unwrap_or(0);
            this.words
        })
    }

    #[on]
    fn price(&mut self, price: Price) {
        self.heard.push(price.cents);
    }
}

#[entity]
struct Parser;

#[handlers]
impl Parser {
    fn words(&mut self, text: String) -> u64 {
        panic!("the test plays the pool, which is not to read {text}");
    }
}

fn desk() -> Kit<Desk> {
    Kit::<Desk>::builder().topic::<Price>().pool::<Parser>(2).build(7)
}

#[test]
fn what_the_entity_publishes_is_there_to_be_taken_by_topic() {
    let mut kit = desk();
    assert_eq!(kit.entity().order(990).ask(), Ok(true));
    assert_eq!(kit.entity().order(995).ask(), Ok(true));
    assert_eq!(kit.published::<Price>("prices"), [Price { cents: 990 }, Price { cents: 995 }]);
    assert_eq!(kit.published::<Price>("prices"), [], "taken");
    assert_eq!(kit.published::<Price>("copies").len(), 2, "another topic");
    kit.expect_nothing_sent();
}

#[test]
fn subscription_is_seen_and_what_is_published_is_told_by_the_test() {
    let mut kit = desk();
    assert!(!kit.is_subscribed::<Price>("prices"));
    assert_eq!(kit.entity().open_other(8).ask(), Ok(true));
    assert!(!kit.is_subscribed::<Price>("prices"), "that is somebody else");
    assert_eq!(kit.entity().open().ask(), Ok(true), "there is room, unless the test says not");
    assert!(kit.is_subscribed::<Price>("prices") && !kit.is_subscribed::<Price>("copies"));
    kit.tell(Price { cents: 5 });
    assert_eq!(kit.state(|desk| desk.heard.clone()), [5]);
    assert_eq!(kit.entity().close().ask(), Ok(true));
    assert!(!kit.is_subscribed::<Price>("prices"));
    assert_eq!(kit.entity().open().ask(), Ok(true));
    kit.stop();
    assert!(!kit.is_subscribed::<Price>("prices"), "the end took it along");
}

#[test]
fn publisher_that_asks_is_told_what_the_test_says() {
    let mut kit = desk();
    assert_eq!(kit.entity().announce().ask(), Ok(0), "nobody, unless the test says so");
    kit.when::<Hub<Price>, Publish<Price>>(|_, _| Ok(3));
    assert_eq!(kit.entity().announce().ask(), Ok(3));
    assert_eq!(kit.published::<Price>("prices").len(), 2);
}

#[test]
fn members_of_a_pool_are_asked_in_turn_and_the_test_plays_them() {
    let mut kit = desk();
    kit.when::<Parser, ParserWords>(|_, words| Ok(words.text.len() as u64));
    assert_eq!(kit.entity().count_words("one".to_owned()).ask(), Ok(3));
    assert_eq!(kit.entity().count_words("three".to_owned()).ask(), Ok(8));
    let sent = kit.sent::<Parser, ParserWords>();
    assert_eq!(sent.iter().map(|sent| sent.key).collect::<Vec<_>>(), [0, 1]);
}

/// Is always there.
#[entity(key = Single, activate = Self::begin)]
struct Sequence {
    last: u64,
}

#[handlers]
impl Sequence {
    fn begin(_key: Single, cx: &mut Cx<Self>) -> Self {
        let told = cx.topic::<Price>("sequences").publish(Price { cents: 0 }).try_tell();
        assert!(told.is_ok(), "there is room");
        Self { last: 0 }
    }

    fn next(&mut self, cx: &mut Cx<Self>) -> u64 {
        self.last += 1;
        if self.last == 2 {
            cx.stop();
        }
        self.last
    }

    fn fall(&mut self) {
        panic!("told to");
    }
}

#[test]
fn instance_that_always_runs_is_there_from_the_start_and_again_behind_each_end() {
    let builder = Kit::<Sequence>::builder().topic::<Price>().always_running();
    let mut kit = builder.build(Single);
    assert!(kit.is_live(), "before any message");
    assert_eq!(kit.published::<Price>("sequences").len(), 1);
    assert_eq!(kit.entity().next().ask(), Ok(1));
    assert_eq!(kit.entity().next().ask(), Ok(2));
    assert!(!kit.is_live(), "it has stopped");
    kit.advance(Duration::from_secs(10));
    assert!(kit.is_live(), "without a message");
    assert_eq!(kit.entity().next().ask(), Ok(1), "in a new life");
    for _ in 0..30 {
        assert_eq!(kit.entity().fall().ask(), Err(AskError::Failed));
        kit.expect_fault();
        kit.advance(Duration::from_secs(20));
        assert!(kit.is_live(), "however often it fails");
    }
    kit.passivate();
    kit.advance(Duration::from_secs(10));
    assert!(kit.is_live());
}
