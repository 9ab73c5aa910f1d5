//! TLS over sessions without sockets: what a peer can do to it, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::certificates::{Authority, Folder};
use crate::fake::Fake;
use crate::send_all;
use crate::trust::trusting;
use coreside_net::native::frame::{Header, Kind};
use coreside_net::native::{self, Hello};
use coreside_net::resp;
use coreside_net::sessions::{Session, SessionId, Sessions, Talk};
use coreside_net::tls::{Renewal, ServerTls, TlsConfig, TlsError};
use coreside_shard::Outside;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

const NAME: &str = "node.example";

/// A node's certificate, and who vouches for it.
struct Setting {
    authority: Authority,
    folder: Folder,
    tls: Arc<ServerTls>,
}

impl Setting {
    fn new() -> Self {
        let (authority, folder) = (Authority::new("first"), Folder::new());
        let (certificate, key) = folder.put_identity("node", &authority.certify(NAME));
        let tls = ServerTls::load(TlsConfig::new(certificate, key)).expect("good files");
        Self { authority, folder, tls }
    }

    fn line<S: Session + Talk<Fake>>(&self, limits: S::Limits) -> Line<S> {
        let mut sessions = Sessions::new(limits);
        sessions.set_tls(Some(Arc::clone(&self.tls)));
        let id = sessions.open(None).expect("room for one");
        let client = client(&self.authority);
        Line { sessions, fake: Fake::default(), id, client, sent: Vec::new(), got: Vec::new() }
    }

    fn resp(&self) -> Line<resp::Session> {
        self.line(resp::Limits::default())
    }
}

fn client(authority: &Authority) -> ClientConnection {
    let config = trusting(authority).with_no_client_auth();
    let name = ServerName::try_from(NAME).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// A session that speaks TLS, and a client without a socket.
struct Line<S: Session> {
    sessions: Sessions<S>,
    fake: Fake,
    id: SessionId,
    client: ClientConnection,
    /// All that the client has sent, as it went over the wire.
    sent: Vec<u8>,
    /// What the session has sent last, likewise.
    got: Vec<u8>,
}

impl<S: Session + Talk<Fake>> Line<S>
where
    Sessions<S>: Outside,
{
    fn receive(&mut self, bytes: &[u8]) {
        self.sessions.receive(self.id, bytes, &mut self.fake);
    }

    /// What the session sends.
    fn output(&mut self) -> Vec<u8> {
        send_all(&mut self.sessions, self.id)
    }

    /// Moves bytes both ways, in pieces of `piece`, until there are none.
    fn exchange(&mut self, piece: usize) -> Result<(), rustls::Error> {
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).expect("memory");
            }
            for piece in bytes.chunks(piece) {
                self.receive(piece);
            }
            let output = self.output();
            if bytes.is_empty() && output.is_empty() {
                return Ok(());
            }
            self.sent.extend(bytes);
            for mut piece in output.chunks(piece) {
                while !piece.is_empty() {
                    self.client.read_tls(&mut piece).expect("it is read");
                    self.client.process_new_packets()?;
                }
            }
            self.got = output;
        }
    }

    /// Says something and hears what comes back.
    fn talk(&mut self, input: &[u8], piece: usize) -> Vec<u8> {
        self.client.writer().write_all(input).expect("memory");
        let mut reply = Vec::new();
        loop {
            self.exchange(piece).expect("the node follows the protocol");
            match self.client.reader().read_to_end(&mut reply) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => {
                    end.expect("memory");
                }
            }
            if self.fake.waiting.is_empty() {
                return reply;
            }
            self.fake.answer_all(&mut self.sessions);
        }
    }

    /// The session is to be closed, has told why, and no request has got through.
    #[track_caller]
    fn assert_refused(&mut self) {
        let _ = self.exchange(usize::MAX);
        assert!(self.sessions.is_finished(self.id));
        assert_eq!(self.sessions.stats().tls_failures, 1);
        assert_eq!((self.sessions.stats().requests, self.fake.seen.len()), (0, 0));
    }
}

/// The records in bytes of TLS: type and length.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, len));
        bytes = &rest[len..];
    }
    records
}

