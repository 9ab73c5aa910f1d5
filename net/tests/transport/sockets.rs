//! What the transport promises, over loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::driver::driven;
use crate::random::Random;
use crate::server::Server;
use coreside_net::{Limits, Listeners, Net, NetConfig, listen};
use socket2::{Domain, Socket, Type};

fn commands(server: &Server) -> u64 {
    server.shared.commands.load(Ordering::SeqCst)
}

fn read_exactly(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("the reply comes");
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the server closes");
    bytes
}

fn get(number: usize) -> (String, String) {
    let value = format!("value of {number}");
    (format!("GET {number}\r\n"), format!("${}\r\n{value}\r\n", value.len()))
}

/// `connections` clients on four threads, each with a pipeline that is written in odd pieces.
fn talk_over(server: &Server, connections: usize, requests: usize) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                let mut random = Random::new(part as u64);
                let mut streams: Vec<_> = (0..connections / 4).map(|_| server.connect()).collect();
                let (mut input, mut expected) = (String::new(), String::new());
                for number in 0..requests {
                    let (request, reply) = get(number * 7 + part);
                    input.push_str(&request);
                    expected.push_str(&reply);
                }
                let mut rest = input.as_bytes();
                while !rest.is_empty() {
                    let len = (1 + random.below(200)).min(rest.len());
                    for stream in &mut streams {
                        stream.write_all(&rest[..len]).expect("the server reads");
                    }
                    rest = &rest[len..];
                }
                for stream in &mut streams {
                    read_exactly(stream, &expected);
                }
            });
        }
    });
}

#[test]
fn pipelines_in_pieces_are_answered_in_order() {
    let server = Server::start(NetConfig::default());
    talk_over(&server, 8, 500);
    let stats = server.stop();
    assert_eq!(stats.sessions.requests, 8 * 500);
    assert_eq!((stats.sessions.opened, stats.sessions.closed), (8, 8));
}

#[test]
fn many_connections_share_the_net() {
    let server = Server::start(NetConfig::default());
    talk_over(&server, 400, 20);
    assert_eq!(server.stop().sessions.requests, 400 * 20);
}

#[test]
fn receives_go_on_although_buffers_run_out() {
    // Four buffers of 64 bytes for 64 busy connections: most receives end for want of one.
    let config = NetConfig { buffers: 4, buffer_bytes: 64, ..NetConfig::default() };
    let server = Server::start(config);
    talk_over(&server, 64, 200);
    let stats = server.stop();
    assert_eq!(stats.sessions.requests, 64 * 200);
    assert!(stats.buffers_exhausted > 0, "the case did not arise: {stats:?}");
}

#[test]
fn large_arguments_and_replies_go_through() {
    let server = Server::start(NetConfig::default());
    let len = 5 << 20;
    let mut reader = server.connect();
    let mut writer = reader.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            let value = vec![b'x'; len];
            write!(writer, "*2\r\n$4\r\nECHO\r\n${len}\r\n").expect("sent");
            writer.write_all(&value).expect("sent");
            writer.write_all(b"\r\nPING\r\n").expect("sent");
        });
        read_exactly(&mut reader, &format!("${len}\r\n"));
        let mut value = vec![0; len];
        reader.read_exact(&mut value).expect("the value comes");
        assert!(value.iter().all(|byte| *byte == b'x'));
        read_exactly(&mut reader, "\r\n+PONG\r\n");
    });
    assert!(server.stop().direct_receives > 0, "most of it was received straight into place");
}

/// Writes `requests` over and over until the server takes no more; returns how many bytes it took.
fn write_until_refused(server: &Server, stream: &mut TcpStream, requests: &str) -> usize {
    stream.set_nonblocking(true).expect("a flag");
    let (mut sent, mut sent_before) = (0, usize::MAX);
    loop {
        match stream.write(&requests.as_bytes()[sent % requests.len()..]) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                if sent == sent_before {
                    break;
                }
                sent_before = sent;
                server.settle();
            }
        }
        assert!(sent < 64 << 20, "the server reads without end");
    }
    stream.set_nonblocking(false).expect("a flag");
    sent
}

/// Completes the last of `requests`, and reads all replies that are owed then.
fn read_what_is_owed(stream: &mut TcpStream, requests: &str, sent: usize, reply: &str) {
    let rest = &requests.as_bytes()[sent % requests.len()..];
    let mut writer = stream.try_clone().expect("a descriptor");
    let total = sent.div_ceil(requests.len()) * requests.lines().count();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(rest).expect("sent"));
        for _ in 0..total {
            read_exactly(stream, reply);
        }
    });
}

#[test]
fn peer_that_does_not_read_is_not_served_beyond_the_limit_and_loses_nothing() {
    let limits = Limits { output_bytes_pause: 64 * 1024, ..Limits::default() };
    let server = Server::start(NetConfig { limits, ..NetConfig::default() });
    let mut stream = server.connect();
    let requests = "GET big\r\n".repeat(1000);
    let sent = write_until_refused(&server, &mut stream, &requests);
    // Replies of 10 kB: what is answered fits the two socket buffers and a little more.
    let answered = commands(&server);
    assert!(answered < 3000, "{answered} commands answered for a peer that reads nothing");
    assert!(answered < sent as u64 / 9, "the case did not arise");
    let reply = format!("$10000\r\n{}\r\n", "B".repeat(10_000));
    read_what_is_owed(&mut stream, &requests, sent, &reply);
    server.stop();
}

