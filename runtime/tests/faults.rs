//! Faults that no supervisor hears of: who is told, what stops, and what the process sees of it. A
//! binary of its own, as its hook for panics has to be there before any node.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::thread;
use std::time::Duration;

use coreside::{
    AskError, Cx, Fault, Handle, Heat, Node, NodeBuilder, NodeError, Reason, entity, handlers,
};

/// Fails, and goes on with its state.
#[entity(on_fault = resume)]
struct Sturdy {
    turns: u64,
}

#[handlers]
impl Sturdy {
    fn touch(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn strike(&mut self) {
        panic!("struck in a handler");
    }

    #[fallible]
    fn fail(&mut self) -> Result<(), &'static str> {
        Err("failed in a handler")
    }

    /// Ends the entity with a timer that takes a message along which panics in its drop.
    fn arm(&mut self, cx: &mut Cx<Self>) {
        assert!(cx.after(Duration::from_secs(3_600), SturdyTake { bomb: Bomb }).is_ok());
        cx.stop();
    }

    #[local]
    fn take(&mut self, bomb: Bomb) {
        std::mem::forget(bomb);
    }

    /// Holds the whole shard up: says so, and waits for the test to let go.
    #[local]
    fn hold(&self, reached: mpsc::Sender<()>, release: Arc<Mutex<mpsc::Receiver<()>>>) {
        reached.send(()).expect("the test waits");
        // An error is a test that has failed and let go.
        let _ = release.lock().expect("held once").recv();
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("struck in a drop");
    }
}

/// Leaves it to its supervisor.
#[entity(on_fault = escalate)]
struct Helpless;

#[handlers]
impl Helpless {
    fn strike(&mut self) {
        panic!("struck in a handler");
    }
}

/// Ends with its fault.
#[entity(on_fault = stop)]
struct Mortal;

#[handlers]
impl Mortal {
    async fn wait(&mut self) {
        std::future::pending().await
    }

    fn touch(&mut self) {}
}

/// Panics that the hook of this process heard of, in handlers and elsewhere.
static HEARD_OF_HANDLERS: AtomicU64 = AtomicU64::new(0);
static HEARD_OF_OTHERS: AtomicU64 = AtomicU64::new(0);

/// A builder behind a hook that was there before all nodes.
fn builder() -> NodeBuilder {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let counts = [
                ("struck in a handler", &HEARD_OF_HANDLERS),
                ("struck elsewhere", &HEARD_OF_OTHERS),
            ];
            let text = panic.payload().downcast_ref::<&str>();
            match counts.iter().find(|(known, _)| text == Some(known)) {
                Some((_, count)) => drop(count.fetch_add(1, Ordering::SeqCst)),
                None => before(panic),
            }
        }));
    });
    let node = Node::builder().entity::<Sturdy>().entity::<Helpless>().entity::<Mortal>();
    node.ask_timeout(Duration::from_secs(60))
}

/// A node, and the faults that it tells of.
fn start() -> (Node, mpsc::Receiver<(u16, Fault)>) {
    let (told, faults) = mpsc::channel();
    let sink = move |shard, fault| {
        // The test may be over.
        let _ = told.send((shard, fault));
    };
    (builder().shards(2).on_fault(sink).start().expect("the node starts"), faults)
}

#[test]
fn fault_without_a_supervisor_is_told_with_all_that_is_known() {
    let (node, faults) = start();
    assert_eq!(node.entity::<Sturdy>(7).strike().wait(), Err(AskError::Failed));
    let (shard, fault) = faults.recv().expect("the node tells");
    assert!(shard < 2);
    assert_eq!(fault.entity.to_string(), "Sturdy/7");
    assert_eq!((fault.message, fault.count), ("strike", 1));
    assert_eq!(fault.reason, "struck in a handler");
    let place = fault.backtrace.expect("where it was");
    assert!(place.contains("faults.rs"), "{place}");

    assert_eq!(node.entity::<Sturdy>(7).fail().wait(), Err(AskError::Failed));
    let (_, fault) = faults.recv().expect("the node tells");
    assert_eq!((fault.reason.as_str(), fault.count), ("failed in a handler", 2));
}

/// Not a test: what the next one starts.
#[test]
#[ignore = "its output is the test"]
fn node_with_a_panic_outside_of_turns() {
    let node = builder().shards(1).start().expect("the node starts");
    assert_eq!(node.entity::<Sturdy>(7).arm().wait(), Ok(()));
    assert_eq!(node.entity::<Sturdy>(7).touch().wait(), Ok(1));
}

