//! Clients and nodes over TLS and real sockets: who is let in, and who is not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::certificates;
use crate::certificates::{Authority, Folder};
use crate::client::{WELCOME, welcome_to};
use crate::node::Node;
use crate::read_frame::read_frame;
use coreside_macros::{entity, handlers};
use coreside_net::NetConfig;
use coreside_net::client::{Client, ClientBuilder, ClientError};
use coreside_net::native::Hello;
use coreside_net::native::frame::Kind;
use coreside_net::tls::{ClientTls, ServerTls, TlsConfig};
use coreside_shard::AskError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[entity(crate = coreside_shard)]
#[derive(Default)]
struct Mirror {
    seen: u64,
}

#[handlers(crate = coreside_shard)]
impl Mirror {
    #[local]
    #[wire]
    fn echo(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.seen += 1;
        bytes
    }

    #[local]
    #[wire]
    fn seen(&self) -> u64 {
        self.seen
    }
}

fn start(tls: Option<TlsConfig>) -> Node {
    start_at(([127, 0, 0, 1], 0).into(), tls)
}

fn start_at(address: SocketAddr, tls: Option<TlsConfig>) -> Node {
    let tls = tls.map(|config| ServerTls::load(config).expect("good files"));
    Node::at(address, NetConfig::default(), tls, |registry| {
        registry.entity::<Mirror>();
    })
}

fn builder() -> ClientBuilder {
    Client::builder().entity::<Mirror>().connect_timeout(Duration::from_secs(20))
}

/// An authority for nodes, one for clients, one that nobody trusts, and their files.
struct World {
    folder: Folder,
    nodes: Authority,
    clients: Authority,
    strangers: Authority,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: Folder::new(),
            nodes: Authority::new("nodes"),
            clients: Authority::new("clients"),
            strangers: Authority::new("strangers"),
        };
        world.folder.put("nodes.ca", &world.nodes.pem());
        world.folder.put("clients.ca", &world.clients.pem());
        world.folder.put("strangers.ca", &world.strangers.pem());
        world
    }

    /// A node that anybody may talk to.
    fn open(&self) -> TlsConfig {
        let (certificate, key) = self.folder.put_identity("node", &self.nodes.certify("127.0.0.1"));
        TlsConfig::new(certificate, key)
    }

    fn ca(&self, name: &str) -> PathBuf {
        self.folder.path(&format!("{name}.ca"))
    }

    /// A client without a certificate.
    fn nobody(&self) -> ClientTls {
        ClientTls::new(self.ca("nodes"))
    }

    /// A client that nodes know.
    fn somebody(&self) -> ClientTls {
        let identity = self.clients.certify("somebody");
        let (certificate, key) = self.folder.put_identity("somebody", &identity);
        self.nobody().certificate(certificate, key)
    }
}

#[track_caller]
fn assert_refused(node: &Node, tls: ClientTls, why: &str) {
    match builder().tls(tls).connect(node.address) {
        Err(ClientError::Tls(error)) => {
            let error = format!("{error:?}");
            assert!(error.contains(why), "{error} instead of {why}");
        }
        other => panic!("{other:?} instead of {why}"),
    }
}

#[track_caller]
fn assert_served(node: &Node, tls: ClientTls) {
    let client = builder().tls(tls).connect(node.address).expect("it is let in");
    assert_eq!(client.entity::<Mirror>(1).echo(vec![7; 100]).wait(), Ok(vec![7; 100]));
}

