//! Stop: the entity and its slot are free.

use coreside_shard::ShardConfig;

use crate::actor::{Act, Relay};
use crate::book::{book, close, live, outcome};
use crate::mesh::{Mesh, config};

#[test]
fn stop_frees_the_entity_and_its_slot() {
    // Room for one: were the slot not free, the second life would be refused.
    let config = ShardConfig { entities_max: 1, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    for id in 0..100 {
        let number = mesh.ask::<u64>(0, id, Act::Stop).expect("room");
        let wide = mesh.ask_large::<u128>(0, id, Act::Stop).expect("room");
        mesh.settle();
        assert_eq!(outcome(number), Some(Ok(number)));
        assert_eq!(outcome(wide), Some(Ok(wide)));
        assert_eq!((mesh.entities::<u64>(), mesh.entities::<u128>(), live("state")), (0, 0, 0));
    }
    assert_eq!(book(|book| book.activations), 200);
    assert_eq!(mesh.count(|stats| stats.refused), 0);
    drop(mesh);
    close("stop");
}

#[test]
fn a_stopped_entity_is_activated_anew_by_what_waits_behind() {
    let mut mesh = Mesh::of_actors(1, &config(), 1);
    let numbers: Vec<_> =
        (0..10).map(|_| mesh.ask::<u64>(0, 5, Act::Stop).expect("room")).collect();
    mesh.settle();
    assert!(numbers.iter().all(|number| outcome(*number) == Some(Ok(*number))));
    assert_eq!(book(|book| book.activations), 10);
    drop(mesh);
    close("stop");
}

#[test]
fn a_continuation_may_stop_its_entity() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for home in 0..2 {
        let (asker, other) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(home, 1));
        for then in [Act::Stop, Act::StopAndPanicInDrop] {
            let relay = |stamp| Relay { then, ..Relay::new(stamp, other) };
            let number = mesh.ask_relay::<u64>(0, asker, relay).expect("room");
            mesh.settle();
            assert!(matches!(outcome(number), Some(Ok(_))));
            assert_eq!(live("state"), 1 + home, "those who were asked");
        }
    }
    assert_eq!(mesh.faults(), 2);
    drop(mesh);
    close("stop");
}
