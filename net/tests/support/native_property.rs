//! What holds for any bytes that a native session is given.

use coreside_net::native::frame::{Header, Kind};
use coreside_net::native::{Hello, Intake, Limits, Sessions};
use coreside_net::sessions::{Deadlines, SessionId};
use coreside_shard::{AskError, Body, KeyWords, Outside, Ticket, WireCall, WireError, WireRow};

use crate::random::Random;

/// A shard of functions: what it does depends on the message alone.
#[derive(Default)]
struct Fake {
    rows: Vec<WireRow>,
    /// Every message that was taken: number, key, body, and the time that an ask has.
    seen: Vec<(u16, KeyWords, Vec<u8>, Option<u64>)>,
    waiting: Vec<(Ticket, u64)>,
}

impl Intake for Fake {
    fn messages(&self) -> &[WireRow] {
        &self.rows
    }

    fn send(
        &mut self,
        number: u16,
        key: KeyWords,
        body: Body<'_>,
        call: WireCall,
    ) -> Result<(), WireError> {
        if usize::from(number) >= self.rows.len() {
            return Err(WireError::Unknown);
        }
        let body = body.bytes();
        assert!(body.as_ptr().addr().is_multiple_of(16), "archives are aligned");
        match key[0] % 16 {
            14 => return Err(WireError::Invalid),
            15 if matches!(call, WireCall::Ask { .. }) => return Err(WireError::Full),
            _ => {}
        }
        let time = match call {
            WireCall::Tell => None,
            WireCall::TellNoted { ticket, .. } => {
                self.waiting.push((ticket, key[0]));
                None
            }
            WireCall::Ask { deadline_ns, ticket } => {
                self.waiting.push((ticket, key[0]));
                Some(deadline_ns)
            }
        };
        self.seen.push((number, key, body.to_vec(), time));
        Ok(())
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn deadline_ns(&self, time_us: u32) -> u64 {
        u64::from(time_us)
    }
}

const LIMITS: Limits = Limits {
    frame_bytes_max: 4096,
    messages_max: 8,
    calls_max: 4,
    // More than any input has: whether a burst goes beyond a bound is a question of time.
    tells_max: 10_000,
    entity_messages_max: 4,
    message_bytes_pause: 6 << 10,
    message_bytes_total_max: 8 << 10,
    input_bytes_pause: 8192,
    input_bytes_total_max: 32 << 10,
    output_bytes_pause: 16 << 10,
    output_bytes_max: 64 << 10,
    output_bytes_total_max: 24 << 10,
    connections_max: 2,
    connections_per_address_max: 2,
    deadlines: Deadlines::NONE,
};

/// One connection over a fake shard.
struct Line {
    sessions: Sessions,
    id: SessionId,
    fake: Fake,
    output: Vec<u8>,
}

impl Line {
    fn new(rows: &[WireRow]) -> Self {
        let mut sessions = Sessions::new(LIMITS);
        let id = sessions.open(None).expect("the first one");
        let fake = Fake { rows: rows.to_vec(), ..Fake::default() };
        Self { sessions, id, fake, output: Vec::new() }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.sessions.receive(self.id, bytes, &mut self.fake);
        self.settle();
    }

    /// Answers, sends and resumes until nothing moves.
    fn settle(&mut self) {
        loop {
            let waiting = std::mem::take(&mut self.fake.waiting);
            let answered = !waiting.is_empty();
            for (ticket, key) in waiting {
                match key % 4 {
                    3 => self.sessions.answer_wire(ticket, Err(AskError::Failed)),
                    rest => {
                        let reply = vec![rest as u8; (key % 5000) as usize];
                        self.sessions.answer_wire(ticket, Ok(&reply));
                    }
                }
            }
            let mut sent = false;
            if let Some(bytes) = self.sessions.begin_send(self.id) {
                let len = bytes.len();
                self.output.extend_from_slice(bytes);
                sent = true;
                self.sessions.end_send(self.id, len);
            }
            let resumed = self.sessions.resume(&mut self.fake);
            if !answered && !sent && resumed == 0 {
                return;
            }
        }
    }
}

/// Any bytes, cut anywhere, mean the same, harm nothing, and get well-formed frames.
pub(crate) fn check(rows: &[WireRow], bytes: &[u8]) {
    let mut whole = Line::new(rows);
    whole.receive(bytes);
    let mut cut = Line::new(rows);
    let mut random =
        Random::new(bytes.iter().fold(1, |sum: u64, byte| sum.wrapping_mul(31) ^ u64::from(*byte)));
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(1 + random.below(rest.len().min(100)));
        // At any alignment, as behind a frame that the network cut.
        let mut moved = vec![0; random.below(16)];
        let at = moved.len();
        moved.extend_from_slice(piece);
        cut.receive(&moved[at..]);
        rest = behind;
    }
    assert_eq!(whole.fake.seen, cut.fake.seen, "cut elsewhere, it means something else");
    // An answer may overtake what a session says by itself; the frames are the same.
    let [(frames, credit), (of_cut, credit_of_cut)] =
        [&whole, &cut].map(|line| frames(&line.output));
    assert_eq!(frames, of_cut, "it is answered otherwise");
    let tells = whole.fake.seen.iter().filter(|(.., time)| time.is_none()).count();
    for (line, credit) in [(&mut whole, credit), (&mut cut, credit_of_cut)] {
        let untold = tells - credit as usize;
        assert!(untold < LIMITS.entity_messages_max as usize, "{untold} tells bring no credit");
        assert!(line.sessions.unparsed_bytes() <= LIMITS.frame_bytes_max as usize + bytes.len());
        assert_eq!(line.sessions.owed_count(), 0, "every ask was answered");
        line.sessions.close(line.id);
        assert_eq!((line.sessions.unparsed_bytes(), line.sessions.open_count()), (0, 0));
        assert_eq!((line.sessions.output_bytes(), line.sessions.message_bytes()), (0, 0));
    }
}