#[test]
fn bodies_of_all_sizes_pass_from_many_threads() {
    let world = World::new();
    let node = start(Some(world.open()));
    let client = builder().tls(world.nobody()).connect(node.address).expect("a client");
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let client = client.clone();
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64 + thread;
                for round in 0..100_u64 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let len = [random % 64, random % 5_000, random % 200_000][(round % 3) as usize];
                    let bytes: Vec<u8> = (0..len).map(|i| (i ^ round) as u8).collect();
                    let ask = client.entity::<Mirror>(thread).echo(bytes.clone());
                    let echoed = ask.within(Duration::from_secs(20)).wait();
                    assert!(echoed == Ok(bytes), "round {round}, {len} bytes");
                }
            });
        }
    });
    assert_eq!(client.entity::<Mirror>(3).seen().wait(), Ok(100));
    drop(client);
    let stats = node.stop().native;
    assert_eq!((stats.opened, stats.tls_failures, stats.protocol_errors), (1, 0, 0));
}

#[test]
fn requests_wait_in_order_while_the_socket_is_full() {
    let world = World::new();
    let node = start(Some(world.open()));
    let client = builder().tls(world.nobody()).connect(node.address).expect("a client");
    // 12 MB, which no socket takes at once.
    for _ in 0..120 {
        client.entity::<Mirror>(1).echo(vec![1; 100_000]).try_tell().ok().expect("room");
    }
    let seen = client.entity::<Mirror>(1).seen().within(Duration::from_secs(20)).wait();
    assert_eq!(seen, Ok(120));
    drop(client);
    node.stop();
}

#[test]
fn certificates_of_nodes_are_checked() {
    let world = World::new();
    let node = start(Some(world.open()));
    assert_served(&node, world.nobody());
    let wrong_ca = ClientTls::new(world.ca("strangers"));
    assert_refused(&node, wrong_ca, "UnknownIssuer");
    assert_refused(&node, world.nobody().server_name("other.example"), "NotValidForName");
    assert!(matches!(
        builder().tls(world.nobody().server_name("no name")).connect(node.address),
        Err(ClientError::Tls(_))
    ));
    assert_eq!(node.stop().native.requests, 2, "a hello and an ask");

    let expired = world.nodes.certify_expired("127.0.0.1");
    let (certificate, key) = world.folder.put_identity("expired", &expired);
    let node = start(Some(TlsConfig::new(certificate, key)));
    assert_refused(&node, world.nobody(), "Expired");
    let other = world.nodes.certify("127.0.0.2");
    let (certificate, key) = world.folder.put_identity("other", &other);
    let elsewhere = start(Some(TlsConfig::new(certificate, key)));
    assert_refused(&elsewhere, world.nobody(), "NotValidForName");
    assert_eq!(node.stop().native.requests + elsewhere.stop().native.requests, 0);
}

#[test]
fn certificates_of_clients_are_checked() {
    let world = World::new();
    let identity = |name: &str, identity: &certificates::Identity| {
        let (certificate, key) = world.folder.put_identity(name, identity);
        world.nobody().certificate(certificate, key)
    };
    let stranger = || identity("stranger", &world.strangers.certify("somebody"));
    let expired = || identity("expired", &world.clients.certify_expired("somebody"));

    let node = start(Some(world.open().client_ca(world.ca("clients"))));
    assert_served(&node, world.somebody());
    assert_refused(&node, world.nobody(), "CertificateRequired");
    assert_refused(&node, stranger(), "UnknownCA");
    assert_refused(&node, expired(), "CertificateExpired");
    let stats = node.stop().native;
    assert_eq!((stats.requests, stats.tls_failures), (2, 3), "a hello and an ask");

    let node = start(Some(world.open().optional_client_ca(world.ca("clients"))));
    assert_served(&node, world.somebody());
    assert_served(&node, world.nobody());
    assert_refused(&node, stranger(), "UnknownCA");
    assert_refused(&node, expired(), "CertificateExpired");
    assert_eq!(node.stop().native.tls_failures, 2);
}

