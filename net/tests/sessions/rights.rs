//! Who may call what: by the names in the certificates of clients, over sessions without sockets.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use crate::certificates::{Authority, Folder, Identity};
use crate::fake::Fake;
use crate::trust::trusting;
use coreside_macros::{entity, handlers};
use coreside_net::native::frame::{Code, Header, Kind};
use coreside_net::native::{self, Hello, Standing, Welcome};
use coreside_net::resp;
use coreside_net::sessions::{Session, SessionId, Sessions, Talk};
use coreside_net::tls::{ServerTls, TlsConfig};
use coreside_shard::{Body, KeyWords, Outside, Registry, WireCall, WireError, WireRow};
use rustls::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

const NAME: &str = "node.example";
const ADMIN: &str = "spiffe://cluster/admin";

#[entity(crate = coreside_shard)]
struct Account;

#[handlers(crate = coreside_shard)]
impl Account {
    #[local]
    #[wire]
    fn balance(&self) {}

    #[local]
    #[wire]
    fn deposit(&self) {}
}

/// A shard that takes messages and answers none.
struct Taker {
    rows: Vec<WireRow>,
    seen: Vec<u16>,
}

impl Taker {
    fn new() -> Self {
        let mut registry = Registry::new();
        registry.entity::<Account>();
        let rows = registry.build().expect("no name twice").wire().to_vec();
        Self { rows, seen: Vec::new() }
    }

    fn number(&self, method: &str) -> u16 {
        let at = self.rows.iter().position(|row| row.name.1 == method);
        at.expect("it is registered") as u16
    }
}

impl native::Intake for Taker {
    fn messages(&self) -> &[WireRow] {
        &self.rows
    }

    fn send(
        &mut self,
        number: u16,
        _: KeyWords,
        _: Body<'_>,
        _: WireCall,
    ) -> Result<(), WireError> {
        self.seen.push(number);
        Ok(())
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn deadline_ns(&self, time_us: u32) -> u64 {
        u64::from(time_us)
    }
}

/// A node that knows who may do what.
struct World {
    authority: Authority,
    tls: Arc<ServerTls>,
    _folder: Folder,
}

impl World {
    fn new() -> Self {
        let (authority, folder) = (Authority::new("authority"), Folder::new());
        let (certificate, key) = folder.put_identity("node", &authority.certify(NAME));
        let config = TlsConfig::new(certificate, key)
            .optional_client_ca(folder.put("ca.crt", &authority.pem()))
            .allow("reader", ["Account.balance", "GET"])
            .allow("writer", ["Account.*", "SET"])
            .allow(ADMIN, ["*"]);
        let tls = ServerTls::load(config).expect("good files");
        Self { authority, tls, _folder: folder }
    }

    fn line<S: Session>(&self, limits: S::Limits, client: Option<&str>) -> Line<S> {
        let mut sessions = Sessions::new(limits);
        sessions.set_tls(Some(Arc::clone(&self.tls)));
        let id = sessions.open(None).expect("room for one");
        let identity = client.map(|name| self.authority.certify(name));
        Line { sessions, id, client: connection(&self.authority, identity) }
    }
}

fn connection(authority: &Authority, identity: Option<Identity>) -> ClientConnection {
    let builder = trusting(authority);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate: pem, key }) => {
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    };
    let name = ServerName::try_from(NAME).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// A session and its client.
struct Line<S: Session> {
    sessions: Sessions<S>,
    id: SessionId,
    client: ClientConnection,
}

