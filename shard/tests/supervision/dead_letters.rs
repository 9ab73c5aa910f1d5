//! What cannot be delivered is counted by its reason, and the last of it kept.

use coreside_shard::{AskError, Reason, ShardConfig};

use crate::book::{live, outcome};
use crate::diary::{Id, Make, Plan, handled, plan};
use crate::subject::{Act, Do, QUICK, RESTART, STASH_MAX, STOP, Subject, Then};
use crate::world::{World, config};

fn world(kept: usize) -> World {
    World::with(1, 1, &ShardConfig { dead_letters_max: kept, entities_max: 5, ..config() })
}

#[test]
fn each_reason_has_its_count_and_its_error() {
    let mut world = world(0);
    let expired = world.ask_within(0, Id(RESTART, 1), Act::Nothing, 0);
    world.settle();
    // Or its shard has looked at its own asks first.
    let error = outcome(expired).expect("ended");
    assert!(matches!(error, Err(AskError::Expired | AskError::MaybeExecuted)));
    assert_eq!((world.dead(Reason::Expired), world.stat(|stats| stats.expired)), (1, 1));

    (0..5).for_each(|key| {
        world.tell(Id(RESTART, key), Act::Nothing);
    });
    assert_eq!(world.asked(Id(RESTART, 9), Act::Nothing), Some(Err(AskError::NotSent)));
    assert_eq!((world.dead(Reason::StoreFull), world.stat(|stats| stats.refused)), (1, 1));

    let cursed = Id(STOP, 1);
    for make in [Make::Panic, Make::Fail] {
        let before = world.dead(Reason::ActivationFailed);
        plan(cursed, Plan { make, makes: 1, ..Plan::default() });
        assert_eq!(world.asked(cursed, Act::Nothing), Some(Err(AskError::Failed)), "{make:?}");
        assert_eq!(world.dead(Reason::ActivationFailed), before + 1, "{make:?}");
        world.wait_ms(20);
        assert!(
            handled(cursed).is_empty(),
            "{make:?}: a message whose asker was told is not handled"
        );
    }

    let busy = Id(QUICK, 1);
    world.told(busy, Act::Run(5, Then::Answer));
    (0..STASH_MAX + 2).for_each(|_| {
        world.tell(busy, Act::Nothing);
    });
    world.settle();
    assert_eq!(world.dead(Reason::StashFull), 2);
    world.wait_ms(10);
    assert_eq!(Reason::ALL.iter().map(|reason| world.dead(*reason)).sum::<u64>(), 6);
    world.close();
}

#[test]
fn a_message_whose_activation_failed_is_kept_whole() {
    let mut world = world(4);
    for (key, make) in (1..).zip([Make::Panic, Make::Fail]) {
        let id = Id(RESTART, key);
        plan(id, Plan { make, makes: 1, ..Plan::default() });
        let first = world.ask(id, Act::Nothing);
        world.wait_ms(20);
        assert_eq!(outcome(first), Some(Err(AskError::Failed)), "{make:?}");
        assert!(handled(id).is_empty(), "{make:?}: its asker was told");
        let letter = world.shards[0].take_dead_letter(0).expect("with its value");
        assert_eq!((letter.reason(), letter.is_ask()), (Reason::ActivationFailed, true));
        world.shards[0].replay(letter, &mut ());
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(2)), "{make:?}: it can be replayed");
    }
    world.close();
}

#[test]
fn the_last_letters_are_kept_whole_in_order() {
    let mut world = world(3);
    let id = Id(QUICK, 1);
    world.told(id, Act::Run(5, Then::Answer));
    let all: Vec<_> = (0..STASH_MAX + 5).map(|_| world.tell(id, Act::Nothing)).collect();
    world.settle();
    let kept: Vec<_> = world.shards[0]
        .dead_letters()
        .map(|letter| {
            assert_eq!((letter.reason(), letter.method()), (Reason::StashFull, "do"));
            assert!(!letter.is_ask() && letter.bytes() >= 16);
            assert_eq!(letter.unix_ms(), world.now.unix_ms);
            letter.message::<Subject<QUICK>, Do>().expect("of this type").stamp.number
        })
        .collect();
    assert_eq!(kept, all[all.len() - 3..]);
    assert_eq!(world.dead(Reason::StashFull), 5, "all are counted");
    world.wait_ms(10);
    // Sent again, they are handled.
    while let Some(letter) = world.shards[0].take_dead_letter(0) {
        world.shards[0].replay(letter, &mut ());
    }
    world.settle();
    assert_eq!(handled(id)[handled(id).len() - 3..], kept);
    world.close();
}

#[test]
fn a_replay_to_a_busy_entity_waits_in_its_stash() {
    let mut world = world(3);
    let id = Id(QUICK, 1);
    world.told(id, Act::Run(5, Then::Answer));
    (0..=STASH_MAX).for_each(|_| {
        world.tell(id, Act::Nothing);
    });
    world.settle();
    let letter = world.shards[0].take_dead_letter(0).expect("one");
    world.shards[0].replay(letter, &mut ());
    assert_eq!(world.shards[0].dead_letters().count(), 1, "the stash is still full");
    world.wait_ms(10);
    let letter = world.shards[0].take_dead_letter(0).expect("one");
    world.shards[0].replay(letter, &mut ());
    assert_eq!(handled(id).len(), 2 + STASH_MAX as usize);
    world.close();
}

#[test]
fn a_letter_that_panics_in_its_drop_is_contained() {
    let mut world = world(1);
    let id = Id(QUICK, 1);
    world.told(id, Act::Panic);
    (0..STASH_MAX).for_each(|_| {
        world.tell(id, Act::Nothing);
    });
    let grenades = [world.ask_grenade(id), world.ask_grenade(id)];
    world.settle();
    for number in grenades {
        assert_eq!(outcome(number), Some(Err(AskError::NotSent)));
    }
    world.told(id, Act::Nothing);
    assert_eq!(live("grenade"), 0);
    world.wait_ms(20);
    let letter = world.shards[0].take_dead_letter(0).expect("one");
    assert_eq!(letter.method(), "do");
    drop(letter);
    world.close();
}
