//! What the kit promises of those that the entity watches, starts, or needs to be activated.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coreside::kit::Kit;
use coreside::{
    Activating, Address, AskError, AsyncCx, Backoff, Children, Cx, End, Entity, EntityId, Fault,
    Handler, Later, Life, Message, OnFault, Registration, Terminated, Via, entity, handlers,
};

#[entity]
struct Peer;

#[handlers]
impl Peer {
    fn load(&mut self) -> u64 {
        panic!("nobody but the entity under test runs");
    }
}

/// What a kit says when it fails a test.
fn complaint<R>(test: impl FnOnce() -> R) -> String {
    let panic =
        catch_unwind(AssertUnwindSafe(test)).map(|_| ()).expect_err("the kit fails the test");
    *panic.downcast::<String>().expect("text")
}

/// Supervises and watches, and fails where it is told.
#[derive(Default)]
struct Boss {
    faults: Vec<(EntityId, u32)>,
    gone: Vec<(EntityId, End)>,
}

/// Brings its workers up, or takes them down again.
enum Order {
    Start(u64),
    Watch(u64),
    Unwatch(u64),
    Fail,
}

impl Message for Order {
    type Reply = ();
}

impl Entity for Boss {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "boss";
    const LIFE: Life = Life {
        on_fault: OnFault::Escalate,
        children: Children::OneForAll,
        backoff: Backoff { jitter_percent: 0, ..Backoff::DEFAULT },
        idle: Some(Duration::from_secs(60)),
        ..Life::DEFAULT
    };

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self::default()
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Order>("order");
        table.message::<Fault>("fault").message::<Terminated>("terminated");
    }
}

impl Handler<Order> for Boss {
    type Answer = ();

    fn handle(&mut self, order: Order, cx: &mut Cx<'_, Self>) {
        match order {
            Order::Start(key) => cx.start::<Peer>(key).expect("room"),
            Order::Watch(key) => cx.watch::<Peer>(key).expect("room"),
            Order::Unwatch(key) => cx.unwatch::<Peer>(key),
            Order::Fail => cx.fail("told to fail"),
        }
    }
}

impl Handler<Fault> for Boss {
    type Answer = ();

    fn handle(&mut self, fault: Fault, _: &mut Cx<'_, Self>) {
        self.faults.push((fault.entity, fault.count));
    }
}

impl Handler<Terminated> for Boss {
    type Answer = ();

    fn handle(&mut self, gone: Terminated, _: &mut Cx<'_, Self>) {
        self.gone.push((gone.entity, gone.end));
    }
}

fn boss() -> Kit<Boss> {
    Kit::builder().other::<Peer>().build(1)
}

#[test]
fn other_that_is_watched_ends_once() {
    let mut kit = boss();
    kit.tell(Order::Watch(5));
    kit.tell(Order::Watch(6));
    assert_eq!(kit.watched().len(), 2);
    kit.tell(Order::Unwatch(6));
    assert!(kit.other::<Peer>(5).is_watched() && !kit.other::<Peer>(6).is_watched());
    kit.other::<Peer>(5).ends(End::Failed);
    assert_eq!(kit.state(|boss| (boss.gone.len(), boss.gone[0].1)), (1, End::Failed));
    for key in [5, 6] {
        let said = complaint(|| kit.other::<Peer>(key).ends(End::Failed));
        assert!(said.contains("neither watches nor started"), "{said}");
    }
}

#[test]
fn other_that_was_started_fails_and_takes_its_siblings_along() {
    let mut kit = boss();
    (5..8).for_each(|key| kit.tell(Order::Start(key)));
    assert_eq!(kit.started().len(), 3);
    kit.other::<Peer>(6).fails("no disk");
    kit.other::<Peer>(6).fails("no disk");
    assert_eq!(kit.state(|boss| boss.faults.last().map(|fault| fault.1)), Some(2));
    let restarts: Vec<_> = (5..8).map(|key| kit.other::<Peer>(key).restarts()).collect();
    assert_eq!(restarts, [2, 0, 2], "one for all");
    let said = complaint(|| kit.other::<Peer>(9).fails("no disk"));
    assert!(said.contains("did not start Peer/9"), "{said}");
}

#[test]
fn other_that_escalates_fails_its_supervisor() {
    let mut kit = boss();
    kit.watch();
    kit.tell(Order::Start(5));
    kit.watch();
    kit.tell(Order::Start(6));
    kit.tell(Order::Watch(5));
    kit.other::<Peer>(5).escalates("no disk");
    assert!(!kit.other::<Peer>(5).is_watched(), "it has ended");
    assert!(kit.expect_fault().reason.contains("Peer/5 failed"));
    assert_eq!((kit.expect_end(), kit.expect_end()), (End::NotThere, End::Failed));
    assert!(kit.is_escalated(), "it has no supervisor of its own");
    assert!(kit.other::<Peer>(6).is_told_to_stop(), "children end with it");
}