#[test]
fn panic_outside_of_turns_is_said_once_and_harms_nobody() {
    let this = std::env::current_exe().expect("this binary has a path");
    let output = Command::new(this)
        .args(["--ignored", "--exact", "node_with_a_panic_outside_of_turns", "--nocapture"])
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("struck in a drop").count(), 1, "{text}");
    assert!(text.contains("shard 0: ") && text.contains("faults.rs:"), "{text}");
}

#[test]
fn sink_that_panics_harms_nobody() {
    let heard = HEARD_OF_OTHERS.load(Ordering::SeqCst);
    let sink = |_, _| panic!("struck elsewhere");
    let node = builder().shards(1).on_fault(sink).start().expect("the node starts");
    for _ in 0..3 {
        assert_eq!(node.entity::<Sturdy>(7).strike().wait(), Err(AskError::Failed));
    }
    assert_eq!(node.entity::<Sturdy>(7).touch().wait(), Ok(1));
    assert!(HEARD_OF_OTHERS.load(Ordering::SeqCst) > heard, "it is no secret");
}

#[test]
fn hook_of_the_process_hears_of_all_panics_but_those_of_handlers() {
    let nodes = [start(), start()];
    let heard = HEARD_OF_OTHERS.load(Ordering::SeqCst);
    for (node, faults) in &nodes {
        assert!(node.entity::<Sturdy>(1).strike().wait().is_err());
        assert!(faults.recv().is_ok());
    }
    assert!(thread::spawn(|| panic!("struck elsewhere")).join().is_err());
    assert_eq!(HEARD_OF_HANDLERS.load(Ordering::SeqCst), 0);
    assert!(HEARD_OF_OTHERS.load(Ordering::SeqCst) > heard);
}

#[test]
fn node_that_cannot_go_on_stops_and_says_why() {
    let (node, _faults) = start();
    let handle = node.handle();
    let server = thread::spawn(|| node.run_until_signal());
    assert!(handle.entity::<Helpless>(3).strike().wait().is_err());
    let outcome = server.join().expect("no panic");
    let Err(NodeError::Escalated(entity)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(entity.to_string(), "Helpless/3");
    assert_eq!(handle.entity::<Sturdy>(7).touch().wait(), Err(AskError::NotSent));
}

/// Blocks the shard of that entity; dropping what comes back lets it go.
fn hold(node: &Handle, key: u64) -> mpsc::Sender<()> {
    let (reached, is_reached) = mpsc::channel();
    let (let_go, release) = mpsc::channel();
    let release = Arc::new(Mutex::new(release));
    assert!(node.entity::<Sturdy>(key).hold(reached, release).tell().wait().is_ok());
    is_reached.recv().expect("the shard runs");
    let_go
}

#[test]
fn shard_without_room_is_looked_into_behind_those_who_wait() {
    let node = builder().shards(1).ingress_max(1).start().expect("the node starts");
    let let_go = hold(&node, 7);
    assert!(node.entity::<Sturdy>(7).touch().try_tell().is_ok());
    assert!(node.entity::<Sturdy>(7).touch().try_tell().is_err(), "there is no room");
    thread::scope(|scope| {
        let hottest = scope.spawn(|| node.hottest(1, Heat::Turns));
        let letters = scope.spawn(|| node.dead_letter_count(Reason::StashFull));
        drop(let_go);
        assert_eq!(letters.join().expect("no panic"), 0);
        assert!(hottest.join().is_ok());
    });
}

#[test]
fn dead_letters_are_noted_with_their_reason() {
    // Its turn would hold up the end for as long as that may take.
    let node = builder().shards(2).drain(Duration::ZERO).start().expect("the node starts");
    assert!(node.entity::<Mortal>(5).wait().try_tell().is_ok());
    // The entity is busy for ever, and holds so many in its stash.
    let stash_max = coreside::Life::DEFAULT.stash_max as u64;
    for _ in 0..stash_max + 3 {
        assert!(node.entity::<Mortal>(5).touch().tell().wait().is_ok());
    }
    // Looks come behind what was sent before, but turns do not.
    while node.dead_letter_count(Reason::StashFull) < 3 {}
    let notes = node.dead_letters();
    assert_eq!(notes.len(), 3, "{notes:?}");
    for note in &notes {
        assert_eq!((note.entity.to_string().as_str(), note.message), ("Mortal/5", "touch"));
        assert_eq!((note.reason, note.asked), (Reason::StashFull, false));
    }
    assert_eq!(node.stats().faults, 0);
}
