//! How many asks a [`Client`] gets answered on one connection, a shard and its net on a thread of
//! this program: `cargo bench -p coreside-net --bench client` (add `-- 2` for two seconds per line,
//! and words to see only lines with them). Threads share the cores of the machine, so a rate is
//! that of all of them together; the second figure is what a message costs the client's own
//! threads, which other programs on the machine change less.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use coreside_macros::{entity, handlers};
use coreside_net::client::Client;
use coreside_net::{Listeners, Net, NetConfig, listen};
use coreside_shard::{HashKey, Now, Registry, Shard, ShardConfig};

#[entity(crate = coreside_shard)]
#[derive(Default)]
struct Desk {
    trades: u64,
}

#[handlers(crate = coreside_shard)]
impl Desk {
    #[local]
    #[wire]
    fn echo(&mut self, words: [u64; 8]) -> [u64; 8] {
        self.trades += 1;
        words
    }

    #[local]
    #[wire]
    fn note(&mut self, words: [u64; 8]) {
        self.trades += words[0];
    }

    #[local]
    #[wire]
    fn trades(&self) -> u64 {
        self.trades
    }
}

const WORDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Entities that are asked, in turn.
const ENTITIES: u64 = 1000;

fn main() {
    // Cargo passes `--bench`; a run by hand may pass seconds. By default it is quick, for CI.
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(0.2);
    let length = Duration::from_secs_f64(seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let (address, node) = serve(&stop);
    let client = Client::builder().entity::<Desk>().any_shard().connect(address);
    let client = client.expect("the node is there");
    for threads in [1, 4] {
        show("asks, each waited for", threads, 1, length, |end| waits(&client, end));
    }
    for (threads, depth) in [(1, 1), (1, 8), (1, 64), (1, 512), (4, 64)] {
        let tasks = |end| tasks(&client, depth, end);
        show("asks, each in a task", threads, depth, length, tasks);
    }
    for (threads, depth) in [(1, 64), (4, 64)] {
        let joined = |end| joined(&client, depth, end);
        show("asks, joined by one task", threads, depth, length, joined);
    }
    show("tells", 1, 1, length, |end| tells(&client, end));
    drop(client);
    stop.store(true, Ordering::SeqCst);
    node.join().expect("the node does not panic");
}

/// Runs `work` on so many threads, and prints how much they did together.
fn show(
    name: &str,
    threads: usize,
    depth: u64,
    length: Duration,
    work: impl Fn(Instant) -> u64 + Sync,
) {
    let name = format!("{name:26} {threads} threads, depth {depth:3}");
    let is_wanted =
        |word: String| word.starts_with('-') || word.parse::<f64>().is_ok() || name.contains(&word);
    if !std::env::args().skip(1).all(is_wanted) {
        return;
    }
    let (start, sum, busy_ns) = (Instant::now(), AtomicU64::new(0), busy_ns());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| sum.fetch_add(work(start + length), Ordering::Relaxed));
        }
    });
    let (count, time) = (sum.into_inner().max(1) as f64, start.elapsed());
    let busy_ns = self::busy_ns().saturating_sub(busy_ns) as f64;
    println!("{name}: {:8.1} k/s {:7.0} ns", count / time.as_secs_f64() / 1e3, busy_ns / count);
}

/// The number of the node's thread.
static NODE: AtomicU64 = AtomicU64::new(0);

/// Time on a core that all threads had except the node's, in steps of 10 ms.
fn busy_ns() -> u64 {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat".to_owned());
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let words = behind_name.split_whitespace().skip(11).take(2);
    let all = words.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>() * 10_000_000;
    let node = read(format!("/proc/self/task/{}/schedstat", NODE.load(Ordering::SeqCst)));
    let node = node.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    all.saturating_sub(node)
}

fn waits(client: &Client, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        let reply = client.entity::<Desk>(count % ENTITIES).echo(WORDS).wait();
        assert_eq!(reply, Ok(WORDS));
        count += 1;
    }
    count
}

