//! Groups of entities on a node: topics, broadcasts, singletons, pools and workers, as a service
//! uses them.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coreside::{
    Address, AskError, AsyncCx, Cx, Entity, Full, Group, Handler, Idle, Later, Message, Node,
    NodeBuilder, Registration, Single, Terminated, Via,
};

/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(20);

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Price {
    symbol: String,
    cents: u64,
}

impl Message for Price {
    type Reply = ();
}

fn price(cents: u64) -> Price {
    Price { symbol: "ACME".to_owned(), cents }
}

/// Writes down the prices that it hears.
struct Ticker {
    seen: Vec<u64>,
}

/// The prices so far.
struct Seen;

impl Message for Seen {
    type Reply = Vec<u64>;
}

/// Subscribes; the answer is whether there was room.
struct Listen;

impl Message for Listen {
    type Reply = bool;
}

struct Leave;

impl Message for Leave {
    type Reply = ();
}

impl Entity for Ticker {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "ticker";

    fn activate(_: u64, _: &mut Cx<'_, Self>) -> Self {
        Self { seen: Vec::new() }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Price>("price")
            .message::<Seen>("seen")
            .message::<Listen>("listen")
            .message::<Leave>("leave");
    }
}

impl Handler<Price> for Ticker {
    type Answer = ();

    fn handle(&mut self, price: Price, _: &mut Cx<'_, Self>) {
        self.seen.push(price.cents);
    }
}

impl Handler<Seen> for Ticker {
    type Answer = Vec<u64>;

    fn handle(&mut self, _: Seen, _: &mut Cx<'_, Self>) -> Vec<u64> {
        self.seen.clone()
    }
}

impl Handler<Listen> for Ticker {
    type Answer = Later<bool>;

    fn handle(&mut self, _: Listen, cx: &mut Cx<'_, Self>) -> Later<bool> {
        let (later, to) = cx.later();
        let then = |_: &mut Self, taken: Result<bool, AskError>, cx: &mut Cx<'_, Self>| {
            cx.reply(to, taken.unwrap_or(false));
        };
        if let Err(refused) = cx.topic::<Price>("prices").subscribe().ask(then) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }
}

impl Handler<Leave> for Ticker {
    type Answer = ();

    fn handle(&mut self, _: Leave, cx: &mut Cx<'_, Self>) {
        cx.stop();
    }
}

/// Keeps a set of tickers, and takes out who ends.
#[derive(Default)]
struct Board {
    tickers: Group<Ticker>,
}

/// Adds a ticker. The answer is how many there are.
struct Join(u64);

impl Message for Join {
    type Reply = usize;
}

/// Tells all of them. The answer is how many were told.
struct Announce(u64);

impl Message for Announce {
    type Reply = usize;
}

impl Entity for Board {
    type Key = Single;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "board";

    fn activate(_: Single, _: &mut Cx<'_, Self>) -> Self {
        Self::default()
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Join>("join")
            .message::<Announce>("announce")
            .message::<Terminated>("terminated");
    }
}

impl Handler<Join> for Board {
    type Answer = usize;

    fn handle(&mut self, Join(key): Join, cx: &mut Cx<'_, Self>) -> usize {
        if self.tickers.add(key) == Ok(true) && cx.watch::<Ticker>(key).is_err() {
            self.tickers.remove(key);
        }
        self.tickers.len()
    }
}

impl Handler<Announce> for Board {
    type Answer = usize;

    fn handle(&mut self, Announce(cents): Announce, cx: &mut Cx<'_, Self>) -> usize {
        self.tickers.broadcast(cx, price(cents)).told
    }
}

impl Handler<Terminated> for Board {
    type Answer = ();

    fn handle(&mut self, ended: Terminated, _: &mut Cx<'_, Self>) {
        if let Some(key) = ended.entity.key::<Ticker>() {
            self.tickers.remove(key);
        }
    }
}

/// Without state: says which thread it is on.
struct Parser;

struct Where;

impl Message for Where {
    type Reply = (u64, String);
}

/// Asks the pool from where it is; the answer is whether that was the same thread.
struct AskNeighbour;

impl Message for AskNeighbour {
    type Reply = bool;
}

fn thread() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

impl Entity for Parser {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "parser";

