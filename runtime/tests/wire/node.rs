//! A node over the native protocol, from a client of the same program.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use coreside::{Archived, AskError, Client, Cx, Name, Node, entity, handlers, wire};

#[wire]
#[derive(Clone, Debug, PartialEq)]
struct Transfer {
    from: u64,
    to: u64,
    amount: i64,
    memo: Option<String>,
}

#[entity]
#[derive(Default)]
struct Account {
    balance: i64,
    memos: Vec<String>,
}

#[handlers]
impl Account {
    #[wire]
    fn deposit(&mut self, amount: i64) -> i64 {
        self.balance += amount;
        self.balance
    }

    /// Moves money to an account that may live on another shard.
    #[local]
    #[wire]
    fn transfer(&mut self, transfer: Transfer, cx: &mut Cx<Self>) -> Result<i64, i64> {
        if self.balance < transfer.amount {
            return Err(self.balance);
        }
        self.balance -= transfer.amount;
        self.memos.extend(transfer.memo);
        let credit = cx.entity::<Self>(transfer.to).deposit(transfer.amount).try_tell();
        assert!(credit.is_ok(), "a queue of a few");
        Ok(self.balance)
    }

    /// Notes how long a memo is, and keeps none of it.
    #[local]
    #[wire]
    #[archived]
    fn weigh(&mut self, memo: &Archived<String>, factor: i64) -> i64 {
        self.balance += memo.len() as i64 * factor;
        self.balance
    }

    /// Whether a memo is among those of the account.
    #[read]
    #[local]
    #[wire]
    #[archived]
    fn has(&self, transfer: &Archived<Transfer>, cx: &mut Cx<Self>) -> bool {
        let memo = transfer.memo.as_ref();
        transfer.to == cx.key() && memo.is_some_and(|memo| self.memos.iter().any(|m| m == memo))
    }

    #[local]
    #[wire]
    fn memos(&self) -> Vec<String> {
        self.memos.clone()
    }
}

/// Is busy with a message until it is polled for the third time.
#[entity]
#[derive(Default)]
struct Clerk {
    files: Vec<u64>,
}

#[handlers]
impl Clerk {
    #[wire]
    async fn file(&mut self, number: u64) -> u64 {
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        self.files.push(number);
        number
    }

    #[local]
    #[wire]
    fn files(&self) -> Vec<u64> {
        self.files.clone()
    }
}

/// Has a name.
#[entity(key = Name)]
#[derive(Default)]
struct Diary {
    pages: u64,
}

#[handlers]
impl Diary {
    #[wire]
    fn write(&mut self) -> u64 {
        self.pages += 1;
        self.pages
    }
}

/// Is busy until it is let go, and looks at notes where they lie.
#[entity]
#[derive(Default)]
struct Desk;

static DESK_IS_FREE: AtomicBool = AtomicBool::new(false);

