//! `wire/ask`: requests of 64 bytes that lie in receive buffers, answered into what is sent; no
//! sockets. Ours is the native session and its shard; the limit parses the same frames, finds the
//! entity, counts in its state and writes the reply, in one loop.

use coreside_macros::wire;
use coreside_net::native::frame::{HEADER_BYTES, Header, KEY_BYTES, Kind, VERSION};
use coreside_net::native::{Hello, Limits, Sessions};
use coreside_net::sessions::SessionId;
use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Address, Cx, Encode, Entity, Handler, Message, Registration, Shard, Via};

use crate::bench_entity::{alone_with, settle};
use crate::limits::Flat;
use crate::machine;
use crate::measure::{Effort, Random, Row, millions_per_second};

const ENTITIES: u64 = 1000;
const SESSIONS: usize = 16;
/// Requests in each receive buffer.
const DEPTH: usize = 64;
const BODY_BYTES: usize = 64;
const ASK_BYTES: usize = HEADER_BYTES + KEY_BYTES + BODY_BYTES;

/// Counts what it echoes.
struct Desk {
    trades: u64,
}

/// A flat message of 64 bytes.
#[wire(crate = coreside_shard)]
struct Trade {
    id: u64,
    words: [u64; 7],
}

impl Message for Trade {
    type Reply = Self;
}

impl Entity for Desk {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Desk";

    #[inline]
    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self { trades: 0 }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Trade>("echo").wire::<Trade>("echo");
    }
}

impl Handler<Trade> for Desk {
    type Answer = Trade;

    #[inline(always)]
    fn handle(&mut self, trade: Trade, _cx: &mut Cx<'_, Self>) -> Trade {
        self.trades += 1;
        trade
    }
}

/// Sessions that have shaken hands, and their shard.
struct Ours {
    shard: Shard,
    sessions: Sessions,
    ids: Vec<SessionId>,
}

/// Requests answered per second.
pub(crate) fn ask(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let count = effort.scaled(10_000_000);
    let buffers = requests();
    let mut ours = Ours::new();
    let mut limit = Flat::new(ENTITIES);
    let mut outputs: Vec<Vec<u8>> = (0..SESSIONS).map(|_| Vec::new()).collect();
    effort.compare(
        "M/s",
        || millions_per_second(|| ours.run(&buffers, count)),
        || millions_per_second(|| run_limit(&mut limit, &buffers, &mut outputs, count)),
    )
}

/// What the kernel would have put into the receive buffers.
fn requests() -> Vec<AlignedVec<16>> {
    let mut random = Random::new();
    let mut call = 0;
    let mut buffer = || {
        let mut bytes = Vec::new();
        for _ in 0..DEPTH {
            let header = Header { call, ..Header::new(Kind::Ask) };
            call += 1;
            let trade = Trade { id: u64::from(call), words: [u64::from(call); 7] };
            let written = header.write_with(&mut bytes, |out| {
                out.extend_from_slice(&u128::from(random.below(ENTITIES)).to_le_bytes());
                trade.encode(out)
            });
            assert_eq!(written, Ok(()), "the benchmark's own message");
        }
        let mut aligned = AlignedVec::new();
        aligned.extend_from_slice(&bytes);
        aligned
    };
    (0..SESSIONS).map(|_| buffer()).collect()
}

impl Ours {
    fn new() -> Self {
        let mut shard = alone_with::<Desk>();
        let mut sessions = Sessions::new(Limits::default());
        let messages = shard.wire().iter().map(|row| (row.id, row.schema)).collect();
        let mut hello = Vec::new();
        Hello { versions: (VERSION, VERSION), shard: None, cluster: 0, messages }.write(&mut hello);
        let mut ids = Vec::new();
        for _ in 0..SESSIONS {
            let Some(id) = sessions.open(None) else { panic!("few sessions") };
            sessions.receive(id, &hello, &mut shard);
            ids.push(id);
        }
        settle(&mut shard, 1);
        Self { shard, sessions, ids }
    }

    fn run(&mut self, buffers: &[AlignedVec<16>], count: u64) -> u64 {
        let before = self.sessions.stats().requests;
        while self.sessions.stats().requests - before < count {
            for (id, buffer) in self.ids.iter().zip(buffers) {
                self.sessions.receive(*id, buffer, &mut self.shard);
            }
            self.shard.poll(Default::default(), &mut self.sessions);
            while let Some(id) = self.sessions.next_dirty() {
                if let Some(bytes) = self.sessions.begin_send(id) {
                    let len = bytes.len();
                    self.sessions.end_send(id, len);
                }
            }
        }
        assert_eq!(self.sessions.owed_count(), 0, "a poll answers all of them");
        self.sessions.stats().requests - before
    }
}

fn run_limit(
    flat: &mut Flat,
    buffers: &[AlignedVec<16>],
    outputs: &mut [Vec<u8>],
    count: u64,
) -> u64 {
    let mut done = 0;
    while done < count {
        for (buffer, output) in buffers.iter().zip(outputs.iter_mut()) {
            output.clear();
            for frame in buffer.as_chunks::<ASK_BYTES>().0 {
                let Ok(Some(header)) = Header::read(frame, 4096) else { panic!("our own frame") };
                let content = &frame[HEADER_BYTES..header.length as usize];
                let Some((key, body)) = content.split_first_chunk::<8>() else { return done };
                if let Some(slot) = flat.index.find(u64::from_le_bytes(*key)) {
                    flat.states[slot as usize].turns += 1;
                }
                let reply = Header {
                    length: (HEADER_BYTES + BODY_BYTES) as u32,
                    call: header.call,
                    ..Header::new(Kind::Reply)
                };
                output.extend_from_slice(&reply.to_bytes());
                output.extend_from_slice(&body[KEY_BYTES - 8..]);
                done += 1;
            }
        }
    }
    done
}
