//! A shard with its net, on a thread of its own, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use coreside_net::tls::ServerTls;
use coreside_net::{Listeners, Net, NetConfig, NetStats, listen};
use coreside_shard::{AskError, HashKey, Now, Registry, Shard, ShardConfig};

use crate::driver;

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<NetStats>,
}

impl Node {
    /// Serves native clients on `address`, on the driver that is tested, with the entities that
    /// `register` names.
    pub(crate) fn at(
        address: SocketAddr,
        config: NetConfig,
        tls: Option<Arc<ServerTls>>,
        register: fn(&mut Registry),
    ) -> Self {
        let listener = listen(address, 1).expect("a free port").pop().expect("one was asked for");
        let address = listener.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut registry = Registry::new();
            register(&mut registry);
            let table = registry.build().expect("no names twice");
            let mut shard =
                Shard::alone(&ShardConfig::new(HashKey::new(7)), table).expect("a shard");
            let listeners = Listeners { native: Some(listener), tls, ..Listeners::default() };
            let mut net = Net::new(driver::driven(config), listeners).expect("a net");
            let start = Instant::now();
            let mut draining = false;
            while !draining || net.connection_count() > 0 {
                let monotonic_ns = start.elapsed().as_nanos() as u64;
                let now = Now { monotonic_ns, ..Now::default() };
                shard.tick(now);
                net.tick(monotonic_ns);
                net.receive(&mut shard);
                shard.poll(now, net.outside());
                net.flush().expect("the driver works");
                thread::yield_now();
                if theirs.load(Ordering::SeqCst) && !draining {
                    draining = true;
                    net.drain();
                    shard.end_asks(AskError::MaybeExecuted, net.outside());
                }
            }
            net.stats()
        });
        Self { address, stop, thread }
    }

    /// Drains the node and says what it has done.
    pub(crate) fn stop(self) -> NetStats {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the node does not panic")
    }
}
