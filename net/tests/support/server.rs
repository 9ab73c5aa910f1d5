//! A net over a fake shard, driven by a thread of its own until it is dropped.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coreside_net::tls::ServerTls;
use coreside_net::{Listeners, Net, NetConfig, NetStats, listen};

use super::driver::driven;
use super::fake::Fake;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<NetStats>>,
}

#[derive(Default)]
pub(crate) struct Shared {
    drain: AtomicBool,
    pub(crate) congested: AtomicBool,
    passes: AtomicU64,
    idle_passes: AtomicU64,
    pub(crate) commands: AtomicU64,
    connections: AtomicU64,
    /// Sends of whose end the kernel has not given notice.
    pub(crate) lent: AtomicU64,
    /// The time that the server is told; it stands still unless a test moves it.
    pub(crate) now_ns: AtomicU64,
}

impl Server {
    pub(crate) fn start(config: NetConfig) -> Self {
        Self::secure(config, None)
    }

    /// Speaks TLS, if it is given.
    pub(crate) fn secure(config: NetConfig, tls: Option<Arc<ServerTls>>) -> Self {
        let listener = listen("127.0.0.1:0".parse().expect("an address"), 1)
            .expect("a port is free")
            .pop()
            .expect("one was asked for");
        let address = listener.local_addr().expect("it is bound");
        Self::on(listener, address, config, tls)
    }

    /// Listens on this socket.
    pub(crate) fn on(
        listener: TcpListener,
        address: SocketAddr,
        config: NetConfig,
        tls: Option<Arc<ServerTls>>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let listeners = Listeners { resp: Some(listener), native: None, tls };
            let mut net =
                Net::new(driven(config), listeners).expect("the kernel has what the driver needs");
            drive(&mut net, &theirs);
            net.stats()
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        // A test that waits longer has found a bug; it should say so rather than hang.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        stream
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until the server has made passes in which it found nothing to do.
    pub(crate) fn settle(&self) {
        let passes = self.shared.passes.load(Ordering::SeqCst) + 2;
        while self.shared.passes.load(Ordering::SeqCst) < passes {
            thread::yield_now();
        }
        let idle = self.shared.idle_passes.load(Ordering::SeqCst) + 200;
        while self.shared.idle_passes.load(Ordering::SeqCst) < idle {
            thread::yield_now();
        }
    }

    pub(crate) fn drain(&self) {
        self.shared.drain.store(true, Ordering::SeqCst);
    }

    /// Drains and says what was done.
    pub(crate) fn stop(mut self) -> NetStats {
        self.drain();
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("the server does not panic")
    }
}

fn drive(net: &mut Net, shared: &Shared) {
    let mut fake = Fake::default();
    let mut draining = false;
    loop {
        fake.congested = shared.congested.load(Ordering::SeqCst);
        net.tick(shared.now_ns.load(Ordering::SeqCst));
        let received = net.receive(&mut fake);
        fake.seen.clear();
        fake.answer_all(net.outside());
        let flushed = net.flush().expect("the ring works");
        shared.commands.store(net.stats().sessions.requests, Ordering::SeqCst);
        shared.connections.store(net.connection_count() as u64, Ordering::SeqCst);
        let sends = net.stats().sends;
        shared.lent.store(sends.zero_copy - sends.notices, Ordering::SeqCst);
        shared.passes.fetch_add(1, Ordering::SeqCst);
        if received == 0 && flushed == 0 {
            shared.idle_passes.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
        if shared.drain.load(Ordering::SeqCst) && !draining {
            net.drain();
            draining = true;
        }
        if draining && net.connection_count() == 0 {
            assert!(!net.has_unfinished_work());
            return;
        }
    }
}
