//! What a watcher sees that interrupts a turn: here the handler looks itself.
#![expect(unsafe_code, reason = "a watch point is made under a contract")]

use std::cell::RefCell;

use coreside_shard::{
    Address, Cx, Entity, Handler, HashKey, Message, Now, Registration, Registry, Serial, Shard,
    ShardConfig, TurnSeen, Via, WatchPoint, What,
};

thread_local! {
    static POINT: RefCell<Option<WatchPoint>> = const { RefCell::new(None) };
    static SEEN: RefCell<Vec<(Serial, TurnSeen)>> = const { RefCell::new(Vec::new()) };
}

fn look() {
    POINT.with_borrow(|point| {
        let point = point.as_ref().expect("a shard is watched");
        let serial = point.serial().expect("a turn is under way");
        SEEN.with_borrow_mut(|seen| seen.push((serial, point.turn())));
    });
}

struct Narrow;

struct Wide;

struct Look;

struct AskWide(u128);

impl Message for Look {
    type Reply = u64;
}

impl Message for AskWide {
    type Reply = ();
}

impl Entity for Narrow {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Narrow";

    fn activate(_: u64, _: &mut Cx<'_, Self>) -> Self {
        look();
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Look>("look");
        table.message::<AskWide>("ask_wide");
    }
}

impl Entity for Wide {
    type Key = u128;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Wide";

    fn activate(_: u128, _: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Look>("look");
    }
}

impl Handler<Look> for Narrow {
    type Answer = u64;

    fn handle(&mut self, _: Look, _: &mut Cx<'_, Self>) -> u64 {
        look();
        1
    }
}

impl Handler<Look> for Wide {
    type Answer = u64;

    fn handle(&mut self, _: Look, _: &mut Cx<'_, Self>) -> u64 {
        look();
        2
    }
}

impl Handler<AskWide> for Narrow {
    type Answer = ();

    fn handle(&mut self, AskWide(key): AskWide, cx: &mut Cx<'_, Self>) {
        let asked = Address::<Wide, _>::new(key, &mut *cx).message(Look).ask(|_, _, _| look());
        assert!(asked.is_ok());
    }
}

#[test]
fn turn_is_seen_with_its_message_its_entity_and_a_serial_of_its_own() {
    let mut registry = Registry::new();
    registry.entity::<Narrow>().entity::<Wide>();
    let config = ShardConfig::new(HashKey::new(3));
    let mut shard = Shard::alone(&config, registry.build().expect("two types")).expect("a shard");
    // SAFETY: the shard stays in its variable, and the view goes before it does.
    let point = unsafe { shard.watch_point() };
    assert_eq!(point.serial(), None);
    POINT.set(Some(point));
    for (key, wide) in [(7, 1 << 100), (7, 5), (8, 1 << 100)] {
        assert!(shard.tell::<Narrow, _>(key, Look).is_ok());
        assert!(shard.tell::<Narrow, _>(key, AskWide(wide)).is_ok());
    }
    while !shard.poll(Now::default(), &mut ()).is_idle() {}
    assert_eq!(POINT.take().and_then(|point| point.serial()), None);
    let seen = SEEN.take();
    let narrow = |what, key| TurnSeen { what, entity: Some((0, [key, 0])) };
    let wide = |key: u128| {
        let words = [key as u64, (key >> 64) as u64];
        TurnSeen { what: What::Message(2), entity: Some((1, words)) }
    };
    let (look, answer) = (What::Message(0), What::Answer(Some(2)));
    let turns: Vec<_> = seen.iter().map(|(_, turn)| *turn).collect();
    let first = [narrow(look, 7), narrow(look, 7), narrow(look, 7), narrow(look, 8)];
    assert_eq!(turns[..4], first, "an activation, and its turn with it");
    assert_eq!(turns[4], narrow(look, 8));
    assert_eq!(turns[5..8], [wide(1 << 100), wide(5), wide(1 << 100)]);
    assert_eq!(turns[8..], [narrow(answer, 7), narrow(answer, 7), narrow(answer, 8)]);
    let serials: Vec<_> = seen.iter().map(|(serial, _)| *serial).collect();
    assert_eq!((serials[0], serials[3]), (serials[1], serials[4]), "activations");
    let apart = (2..seen.len()).all(|at| at == 4 || !serials[..at].contains(&serials[at]));
    assert!(apart, "no two turns share a serial: {serials:?}");
}
