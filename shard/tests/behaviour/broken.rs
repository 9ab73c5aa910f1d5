//! Supervision never hides a bug of the runtime: a panic outside of user code ends the process.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use coreside_shard::{
    Address, Cx, Entity, Handler, HashKey, Message, Now, Registration, Registry, Shard,
    ShardConfig, Via,
};

struct Counter;

struct Touch;

impl Message for Touch {
    type Reply = ();
}

impl Entity for Counter {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Counter";

    fn activate(_: u64, _: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Touch>("touch");
    }
}

impl Handler<Touch> for Counter {
    type Answer = ();

    fn handle(&mut self, _: Touch, _: &mut Cx<'_, Self>) {}
}

/// Not a test: what the next one starts. The shard reads its stopwatch between turns.
#[test]
#[ignore = "ends its process"]
fn shard_with_a_broken_stopwatch() {
    let mut registry = Registry::new();
    registry.entity::<Counter>();
    let table = registry.build().expect("one type");
    let stopwatch_ns = || panic!("the stopwatch is broken");
    let config = ShardConfig { stopwatch_ns, ..ShardConfig::new(HashKey::new(1)) };
    let mut shard = Shard::alone(&config, table).expect("a shard");
    loop {
        assert!(shard.tell::<Counter, Touch>(1, Touch).is_ok());
        shard.poll(Now::default(), &mut ());
    }
}

#[test]
fn broken_invariant_of_the_runtime_aborts_the_process() {
    let this = std::env::current_exe().expect("this binary has a path");
    let output = Command::new(this)
        .args(["--ignored", "--exact", "broken::shard_with_a_broken_stopwatch", "--nocapture"])
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("shard 0 is broken: the stopwatch is broken; aborting"), "{text}");
    assert_eq!(output.status.signal(), Some(6), "SIGABRT");
}
