//! `overload`, part three: rings as small as a node takes, all shards asking all others both ways.
//!
//! Two shards whose rings to each other are full must not wait for each other. So peers ask each
//! other, every second ask is only answered when a third peer has answered, and rings and outboxes
//! hold a few records. A watchdog sees that asks go on ending.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coreside::{AskError, Cx, Later, Node, ReplyTo, entity, handlers};

use crate::run::Run;

/// Shards: more than cores on a small machine, so that they also wait for the processor.
const SHARDS: usize = 4;
const PEERS: u64 = 64;
/// Asks that each peer has under way: together more than rings and outboxes hold, an outbox never
/// being smaller than 32 KiB, so that some are refused.
const WINDOW: u64 = 256;
/// The smallest ring holds two records of the greatest length, 29 words of 8 bytes; a node takes
/// no less than 512 bytes.
const RING_BYTES: [usize; 6] = [512, 1024, 2048, 4096, 16 << 10, 64 << 10];
/// Without any ask that ends for so long, there is a deadlock. Longer than an ask may last.
const SILENCE: Duration = Duration::from_secs(10);

/// What a peer answers that got no answer itself.
const NO_REPLY: u64 = u64::MAX;

/// Peers begin no more asks.
static STOP: AtomicBool = AtomicBool::new(false);
/// Asks that have ended, over all shards.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Asks others and is asked by them.
#[entity]
struct Peer {
    random: u64,
    left: u64,
    counts: Counts,
    done: Option<ReplyTo<Counts>>,
}

/// How asks ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    begun: u64,
    answered: u64,
    /// Not sent, as a bound was reached; and tried again.
    refused: u64,
    /// With an error, at the latest at the deadline.
    failed: u64,
    /// With another value than the one that was sent.
    mistaken: u64,
}

impl Counts {
    fn ended(&self) -> u64 {
        self.answered + self.failed + self.mistaken
    }

    fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.mistaken += other.mistaken;
    }
}

#[handlers]
impl Peer {
    /// Asks so often; answers when all asks have ended.
    #[local]
    fn run(&mut self, asks: u64, cx: &mut Cx<Self>) -> Later<Counts> {
        let (later, reply_to) = cx.later();
        (self.left, self.counts, self.done) = (asks, Counts::default(), Some(reply_to));
        self.random = cx.key().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..WINDOW {
            self.next(cx);
        }
        later
    }

    /// Asks again what was refused.
    #[local]
    fn next(&mut self, cx: &mut Cx<Self>) {
        if self.left == 0 || STOP.load(Ordering::Relaxed) {
            return self.end(cx);
        }
        self.left -= 1;
        let (to, value) = (self.pick(), self.counts.begun);
        let then = move |peer: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            ENDED.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(answer) if answer == value => peer.counts.answered += 1,
                Ok(NO_REPLY) | Err(_) => peer.counts.failed += 1,
                Ok(_) => peer.counts.mistaken += 1,
            }
            peer.next(cx);
        };
        self.counts.begun += 1;
        let call = cx.entity::<Self>(to).echo(value, value.is_multiple_of(2));
        // Else it has that of `run`, which is far behind the watchdog's patience.
        if call.within(SILENCE / 2).ask(then).is_err() {
            self.counts.begun -= 1;
            self.counts.refused += 1;
            self.left += 1;
            // Later: what waits in this shard's own queue goes first.
            let told = cx.entity::<Self>(cx.key()).next().try_tell();
            assert!(told.is_ok(), "the run queue holds all that is under way");
        }
    }

    /// Answers with the value: at once, or when a third peer has.
    #[local]
    fn echo(&mut self, value: u64, through: bool, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        if !through {
            cx.reply(reply_to, value);
            return later;
        }
        let to = self.pick();
        let then = move |_: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            cx.reply(reply_to, answer.unwrap_or(NO_REPLY));
        };
        if let Err(refused) = cx.entity::<Self>(to).echo(value, false).ask(then) {
            (refused.then)(self, Ok(value), cx);
        }
        later
    }

    #[skip]
    fn end(&mut self, cx: &mut Cx<Self>) {
        if self.counts.ended() == self.counts.begun
            && let Some(done) = self.done.take()
        {
            cx.reply(done, self.counts);
        }
    }

    #[skip]
    fn pick(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) * PEERS) >> 32
    }
}

pub(crate) fn run(sizes: &[usize], asks: u64, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let sizes = if sizes.is_empty() { &RING_BYTES } else { sizes };
    run.report.title(&format!("overload: {SHARDS} shards that ask each other through small rings"));
    for bytes in sizes {
        if run.is_interrupted() {
            break;
        }
        sweep(*bytes, asks / PEERS, run)?;
    }
    Ok(())
}

/// One size of the rings, and of the outboxes before them.
fn sweep(ring_bytes: usize, asks_each: u64, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let node = Node::builder()
        .shards(SHARDS)
        .ring_bytes(ring_bytes)
        .outbox_bytes_max(ring_bytes)
        // Of asks from turns that nobody waits for.
        .ask_timeout(SILENCE / 2)
        .on_stall(|_| ())
        .entity::<Peer>()
        .start()?;
    let part = format!("rings of {ring_bytes} bytes");
    run.show(part.clone());
    let (begin, before) = (Instant::now(), ENDED.load(Ordering::Relaxed));
    let start = |key| {
        let node = node.handle();
        // The threads sleep until all is over.
        let wait = move || node.entity::<Peer>(key).run(asks_each).within(SILENCE * 100).wait();
        std::thread::spawn(wait)
    };
    let threads: Vec<_> = (0..PEERS).map(start).collect();
    let (mut last, mut since) = (before, Instant::now());
    let alive = run.until(SILENCE * 100, || {
        STOP.store(run.is_interrupted(), Ordering::Relaxed);
        let ended = ENDED.load(Ordering::Relaxed);
        if ended != last {
            (last, since) = (ended, Instant::now());
        }
        since.elapsed() > SILENCE || threads.iter().all(|thread| thread.is_finished())
    }) && since.elapsed() <= SILENCE;
    let seconds = begin.elapsed().as_secs_f64();
    run.hide();
    run.report.check(&format!("{part}: no deadlock"), alive, &format!("{seconds:.2} s"));
    if !alive {
        // Its shards may not end either; the other sizes tell no more.
        std::mem::forget(node);
        return Err(format!("{part}: no ask has ended for {} s", SILENCE.as_secs()).into());
    }
    let mut sum = Counts::default();
    for thread in threads {
        sum.merge(&thread.join().map_err(|_| "a waiting thread has panicked")??);
    }
    run.report.row(&part, "asks/s", &[sum.ended() as f64 / seconds]);
    run.report.row(&format!("{part}: refused"), "asks", &[sum.refused as f64]);
    let begun = if run.is_interrupted() { sum.begun } else { asks_each * PEERS };
    run.report.check_equal(&format!("{part}: asks end"), sum.ended(), begun);
    run.report.row(&format!("{part}: ended by deadline"), "asks", &[sum.failed as f64]);
    run.report.check_equal(&format!("{part}: answers to another ask"), sum.mistaken, 0);
    Ok(())
}
