//! The signal that looks at shards is shared with whoever else wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coreside::{Node, StallConfig, entity, handlers};
use signal_hook::consts::SIGURG;
use signal_hook::low_level::{raise, register};

#[entity]
struct Worker;

#[handlers]
impl Worker {
    #[local]
    fn spin(&self, length: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < length {
            std::hint::spin_loop();
        }
    }
}

/// Counts signals that come to a handler installed now.
#[expect(unsafe_code, reason = "a handler of signals may do little")]
fn count_signals() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let of_handler = Arc::clone(&count);
    // SAFETY: an atomic addition may be done in a handler.
    let counted = unsafe {
        register(SIGURG, move || {
            of_handler.fetch_add(1, Ordering::SeqCst);
        })
    };
    counted.expect("a handler");
    count
}

#[test]
fn handler_from_before_gets_what_is_no_tick_and_nothing_else() {
    let count = count_signals();
    let start = || {
        let mut config = StallConfig::default();
        config.after = Duration::from_micros(200);
        let node = Node::builder().entity::<Worker>().shards(1).stalls(config);
        node.on_stall(|_| ()).start().expect("the node starts")
    };
    // A handler is installed once, whatever nodes come and go.
    for round in 0..2 {
        let node = start();
        for _ in 0..200 {
            assert!(node.entity::<Worker>(1).spin(Duration::from_millis(2)).wait().is_ok());
            if node.stats().stalls > 0 {
                break;
            }
        }
        assert!(node.stats().stalls > 0, "there were ticks");
        assert_eq!(count.load(Ordering::SeqCst), round * 2);
        // To this thread: on a shard's own it may coincide with a tick.
        raise(SIGURG).expect("a signal that there is");
        assert_eq!(count.load(Ordering::SeqCst), round * 2 + 1);
        drop(node);
        raise(SIGURG).expect("a signal that there is");
        assert_eq!(count.load(Ordering::SeqCst), round * 2 + 2);
    }
}