/// One task per request that may be outstanding.
fn tasks(client: &Client, depth: u64, end: Instant) -> u64 {
    let count = AtomicU64::new(0);
    let task = |first: u64| {
        let count = &count;
        async move {
            let mut key = first;
            while Instant::now() < end {
                let reply = client.entity::<Desk>(key % ENTITIES).echo(WORDS).await;
                assert_eq!(reply, Ok(WORDS));
                key += depth;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    Executor::run((0..depth).map(task).collect());
    count.into_inner()
}

/// Asks in bundles, and polls all of a bundle whenever one is answered, as simple joins do.
fn joined(client: &Client, depth: u64, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        let ask = |key| Some(client.entity::<Desk>((count + key) % ENTITIES).echo(WORDS));
        let mut asks: Vec<_> = (0..depth).map(ask).collect();
        let all = std::future::poll_fn(|cx| {
            let mut waits = false;
            for place in &mut asks {
                let Some(ask) = place else { continue };
                match pin!(ask).poll(cx) {
                    Poll::Ready(reply) => {
                        assert_eq!(reply, Ok(WORDS));
                        *place = None;
                    }
                    Poll::Pending => waits = true,
                }
            }
            if waits { Poll::Pending } else { Poll::Ready(()) }
        });
        Executor::run(vec![all]);
        count += depth;
    }
    count
}

/// Tells until the client says that too much waits, and sees that all of them arrive.
fn tells(client: &Client, end: Instant) -> u64 {
    let sum = || -> u64 {
        let trades = |key| client.entity::<Desk>(key).trades();
        (0..ENTITIES)
            .filter_map(|key| trades(key).within(Duration::from_secs(60)).wait().ok())
            .sum()
    };
    let (before, mut count) = (sum(), 0);
    while Instant::now() < end {
        for _ in 0..64 {
            match client.entity::<Desk>(count % ENTITIES).note(WORDS).try_tell() {
                Ok(()) => count += 1,
                Err(_) => thread::yield_now(),
            }
        }
    }
    assert_eq!(sum() - before, count, "every tell arrives");
    count
}

/// A shard with its net, on a thread of its own.
fn serve(stop: &Arc<AtomicBool>) -> (SocketAddr, thread::JoinHandle<()>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen(any, 1).expect("a free port").pop().expect("one was asked for");
    let address = listener.local_addr().expect("it is bound");
    let stop = Arc::clone(stop);
    let thread = thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        let own = own.file_name().and_then(|name| name.to_str()?.parse().ok());
        NODE.store(own.unwrap_or(0), Ordering::SeqCst);
        let mut registry = Registry::new();
        registry.entity::<Desk>();
        let table = registry.build().expect("no names twice");
        let mut shard = Shard::alone(&ShardConfig::new(HashKey::new(7)), table).expect("a shard");
        let listeners = Listeners { native: Some(listener), ..Listeners::default() };
        let mut net = Net::new(NetConfig::default(), listeners).expect("a net");
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let now = Now { monotonic_ns: start.elapsed().as_nanos() as u64, ..Now::default() };
            shard.tick(now);
            net.receive(&mut shard);
            if shard.poll(now, net.outside()).is_idle() {
                thread::yield_now();
            }
            net.flush().expect("the ring works");
        }
        black_box(shard.asks_waiting());
    });
    (address, thread)
}

/// Polls tasks in the order in which they were woken, on one thread: the least that an executor
/// does.
struct Executor {
    woken: Mutex<VecDeque<usize>>,
    thread: Thread,
    sleeps: AtomicBool,
}

struct TaskWaker {
    executor: Arc<Executor>,
    task: usize,
    woken: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let Executor { woken, thread, sleeps } = &*self.executor;
        woken.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
        if sleeps.swap(false, Ordering::SeqCst) {
            thread.unpark();
        }
    }
}

impl Executor {
    fn run<F: Future<Output = ()>>(tasks: Vec<F>) {
        let woken = Mutex::new((0..tasks.len()).collect());
        let executor =
            Arc::new(Self { woken, thread: thread::current(), sleeps: AtomicBool::new(false) });
        let waker = |task| {
            let executor = Arc::clone(&executor);
            Arc::new(TaskWaker { executor, task, woken: AtomicBool::new(true) })
        };
        let wakers: Vec<_> = (0..tasks.len()).map(waker).collect();
        let mut tasks: Vec<Option<Pin<Box<F>>>> =
            tasks.into_iter().map(|task| Some(Box::pin(task))).collect();
        let mut left = tasks.len();
        while left > 0 {
            let Some(number) = executor.next() else { continue };
            wakers[number].woken.store(false, Ordering::Release);
            let Some(task) = &mut tasks[number] else { continue };
            let waker = Waker::from(Arc::clone(&wakers[number]));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[number] = None;
                left -= 1;
            }
        }
    }

    /// The next task that was woken; sleeps once when there is none.
    fn next(&self) -> Option<usize> {
        let take = || self.woken.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(task) = take() {
            return Some(task);
        }
        self.sleeps.store(true, Ordering::SeqCst);
        let task = take();
        if task.is_none() {
            thread::park();
        }
        self.sleeps.store(false, Ordering::SeqCst);
        task
    }
}
