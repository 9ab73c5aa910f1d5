//! A driver that sleeps is woken by what arrives.

#![expect(unsafe_code, reason = "an eventfd, as a driver has one")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::mpsc;
use std::thread;

use crate::driver;
use crate::fake::Fake;
use coreside_net::native::{Facts, Hello};
use coreside_net::{Listeners, Net, NetConfig, listen};

/// Sleeps until the descriptor is readable.
fn wait_for(descriptor: RawFd) {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
}

#[test]
fn sleeping_driver_is_woken_by_a_connection_by_bytes_and_by_the_end() {
    let listener = listen("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").remove(0);
    let address = listener.local_addr().expect("bound");
    let (slept, sleeps) = mpsc::channel();
    let driver = thread::spawn(move || {
        // SAFETY: a new descriptor, which nobody else owns.
        let mut eventfd = unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        let mut net = Net::new(
            driver::driven(NetConfig::default()),
            Listeners { resp: Some(listener), ..Listeners::default() },
        )
        .expect("a net");
        net.register_eventfd(eventfd.as_raw_fd()).expect("registered");
        let mut fake = Fake::default();
        let mut passes = 0u32;
        loop {
            net.receive(&mut fake);
            fake.answer_all(net.outside());
            net.flush().expect("the ring works");
            passes += 1;
            if net.stats().sessions.closed > 0 {
                return (passes, net.stats());
            }
            if net.prepare_park() {
                slept.send(()).expect("the test listens");
                match net.wait_descriptor() {
                    Some(descriptor) => wait_for(descriptor),
                    None => {
                        let mut count = [0; 8];
                        eventfd.read_exact(&mut count).expect("an eventfd");
                    }
                }
                net.unpark();
            }
        }
    });
    // The client acts only when the driver sleeps, so each step needs a wake-up.
    sleeps.recv().expect("the driver sleeps");
    let mut stream = TcpStream::connect(address).expect("the net listens");
    sleeps.recv().expect("the driver sleeps");
    for _ in 0..100 {
        stream.write_all(b"GET a\r\n").expect("sent");
        let mut reply = [0; 17];
        stream.read_exact(&mut reply).expect("the reply comes");
        sleeps.recv().expect("the driver sleeps");
    }
    drop(stream);
    let (passes, stats) = driver.join().expect("no panic");
    assert_eq!(stats.sessions.requests, 100);
    assert!(passes < 2000, "{passes} passes: an idle driver costs nothing");
}

/// Otherwise each byte of it would wake two shards.
#[test]
fn connection_that_went_to_another_shard_concerns_its_first_one_no_more() {
    let listener = listen("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").remove(0);
    let address = listener.local_addr().expect("bound");
    let listeners = Listeners { native: Some(listener), ..Listeners::default() };
    let mut net = Net::new(driver::driven(NetConfig::default()), listeners).expect("a net");
    net.set_native_facts(Facts { shard: 0, shards: 2, ..Facts::default() });
    let mut fake = Fake::default();
    let mut stream = TcpStream::connect(address).expect("the net listens");
    let mut hello = Vec::new();
    let wanted = Hello { versions: (1, 1), shard: Some(1), cluster: 0, messages: Vec::new() };
    wanted.write(&mut hello);
    stream.write_all(&hello).expect("sent");
    let moving = loop {
        net.receive(&mut fake);
        net.flush().expect("the engine works");
        let moving = net.take_moving();
        if !moving.is_empty() {
            break moving;
        }
    };
    while !net.is_idle() {
        net.receive(&mut fake);
        net.flush().expect("the engine works");
    }
    let enters = net.stats().enters;
    for _ in 0..10 {
        stream.write_all(b"for the other shard").expect("sent");
        net.receive(&mut fake);
        net.flush().expect("the engine works");
    }
    assert_eq!(net.stats().enters, enters);
    drop(moving);
}
