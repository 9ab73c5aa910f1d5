//! A receive timeout comes when an entity had no message for a while, and only then.

use std::time::Duration;

use crate::agent::{Agent, LargeTick, Plain, Tick, Tough, noting, tell, tell_of};
use crate::mesh::Mesh;
use crate::notes::{alive, take_notes};

const QUIET: Duration = Duration::from_millis(20);

fn set(mesh: &mut Mesh) {
    mesh.tell_plain(1, tell(|_, cx| cx.receive_timeout(QUIET, Tick(1))));
    mesh.settle();
}

#[test]
fn timeout_comes_after_a_time_without_messages_and_again_after_another() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    set(&mut mesh);
    mesh.wait_ms(19);
    assert!(take_notes().is_empty());
    mesh.wait_ms(3);
    let lines = take_notes();
    assert!(
        lines == [format!("1 tick 1 at {}", began + 20)]
            || lines == [format!("1 tick 1 at {}", began + 21)],
        "{lines:?}"
    );
    mesh.wait_ms(22);
    assert_eq!(take_notes().len(), 1);
}

#[test]
fn each_message_puts_the_timeout_off() {
    let mut mesh = Mesh::new(1, 1);
    set(&mut mesh);
    for _ in 0..10 {
        mesh.wait_ms(15);
        mesh.tell_plain(1, noting::<Plain>("message"));
        mesh.settle();
    }
    assert_eq!(take_notes().len(), 10, "only messages");
    mesh.wait_ms(22);
    assert_eq!(take_notes().len(), 1, "now it was quiet");
}

#[test]
fn timeout_set_again_takes_the_place_of_the_first_and_can_be_cancelled() {
    let mut mesh = Mesh::new(1, 1);
    set(&mut mesh);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            cx.receive_timeout(Duration::from_millis(50), LargeTick::new(2));
        }),
    );
    mesh.wait_ms(45);
    assert!(take_notes().is_empty());
    mesh.wait_ms(8);
    assert_eq!(take_notes(), ["1 large tick 2"]);
    mesh.tell_plain(1, tell(|_, cx| cx.cancel_receive_timeout()));
    mesh.wait_ms(200);
    assert!(take_notes().is_empty());
    assert_eq!(alive("tick"), 0);
}

#[test]
fn timeout_does_not_come_while_an_async_turn_is_under_way_nor_pile_up() {
    let mut mesh = Mesh::new(1, 1);
    set(&mut mesh);
    let gate = mesh.hold::<Plain>(1);
    mesh.wait_ms(300);
    gate.open();
    mesh.settle();
    mesh.wait_ms(18);
    assert!(take_notes().is_empty(), "the message counts until its turn is over");
    mesh.wait_ms(5);
    assert_eq!(take_notes().len(), 1);
}

#[test]
fn timeout_of_an_earlier_life_does_not_disturb_that_of_the_next() {
    let mut mesh = Mesh::new(1, 1);
    for _ in 0..3 {
        set(&mut mesh);
        mesh.wait_ms(5);
        mesh.tell_plain(1, tell(|_, cx| cx.stop()));
        mesh.settle();
    }
    set(&mut mesh);
    let began = mesh.at_ms();
    mesh.wait_ms(100);
    let lines = take_notes();
    assert!((4..=5).contains(&lines.len()), "one per time of quiet, since {began}: {lines:?}");
}

#[test]
fn timeout_goes_on_behind_a_fault_that_is_resumed_from() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell::<Tough, _>(
        1,
        tell_of(|_: &mut Agent<Tough>, cx| {
            cx.receive_timeout(QUIET, Tick(1));
        }),
    );
    mesh.settle();
    mesh.tell::<Tough, _>(1, tell_of(|_: &mut Agent<Tough>, _| panic!("told to")));
    mesh.wait_ms(15);
    mesh.tell::<Tough, _>(1, noting::<Tough>("message"));
    mesh.wait_ms(15);
    assert_eq!(take_notes(), ["1 message"], "messages still put it off");
    mesh.wait_ms(8);
    assert_eq!(take_notes().len(), 1);
}