    fn activate(_: u64, _: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Where>("where").message::<AskNeighbour>("ask_neighbour");
    }
}

impl Handler<Where> for Parser {
    type Answer = (u64, String);

    fn handle(&mut self, _: Where, cx: &mut Cx<'_, Self>) -> (u64, String) {
        (cx.key(), thread())
    }
}

impl Handler<AskNeighbour> for Parser {
    type Answer = Later<bool>;

    fn handle(&mut self, _: AskNeighbour, cx: &mut Cx<'_, Self>) -> Later<bool> {
        cx.interleave(async |cx: AsyncCx<Self>| {
            let neighbour = cx.pool::<Parser>().message(Where).await;
            neighbour.is_ok_and(|(_, where_it_is)| where_it_is == thread())
        })
    }
}

/// Always running; reports each of its lives.
struct Worker(u64);

/// By worker.
static REPORTS: Mutex<Option<Sender<(u64, bool)>>> = Mutex::new(None);

fn report(key: u64, began: bool) {
    let reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reports) = &*reports {
        // The test that listens may be over.
        let _ = reports.send((key, began));
    }
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Nothing,
    Stop,
    Panic,
}

impl Message for Order {
    type Reply = ();
}

impl Entity for Worker {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "worker";

    fn activate(key: u64, _: &mut Cx<'_, Self>) -> Self {
        report(key, true);
        Self(key)
    }

    fn on_stop(&mut self, _: &mut Cx<'_, Self>) {
        report(self.0, false);
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Order>("order");
    }
}

impl Handler<Order> for Worker {
    type Answer = ();

    fn handle(&mut self, order: Order, cx: &mut Cx<'_, Self>) {
        match order {
            Order::Nothing => {}
            Order::Stop => cx.stop(),
            Order::Panic => panic!("told to"),
        }
    }
}

fn builder() -> NodeBuilder {
    Node::builder().shards(2).idle(Idle::Park { spin: Duration::ZERO })
}

fn trading() -> Node {
    builder()
        .entity::<Ticker>()
        .topic::<Price>()
        .singleton::<Board>()
        .start()
        .expect("the node starts")
}

#[test]
fn topic_reaches_subscribers_on_all_shards_in_order() {
    let node = trading();
    for key in 0..20 {
        assert_eq!(node.entity::<Ticker>(key).message(Listen).wait(), Ok(true));
    }
    for cents in 0..100 {
        node.topic::<Price>("prices").publish(price(cents)).try_tell().expect("room");
    }
    assert_eq!(node.topic::<Price>("prices").publish(price(100)).wait(), Ok(20));
    assert_eq!(node.topic::<Price>("rumours").publish(price(0)).wait(), Ok(0));
    let all: Vec<u64> = (0..=100).collect();
    for key in 0..20 {
        // What was published may still be on its way to another shard.
        let seen = wait_for(|| {
            let seen = node.entity::<Ticker>(key).message(Seen).wait().expect("an answer");
            (seen.len() >= all.len()).then_some(seen)
        });
        assert_eq!(seen, all, "ticker {key}");
    }
}

#[test]
fn entity_is_subscribed_and_unsubscribed_from_outside() {
    let node = trading();
    let topic = || node.topic::<Price>("prices");
    for key in 0..4 {
        assert_eq!(node.entity::<Ticker>(key).message(Seen).wait(), Ok(vec![]));
        assert_eq!(topic().subscribe_entity::<Ticker>(key).wait(), Ok(true));
    }
    assert_eq!(topic().publish(price(1)).wait(), Ok(4));
    assert_eq!(topic().unsubscribe_entity::<Ticker>(0).wait(), Ok(()));
    node.entity::<Ticker>(1).message(Leave).wait().expect("an answer");
    wait_for(|| (topic().publish(price(2)).wait() == Ok(2)).then_some(()));
    assert_eq!(node.entity::<Ticker>(0).message(Seen).wait(), Ok(vec![1]));
}