#[test]
fn congestion_reaches_the_peer_and_ends() {
    let server = Server::start(NetConfig::default());
    let mut stream = server.connect();
    stream.write_all(b"PING\r\n").expect("sent");
    read_exactly(&mut stream, "+PONG\r\n");
    server.shared.congested.store(true, Ordering::SeqCst);
    server.settle();
    let requests = "GET a\r\n".repeat(1000);
    let sent = write_until_refused(&server, &mut stream, &requests);
    assert_eq!(commands(&server), 1);
    server.shared.congested.store(false, Ordering::SeqCst);
    read_what_is_owed(&mut stream, &requests, sent, "$10\r\nvalue of a\r\n");
    server.stop();
}

#[test]
fn peer_that_closes_its_half_gets_its_replies_and_then_the_end() {
    let server = Server::start(NetConfig::default());
    let mut stream = server.connect();
    stream.write_all(b"GET a\r\nPING\r\nGET unfin").expect("sent");
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_to_end(&mut stream), b"$10\r\nvalue of a\r\n+PONG\r\n");
    server.stop();
}

#[test]
fn replies_reach_a_slow_peer_that_goes_on_asking_while_the_net_drains() {
    const REPLIES: usize = 50;
    let server = Server::start(NetConfig::default());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // Most replies wait in the node's kernel until the peer reads.
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.connect(&server.address.into()).expect("the server listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    stream.write_all("GET big\r\n".repeat(REPLIES).as_bytes()).expect("sent");
    server.settle();
    assert_eq!(commands(&server), REPLIES as u64);
    server.drain();
    for _ in 0..1000 {
        if stream.write(b"GET late\r\n").is_err() {
            break;
        }
        thread::yield_now();
    }
    let reply = format!("$10000\r\n{}\r\n", "B".repeat(10_000));
    for _ in 0..REPLIES {
        read_exactly(&mut stream, &reply);
    }
    server.stop();
}

#[test]
fn quit_and_protocol_errors_are_answered_before_the_end() {
    let server = Server::start(NetConfig::default());
    let mut stream = server.connect();
    stream.write_all(b"GET a\r\nQUIT\r\nPING\r\n").expect("sent");
    assert_eq!(read_to_end(&mut stream), b"$10\r\nvalue of a\r\n+OK\r\n");
    let mut stream = server.connect();
    stream.write_all(b"PING\r\n*1\r\nx\r\n").expect("sent");
    let expected = b"+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n";
    assert_eq!(read_to_end(&mut stream), expected);
    let stats = server.stop();
    assert_eq!(stats.sessions.protocol_errors, 1);
}

#[test]
fn reset_connections_leave_nothing_behind() {
    let server = Server::start(NetConfig::default());
    for round in 0..200 {
        let stream = server.connect();
        socket2::SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("a TCP socket");
        (&stream).write_all(b"GET big\r\nGET big\r\nGET unfin").expect("sent");
        if round % 2 == 0 {
            server.settle();
        }
    }
    // Connections are accepted in their order: when this one is served, all have been.
    let mut last = server.connect();
    last.write_all(b"QUIT\r\n").expect("sent");
    assert_eq!(read_to_end(&mut last), b"+OK\r\n");
    while server.connections() > 0 {
        thread::yield_now();
    }
    let stats = server.stop();
    assert_eq!((stats.sessions.opened, stats.sessions.closed), (201, 201));
}

#[test]
fn one_connection_too_many_is_told_so() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let server = Server::start(NetConfig { limits, ..NetConfig::default() });
    let (mut first, mut second) = (server.connect(), server.connect());
    for stream in [&mut first, &mut second] {
        stream.write_all(b"PING\r\n").expect("sent");
        read_exactly(stream, "+PONG\r\n");
    }
    let mut third = server.connect();
    assert_eq!(read_to_end(&mut third), b"-ERR max number of clients reached\r\n");
    drop(first);
    while server.connections() > 1 {
        thread::yield_now();
    }
    let mut fourth = server.connect();
    fourth.write_all(b"PING\r\n").expect("sent");
    read_exactly(&mut fourth, "+PONG\r\n");
    assert_eq!(server.stop().refused, 1);
}

/// The kernel accepts before anybody looks; who was accepted hears of the end all the same.
#[test]
fn net_that_is_dropped_closes_connections_that_it_has_not_seen() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listener = listen(address, 1).expect("a port is free").remove(0);
    let address = listener.local_addr().expect("it is bound");
    let listeners = Listeners { resp: Some(listener), ..Listeners::default() };
    let mut net = Net::new(driven(NetConfig::default()), listeners).expect("a net");
    let mut streams = [(); 3].map(|()| TcpStream::connect(address).expect("it listens"));
    net.flush().expect("the engine works");
    drop(net);
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
        let outcome = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert!(matches!(outcome, Ok(0) | Err(ErrorKind::ConnectionReset)), "{outcome:?}");
    }
}

#[test]
fn drained_net_closes_connections_and_listens_no_more() {
    let server = Server::start(NetConfig::default());
    let address = server.address;
    let mut stream = server.connect();
    stream.write_all(b"GET a\r\n").expect("sent");
    read_exactly(&mut stream, "$10\r\nvalue of a\r\n");
    server.stop();
    assert_eq!(read_to_end(&mut stream), b"");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn system_calls_are_shared_by_many_requests() {
    let server = Server::start(NetConfig::default());
    let mut streams: Vec<_> = (0..64).map(|_| server.connect()).collect();
    let (request, reply) = get(1);
    let (batch, replies) = (request.repeat(16), reply.repeat(16));
    for _ in 0..50 {
        for stream in &mut streams {
            stream.write_all(batch.as_bytes()).expect("sent");
        }
        for stream in &mut streams {
            read_exactly(stream, &replies);
        }
    }
    let stats = server.stop();
    assert_eq!(stats.sessions.requests, 50 * 64 * 16);
    let per_command = stats.enters as f64 / stats.sessions.requests as f64;
    assert!(per_command < 0.2, "{per_command} system calls per command");
}