/// The frames of an output, sorted, and the sum of all credit, which comes in any portions. It
/// begins with the welcome if there is more than a goodbye.
fn frames(mut output: &[u8]) -> (Vec<&[u8]>, u32) {
    let (mut frames, mut credit) = (Vec::new(), 0);
    let (mut greeted, mut left) = (false, false);
    while !output.is_empty() {
        let header = Header::read(output, LIMITS.frame_bytes_max).expect("a frame").expect("whole");
        match header.kind {
            Kind::Welcome => assert!(!std::mem::replace(&mut greeted, true), "one welcome"),
            Kind::Reply | Kind::Error => assert!(greeted, "first the handshake"),
            Kind::Pong => assert!(greeted && !left, "a connection that ends takes no more"),
            Kind::Credit => {
                assert!(greeted, "first the handshake");
                let pairs = output[16..header.length as usize].as_chunks::<8>().0;
                credit += pairs.iter().map(|pair| u32::from(pair[4])).sum::<u32>();
                output = &output[header.padded()..];
                continue;
            }
            Kind::GoAway => assert!(!std::mem::replace(&mut left, true), "one goodbye"),
            other => panic!("a node sends no {other:?}"),
        }
        let (frame, rest) = output.split_at(header.padded());
        frames.push(frame);
        output = rest;
    }
    frames.sort_unstable();
    (frames, credit)
}

/// Inputs that go some way: a handshake, and frames behind it.
pub(crate) fn seeds(rows: &[WireRow]) -> Vec<Vec<u8>> {
    let messages: Vec<_> = rows.iter().map(|row| (row.id, row.schema)).collect();
    let hello = Hello { versions: (1, 1), shard: None, cluster: 0, messages };
    let mut seeds = Vec::new();
    for count in 0..6u32 {
        let mut out = Vec::new();
        hello.write(&mut out);
        for call in 0..count * 3 {
            let kind = [Kind::Ask, Kind::Tell, Kind::Ping, Kind::Ask][(call % 4) as usize];
            let message = (call % 3) as u16;
            let header = Header { message, call, time_us: call * 7, ..Header::new(kind) };
            let written = header.write_with(&mut out, |out| {
                if kind != Kind::Ping {
                    out.extend_from_slice(&u128::from(call * 37).to_le_bytes());
                    out.extend(std::iter::repeat_n(call as u8, (call * 13 % 300) as usize));
                }
                Ok::<(), ()>(())
            });
            assert_eq!(written, Ok(()));
        }
        if count % 2 == 1 {
            Header::new(Kind::GoAway).write(&mut out);
        }
        seeds.push(out);
    }
    seeds
}

/// Three messages, as a table has them.
pub(crate) fn rows() -> Vec<WireRow> {
    use coreside_macros::{entity, handlers};

    #[entity(crate = coreside_shard)]
    struct Echo;

    #[handlers(crate = coreside_shard)]
    impl Echo {
        #[local]
        #[wire]
        fn one(&self, bytes: Vec<u8>) -> Vec<u8> {
            bytes
        }

        #[local]
        #[wire]
        fn two(&self) {}

        #[local]
        #[wire]
        fn three(&self, word: u64) -> u64 {
            word
        }
    }

    let mut registry = coreside_shard::Registry::new();
    registry.entity::<Echo>();
    registry.build().expect("no name twice").wire().to_vec()
}