#[test]
fn plain_text_and_tls_do_not_mix() {
    let world = World::new();
    let node = start(Some(world.open()));
    let plain = builder().connect(node.address);
    assert!(matches!(plain, Err(ClientError::Hello(_) | ClientError::Io(_))), "{plain:?}");
    let mut stream = TcpStream::connect(node.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").expect("a few bytes");
    let mut answer = Vec::new();
    // What is left of the request may reset the connection behind the answer.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!((answer[0], answer.len()), (21, 7), "an alert and nothing else");
    assert_eq!(node.stop().native.requests, 0);

    let node = start(None);
    assert_refused(&node, world.nobody(), "InvalidMessage");
    node.stop();
}

#[test]
fn client_finds_out_what_it_may_not_call_when_it_calls_it() {
    let world = World::new();
    let rules = world.open().optional_client_ca(world.ca("clients"));
    let node = start(Some(rules.allow("somebody", ["Mirror.seen"])));
    let client = builder().tls(world.somebody()).connect(node.address);
    let client = client.expect("it may call something");
    let mirror = |key| client.entity::<Mirror>(key);
    assert_eq!(mirror(1).seen().wait(), Ok(0));
    assert_eq!(
        (mirror(1).seen().is_known(), mirror(1).echo(vec![]).is_known()),
        (Some(true), Some(false))
    );
    assert_eq!(mirror(1).echo(vec![1]).wait(), Err(AskError::NoSuchMessage));
    assert!(mirror(1).echo(vec![1]).try_tell().is_err());
    assert_eq!(mirror(1).seen().wait(), Ok(0), "the connection goes on");
    drop(client);
    assert_eq!(node.stop().native.protocol_errors, 0);
}

#[test]
fn client_that_is_dropped_says_the_end_behind_what_it_has_told() {
    let world = World::new();
    let identity = world.nodes.certify("127.0.0.1");
    let (certificate, key) = world.folder.put_identity("node", &identity);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let node = thread::spawn(move || {
        let chain = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has it")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("they go together");
        let tls = rustls::ServerConnection::new(Arc::new(config)).expect("a side");
        let (stream, _) = listener.accept().expect("a client");
        let mut stream = rustls::StreamOwned::new(tls, stream);
        let (_, hello) = read_frame(&mut stream).expect("a hello");
        let hello = Hello::read(&hello, 100).expect("a hello");
        let mut stream = welcome_to(stream, &hello, &WELCOME, &[]);
        // An end that nobody has said is an error here.
        let mut told = Vec::new();
        stream.read_to_end(&mut told).map(|_| told)
    });
    let client = builder().tls(world.nobody()).connect(address).expect("a welcome");
    for number in 0..50 {
        assert!(client.entity::<Mirror>(number).echo(vec![7; 40_000]).try_tell().is_ok());
    }
    drop(client);
    let told = node.join().expect("no panic").expect("the end is said");
    let mut told = told.as_slice();
    let frames = std::iter::from_fn(|| read_frame(&mut told));
    assert_eq!(frames.filter(|(header, _)| header.kind == Kind::Tell).count(), 50);
}

#[test]
fn client_comes_back_with_the_certificates_of_the_day() {
    let world = World::new();
    let node = start(Some(world.open()));
    let address = node.address;
    let client = builder()
        .tls(world.nobody())
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .connect(address)
        .expect("it is let in");
    assert_eq!(client.entity::<Mirror>(1).echo(vec![1]).wait(), Ok(vec![1]));
    node.stop();
    // Another authority vouches for the node from now on.
    world.folder.put("nodes.ca", &world.strangers.pem());
    let identity = world.strangers.certify("127.0.0.1");
    let (certificate, key) = world.folder.put_identity("node", &identity);
    let node = start_at(address, Some(TlsConfig::new(certificate, key)));
    let until = Instant::now() + Duration::from_secs(20);
    let reply = loop {
        match client.entity::<Mirror>(1).echo(vec![2]).wait() {
            Err(AskError::NotSent | AskError::MaybeExecuted) if Instant::now() < until => {
                thread::yield_now();
            }
            other => break other,
        }
    };
    assert_eq!(reply, Ok(vec![2]));
    drop(client);
    node.stop();
}
