//! Messages that are looked at where they lie: the handler sees the memory itself, and the memory
//! is kept until the message is gone, whatever becomes of it.
#![expect(unsafe_code, reason = "memory is lent as a receiver does it")]

use std::cell::RefCell;
use std::sync::Arc;

use crate::shards::{HASH, Started, start};
use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::rkyv::{Archive, Deserialize, Serialize};
use coreside_shard::{
    Address, Archived, Body, Cx, Encode, Entity, Handler, Lease, Lender, Life, Message, Now,
    OnFault, Reason, Registration, Registry, Shapes, Shard, ShardConfig, Ticket, Via, View,
    ViewHandler, WireCall, WireError, WireType, look, schema,
};

/// What the reader does when it reads.
const PANIC: u8 = 1;

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = coreside_shard::rkyv)]
struct Note {
    act: u8,
    text: Vec<u8>,
}

impl WireType for Note {
    const SCHEMA: u64 = schema("Note", &[]);

    fn shape(_: &mut Shapes) -> String {
        "Note".to_owned()
    }
}

impl Message for Note {
    type Reply = u64;
}

/// A note that is tried three times.
#[derive(Clone, Archive, Serialize, Deserialize)]
#[rkyv(crate = coreside_shard::rkyv)]
struct Stubborn {
    text: Vec<u8>,
}

impl WireType for Stubborn {
    const SCHEMA: u64 = schema("Stubborn", &[]);

    fn shape(_: &mut Shapes) -> String {
        "Stubborn".to_owned()
    }
}

