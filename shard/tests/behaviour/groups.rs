//! Topics and broadcasts: who gets what, in which order, and what it costs.

use std::cell::RefCell;

use coreside_shard::{
    AskError, Group, Handler, Hub, Message, Name, Publish, Registry, ShardConfig, Stats, Subscribe,
    Topic, Via,
};

use crate::listener::{CLONES, Do, EAGER, FULL, HEARD, Listener, News, wide};
use crate::mesh::{Mesh, config};
use crate::random::Random;
use crate::shards::{HASH, RING_WORDS_MIN};

fn listeners(shards: u16, seed: u64) -> Mesh {
    listeners_with(shards, 1 << 14, &config(), seed)
}

fn listeners_with(shards: u16, ring_words: usize, config: &ShardConfig, seed: u64) -> Mesh {
    HEARD.take();
    FULL.take();
    CLONES.set(u64::MAX);
    EAGER.set(false);
    let mut registry = Registry::new();
    registry.entity::<Listener<u64>>().entity::<Listener<u128>>().topic::<News>();
    Mesh::new(shards, ring_words, config, &registry.build().expect("the names differ"), seed)
}

fn tell(mesh: &mut Mesh, id: u64, what: Do) {
    assert!(mesh.shards[0].tell::<Listener<u64>, _>(id, what).is_ok());
}

fn tell_wide(mesh: &mut Mesh, id: u64, what: Do) {
    assert!(mesh.shards[0].tell::<Listener<u128>, _>(wide(id), what).is_ok());
}

fn heard(id: u64) -> Vec<(u64, u64)> {
    HEARD.with_borrow(|heard| heard.get(&id).cloned().unwrap_or_default())
}

fn topic() -> Name {
    Name::new("news", &HASH)
}

/// Publishes from outside; for how many it is on its way.
fn publish(mesh: &mut Mesh, number: u64) -> Result<u64, AskError> {
    thread_local! {
        static ANSWER: RefCell<Option<Result<u64, AskError>>> = const { RefCell::new(None) };
    }
    let deadline_ns = mesh.now.monotonic_ns + 1_000_000_000;
    let news = Publish(News { from: 0, number });
    let then = |answer, _: &mut dyn coreside_shard::Outside| {
        ANSWER.set(Some(answer));
    };
    let asked = mesh.shards[0].ask::<Hub<News>, _, _>(topic(), news, deadline_ns, then);
    assert!(asked.is_ok());
    mesh.settle();
    ANSWER.take().expect("an answer")
}

/// Hubs and relays: what topics keep in memory.
fn topic_entities(mesh: &Mesh) -> usize {
    let all: usize = mesh.shards.iter().map(|shard| shard.entities_in_all()).sum();
    let narrow: usize = mesh.shards.iter().map(|shard| shard.entities::<Listener<u64>>()).sum();
    let wide: usize = mesh.shards.iter().map(|shard| shard.entities::<Listener<u128>>()).sum();
    all - narrow - wide
}

#[test]
fn all_subscribers_see_one_order_and_each_publishers_own() {
    for seed in 1..=40 {
        let shards = 1 + (seed % 4) as u16;
        let ring_words = if seed % 2 == 0 { RING_WORDS_MIN } else { 1 << 14 };
        let mut mesh = listeners_with(shards, ring_words, &config(), seed);
        for id in 0..10 {
            tell(&mut mesh, id, Do::Subscribe);
            tell_wide(&mut mesh, id, Do::Subscribe);
        }
        mesh.settle();
        let mut random = Random::new(seed);
        for number in 0..200 {
            tell(&mut mesh, random.below(10), Do::Publish(number));
            if random.one_in(4) {
                mesh.poll(random.below(u64::from(shards)) as usize);
            }
        }
        mesh.settle();
        let first = heard(0);
        assert_eq!(first.len(), 200, "seed {seed}");
        for id in 1..10 {
            assert_eq!(heard(id), first, "seed {seed}, listener {id}");
            assert_eq!(heard(1_000_000 + id), first, "seed {seed}, wide listener {id}");
        }
        for publisher in 0..10 {
            let own = first.iter().filter(|(from, _)| *from == publisher);
            assert!(own.map(|(_, number)| number).is_sorted(), "seed {seed}: {publisher}");
        }
        assert_eq!(mesh.count(|stats| stats.copies_refused), 0);
    }
}