#[handlers]
impl Desk {
    #[wire]
    async fn hold(&mut self) {
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if DESK_IS_FREE.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[local]
    #[wire]
    #[archived]
    fn note(&mut self, text: &Archived<String>) -> u64 {
        text.len() as u64
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[test]
fn references_are_the_same_outside_as_inside() {
    let node = Node::builder().entity::<Account>().shards(3).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Account>().connect(address).expect("a client");
    for key in 0..100 {
        assert_eq!(client.entity::<Account>(key).deposit(100).wait(), Ok(100));
    }
    for from in 0..100 {
        let memo = (from % 2 == 0).then(|| format!("from {from}"));
        let transfer = Transfer { from, to: (from + 1) % 100, amount: 30, memo };
        let left = client.entity::<Account>(from).transfer(transfer).wait();
        assert!(matches!(left, Ok(Ok(70 | 100))), "{left:?}");
    }
    let broke = Transfer { from: 1, to: 2, amount: 1_000, memo: None };
    assert!(matches!(client.entity::<Account>(1).transfer(broke).wait(), Ok(Err(_))));
    assert_eq!(client.entity::<Account>(4).memos().wait(), Ok(vec!["from 4".to_owned()]));
    // From within the program, by the same methods.
    let balance = |key| node.entity::<Account>(key).deposit(0).wait().expect("a reply");
    // What an account was told by one of another shard may still be on its way.
    let until = Instant::now() + Duration::from_secs(20);
    while (0..100).map(balance).sum::<i64>() != 100 * 100 {
        assert!(Instant::now() < until, "money is neither made nor lost");
    }
    node.stop();
    let asked = client.entity::<Account>(1).deposit(1).wait();
    assert!(matches!(asked, Err(AskError::NotSent | AskError::MaybeExecuted)), "{asked:?}");
}

#[test]
fn archived_handlers_are_called_by_the_same_methods_outside_as_inside() {
    let node = Node::builder().entity::<Account>().shards(2).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Account>().any_shard().connect(address);
    let client = client.expect("a client");
    let transfer = |to, memo| Transfer { from: 0, to, amount: 1, memo };
    for key in 0..20 {
        let mut balance = 0;
        // Short ones, some that fill most of a receive buffer, and some that need several.
        for len in [3, 700, 10_000] {
            balance += 2 * len as i64;
            let weighed = client.entity::<Account>(key).weigh("x".repeat(len), 2).wait();
            assert_eq!(weighed, Ok(balance));
            balance += len as i64;
            let weighed = node.entity::<Account>(key).weigh("y".repeat(len), 1).wait();
            assert_eq!(weighed, Ok(balance));
            let memo = "z".repeat(len);
            let transferred = transfer(key + 1_000, Some(memo.clone()));
            let moved = client.entity::<Account>(key).transfer(transferred).wait();
            balance -= 1;
            assert_eq!(moved, Ok(Ok(balance)));
            for (memo, is_there) in [(Some(memo.clone()), true), (Some(memo + "?"), false)] {
                let asked = client.entity::<Account>(key).has(transfer(key, memo.clone())).wait();
                assert_eq!(asked, Ok(is_there));
                let asked = node.entity::<Account>(key).has(transfer(key, memo)).wait();
                assert_eq!(asked, Ok(is_there));
            }
            assert_eq!(client.entity::<Account>(key).has(transfer(key, None)).wait(), Ok(false));
        }
        assert_eq!(client.entity::<Account>(key).has(transfer(key + 1, None)).wait(), Ok(false));
    }
    node.stop();
}

#[test]
fn node_says_how_many_receive_buffers_are_kept() {
    let node = Node::builder().entity::<Desk>().shards(1).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Desk>().connect(address).expect("a client");
    let wait_for = |leases, leased| {
        let until = Instant::now() + Duration::from_secs(20);
        while (node.stats().leases, node.stats().leased) != (leases, leased) {
            assert!(Instant::now() < until, "{:?}", node.stats());
            std::thread::yield_now();
        }
    };
    assert!(client.entity::<Desk>(1).hold().tell().wait().is_ok());
    let noted = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| client.entity::<Desk>(1).note("x".repeat(1000)).wait());
        wait_for(1, 1);
        DESK_IS_FREE.store(true, Ordering::Relaxed);
        waiting.join()
    });
    assert!(matches!(noted, Ok(Ok(1000))), "{noted:?}");
    wait_for(1, 0);
    node.stop();
}

#[test]
fn client_of_another_cluster_is_refused() {
    let node = Node::builder().entity::<Account>().shards(1).cluster(7).listen_native(loopback());
    let node = node.start().expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = |cluster| Client::builder().entity::<Account>().cluster(cluster).connect(address);
    let refused = client(8).expect_err("another cluster").to_string();
    assert_eq!(refused, "the node refuses the connection: the node belongs to another cluster");
    let client = client(7).expect("the same");
    assert_eq!(client.entity::<Account>(1).deposit(5).wait(), Ok(5));
    node.stop();
}

#[test]
fn client_has_a_connection_to_each_shard_and_messages_go_straight_there() {
    let node = Node::builder().entity::<Account>().shards(3).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Account>().connect(address).expect("a client");
    assert_eq!(client.connections(), 3);
    for key in 0..300 {
        assert_eq!(client.entity::<Account>(key).deposit(1).wait(), Ok(1));
    }
    // Shards show their counts before they sleep.
    let until = Instant::now() + Duration::from_secs(20);
    while node.stats().turns < 300 && Instant::now() < until {
        std::thread::yield_now();
    }
    let stats = node.stats();
    assert_eq!((stats.turns, stats.connections), (300, 3));
    assert_eq!(stats.between_shards, 0, "each came in where it belongs");

    // Any shard takes any message, and sends it on.
    let builder = Client::builder().entity::<Account>().any_shard();
    let one = builder.connect(address).expect("another client");
    assert_eq!(one.connections(), 1);
    for key in 0..300 {
        assert_eq!(one.entity::<Account>(key).deposit(1).wait(), Ok(2));
    }
    while node.stats().between_shards == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(node.stats().between_shards > 300, "two of three go to other shards, and come back");
    node.stop();
}

#[test]
fn names_are_made_outside_with_the_hash_key_that_the_node_tells() {
    let node = Node::builder().entity::<Diary>().shards(2).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Diary>().any_shard().connect(address);
    let client = client.expect("a client");
    let hash_key = client.hash_key().expect("it is told");
    for name in ["", "short", "a name that is longer than any key"] {
        assert_eq!(client.entity::<Diary>(Name::new(name, &hash_key)).write().wait(), Ok(1));
        assert_eq!(node.entity::<Diary>(Name::new(name, node.hash_key())).write().wait(), Ok(2));
    }
    node.stop();
}

