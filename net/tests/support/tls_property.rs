//! What holds for any bytes that a port with TLS is given, and for any change of the records of a
//! client that follows the rules.

use std::io::Write;
use std::sync::Arc;

use coreside_net::resp::{self, Limits};
use coreside_net::sessions::{SessionId, Sessions};
use coreside_net::tls::{ServerTls, TlsConfig};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::certificates::{Authority, Folder};
use crate::fake::Fake;
use crate::trust::trusting;

const NAME: &str = "node.example";

/// A node's certificate, and a client that trusts it.
pub(crate) struct Setting {
    node: Arc<ServerTls>,
    client: Arc<ClientConfig>,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let (authority, folder) = (Authority::new("first"), Folder::new());
        let (certificate, key) = folder.put_identity("node", &authority.certify(NAME));
        let node = ServerTls::load(TlsConfig::new(certificate, key)).expect("good files");
        let client = trusting(&authority).with_no_client_auth();
        Self { node, client: Arc::new(client) }
    }
}

/// The bytes that say what is done.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// 0 behind the end.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The bytes of `script` as they are (0), or as a script of what a client says and of what becomes
/// of its records: from the handshake on (1), or behind it (2).
pub(crate) fn check(setting: &Setting, script: &[u8]) {
    let mut script = Script(script);
    let mut line = Line::new(setting);
    match script.byte() % 3 {
        0 => {
            while !script.0.is_empty() {
                let len = usize::from(script.byte());
                line.receive(script.bytes(len));
                line.settle();
            }
        }
        1 => line.converse(&mut script),
        _ => {
            line.exchange(&mut Script(&[]));
            assert!(!line.client.is_handshaking(), "nothing was changed");
            line.converse(&mut script);
        }
    }
    line.end();
}

/// A session that speaks TLS, and its client.
struct Line {
    sessions: Sessions<resp::Session>,
    fake: Fake,
    id: SessionId,
    client: ClientConnection,
    /// The client hears nothing any more: it was told something wrong, or has said the end.
    deaf: bool,
    /// All that the client has said.
    said: Vec<u8>,
}

/// What is said of a record.
const KEPT_MAX: usize = 64 << 10;

impl Line {
    fn new(setting: &Setting) -> Self {
        let mut sessions = Sessions::new(Limits::default());
        sessions.set_tls(Some(Arc::clone(&setting.node)));
        let id = sessions.open(None).expect("room for one");
        let name = ServerName::try_from(NAME).expect("a name");
        let client = ClientConnection::new(Arc::clone(&setting.client), name).expect("a client");
        Self { sessions, fake: Fake::default(), id, client, deaf: false, said: Vec::new() }
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.sessions.wants_input(self.id) && !bytes.is_empty() {
            self.sessions.receive(self.id, bytes, &mut self.fake);
            let held = self.sessions.unparsed_bytes();
            assert!(held <= KEPT_MAX, "{held} bytes are held");
        }
    }

    /// Has requests answered and answers sent; the client hears what comes.
    fn settle(&mut self) {
        loop {
            self.fake.answer_all(&mut self.sessions);
            self.sessions.resume(&mut self.fake);
            let mut output = Vec::new();
            while self.sessions.next_dirty().is_some() {}
            while let Some(bytes) = self.sessions.begin_send(self.id) {
                let len = bytes.len();
                output.extend_from_slice(bytes);
                assert!(self.sessions.end_send(self.id, len).is_none());
            }
            if output.is_empty() && self.fake.waiting.is_empty() {
                return;
            }
            let mut rest = output.as_slice();
            while !rest.is_empty() && !self.deaf {
                self.deaf = self.client.read_tls(&mut rest).is_err()
                    || self.client.process_new_packets().is_err();
            }
        }
    }

    /// Moves the client's records, changed as the script says, until it has none.
    fn exchange(&mut self, script: &mut Script<'_>) {
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).expect("memory");
            }
            if bytes.is_empty() {
                return;
            }
            for record in records(&bytes) {
                self.pass_on(record, script);
            }
            self.settle();
        }
    }

    /// Passes a record on, or something else.
    fn pass_on(&mut self, record: &[u8], script: &mut Script<'_>) {
        let mut changed = record.to_vec();
        match script.byte() {
            // A byte of it, or of its header, is another one.
            op @ 1..=9 => {
                let at = match op {
                    1..=5 => usize::from(op) - 1,
                    _ => usize::from(u16::from_le_bytes([script.byte(), script.byte()])),
                };
                let at = at % changed.len();
                changed[at] ^= script.byte();
            }
            10 => return,
            11 => changed.extend_from_slice(record),
            // Something comes before it.
            12 => {
                let len = usize::from(script.byte());
                changed.splice(0..0, script.bytes(len).iter().copied());
            }
            // It is cut off.
            13 => changed.truncate(usize::from(script.byte())),
            // It comes in pieces.
            14 => {
                let piece = 1 + usize::from(script.byte());
                record.chunks(piece).for_each(|piece| self.receive(piece));
                return;
            }
            _ => {}
        }
        self.receive(&changed);
    }

    fn converse(&mut self, script: &mut Script<'_>) {
        self.exchange(script);
        while !script.0.is_empty() {
            match script.byte() {
                0 => {
                    self.client.send_close_notify();
                    // What it does not understand behind that is, with rustls's debug assertions,
                    // a panic; and an answer to a handshake that was cut off is plain text.
                    self.deaf = true;
                }
                1 => drop(self.client.refresh_traffic_keys()),
                len => {
                    let text = script.bytes(usize::from(len));
                    // What is said before the handshake is done waits until then.
                    if self.client.writer().write_all(text).is_ok() {
                        self.said.extend_from_slice(text);
                    }
                }
            }
            self.exchange(script);
        }
    }

    /// What came through was said, in this order, from the beginning.
    fn end(mut self) {
        self.settle();
        let mut plain = Sessions::<resp::Session>::new(Limits::default());
        let (id, mut fake) = (plain.open(None).expect("room for one"), Fake::default());
        plain.receive(id, &self.said, &mut fake);
        loop {
            fake.answer_all(&mut plain);
            while plain.next_dirty().is_some() {}
            while let Some(len) = plain.begin_send(id).map(<[u8]>::len) {
                assert!(plain.end_send(id, len).is_none());
            }
            if plain.resume(&mut fake) == 0 && fake.waiting.is_empty() {
                break;
            }
        }
        assert!(fake.seen.starts_with(&self.fake.seen), "{:?} came through", self.fake.seen);
        self.sessions.close(self.id);
        assert_eq!((self.sessions.unparsed_bytes(), self.sessions.open_count()), (0, 0));
    }
}

/// The records in bytes of TLS.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low])) + 5;
        let (record, rest) = bytes.split_at(len.min(bytes.len()));
        records.push(record);
        bytes = rest;
    }
    records
}
