//! Messages above the inline limit are dropped exactly once, whatever happens to them.

use coreside_shard::{INLINE_BYTES_MAX, ShardConfig};

use crate::actor::{Act, CURSED, EchoLarge, LargeReply};
use crate::book::{book, close, live, outcome};
use crate::mesh::{Mesh, config};
use crate::shards::RING_WORDS_MIN;

const _: () = assert!(size_of::<EchoLarge>() > INLINE_BYTES_MAX);
const _: () = assert!(size_of::<LargeReply>() > INLINE_BYTES_MAX);

#[test]
fn large_message_is_dropped_exactly_once_when_delivered() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for id in 0..100 {
        let number = mesh.ask_large::<u64>(0, id, Act::Nothing).expect("room");
        mesh.tell_large::<u64>(1, id, Act::Nothing).expect("room");
        mesh.settle();
        assert_eq!(outcome(number), Some(Ok(number)));
        assert_eq!((live("message"), live("reply"), live("continuation")), (0, 0, 0));
    }
    drop(mesh);
    close("delivered");
}

#[test]
fn large_message_is_dropped_exactly_once_by_a_fault() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    CURSED.set(Some(3));
    for id in 0..10 {
        mesh.ask_large::<u64>(0, id, Act::Panic).expect("room");
        mesh.tell_large::<u64>(0, id, Act::PanicTwice).expect("room");
        mesh.settle();
        assert_eq!((live("message"), live("reply"), live("continuation")), (0, 0, 0));
    }
    CURSED.set(None);
    drop(mesh);
    close("fault");
}

#[test]
fn large_message_is_dropped_exactly_once_when_refused() {
    let config = ShardConfig { queue_words_max: 4096, outbox_words_max: 4096, ..config() };
    let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config, &crate::actor::table(), 1);
    for shard in 0..2 {
        let id = mesh.on::<u64>(shard, 0);
        let mut sent = 0;
        while mesh.tell_large::<u64>(0, id, Act::Nothing).is_some() {
            sent += 1;
        }
        assert_eq!(live("message"), sent);
        mesh.settle();
    }
    drop(mesh);
    close("refused");
}

/// Where the message is when its shard goes.
#[derive(Debug)]
enum Place {
    Queue,
    Ring,
    Outbox,
    ReplyInRing,
    Pending,
}

#[test]
fn large_message_is_dropped_exactly_once_with_its_shard() {
    for place in [Place::Queue, Place::Ring, Place::Outbox, Place::ReplyInRing, Place::Pending] {
        let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config(), &crate::actor::table(), 1);
        let (near, far) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(1, 0));
        let (messages, replies) = match place {
            Place::Queue => {
                mesh.tell_large::<u64>(0, near, Act::Nothing).expect("room");
                mesh.ask_large::<u64>(0, near, Act::Nothing).expect("room");
                (2, 0)
            }
            Place::Ring => {
                mesh.tell_large::<u64>(0, far, Act::Nothing).expect("room");
                mesh.ask_large::<u64>(0, far, Act::Nothing).expect("room");
                mesh.poll(0);
                (2, 0)
            }
            Place::Outbox => {
                for _ in 0..100 {
                    mesh.ask_large::<u64>(0, far, Act::Nothing).expect("room");
                }
                mesh.poll(0);
                (100, 0)
            }
            Place::ReplyInRing => {
                mesh.ask_large::<u64>(0, far, Act::Nothing).expect("room");
                mesh.poll(0);
                mesh.poll(1);
                (0, 1)
            }
            Place::Pending => {
                mesh.ask_large::<u64>(0, far, Act::Panic).expect("room");
                mesh.poll(0);
                mesh.poll(1);
                (0, 0)
            }
        };
        assert_eq!((live("message"), live("reply")), (messages, replies), "{place:?}");
        assert_eq!(book(|book| book.outcomes.len()), 0, "{place:?}");
        drop(mesh);
        close(&format!("{place:?}"));
    }
}