#[test]
fn client_that_is_not_told_the_hash_key_makes_do_with_one_connection() {
    let node = Node::builder().entity::<Account>().shards(2).hide_hash_key();
    let node = node.listen_native(loopback()).start().expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Account>().connect(address).expect("a client");
    assert_eq!((client.connections(), client.hash_key()), (1, None));
    for key in 0..50 {
        assert_eq!(client.entity::<Account>(key).deposit(1).wait(), Ok(1));
    }
    node.stop();
}

#[test]
fn client_of_many_shards_comes_back() {
    let start = |address| {
        let node = Node::builder().entity::<Account>().shards(3).listen_native(address);
        node.start().expect("a node")
    };
    let node = start(loopback());
    let address = node.native_addr().expect("it listens");
    let builder = Client::builder().entity::<Account>();
    let builder = builder.backoff(Duration::from_millis(1), Duration::from_millis(20));
    let client = builder.connect(address).expect("a client");
    assert_eq!(client.entity::<Account>(1).deposit(1).wait(), Ok(1));
    node.stop();
    let node = start(address);
    let until = Instant::now() + Duration::from_secs(20);
    for key in 0..30 {
        // The client may not have read the end of the connection that it sends the first on.
        while client.entity::<Account>(key).deposit(0).wait().is_err() {
            assert!(Instant::now() < until, "it does not come back");
        }
        let balance = client.entity::<Account>(key).deposit(1).wait();
        assert_eq!(balance, Ok(1), "another node, other accounts");
    }
    // Its accounts live on other shards than those of the same keys did, and it is found where.
    let is_straight = || {
        let before = node.stats();
        for key in 100..200 {
            client.entity::<Account>(key).deposit(1).wait().expect("a reply");
        }
        // Shards show their counts before they sleep.
        while node.stats().turns < before.turns + 100 && Instant::now() < until {
            std::thread::yield_now();
        }
        let after = node.stats();
        after.connections == 3 && after.between_shards == before.between_shards
    };
    while !is_straight() {
        assert!(Instant::now() < until, "it still goes by the hash key of the node that was");
    }
    node.stop();
}

#[test]
fn what_a_busy_entity_is_told_and_asked_waits_for_it_and_nothing_is_lost() {
    let node = Node::builder().entity::<Clerk>().shards(2).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let builder = Client::builder().entity::<Clerk>().ask_timeout(Duration::from_secs(60));
    // On the shard of the entity, and on one that sends everything on.
    for client in
        [builder.connect(address), Client::builder().entity::<Clerk>().any_shard().connect(address)]
    {
        let client = client.expect("a client");
        let key = 1 + client.connections() as u64;
        // Far more than its stash takes.
        for number in 0..5_000 {
            assert!(client.entity::<Clerk>(key).file(number).try_tell().is_ok());
        }
        let last = client.entity::<Clerk>(key).file(5_000).within(Duration::from_secs(60));
        assert_eq!(last.wait(), Ok(5_000));
        let files = client.entity::<Clerk>(key).files().wait();
        assert_eq!(files, Ok((0..=5_000).collect()), "all of them, in order");
    }
    assert_eq!(node.stats().dead_letters, 0);
    node.stop();
}

#[test]
fn client_works_on_the_executor_that_the_caller_has() {
    let node = Node::builder().entity::<Account>().shards(2).listen_native(loopback()).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let client = Client::builder().entity::<Account>().connect(address).expect("a client");
    let deposits = |client: Client| async move {
        for round in 1..=10 {
            for key in 0..20 {
                assert_eq!(client.entity::<Account>(key).deposit(1).await, Ok(round));
            }
        }
    };
    futures_lite::future::block_on(deposits(client.clone()));
    // Where io_uring is forbidden there is no glommio.
    if let Ok(executor) = glommio::LocalExecutorBuilder::default().make() {
        let (sum, tasks) = executor.run(async {
            let tasks: Vec<_> = (0..100)
                .map(|task| {
                    let client = client.clone();
                    glommio::spawn_local(async move {
                        let mut last = 0;
                        for _ in 0..20 {
                            last = client.entity::<Account>(100 + task % 10).deposit(1).await?;
                        }
                        Ok::<_, AskError>(last)
                    })
                })
                .collect();
            let (mut most, count) = (0, tasks.len());
            for task in tasks {
                most = most.max(task.await.expect("a reply"));
            }
            (most, count)
        });
        assert_eq!((sum, tasks), (200, 100), "ten tasks have each account, and 20 deposits");
    }
    node.stop();
}
