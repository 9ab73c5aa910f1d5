//! The same for keys of two words; and entities that a sweep stops.

use std::cell::RefCell;

use coreside_shard::{
    Address, AskError, Backoff, Cx, End, Entity, Fault, Handler, Life, Message, OnFault, Outside,
    Registration, Shard, Sweep, Terminated, ToValue, ValueWriter, Via, Visit,
};

use crate::book::{Witness, live};
use crate::world::World;

thread_local! {
    /// Who heard of whom: of a fault, or of an end.
    static HEARD: RefCell<Vec<(u128, u128, Option<End>)>> = const { RefCell::new(Vec::new()) };
}

fn heard() -> Vec<(u128, u128, Option<End>)> {
    HEARD.take()
}

pub(crate) struct Wide {
    _state: Witness,
}

enum Do {
    Nothing,
    Panic,
    Stop,
    Start(u128),
    Watch(u128),
    Unwatch(u128),
}

impl Message for Do {
    type Reply = ();
}

impl Entity for Wide {
    type Key = u128;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "wide";
    const LIFE: Life = Life {
        on_fault: OnFault::Restart,
        backoff: Backoff { faults_max: 1, ..Backoff::DEFAULT },
        ..Life::DEFAULT
    };

    fn activate(_key: u128, _cx: &mut Cx<'_, Self>) -> Self {
        Self { _state: Witness::new("state") }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Do>("do").message::<Fault>("fault").message::<Terminated>("terminated");
        table.sweep::<Clear>("clear", None);
    }
}

impl Handler<Do> for Wide {
    type Answer = ();

    fn handle(&mut self, message: Do, cx: &mut Cx<'_, Self>) {
        match message {
            Do::Nothing => {}
            Do::Panic => panic!("told to, in a turn"),
            Do::Stop => cx.stop(),
            Do::Start(key) => cx.start::<Wide>(key).expect("room"),
            Do::Watch(key) => cx.watch::<Wide>(key).expect("room"),
            Do::Unwatch(key) => cx.unwatch::<Wide>(key),
        }
    }
}

impl Handler<Fault> for Wide {
    type Answer = ();

    fn handle(&mut self, fault: Fault, cx: &mut Cx<'_, Self>) {
        let of = fault.entity.key::<Wide>().expect("of this type");
        HEARD.with_borrow_mut(|heard| heard.push((cx.key(), of, None)));
    }
}

impl Handler<Terminated> for Wide {
    type Answer = ();

    fn handle(&mut self, terminated: Terminated, cx: &mut Cx<'_, Self>) {
        let of = terminated.entity.key::<Wide>().expect("of this type");
        HEARD.with_borrow_mut(|heard| heard.push((cx.key(), of, Some(terminated.end))));
    }
}

/// Stops everybody with an odd key.
#[derive(Default)]
struct Clear(u64);

impl Sweep<Wide> for Clear {
    fn visit(&mut self, key: u128, _: &mut Wide) -> Visit {
        let odd = key % 2 == 1;
        self.0 += u64::from(odd);
        if odd { Visit::Stop } else { Visit::Keep }
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl ToValue for Clear {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.integer(self.0 as i64);
    }
}

/// Keys whose words both matter.
fn key(nth: u64) -> u128 {
    u128::from(nth) << 64 | u128::from(nth / 2 * 2 + 7)
}

fn told(world: &mut World, nth: u64, message: Do) {
    assert!(world.shards[0].tell::<Wide, _>(key(nth), message).is_ok(), "room");
    world.settle();
}

fn entities(world: &World) -> usize {
    world.shards.iter().map(Shard::entities::<Wide>).sum()
}

#[test]
fn wide_keys_are_supervised_and_watched_as_others() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 1);
        for nth in 1..6 {
            told(&mut world, 0, Do::Start(key(nth)));
            told(&mut world, 0, Do::Watch(key(nth)));
        }
        assert_eq!(entities(&world), 6);
        told(&mut world, 3, Do::Panic);
        assert_eq!(heard(), [(key(0), key(3), None)]);
        world.wait_ms(15);
        told(&mut world, 3, Do::Panic);
        assert_eq!(
            heard(),
            [(key(0), key(3), None), (key(0), key(3), Some(End::Failed))],
            "one too many"
        );
        told(&mut world, 4, Do::Stop);
        assert_eq!(heard(), [(key(0), key(4), Some(End::Stopped))]);
        told(&mut world, 0, Do::Unwatch(key(5)));
        told(&mut world, 5, Do::Stop);
        told(&mut world, 0, Do::Watch(key(9)));
        assert_eq!(heard(), [(key(0), key(9), Some(End::NotThere))]);
        told(&mut world, 0, Do::Stop);
        assert_eq!((entities(&world), world.attached()), (0, 0), "with its children");
        world.close();
    }
}

#[test]
fn an_entity_that_a_sweep_stops_is_at_its_end_for_all() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 2);
        told(&mut world, 1, Do::Nothing);
        told(&mut world, 2, Do::Start(key(1)));
        let watcher = u128::from(2u64);
        assert!(world.shards[0].tell::<Wide, _>(watcher, Do::Watch(key(1))).is_ok());
        world.settle();
        let then = |total: Result<Clear, AskError>, _: &mut dyn Outside| {
            // The child may have gone with its supervisor before the sweep came to it.
            assert!(matches!(total.expect("ended").0, 1 | 2));
        };
        world.shards[0].sweep::<Wide, Clear, _>(then).expect("room");
        world.settle();
        assert_eq!(heard(), [(watcher, key(1), Some(End::Stopped))]);
        assert_eq!(world.stat(|stats| stats.faults), 0);
        assert_eq!((entities(&world), live("state"), world.attached()), (1, 1, 0));
        assert!(world.shards[0].tell::<Wide, _>(watcher, Do::Stop).is_ok());
        world.settle();
        world.close();
    }
}