#[test]
fn fault_without_a_panic_is_expected_like_one_with() {
    let mut kit = boss();
    kit.tell(Order::Fail);
    assert_eq!(kit.expect_fault().reason, "told to fail");
    assert!(!kit.is_live());
}

#[test]
fn idle_entity_is_put_away_when_time_passes() {
    let mut kit = boss();
    kit.activate();
    kit.watch();
    kit.advance(Duration::from_secs(59));
    assert!(kit.is_live());
    kit.advance(Duration::from_secs(31));
    assert_eq!(kit.expect_end(), End::Passivated);
}

/// Is activated by what a peer says.
struct Loader {
    loaded: Result<u64, AskError>,
}

/// What it was activated with.
struct Get;

impl Message for Get {
    type Reply = Result<u64, AskError>;
}

impl Entity for Loader {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "loader";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        unreachable!("it is activated in the course of time")
    }

    fn activate_async(key: u64, cx: AsyncCx<Self>) -> Option<Activating<Self>> {
        Some(Box::pin(async move { Self { loaded: cx.entity::<Peer>(key).load().await } }))
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Get>("get");
    }
}

impl Handler<Get> for Loader {
    type Answer = Result<u64, AskError>;

    fn handle(&mut self, _: Get, _: &mut Cx<'_, Self>) -> Self::Answer {
        self.loaded.clone()
    }
}

#[test]
fn activation_waits_for_what_the_test_gives() {
    let mut kit = Kit::<Loader>::builder().other::<Peer>().build(3);
    let get = kit.begin(Get);
    assert_eq!((kit.is_live(), kit.stashed()), (false, 1));
    let load = kit.expect_sent::<Peer, PeerLoad>();
    kit.answer(load, Ok(9));
    assert_eq!(get.take(), Some(Ok(Ok(9))));
    assert!(kit.is_live());
}

#[test]
fn activation_goes_on_when_nobody_answers_in_time() {
    let mut kit = Kit::<Loader>::builder().other::<Peer>().build(3);
    kit.activate();
    assert!(!kit.is_live());
    kit.advance(Duration::from_secs(1));
    assert_eq!(kit.ask(Get), Ok(Err(AskError::MaybeExecuted)));
}

/// Works for a while and fails; says goodbye badly where it is told to.
struct Worker {
    rude: bool,
}

struct Work;

impl Message for Work {
    type Reply = ();
}

/// Stops it. May be tried twice, and need not be: its turn goes well.
struct Leave {
    rude: bool,
}

impl Message for Leave {
    type Reply = ();
    const TRIES: u32 = 2;

    fn duplicate(&self) -> Option<Self> {
        Some(Self { rude: self.rude })
    }
}

impl Entity for Worker {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "worker";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self { rude: false }
    }

    fn on_stop(&mut self, _: &mut Cx<'_, Self>) {
        assert!(!self.rude, "no goodbye");
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Work>("work").message::<Leave>("leave");
    }
}

impl Handler<Work> for Worker {
    type Answer = Later<()>;

    fn handle(&mut self, _: Work, cx: &mut Cx<'_, Self>) -> Later<()> {
        cx.run_fallible(async |_: &mut Self, cx: &mut AsyncCx<Self>| {
            cx.sleep(Duration::from_millis(10)).await;
            Err::<(), _>("nothing works")
        })
    }
}

impl Handler<Leave> for Worker {
    type Answer = ();

    fn handle(&mut self, leave: Leave, cx: &mut Cx<'_, Self>) {
        self.rude = leave.rude;
        cx.stop();
    }
}

#[test]
fn entity_that_was_told_to_stop_ends_when_its_async_turn_fails() {
    let mut kit = Kit::<Worker>::new(1);
    kit.tell(Work);
    kit.watch();
    kit.stop();
    kit.advance(Duration::from_secs(1));
    assert_eq!(kit.expect_fault().reason, "nothing works");
    assert!(!kit.is_live(), "it was told to stop");
    kit.expect_end();
}

#[test]
fn message_that_was_handled_is_no_dead_letter_when_the_goodbye_fails() {
    let mut kit = Kit::<Worker>::new(1);
    kit.tell(Leave { rude: true });
    assert_eq!(kit.expect_fault().reason, "no goodbye");
    assert_eq!(kit.dead_letters().count(), 0);
}