fn hello() -> Vec<u8> {
    let hello = Hello { versions: (1, 1), shard: None, cluster: 0, messages: Vec::new() };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

#[test]
fn requests_and_replies_pass_however_they_are_cut() {
    let setting = Setting::new();
    for piece in [1, 7, 100, usize::MAX] {
        let mut line = setting.resp();
        assert_eq!(line.talk(b"PING\r\n", piece), b"+PONG\r\n");
        assert_eq!(
            line.talk(b"GET a\r\nGET b\r\n", piece),
            b"$10\r\nvalue of a\r\n$10\r\nvalue of b\r\n"
        );
        let stats = line.sessions.stats();
        assert_eq!((stats.requests, stats.tls_failures, stats.protocol_errors), (3, 0, 0));
    }
}

#[test]
fn native_frames_pass_and_are_aligned() {
    let setting = Setting::new();
    for piece in [1, 13, usize::MAX] {
        let mut line = setting.line::<native::Session>(native::Limits::default());
        let welcome = line.talk(&hello(), piece);
        assert_eq!(welcome[4], Kind::Welcome as u8);
        let mut pings = Vec::new();
        for call in 0..100 {
            Header { call, ..Header::new(Kind::Ping) }.write(&mut pings);
        }
        let pongs = line.talk(&pings, piece);
        assert_eq!(pongs.len(), pings.len());
        assert!(pongs.chunks(16).all(|frame| frame[4] == Kind::Pong as u8));
    }
}

#[test]
fn requests_right_behind_the_handshake_are_no_part_of_it() {
    let setting = Setting::new();
    let request = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$30000\r\n{}\r\n", "x".repeat(30_000));
    // As one receive, which a large buffer makes of it.
    assert_eq!(setting.resp().talk(request.as_bytes(), usize::MAX), b"+OK\r\n");
}

#[test]
fn many_replies_share_a_record() {
    let setting = Setting::new();
    let mut line = setting.resp();
    assert_eq!(line.talk(b"PING\r\n", usize::MAX), b"+PONG\r\n");
    let replies = line.talk(&b"PING\r\n".repeat(2_000), usize::MAX);
    assert_eq!(replies, b"+PONG\r\n".repeat(2_000));
    assert_eq!(records(&line.got).len(), 1, "14,000 bytes of replies: {:?}", records(&line.got));
}

#[test]
fn end_is_said_and_heard() {
    let setting = Setting::new();
    let mut line = setting.resp();
    assert_eq!(line.talk(b"QUIT\r\n", usize::MAX), b"+OK\r\n");
    assert!(line.client.process_new_packets().expect("no error").peer_has_closed());
    assert!(line.sessions.is_finished(line.id));
    // And the other way round: what was asked is answered before the end.
    let mut line = setting.resp();
    line.client.writer().write_all(b"GET a\r\n").expect("memory");
    line.exchange(usize::MAX).expect("a handshake");
    line.client.send_close_notify();
    line.exchange(usize::MAX).expect("an end");
    assert!(!line.sessions.is_finished(line.id), "an answer is owed");
    assert_eq!(line.talk(b"", usize::MAX), b"$10\r\nvalue of a\r\n");
    assert!(line.sessions.is_finished(line.id));
}

#[test]
fn drain_says_the_end_to_who_is_there_and_closes_who_is_not() {
    let setting = Setting::new();
    let mut line = setting.resp();
    assert_eq!(line.talk(b"PING\r\n", usize::MAX), b"+PONG\r\n");
    let stranger = line.sessions.open(None).expect("room");
    line.sessions.drain();
    assert!(line.sessions.is_finished(stranger), "nothing can be said to it yet");
    assert!(!line.sessions.is_finished(line.id));
    line.exchange(usize::MAX).expect("an end");
    assert!(line.client.process_new_packets().expect("no error").peer_has_closed());
    assert!(line.sessions.is_finished(line.id));
}

#[test]
fn plain_text_on_a_secured_port_is_refused() {
    let setting = Setting::new();
    for bytes in [b"PING\r\n".as_slice(), b"*1\r\n$4\r\nPING\r\n", &[0; 64], &[0xff; 64]] {
        let mut line = setting.resp();
        line.receive(bytes);
        let output = line.output();
        assert_eq!(records(&output), [(21, 2)], "an alert and nothing else");
        line.assert_refused();
    }
    let mut line = setting.line::<native::Session>(native::Limits::default());
    line.receive(&hello());
    line.assert_refused();
}

#[test]
fn replayed_connection_is_refused() {
    let setting = Setting::new();
    let mut first = setting.resp();
    assert_eq!(first.talk(b"SET key value\r\n", usize::MAX), b"+OK\r\n");
    assert_eq!(first.fake.seen.len(), 1);
    let recorded = std::mem::take(&mut first.sent);
    for piece in [1, 50, usize::MAX] {
        let mut line = setting.resp();
        for piece in recorded.chunks(piece.min(recorded.len())) {
            line.receive(piece);
        }
        assert!(!line.output().is_empty(), "it takes the hello for a new one");
        line.assert_refused();
    }
}

#[test]
fn record_that_was_changed_ends_the_connection() {
    let setting = Setting::new();
    let mut line = setting.resp();
    assert_eq!(line.talk(b"PING\r\n", usize::MAX), b"+PONG\r\n");
    line.client.writer().write_all(b"SET key value\r\n").expect("memory");
    let mut bytes = Vec::new();
    line.client.write_tls(&mut bytes).expect("memory");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    line.receive(&bytes);
    let _ = line.output();
    assert!(line.sessions.is_finished(line.id));
    assert_eq!((line.sessions.stats().tls_failures, line.fake.seen.len()), (1, 0));
}

#[test]
fn oversized_records_and_frames_end_the_connection() {
    let setting = Setting::new();
    // A record longer than records may be.
    let mut line = setting.resp();
    line.receive(&[22, 3, 1, 0xff, 0xff]);
    line.receive(&[0; 1000]);
    line.assert_refused();
    // A message of the handshake that is longer than any certificate.
    let mut line = setting.resp();
    line.receive(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
    for _ in 0..100 {
        line.receive(&[0; 1000]);
    }
    line.assert_refused();
    // One that would be taken, but for what it makes of memory before anybody knows the peer.
    let mut line = setting.resp();
    let mut received = 0;
    line.receive(&[22, 3, 1, 0x40, 0, 1, 0, 0xea, 0x60]);
    line.receive(&[0; 16_380]);
    while line.sessions.wants_input(line.id) {
        line.receive(&[22, 3, 1, 0x40, 0]);
        line.receive(&[0; 16_384]);
        received += 16_384;
    }
    assert!(received <= 16 << 10, "{received}");
    line.assert_refused();
    // A frame longer than the welcome said, within TLS.
    let mut line = setting.line::<native::Session>(native::Limits::default());
    let mut bytes = hello();
    Header::new(Kind::Ping).write(&mut bytes);
    let at = bytes.len() - 16;
    bytes[at..at + 4].copy_from_slice(&(256 * 1024 + 1_u32).to_le_bytes());
    let output = line.talk(&bytes, usize::MAX);
    assert_eq!(output[output.len() - 16 + 4], Kind::GoAway as u8);
    assert!(line.sessions.is_finished(line.id));
    assert_eq!(line.sessions.stats().protocol_errors, 1);
}

#[test]
fn slow_and_half_open_handshakes_end_in_time() {
    let setting = Setting::new();
    let passes = |line: &mut Line<resp::Session>, ms: u64| {
        line.sessions.tick(ms * 1_000_000);
        !line.sessions.is_finished(line.id)
    };
    // A byte of the hello every 400 ms.
    let mut line = setting.resp();
    let mut bytes = Vec::new();
    line.client.write_tls(&mut bytes).expect("memory");
    for (at, byte) in bytes[..12].iter().enumerate() {
        assert!(passes(&mut line, at as u64 * 400), "byte {at}");
        line.receive(&[*byte]);
    }
    assert!(passes(&mut line, 4_990));
    assert!(!passes(&mut line, 5_270));
    assert_eq!(line.sessions.stats().timeouts, 1);
    // A whole hello, and then nothing.
    let mut line = setting.resp();
    line.receive(&bytes);
    assert!(!line.output().is_empty(), "the node's part");
    assert!(passes(&mut line, 4_990));
    assert!(!passes(&mut line, 5_270));
}

#[test]
fn flood_of_handshakes_is_bounded_by_the_caps() {
    let setting = Setting::new();
    let limits = native::Limits {
        connections_max: 200,
        connections_per_address_max: 50,
        ..native::Limits::default()
    };
    let mut line = setting.line::<native::Session>(limits);
    let mut hello = Vec::new();
    line.client.write_tls(&mut hello).expect("memory");
    let mut open = 1;
    for at in 0..1_000_u16 {
        let peer = SocketAddr::from(([192, 0, 2, (at / 200) as u8], at));
        let Some(id) = line.sessions.open(Some(peer)) else { continue };
        open += 1;
        line.sessions.receive(id, &hello, &mut line.fake);
    }
    assert_eq!(open, 200);
    for ms in (0..6_000_u64).step_by(100) {
        line.sessions.tick(ms * 1_000_000);
    }
    let mut closed = 0;
    while let Some(id) = line.sessions.next_dirty() {
        if line.sessions.is_finished(id) {
            line.sessions.close(id);
            closed += 1;
        }
    }
    assert_eq!((closed, line.sessions.open_count()), (200, 0));
}

#[test]
fn new_certificates_are_used_and_broken_ones_are_not() {
    let setting = Setting::new();
    let second = Authority::new("second");
    let meets = |authority: &Authority| {
        let mut line = setting.resp();
        line.client = client(authority);
        line.exchange(usize::MAX).is_ok()
    };
    assert!(meets(&setting.authority) && !meets(&second));
    assert_eq!(setting.tls.renew().ok(), Some(Renewal::Unchanged));
    // Half of a pair has been written.
    let identity = second.certify(NAME);
    setting.folder.put("node.crt", &identity.certificate);
    assert!(matches!(setting.tls.renew(), Err(TlsError::Rustls(_))));
    assert_eq!(setting.tls.renew().ok(), Some(Renewal::Unchanged), "said once");
    assert!(meets(&setting.authority) && !meets(&second));
    for broken in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        setting.folder.put("node.crt", broken);
        assert!(setting.tls.renew().is_err(), "{broken}");
        assert!(meets(&setting.authority), "the old one is kept");
    }
    setting.folder.put_identity("node", &identity);
    assert_eq!(setting.tls.renew().ok(), Some(Renewal::Renewed));
    assert!(meets(&second) && !meets(&setting.authority));
}

#[test]
fn files_are_looked_at_until_nobody_needs_them() {
    let Setting { authority, folder, tls } = Setting::new();
    let (reports, reported) = mpsc::channel();
    tls.keep_fresh(Duration::from_millis(1), move |renewed| {
        reports.send(renewed.is_ok()).unwrap_or_default();
    })
    .expect("a thread");
    let limit = Duration::from_secs(20);
    folder.put("node.crt", "broken");
    assert_eq!(reported.recv_timeout(limit), Ok(false));
    folder.put_identity("node", &authority.certify(NAME));
    // Between the two files there may be a look.
    while reported.recv_timeout(limit) == Ok(false) {}
    drop(tls);
    assert_eq!(reported.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let identity = Authority::new("any").certify(NAME);
    let (certificate, key) = folder.put_identity("node", &identity);
    let missing = ServerTls::load(TlsConfig::new("/nowhere/node.crt", &key)).expect_err("no file");
    assert!(missing.to_string().contains("/nowhere/node.crt"), "{missing}");
    let swapped = ServerTls::load(TlsConfig::new(&key, &certificate)).expect_err("no certificate");
    assert!(swapped.to_string().contains("node.key"), "{swapped}");
    let authority = folder.put("empty.crt", "");
    let none = TlsConfig::new(&certificate, &key).client_ca(authority);
    let none = ServerTls::load(none).expect_err("no authority");
    assert!(none.to_string().contains("empty.crt"), "{none}");
}