impl<S: Session> Line<S> {
    /// Says something and hears what comes back; `answer` has answers made.
    fn talk<I>(
        &mut self,
        input: &[u8],
        intake: &mut I,
        answer: impl Fn(&mut I, &mut Sessions<S>),
    ) -> Vec<u8>
    where
        S: Talk<I>,
        Sessions<S>: Outside,
    {
        self.client.writer().write_all(input).expect("memory");
        let mut reply = Vec::new();
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).expect("memory");
            }
            self.sessions.receive(self.id, &bytes, intake);
            answer(intake, &mut self.sessions);
            let mut output = Vec::new();
            while self.sessions.next_dirty().is_some() {}
            while let Some(bytes) = self.sessions.begin_send(self.id) {
                let len = bytes.len();
                output.extend_from_slice(bytes);
                assert!(self.sessions.end_send(self.id, len).is_none());
            }
            if bytes.is_empty() && output.is_empty() {
                return reply;
            }
            let mut rest = output.as_slice();
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).expect("it is read");
                self.client.process_new_packets().expect("the node follows the protocol");
            }
            match self.client.reader().read_to_end(&mut reply) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => {
                    end.expect("memory");
                }
            }
        }
    }
}

#[test]
fn commands_are_for_clients_that_may_call_them() {
    let world = World::new();
    let refused = |command: &str| format!("-NOPERM this client may not call '{command}'\r\n");
    let value = "$10\r\nvalue of a\r\n".to_owned();
    let cases = [
        (Some("reader"), value.clone(), refused("set")),
        (Some("writer"), refused("get"), "+OK\r\n".to_owned()),
        (Some(ADMIN), value, "+OK\r\n".to_owned()),
        (Some("guest"), refused("get"), refused("set")),
        (None, refused("get"), refused("set")),
    ];
    for (client, get, set) in cases {
        let mut line = world.line::<resp::Session>(resp::Limits::default(), client);
        let mut fake = Fake::default();
        let input = b"PING\r\nget a\r\nSET a b\r\n";
        let replies = line.talk(input, &mut fake, |fake, sessions| fake.answer_all(sessions));
        let expected = format!("+PONG\r\n{get}{set}");
        assert_eq!(String::from_utf8_lossy(&replies), expected, "{client:?}");
        let sent = [&get, &set].iter().filter(|reply| !reply.starts_with('-')).count();
        assert_eq!(fake.seen.len(), sent, "{client:?}");
    }
}

/// A hello that names both messages, and then asks for both by number, whatever the node has said.
#[test]
fn messages_are_for_clients_that_may_send_them_even_if_they_guess_numbers() {
    let world = World::new();
    let cases = [
        (Some("reader"), true, false),
        (Some("writer"), true, true),
        (Some(ADMIN), true, true),
        (Some("guest"), false, false),
        (None, false, false),
    ];
    for (client, balance, deposit) in cases {
        let mut line = world.line::<native::Session>(native::Limits::default(), client);
        let mut taker = Taker::new();
        let numbers = [taker.number("balance"), taker.number("deposit")];
        let ids = numbers.map(|number| &taker.rows[usize::from(number)]);
        let messages = ids.map(|row| (row.id, row.schema)).to_vec();
        let mut bytes = Vec::new();
        Hello { versions: (1, 1), shard: None, cluster: 0, messages }.write(&mut bytes);
        let reply = line.talk(&bytes, &mut taker, |_, _| {});
        let header = Header::read(&reply, 4096).expect("a frame").expect("whole");
        let welcome = Welcome::read(&reply[16..header.length as usize]).expect("a welcome");
        let expected =
            [(numbers[0], balance), (numbers[1], deposit)].map(|(number, may)| match may {
                true => Standing::Number(number),
                false => Standing::Unknown,
            });
        assert_eq!(welcome.messages, expected, "{client:?}");
        let mut asks = Vec::new();
        for number in numbers {
            let header = Header { message: number, call: 5, ..Header::new(Kind::Ask) };
            header
                .write_with(&mut asks, |out| {
                    out.extend_from_slice(&[0; 16]);
                    Ok::<(), ()>(())
                })
                .expect("room");
        }
        let replies = line.talk(&asks, &mut taker, |_, _| {});
        let refusals = [balance, deposit].iter().filter(|may| !**may).count();
        assert_eq!(replies.len(), refusals * 16, "{client:?}");
        for frame in replies.chunks(16) {
            assert_eq!((frame[4], frame[5]), (Kind::Error as u8, Code::Unknown as u8));
        }
        assert_eq!(taker.seen.len(), 2 - refusals, "{client:?}");
    }
}