#[test]
fn what_is_published_crosses_once_to_each_shard() {
    let mut mesh = listeners(4, 1);
    for id in 0..200 {
        tell(&mut mesh, id, Do::Subscribe);
    }
    mesh.settle();
    let before = mesh.count(|stats| stats.received);
    for number in 0..50 {
        assert_eq!(publish(&mut mesh, number), Ok(200));
    }
    let crossed = mesh.count(|stats| stats.received) - before;
    // To the hub and back to who asked, and to the other three shards.
    let to_hub = if mesh.home(topic()) == 0 { 0 } else { 2 };
    assert_eq!(crossed, 50 * (3 + to_hub));
    assert!((0..200).all(|id| heard(id).len() == 50));
}

#[test]
fn subscriber_gets_what_it_publishes_behind_its_subscription() {
    let mut mesh = listeners(4, 3);
    for id in 0..40 {
        tell(&mut mesh, id, Do::SubscribeAndPublish(id));
        mesh.settle();
    }
    for id in 0..40 {
        let expected: Vec<_> = (id..40).map(|number| (number, number)).collect();
        assert_eq!(heard(id), expected, "listener {id}");
    }
}

#[test]
fn second_subscription_changes_nothing() {
    let mut mesh = listeners(2, 1);
    for _ in 0..3 {
        tell(&mut mesh, 1, Do::Subscribe);
    }
    mesh.settle();
    assert_eq!(publish(&mut mesh, 1), Ok(1));
    assert_eq!(heard(1), [(0, 1)]);
    tell(&mut mesh, 1, Do::Unsubscribe);
    mesh.settle();
    assert_eq!(publish(&mut mesh, 2), Ok(0));
    assert_eq!(heard(1), [(0, 1)]);
}

#[test]
fn subscription_ends_with_its_subscriber() {
    for shards in [1, 2, 5] {
        let mut mesh = listeners(shards, 1);
        for id in 0..20 {
            tell(&mut mesh, id, Do::Subscribe);
            tell_wide(&mut mesh, id, Do::Subscribe);
        }
        mesh.settle();
        assert_eq!(publish(&mut mesh, 1), Ok(40));
        for id in 0..10 {
            tell(&mut mesh, id, Do::Stop);
        }
        mesh.settle();
        assert_eq!(publish(&mut mesh, 2), Ok(30));
        // Those that are put away when they are idle.
        for _ in 0..16 {
            mesh.wait(500_000_000);
        }
        assert_eq!(mesh.shards.iter().map(|s| s.entities::<Listener<u128>>()).sum::<usize>(), 0);
        assert_eq!(publish(&mut mesh, 3), Ok(10));
        assert_eq!(heard(0), [(0, 1)]);
        assert_eq!(heard(15), [(0, 1), (0, 2), (0, 3)]);
        assert_eq!(heard(1_000_003), [(0, 1), (0, 2)]);
    }
}

#[test]
fn restart_keeps_the_subscription() {
    let mut mesh = listeners(2, 1);
    for id in 0..4 {
        tell(&mut mesh, id, Do::Subscribe);
        tell(&mut mesh, id, Do::Panic);
    }
    mesh.settle();
    assert_eq!(publish(&mut mesh, 1), Ok(4), "it waits for the restart");
    assert_eq!(heard(0), []);
    mesh.wait(100_000_000);
    assert_eq!(mesh.count(|stats| stats.restarts), 4);
    assert!((0..4).all(|id| heard(id) == [(0, 1)]));
}

#[test]
fn subscriber_that_subscribes_in_each_life_stays_subscribed() {
    for seed in 1..=20 {
        let mut mesh = listeners(3, seed);
        EAGER.set(true);
        for number in 0..10 {
            for id in 0..12 {
                tell(&mut mesh, id, Do::Stop);
                tell(&mut mesh, id, Do::Nothing);
            }
            mesh.settle();
            assert_eq!(publish(&mut mesh, number), Ok(12), "seed {seed}");
        }
        assert!((0..12).all(|id| heard(id).len() == 10), "seed {seed}");
    }
}

