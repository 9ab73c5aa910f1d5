//! Types in two versions: what the macros make of the version before, beside the same by hand.

use coreside::rkyv::Archive;
use coreside::rkyv::util::AlignedVec;
use coreside::{Archived, Cx, Evolve, Previous, Unconvertible, WireType, entity, handlers, wire};
use coreside_shard::{Decode, Encode};

use crate::random::Random;

/// The types as they were, written by hand.
mod was {
    use coreside::wire;

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        pub item: u64,
        pub r#type: Option<String>,
    }

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Pair(pub u8, pub Order);

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Mark;

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub enum Event {
        Nothing,
        Placed(Order, Pair),
        Moved { orders: Vec<Order>, marks: [Mark; 2], at: (u8, Result<Order, Pair>) },
    }

    #[wire(message)]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Note {
        pub events: Vec<Event>,
        pub text: String,
    }
}

#[wire(version = 2)]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    #[wire(since = 2, default = u32::MAX)]
    count: u32,
    item: u64,
    r#type: Option<String>,
    #[wire(since = 2)]
    tags: Vec<String>,
}

#[wire(version = 4)]
#[derive(Clone, Debug, PartialEq)]
struct Pair(#[wire(since = 4)] i8, u8, #[wire(since = 4)] bool, Order);

#[wire(version = 2)]
#[derive(Clone, Debug, PartialEq)]
struct Mark;

#[wire(version = 2)]
#[derive(Clone, Debug, PartialEq)]
enum Event {
    #[wire(since = 2, instead = Nothing)]
    Paused(u8),
    Nothing,
    Placed(Order, Pair),
    Moved {
        orders: Vec<Order>,
        marks: [Mark; 2],
        at: (u8, Result<Order, Pair>),
    },
    #[wire(since = 2)]
    Stopped {
        why: String,
    },
}

#[entity]
struct Diary {}

#[handlers]
impl Diary {
    const EMPHASIS: u8 = 3;

    #[local]
    #[wire(version = 2)]
    fn note(
        &mut self,
        #[wire(since = 2, default = Self::EMPHASIS)] _emphasis: u8,
        events: Vec<Event>,
        text: String,
    ) -> Vec<Event> {
        drop(text);
        events
    }
}

fn order_was(random: &mut Random) -> was::Order {
    let name = (random.below(2) == 0).then(|| "a name".repeat(random.below(4)));
    was::Order { item: random.below(1000) as u64, r#type: name }
}

fn event_was(random: &mut Random) -> was::Event {
    let pair = |random: &mut Random| was::Pair(random.below(256) as u8, order_was(random));
    match random.below(4) {
        0 => was::Event::Nothing,
        1 => was::Event::Placed(order_was(random), pair(random)),
        kind => was::Event::Moved {
            orders: (0..random.below(4)).map(|_| order_was(random)).collect(),
            marks: [was::Mark, was::Mark],
            at: (7, if kind == 2 { Ok(order_was(random)) } else { Err(pair(random)) }),
        },
    }
}

fn note_was(random: &mut Random) -> was::Note {
    let events = (0..random.below(5)).map(|_| event_was(random)).collect();
    was::Note { events, text: "text".repeat(random.below(5)) }
}

/// What a hand would write.
fn order(was: was::Order) -> Order {
    Order { count: u32::MAX, item: was.item, r#type: was.r#type, tags: Vec::new() }
}

fn pair(was: was::Pair) -> Pair {
    Pair(0, was.0, false, order(was.1))
}

fn event(was: was::Event) -> Event {
    match was {
        was::Event::Nothing => Event::Nothing,
        was::Event::Placed(one, other) => Event::Placed(order(one), pair(other)),
        was::Event::Moved { orders, marks: _, at } => Event::Moved {
            orders: orders.into_iter().map(order).collect(),
            marks: [Mark, Mark],
            at: (at.0, at.1.map(order).map_err(pair)),
        },
    }
}

fn archive(value: &impl Encode) -> AlignedVec<16> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes).expect("small");
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(&bytes);
    aligned
}

#[test]
fn version_before_has_the_schema_that_was_released() {
    assert_eq!(<Order as Evolve>::Before::SCHEMA, was::Order::SCHEMA);
    assert_eq!(<Pair as Evolve>::Before::SCHEMA, was::Pair::SCHEMA);
    assert_eq!(<Mark as Evolve>::Before::SCHEMA, was::Mark::SCHEMA);
    assert_eq!(<Event as Evolve>::Before::SCHEMA, was::Event::SCHEMA);
    assert_eq!(DiaryNoteV1::SCHEMA, was::Note::SCHEMA);
    assert_ne!(DiaryNoteV1::SCHEMA, DiaryNote::SCHEMA);
    assert_eq!((DiaryNoteV1::VERSION, DiaryNote::VERSION, PairV3::VERSION), (1, 2, 3));
}

#[test]
fn conversion_that_is_made_equals_the_one_by_hand() {
    for seed in 0..500 {
        let random = &mut Random::new(seed);
        let was = note_was(random);
        let body = archive(&was);
        let before = DiaryNoteV1::decode(&body).expect("the same archive");
        let DiaryNote { _emphasis: emphasis, events, text } = before.upgrade().expect("all of it");
        assert_eq!((emphasis, &text), (Diary::EMPHASIS, &was.text), "seed {seed}");
        let by_hand: Vec<_> = was.events.iter().cloned().map(event).collect();
        assert_eq!(events, by_hand, "seed {seed}");
        // And the way down is the way back.
        let reply = <DiaryNoteV1 as Previous<DiaryNote>>::downgrade(events).expect("all of it");
        assert_eq!(archive(&reply)[..], archive(&was.events)[..], "seed {seed}");
    }
}

#[test]
fn reply_is_downgraded_whole_or_not_at_all() {
    let down = <DiaryNoteV1 as Previous<DiaryNote>>::downgrade;
    let paused = archive(&down(vec![Event::Paused(1)]).expect("instead"));
    assert_eq!(paused[..], archive(&vec![was::Event::Nothing])[..]);
    let stopped = Event::Stopped { why: "enough".to_owned() };
    assert!(matches!(down(vec![Event::Nothing, stopped]), Err(Unconvertible)));
}

/// An archive of the version before with some of its bytes changed or missing.
fn damaged(random: &mut Random) -> AlignedVec<16> {
    let mut body = archive(&note_was(random));
    for _ in 0..1 + random.below(4) {
        let at = random.below(body.len());
        match random.below(4) {
            0 => body[at] ^= 1 << random.below(8),
            1 => body[at] = random.below(256) as u8,
            2 => body[at] = [0, 1, 0x7f, 0xff][random.below(4)],
            _ => body.resize(body.len() - random.below(body.len().min(17)), 0),
        }
    }
    body
}

#[test]
fn damaged_archive_of_the_version_before_is_refused_or_read_and_never_panics() {
    let (mut read, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let body = damaged(&mut Random::new(seed));
        let there_and_back = || match DiaryNoteV1::decode(&body) {
            Ok(before) => {
                let DiaryNote { events, .. } = before.upgrade().expect("all has a counterpart");
                <DiaryNoteV1 as Previous<DiaryNote>>::downgrade(events).expect("so it has there");
                true
            }
            Err(_) => false,
        };
        match std::panic::catch_unwind(there_and_back) {
            Ok(true) => read += 1,
            Ok(false) => refused += 1,
            Err(_) => panic!("seed {seed}"),
        }
    }
    assert!(read > 1000 && refused > 1000, "both ways are taken: {read}, {refused}");
}

/// A field that is named like a kind of type is not taken for a type of that kind.
#[test]
fn other_layouts_have_other_schemas() {
    #[wire]
    struct Named {
        option: u64,
    }
    #[wire]
    struct Unnamed(Option<u64>);
    #[wire]
    enum Either {
        One { list: u8 },
    }
    #[wire]
    enum Other {
        One(Vec<u8>),
    }
    assert_ne!(
        size_of::<<Named as Archive>::Archived>(),
        size_of::<<Unnamed as Archive>::Archived>()
    );
    assert_ne!(Named::SCHEMA, Unnamed::SCHEMA);
    assert_ne!(Either::SCHEMA, Other::SCHEMA);
}

/// Variants may have the names that the traits of the wire give to types.
#[wire(version = 2)]
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Before,
    Error(u8),
    #[wire(since = 2, instead = Before)]
    Reply,
}

#[wire]
#[derive(Clone, Debug, PartialEq)]
enum Era {
    Before,
    Archived,
    Resolver,
}

/// So may those of an entity.
#[entity(activate = Stage::begin)]
enum Stage {
    Answer,
}

#[handlers]
impl Stage {
    fn begin(_key: u64, _cx: &mut Cx<Self>) -> Self {
        Self::Answer
    }

    #[local]
    #[wire]
    fn count(&mut self, phase: Phase) -> u64 {
        u64::from(matches!((self, phase), (Self::Answer, Phase::Error(_))))
    }

    #[read]
    #[local]
    #[wire]
    #[archived]
    fn see(&self, phase: &Archived<Phase>) -> bool {
        matches!((self, phase), (Self::Answer, ArchivedPhase::Error(_)))
    }
}

#[test]
fn variants_may_be_named_like_what_the_traits_have() {
    assert!(matches!(Phase::Reply.into_before(), Ok(PhaseV1::Before)));
    assert_eq!(Phase::from_before(PhaseV1::Error(7)), Ok(Phase::Error(7)));
    assert_eq!(Era::Before.into_before(), Ok(Era::Before));
}
