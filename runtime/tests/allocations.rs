//! Messages between shards cost no heap allocation: counted by an allocator of our own, over the
//! whole process, while a node runs.
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreside::{AskError, Cx, Idle, Later, Node, ReplyTo, entity, handlers};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator; the count is an atomic of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(at, layout) };
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Keys that messages go round, on both shards.
const KEYS: u64 = 97;

#[entity]
struct Runner {
    turns: u64,
    start: Option<ReplyTo<u64>>,
    left: u64,
}

#[handlers]
impl Runner {
    /// Runs so many asks of other entities, one after the other; answers how many went well.
    fn run(&mut self, asks: u64, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        (self.start, self.left, self.turns) = (Some(reply_to), asks, 0);
        self.next(cx);
        later
    }

    /// Each ask is a tell, an ask, and their replies, between random places.
    fn touch(&mut self, by: u64, cx: &mut Cx<Self>) -> u64 {
        self.turns += 1;
        let other = (cx.key() * 31 + by) % KEYS;
        if by > 0 {
            let sent = cx.entity::<Runner>(other).touch(0).try_tell();
            assert!(sent.is_ok(), "room");
        }
        by
    }

    #[skip]
    fn next(&mut self, cx: &mut Cx<Self>) {
        if self.left == 0 {
            if let Some(reply_to) = self.start.take() {
                cx.reply(reply_to, self.turns);
            }
            return;
        }
        let by = self.left;
        self.left -= 1;
        let then = |runner: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            runner.turns += u64::from(answer.is_ok());
            runner.next(cx);
        };
        let to = by * 7 % KEYS;
        let to = if to == cx.key() { to + 1 } else { to };
        assert!(cx.entity::<Runner>(to).touch(by).ask(then).is_ok(), "room");
    }
}

/// Entities that run at once, so that each time a shard gets its core there is much to do.
const RUNNERS: u64 = 50;

#[test]
fn no_allocation_across_shards_per_message() {
    let node = Node::builder().entity::<Runner>().shards(2).idle(Idle::Spin);
    let node = node.ask_timeout(Duration::from_secs(60)).start().expect("the node starts");
    let run = |asks| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut runs: Vec<_> =
            (0..RUNNERS).map(|key| node.entity::<Runner>(1_000 + key).run(asks)).collect();
        futures_lite::future::block_on(async {
            // The first poll of each sends it.
            let mut answers = vec![];
            for run in &mut runs {
                answers.push(futures_lite::future::poll_once(run).await);
            }
            for (run, answer) in runs.into_iter().zip(answers) {
                let answer = match answer {
                    Some(answer) => answer,
                    None => run.await,
                };
                assert!(answer.is_ok_and(|turns| turns >= asks));
            }
        });
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    run(40);
    let (few, many) = (run(4), run(400));
    // Starting takes as many either way; executors and wakers may take some now and then.
    assert!(many < few + 1_000, "{few} allocations for 200 asks and tells, {many} for 20,000");
}