#[test]
fn entity_that_is_not_in_memory_is_not_subscribed() {
    let mut mesh = listeners(2, 1);
    // From outside, by its key; the way in is that of any entity.
    struct Way;
    impl Via for Way {
        type Call<E: Handler<M>, M: Message> = (E::Key, M);

        fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> (E::Key, M) {
            (key, message)
        }
    }
    let subscribe = |mesh: &mut Mesh, id| {
        let way = Topic::<News, _>::new(topic(), Way);
        let (key, message): (Name, Subscribe<News>) = way.subscribe_entity::<Listener<u64>>(id);
        assert!(mesh.shards[1].tell::<Hub<News>, _>(key, message).is_ok());
        mesh.settle();
    };
    subscribe(&mut mesh, 1);
    tell(&mut mesh, 2, Do::Nothing);
    mesh.settle();
    subscribe(&mut mesh, 2);
    assert_eq!(publish(&mut mesh, 1), Ok(1));
    assert_eq!((heard(1).len(), heard(2).len()), (0, 1));
}

#[test]
fn topic_without_subscribers_takes_no_memory() {
    for seed in 1..=40 {
        let mut mesh = listeners(1 + (seed % 5) as u16, seed);
        let mut random = Random::new(seed);
        assert_eq!(publish(&mut mesh, 1), Ok(0));
        assert_eq!(topic_entities(&mesh), 0);
        for step in 0..400 {
            let id = random.below(12);
            let what = match random.below(8) {
                0..3 => Do::Subscribe,
                3 => Do::Unsubscribe,
                4 => Do::Stop,
                5 => Do::SubscribeAndPublish(step),
                6 => Do::Publish(step),
                _ if random.one_in(6) => Do::Panic,
                _ => Do::Nothing,
            };
            if random.one_in(2) {
                tell(&mut mesh, id, what);
            } else {
                tell_wide(&mut mesh, id, what);
            }
            if random.one_in(8) {
                mesh.wait(random.below(30_000_000));
            }
        }
        for _ in 0..30 {
            mesh.wait(1_000_000_000);
        }
        for id in 0..12 {
            tell(&mut mesh, id, Do::Stop);
            tell_wide(&mut mesh, id, Do::Stop);
        }
        mesh.wait(1_000_000_000);
        assert_eq!(topic_entities(&mesh), 0, "seed {seed}");
        let attached: usize = mesh.shards.iter().map(|shard| shard.entities_attached()).sum();
        assert_eq!(attached, 0, "seed {seed}");
    }
}

#[test]
fn relay_that_can_watch_nobody_does_not_stay() {
    let mut mesh = listeners_with(2, 1 << 14, &ShardConfig { system_max: 0, ..config() }, 1);
    for id in 0..10 {
        tell(&mut mesh, id, Do::Subscribe);
    }
    mesh.settle();
    assert_eq!((topic_entities(&mesh), publish(&mut mesh, 1)), (0, Ok(0)));
}

#[test]
fn subscriptions_taken_back_too_often_are_bounded() {
    let config = ShardConfig { outbox_words_max: 4096, ..config() };
    let mut mesh = listeners_with(2, RING_WORDS_MIN, &config, 1);
    let hub = mesh.home(topic());
    let lives_with_hub = |id: &u64| mesh.home(*id) == hub;
    let near = (0..).find(lives_with_hub).expect("one of two shards");
    let far = (0..).find(|id| !lives_with_hub(id)).expect("the other");
    tell(&mut mesh, far, Do::Subscribe);
    mesh.settle();
    // While the other shard does nothing.
    for _ in 0..20 {
        assert!(mesh.shards[hub].tell::<Listener<u64>, _>(near, Do::Nothing).is_ok());
        let what = Do::UnsubscribeOther(far, 100);
        assert!(mesh.shards[hub].tell::<Listener<u64>, _>(near, what).is_ok());
        (0..4).for_each(|_| mesh.poll(hub));
    }
    assert!(mesh.count(|stats| stats.faults) > 500);
    mesh.settle();
    assert_eq!(publish(&mut mesh, 1), Ok(0), "one of them arrived");
}

