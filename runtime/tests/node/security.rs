//! What a node refuses for the sake of safety.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::certificates::{Authority, Folder};
use coreside::{
    Client, ClientError, ClientTls, Deadlines, Limits, NetConfig, Node, NodeBuilder, NodeError,
    TlsConfig, entity, handlers,
};

#[entity]
#[derive(Default)]
struct Vault {
    gold: u64,
}

#[handlers]
impl Vault {
    #[wire]
    fn put(&mut self, gold: u64) -> u64 {
        self.gold += gold;
        self.gold
    }
}

fn everywhere() -> SocketAddr {
    ([0, 0, 0, 0], 0).into()
}

type Listens = fn(NodeBuilder, SocketAddr) -> NodeBuilder;

/// Both protocols.
const LISTENS: [Listens; 2] = [NodeBuilder::listen, NodeBuilder::listen_native];

fn builder() -> NodeBuilder {
    Node::builder().entity::<Vault>().shards(1)
}

#[test]
fn plain_text_does_not_leave_the_machine_unless_it_is_allowed_to() {
    for listen in LISTENS {
        let refused = listen(builder(), everywhere()).start();
        let Err(error @ NodeError::Listen(..)) = refused else { panic!("{refused:?}") };
        let text = error.to_string();
        for advice in ["0.0.0.0:0", "127.0.0.1", "--insecure-plaintext"] {
            assert!(text.contains(advice), "{text}");
        }
        // Never bound beyond loopback here: allowed is what would be refused.
        let node = listen(builder(), ([127, 0, 0, 1], 0).into()).start().expect("loopback");
        node.stop();
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[test]
fn node_with_a_certificate_speaks_tls_on_all_ports() {
    let (authority, folder) = (Authority::new("authority"), Folder::new());
    let ca = folder.put("ca.crt", &authority.pem());
    let (certificate, key) = folder.put_identity("node", &authority.certify("127.0.0.1"));
    let tls = TlsConfig::new(&certificate, &key).client_ca(&ca);
    let node = builder().shards(2).listen(loopback()).listen_native(loopback()).tls(tls).start();
    let node = node.expect("a node");
    let address = node.native_addr().expect("it listens");
    let connect = |tls| Client::builder().entity::<Vault>().tls(tls).connect(address);
    let nobody = connect(ClientTls::new(&ca));
    assert!(matches!(nobody, Err(ClientError::Tls(_))), "{nobody:?}");
    let (certificate, key) = folder.put_identity("client", &authority.certify("client"));
    let client = connect(ClientTls::new(&ca).certificate(certificate, key)).expect("let in");
    for key in 0..20 {
        assert_eq!(client.entity::<Vault>(key).put(7).wait(), Ok(7));
    }
    drop(client);
    // A Redis client in plain text hears an alert, and the end.
    let mut stream = TcpStream::connect(node.local_addr().expect("it listens")).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    stream.write_all(b"PING\r\n").expect("a few bytes");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!((answer[0], answer.len()), (21, 7));
    node.stop();
}

#[test]
fn node_does_not_start_with_certificates_that_cannot_be_used() {
    let folder = Folder::new();
    let (certificate, key) = (folder.put("node.crt", "broken"), folder.put("node.key", "broken"));
    let refused = builder().listen(loopback()).tls(TlsConfig::new(certificate, key)).start();
    let Err(error @ NodeError::Listen(..)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("node.crt"), "{error}");
}

/// Deadlines hold on a node whose shards sleep: they wake for them.
#[test]
fn sleeping_node_closes_connections_that_say_nothing() {
    let brief = Some(Duration::from_millis(100));
    let deadlines = Deadlines { first_byte: brief, ..Deadlines::NONE };
    let limits = Limits { deadlines, ..Limits::default() };
    let net = NetConfig { limits, ..NetConfig::default() };
    let node = builder().listen(loopback()).net(net).start().expect("a node");
    let mut stream = TcpStream::connect(node.local_addr().expect("it listens")).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    // Reads on where a signal of the node's watch interrupts it.
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
    node.stop();
}