#[test]
fn group_tells_its_members_and_loses_who_ends() {
    let node = trading();
    let board = || node.singleton::<Board>();
    for key in 0..10 {
        node.entity::<Ticker>(key).message(Seen).wait().expect("an answer");
        assert_eq!(board().message(Join(key)).wait(), Ok(key as usize + 1));
    }
    assert_eq!(board().message(Announce(7)).wait(), Ok(10));
    node.entity::<Ticker>(3).message(Leave).wait().expect("an answer");
    wait_for(|| (board().message(Announce(8)).wait() == Ok(9)).then_some(()));
    let seen = node.entity::<Ticker>(4).message(Seen).wait().expect("an answer");
    assert_eq!(seen.first(), Some(&7));
}

#[test]
fn broadcast_from_outside_tells_each_or_says_which_were_full() {
    let node = trading();
    let outcome = node.broadcast::<Ticker, _>(0..50, price(5));
    assert_eq!((outcome.told, outcome.full), (50, vec![]));
    for key in 0..50 {
        assert_eq!(node.entity::<Ticker>(key).message(Seen).wait(), Ok(vec![5]));
    }
    let handle = node.handle();
    node.stop();
    let outcome = handle.broadcast::<Ticker, _>(0..3, price(6));
    assert_eq!((outcome.told, outcome.full), (0, vec![0, 1, 2]));
    assert!(matches!(
        handle.entity::<Ticker>(0).message(price(6)).try_tell(),
        Err(Full(Price { cents: 6, .. }))
    ));
}

#[test]
fn pool_is_spread_over_shards_from_outside_and_local_from_inside() {
    let node = builder().pool::<Parser>(3).start().expect("the node starts");
    let mut members = BTreeSet::new();
    for _ in 0..12 {
        members.insert(node.pool::<Parser>().message(Where).wait().expect("an answer"));
    }
    assert_eq!(members.len(), 6, "{members:?}");
    let threads: BTreeSet<_> = members.iter().map(|(_, thread)| thread).collect();
    assert_eq!(threads.len(), 2, "{members:?}");
    for thread in threads {
        assert_eq!(members.iter().filter(|(_, there)| there == thread).count(), 3);
    }
    for _ in 0..12 {
        assert_eq!(node.pool::<Parser>().message(AskNeighbour).wait(), Ok(true));
    }
}

#[test]
#[should_panic(expected = "there is no pool of entity type ticker")]
fn pool_that_was_not_built_panics() {
    let node = trading();
    let _ = node.pool::<Ticker>();
}

#[test]
fn workers_run_when_the_node_has_started_and_whatever_happens_until_it_stops() {
    let (sender, reports) = channel();
    *REPORTS.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    let node = builder().workers::<Worker>(5).start().expect("the node starts");
    let begun: BTreeSet<_> = reports.try_iter().collect();
    assert_eq!(begun, (0..5).map(|key| (key, true)).collect(), "before `start` returned");
    node.entity::<Worker>(1).message(Order::Stop).wait().expect("an answer");
    assert_eq!(reports.recv_timeout(LONG), Ok((1, false)));
    assert_eq!(reports.recv_timeout(LONG), Ok((1, true)));
    assert_eq!(node.entity::<Worker>(2).message(Order::Panic).wait(), Err(AskError::Failed));
    assert_eq!(reports.recv_timeout(LONG), Ok((2, true)));
    for key in 0..5 {
        assert_eq!(node.entity::<Worker>(key).message(Order::Nothing).wait(), Ok(()));
    }
    node.entity::<Worker>(3).message(Order::Stop).try_tell().expect("room");
    node.stop();
    *REPORTS.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let last: Vec<_> = reports.iter().collect();
    assert!(last.starts_with(&[(3, false)]), "{last:?}");
}

#[test]
fn a_type_may_be_a_pool_and_workers_of_several_nodes() {
    // Nothing is kept outside of a node.
    let nodes: Vec<Arc<Node>> = (0..2)
        .map(|_| Arc::new(builder().pool::<Parser>(1).topic::<Price>().start().expect("starts")))
        .collect();
    for node in &nodes {
        assert!(node.pool::<Parser>().message(Where).wait().is_ok());
        assert_eq!(node.topic::<Price>("prices").publish(price(1)).wait(), Ok(0));
    }
}

/// Tries until there is something. Each try waits for shards, so this sleeps nowhere.
fn wait_for<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    const TRIES: usize = 1_000_000;
    (0..TRIES).find_map(|_| attempt()).expect("it comes in the end")
}