#[test]
fn subscribers_are_bounded_and_refused_ones_are_told() {
    let mut mesh = listeners(1, 1);
    let most = u64::from(Hub::<News>::SUBSCRIBERS_MAX);
    for id in 0..=most {
        tell(&mut mesh, id, Do::Subscribe);
        if id % 100 == 0 {
            mesh.settle();
        }
    }
    mesh.settle();
    assert_eq!(mesh.count(|stats| stats.subscriptions_refused), 1);
    assert_eq!(publish(&mut mesh, 1), Ok(most));
    assert_eq!((heard(0).len(), heard(most).len()), (1, 0));
    tell(&mut mesh, 0, Do::Stop);
    tell(&mut mesh, most, Do::Subscribe);
    mesh.settle();
    tell(&mut mesh, most, Do::Subscribe);
    mesh.settle();
    assert_eq!(publish(&mut mesh, 2), Ok(most));
    assert_eq!(heard(most).len(), 1, "there was room for it");
}

#[test]
fn fault_of_a_messages_own_code_does_not_end_a_topic() {
    let mut mesh = listeners(3, 1);
    for id in 0..30 {
        tell(&mut mesh, id, Do::Subscribe);
    }
    mesh.settle();
    // In the hub, then in a relay.
    for clones in [0, 1, 2, 5, 20] {
        CLONES.set(clones);
        let _ = publish(&mut mesh, clones);
        CLONES.set(u64::MAX);
    }
    assert!(mesh.faults() >= 5);
    let before: Vec<usize> = (0..30).map(|id| heard(id).len()).collect();
    assert_eq!(publish(&mut mesh, 100), Ok(30));
    let after: Vec<usize> = (0..30).map(|id| heard(id).len() - 1).collect();
    assert_eq!(after, before);
}

#[test]
fn copy_that_finds_a_queue_full_is_counted_and_nobody_waits_for_it() {
    let config = ShardConfig { queue_words_max: 4096, turns_per_poll: 4096, ..config() };
    let mut mesh = listeners_with(1, RING_WORDS_MIN, &config, 1);
    for id in 0..600 {
        tell(&mut mesh, id, Do::Subscribe);
        mesh.settle();
    }
    for number in 0..20 {
        tell(&mut mesh, 0, Do::Publish(number));
    }
    mesh.settle();
    let refused = mesh.count(|stats: Stats| stats.copies_refused);
    let got: usize = (0..600).map(|id| heard(id).len()).sum();
    assert!(refused > 0);
    assert_eq!(got as u64 + refused, 600 * 20);
    let orders = (0..600).map(heard);
    assert!(orders.into_iter().all(|order| order.is_sorted_by_key(|(_, number)| *number)));
}

#[test]
fn broadcast_reaches_each_and_names_who_was_full() {
    let mut mesh = listeners(3, 1);
    tell(&mut mesh, 5, Do::Broadcast(50));
    mesh.settle();
    assert!((0..50).all(|id| heard(id) == [(5, 0)]));
    assert!(FULL.take().is_empty());
    let config = ShardConfig { queue_words_max: 4096, outbox_words_max: 4096, ..config() };
    let mut mesh = listeners_with(3, RING_WORDS_MIN, &config, 1);
    tell(&mut mesh, 5, Do::Broadcast(9_000));
    mesh.settle();
    let full = FULL.take();
    assert!(!full.is_empty() && full.is_sorted());
    for id in 0..9_000 {
        assert_eq!(heard(id).is_empty(), full.contains(&id), "{id}");
    }
}

#[test]
fn group_is_a_bounded_set() {
    let mut group = Group::<Listener<u128>>::new(2);
    assert_eq!(group.add(wide(1)), Ok(true));
    assert_eq!(group.add(wide(2)), Ok(true));
    assert_eq!(group.add(wide(1)), Ok(false));
    assert!(group.add(wide(3)).is_err());
    assert_eq!(group.keys().collect::<Vec<_>>().len(), 2);
    assert!(group.remove(wide(1)) && !group.remove(wide(1)));
    assert!(group.contains(wide(2)) && !group.contains(wide(1)));
    assert_eq!(group.add(wide(3)), Ok(true));
}