impl Message for Stubborn {
    type Reply = ();
    const TRIES: u32 = 3;

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

thread_local! {
    /// Where the texts lay that were read, and what they were.
    static READ: RefCell<Vec<(usize, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

struct Reader;

impl Entity for Reader {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "reader";
    const LIFE: Life = Life { on_fault: OnFault::Restart, ..Life::DEFAULT };

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Note>("read").wire_archived::<Note>("read");
        table.message::<Stubborn>("try").wire_archived::<Stubborn>("try");
    }
}

impl ViewHandler<Note> for Reader {
    fn handle_view(&mut self, note: &Archived<Note>, _cx: &mut Cx<'_, Self>) -> u64 {
        assert!(note.act != PANIC, "told to");
        let text = note.text.as_slice();
        READ.with_borrow_mut(|read| read.push((text.as_ptr().addr(), text.to_vec())));
        text.len() as u64
    }
}

impl Handler<Note> for Reader {
    type Answer = u64;

    fn handle(&mut self, note: Note, cx: &mut Cx<'_, Self>) -> u64 {
        look(&note, |seen| ViewHandler::<Note>::handle_view(self, seen, cx))
    }
}

impl ViewHandler<Stubborn> for Reader {
    fn handle_view(&mut self, note: &Archived<Stubborn>, _cx: &mut Cx<'_, Self>) {
        READ.with_borrow_mut(|read| read.push((note.text.as_ptr().addr(), note.text.to_vec())));
        panic!("told to");
    }
}

impl Handler<Stubborn> for Reader {
    type Answer = ();

    fn handle(&mut self, note: Stubborn, cx: &mut Cx<'_, Self>) {
        look(&note, |seen| ViewHandler::<Stubborn>::handle_view(self, seen, cx));
    }
}

/// A receive buffer with one archive in it.
struct Buffer {
    bytes: Arc<AlignedVec<16>>,
}

impl Buffer {
    fn of(message: &impl Encode) -> Self {
        let mut archive = Vec::new();
        message.encode(&mut archive).expect("it fits");
        let mut bytes = AlignedVec::new();
        bytes.extend_from_slice(&archive);
        Self { bytes: Arc::new(bytes) }
    }

    fn body(&self) -> Body<'_> {
        // SAFETY: a lease is a share of the bytes, which never change.
        unsafe { Body::lent(&self.bytes, self) }
    }

    fn leases(&self) -> usize {
        Arc::strong_count(&self.bytes) - 1
    }

    fn holds(&self, at: usize) -> bool {
        let range = self.bytes.as_ptr_range();
        (range.start.addr()..range.end.addr()).contains(&at)
    }
}

impl Lender for Buffer {
    fn lend(&self, _: usize) -> Option<Lease> {
        Some(Lease::of(Arc::clone(&self.bytes)))
    }
}

fn note(len: usize) -> Note {
    Note { act: 0, text: (0..len).map(|at| at as u8).collect() }
}

/// The nodes of these tests keep dead letters only where it is said.
fn world(shards: u16, dead_letters_max: usize) -> Started {
    let mut registry = Registry::new();
    registry.entity::<Reader>();
    let table = registry.build().expect("no name twice");
    let config = ShardConfig { dead_letters_max, ..ShardConfig::new(HASH) };
    READ.take();
    start((shards, 256), &config, &table, Arc::new(|_| ()))
}

fn at_ms(ms: u64) -> Now {
    Now { monotonic_ns: ms * 1_000_000, unix_ms: ms }
}

fn send(
    shard: &mut Shard,
    method: &str,
    key: u64,
    body: Body<'_>,
    call: WireCall,
) -> Result<(), WireError> {
    let row = shard.wire().iter().position(|row| row.name == ("reader", method));
    shard.send_wire(row.expect("it is registered") as u16, [key, 0], body, call)
}

fn tell(shard: &mut Shard, key: u64, buffer: &Buffer) {
    assert_eq!(send(shard, "read", key, buffer.body(), WireCall::Tell), Ok(()));
}

#[test]
fn an_archived_handler_reads_the_memory_itself_which_is_free_behind_the_turn() {
    let mut shard = world(1, 0).shards.remove(0);
    let buffer = Buffer::of(&note(1000));
    let call = WireCall::Ask { deadline_ns: 1_000_000_000, ticket: Ticket([7, 7]) };
    assert_eq!(send(&mut shard, "read", 1, buffer.body(), call), Ok(()));
    assert_eq!(buffer.leases(), 1);
    shard.poll(at_ms(1), &mut ());
    assert_eq!(buffer.leases(), 0);
    let read = READ.take();
    assert_eq!((read.len(), &read[0].1), (1, &note(1000).text));
    assert!(buffer.holds(read[0].0), "nothing was copied");
}

#[test]
fn what_is_not_lent_is_read_from_a_copy_and_what_is_from_within_from_its_archive() {
    let mut shard = world(1, 0).shards.remove(0);
    let buffer = Buffer::of(&note(100));
    let body = Body::new(&buffer.bytes);
    assert_eq!(send(&mut shard, "read", 1, body, WireCall::Tell), Ok(()));
    assert_eq!(buffer.leases(), 0);
    assert!(shard.tell::<Reader, _>(1, note(2000)).is_ok());
    shard.poll(at_ms(1), &mut ());
    let read = READ.take();
    assert_eq!((&read[0].1, &read[1].1), (&note(100).text, &note(2000).text));
    assert!(!buffer.holds(read[0].0));
}

#[test]
fn what_is_no_archive_is_not_sent() {
    let mut shard = world(1, 0).shards.remove(0);
    let buffer = Buffer::of(&note(1000));
    let short = buffer.body().get(16..).expect("it is longer");
    let cases = [short, Body::new(&[]), Body::new(&[0xff; 64])];
    for body in cases {
        let sent = send(&mut shard, "read", 1, body, WireCall::Tell);
        assert_eq!(sent, Err(WireError::Invalid), "{body:?}");
    }
    assert_eq!(buffer.leases(), 0);
    shard.poll(at_ms(1), &mut ());
    assert_eq!(READ.take(), []);
}

#[test]
fn a_view_waits_with_its_lease_for_an_entity_that_restarts() {
    let mut shard = world(1, 0).shards.remove(0);
    let bad = Buffer::of(&Note { act: PANIC, ..note(1000) });
    let good = Buffer::of(&note(1000));
    tell(&mut shard, 1, &bad);
    tell(&mut shard, 1, &good);
    shard.poll(at_ms(1), &mut ());
    assert_eq!((bad.leases(), good.leases()), (0, 1), "one failed, one is in the stash");
    shard.poll(at_ms(60_000), &mut ());
    shard.poll(at_ms(60_000), &mut ());
    assert_eq!((good.leases(), READ.take().len()), (0, 1));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a letter may be looked at by any thread")]
fn a_view_that_is_tried_again_is_the_same_and_a_dead_letter_keeps_it() {
    let mut shard = world(1, 8).shards.remove(0);
    let buffer = Buffer::of(&Stubborn { text: vec![9; 1000] });
    let call = WireCall::Ask { deadline_ns: u64::MAX - 1, ticket: Ticket([0, 0]) };
    assert_eq!(send(&mut shard, "try", 1, buffer.body(), call), Ok(()));
    for minute in 1..10 {
        shard.poll(at_ms(minute * 60_000), &mut ());
    }
    let read = READ.take();
    assert_eq!(read.len(), 3);
    assert!(read.iter().all(|(at, text)| buffer.holds(*at) && *text == [9; 1000]));
    let letter = shard.take_dead_letter(0).expect("it is put aside");
    assert_eq!((letter.reason(), letter.method()), (Reason::Poison, "try"));
    assert_eq!(buffer.leases(), 1);
    drop(shard);
    let view = letter.message::<Reader, View<Stubborn>>().expect("of this type");
    assert_eq!(view.text.as_slice(), [9; 1000]);
    let kept = view.clone();
    let other = std::thread::spawn(move || drop(letter));
    assert!(other.join().is_ok());
    assert_eq!((buffer.leases(), kept.text.len()), (1, 1000));
    drop(kept);
    assert_eq!(buffer.leases(), 0);
}

#[test]
fn what_is_refused_too_late_or_left_behind_gives_its_memory_back() {
    let config =
        ShardConfig { queue_words_max: 4096, dead_letters_max: 0, ..ShardConfig::new(HASH) };
    let mut registry = Registry::new();
    registry.entity::<Reader>();
    let mut shard = Shard::alone(&config, registry.build().expect("a table")).expect("a shard");
    let buffer = Buffer::of(&note(1000));
    let late = WireCall::Ask { deadline_ns: 5, ticket: Ticket([0, 0]) };
    assert_eq!(send(&mut shard, "read", 1, buffer.body(), late), Ok(()));
    assert_eq!(buffer.leases(), 1);
    shard.poll(at_ms(1), &mut ());
    assert_eq!(buffer.leases(), 0, "too late");
    let mut sent = 0;
    while send(&mut shard, "read", sent, buffer.body(), WireCall::Tell).is_ok() {
        sent += 1;
    }
    assert_eq!(buffer.leases(), sent as usize, "the one that was refused has none");
    drop(shard);
    assert_eq!(buffer.leases(), 0);
}

#[test]
fn a_view_goes_to_another_shard_with_its_lease() {
    let Started { mut shards, placement, .. } = world(2, 0);
    let buffer = Buffer::of(&note(1000));
    let there = (0..).find(|key| placement.shard(HASH.hash(*key)) == 1).expect("there is one");
    tell(&mut shards[0], there, &buffer);
    shards[0].poll(at_ms(1), &mut ());
    assert_eq!(buffer.leases(), 1);
    shards[1].poll(at_ms(1), &mut ());
    let read = READ.take();
    assert_eq!((buffer.leases(), read.len()), (0, 1));
    assert!(buffer.holds(read[0].0));
    // One that is under way when both are gone.
    tell(&mut shards[0], there, &buffer);
    shards[0].poll(at_ms(2), &mut ());
    drop(shards);
    assert_eq!(buffer.leases(), 0);
}
