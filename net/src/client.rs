//! Calling entities of a node from another program, over the native protocol.
//!
//! [`Client`] is for any thread and any async executor. A thread of its own reads answers and keeps
//! the connection up; requests are sent by whoever makes them.
//!
//! | module | holds |
//! |---|---|
//! | `request` | a message on its way, as a future |
//! | `tell` | a message that is told with patience |
//! | `slot` | where an answer is left for whoever waits |
//! | `calls` | asks that wait for their answers |
//! | `window` | what may be under way, and what waits for that |
//! | `output` | what waits to be sent |
//! | `state` | all of these, of one connection |
//! | `connection` | what requests and the client's thread share of one connection |
//! | `route` | which connection a message takes |
//! | `addresses` | where the node is |
//! | `dial` | one attempt to connect and to shake hands |
//! | `link` | the client's thread: reads, ends what is overdue, has connected again what was lost |
//! | `wakeup` | how that thread is woken |

mod addresses;
mod calls;
mod connection;
mod dial;
mod link;
mod output;
mod request;
mod route;
mod slot;
mod state;
mod tell;
mod wakeup;
mod window;

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use coreside_shard::{
    Address, Entity, Handler, HashKey, Message, Registry, RegistryError, Via, WireRow,
};

use self::addresses::Addresses;
use self::connection::Common;
use self::link::Link;
pub use self::request::ClientRequest;
use self::route::{Route, Router};
pub use self::slot::Slot;
pub use self::tell::ClientTell;
use crate::native::frame::Code;
use crate::native::{HelloError, Standing};
use crate::tls::{ClientTls, TlsError};

/// Prepares a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    registry: Registry,
    config: ClientConfig,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    /// `None` for plain text.
    pub(crate) tls: Option<ClientTls>,
    pub(crate) cluster: u128,
    pub(crate) ask_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// The wait before the first attempt to connect again, and the longest; it doubles.
    pub(crate) backoff: (Duration, Duration),
    /// How long a node may say nothing when it has left an ask without an answer.
    pub(crate) silence: Duration,
    /// The longest frame that is believed or sent, whatever the node allows.
    pub(crate) frame_bytes_max: u32,
    /// Bytes that may wait to be sent.
    pub(crate) output_bytes_max: usize,
    /// One connection is enough, to whichever shard takes it.
    pub(crate) any_shard: bool,
    /// How long the client's thread looks for answers before it sleeps.
    pub(crate) spin: Option<Duration>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tls: None,
            cluster: 0,
            ask_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(10), Duration::from_secs(5)),
            silence: Duration::from_secs(10),
            frame_bytes_max: 64 << 20,
            output_bytes_max: 16 << 20,
            any_shard: false,
            spin: None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The registered types do not make a table.
    Registry(RegistryError),
    /// The system's own.
    Io(io::Error),
    /// There is no TLS with the node.
    Tls(TlsError),
    /// The peer's part of the handshake.
    Hello(HelloError),
    /// The node does not want the connection.
    Refused(Code),
    /// The node means something else by a message. One that it does not know, or has for others
    /// only, is no reason: whoever sends it is [told](coreside_shard::AskError::NoSuchMessage).
    Message {
        /// Entity type and method.
        name: String,
        /// This program's version of it.
        version: u16,
        /// And what its archives look like.
        schema: u64,
        /// What the node says to it.
        standing: Standing,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(error) => write!(f, "{error}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Hello(error) => write!(f, "{error}"),
            Self::Refused(code) => write!(f, "the node refuses the connection: {code}"),
            Self::Message { name, version, schema, standing } => {
                fmt_message(f, name, (*version, *schema), *standing)
            }
        }
    }
}

/// Says who has to do what about a message that both sides do not agree on.
fn fmt_message(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    (ours, our_schema): (u16, u64),
    standing: Standing,
) -> fmt::Result {
    let Standing::OtherSchema { version: theirs, oldest, schema: their_schema } = standing else {
        return write!(
            f,
            "the node has no message {name} (version {ours} here), or not for this client: \
             register its entity type there; if the message is new, bring the node up to date first"
        );
    };
    write!(
        f,
        "{name} has version {ours} (schema {our_schema:016x}) here, and the node takes version "
    )?;
    if oldest < theirs {
        write!(f, "{oldest} or ")?;
    }
    write!(f, "{theirs} (schema {their_schema:016x}): ")?;
    f.write_str(match ours.cmp(&theirs) {
        Ordering::Greater => "bring the node up to date first",
        Ordering::Less => "build this program from newer message types",
        Ordering::Equal => {
            "one of both was changed without a new version: give it one, or build both from the \
             same message types"
        }
    })
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        error.downcast().map_or_else(Self::Io, Self::Tls)
    }
}

impl ClientBuilder {
    /// Adds an entity type whose messages are sent: those with `#[wire]`.
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry.entity::<E>();
        self
    }

    /// Secures the connection; in plain text by default.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// The cluster that is meant; a node of another one refuses. Any by default.
    pub fn cluster(mut self, id: u128) -> Self {
        self.config.cluster = id;
        self
    }

    /// How long an ask waits for its answer at most. 1 s by default.
    pub fn ask_timeout(mut self, limit: Duration) -> Self {
        self.config.ask_timeout = limit;
        self
    }

    /// How long an attempt to connect may take, the handshake included. 5 s by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout = limit;
        self
    }

    /// The wait before a lost connection is tried again, and the longest; it doubles until a
    /// connection has held for as long as the longest, and up to half of it is left out at random.
    /// 10 ms to 5 s by default.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.config.backoff = (first, longest);
        self
    }

    /// When a node that leaves an ask without an answer is taken to be gone: when nothing has come
    /// from it for so long, it is pinged, and when nothing comes for so long again, the connection
    /// is given up and tried anew. 10 s by default.
    pub fn silence(mut self, limit: Duration) -> Self {
        self.config.silence = limit;
        self
    }

    /// The longest frame, both ways, whatever the node allows: one that begins a longer one, all of
    /// which the client would have to hold, is given up. 64 MiB by default; nodes allow 256 KiB by
    /// default.
    pub fn frame_bytes_max(mut self, bytes: u32) -> Self {
        self.config.frame_bytes_max = bytes;
        self
    }

    /// Makes do with one connection, to whichever shard takes it. Without this, and where the node
    /// [tells](crate::native::Welcome::hash_key) what keys are hashed with, there is one to each
    /// shard, and each message goes straight to the shard of its key.
    pub fn any_shard(mut self) -> Self {
        self.config.any_shard = true;
        self
    }

    /// Has the client's thread look for answers for so long before it sleeps: for latency, on a
    /// core that nobody else needs. It sleeps at once by default.
    pub fn spin(mut self, length: Duration) -> Self {
        self.config.spin = Some(length).filter(|length| !length.is_zero());
        self
    }

    /// Connects to the node that listens at `address`. Blocks until the handshake is done. A name
    /// is looked up again for each attempt to connect again, as its node may be elsewhere by then.
    ///
    /// # Errors
    /// Why there is no connection. Later losses are mended by the client itself: requests that find
    /// no connection end with [`NotSent`](coreside_shard::AskError::NotSent).
    pub fn connect(
        self,
        address: impl ToSocketAddrs + Send + Sync + 'static,
    ) -> Result<Client, ClientError> {
        let table = self.registry.build().map_err(ClientError::Registry)?;
        let addresses = Arc::new(Addresses::new(address));
        let common = Arc::new(Common::new(self.config, table)?);
        let router = Arc::new(Router::default());
        let mut first = Link::new(Arc::clone(&common), Arc::clone(&router), addresses, None);
        let welcome = first.connect()?;
        let mut links = vec![first];
        if welcome.hash_key.is_some()
            && !common.config.any_shard
            && welcome.shard < welcome.shards
            && welcome.shards <= SHARDS_MAX
        {
            links[0].settle_at(welcome.shard);
            for shard in (0..welcome.shards).filter(|shard| *shard != welcome.shard) {
                let mut link = links[0].sibling(shard);
                link.connect()?;
                links.push(link);
            }
            links.sort_by_key(Link::shard);
        }
        router.set_lanes(link::lanes(&links));
        let (own, way) = (Arc::clone(&common), Arc::clone(&router));
        let thread = std::thread::Builder::new()
            .name("coreside-client".to_owned())
            .spawn(move || link::run(&own, &way, links))?;
        Ok(Client { core: Arc::new(ClientCore { common, router, thread: Some(thread) }) })
    }
}

/// Calls entities of a node from any thread and any async executor. Cheap to clone. When the last
/// clone is dropped the connection is closed, behind what was sent; what still waits for its turn
/// to be sent (see [`ClientRequest`]) is not. That blocks until the node has what it was told, for
/// a second at most. A child that is made by `fork` has no thread that would read answers: it needs
/// a client of its own.
///
/// # Examples
/// ```no_run
/// # use coreside_net::client::Client;
/// # use coreside_shard::Entity;
/// # fn example<Account: Entity<Key = u64>>() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder().entity::<Account>().connect("127.0.0.1:7411")?;
/// let account = client.entity::<Account>(42);
/// # let _ = account;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    core: Arc<ClientCore>,
}

struct ClientCore {
    common: Arc<Common>,
    router: Arc<Router>,
    thread: Option<JoinHandle<()>>,
}

/// A client does not open more connections, whatever the node says.
const SHARDS_MAX: u16 = 1024;

impl Client {
    /// Prepares a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { registry: Registry::new(), config: ClientConfig::default() }
    }

    /// The way to the entity `key` of type `E`.
    pub fn entity<E: Entity>(&self, key: E::Key) -> E::Ref<Self> {
        E::Ref::from(Address::new(key, self.clone()))
    }

    /// Whether there is a connection just now.
    pub fn is_connected(&self) -> bool {
        self.route().lanes.iter().any(|lane| lane.is_connected())
    }

    /// The secret under which the node hashes keys, where it tells it: what the key of a
    /// [`Name`](coreside_shard::Name) is made with. A node that is started anew may have another.
    pub fn hash_key(&self) -> Option<HashKey> {
        self.route().spread.as_ref().map(|spread| spread.hash_key)
    }

    /// How many connections there are to the node: one to each shard, or one. There are more when
    /// the node comes back with more shards, and never fewer.
    pub fn connections(&self) -> usize {
        self.route().lanes.len()
    }

    fn common(&self) -> &Common {
        &self.core.common
    }

    /// The connections, and which is for which key. To be let go of soon.
    fn route(&self) -> impl Deref<Target = Arc<Route>> {
        self.core.router.route()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        self.common.close();
        if let Some(thread) = self.thread.take()
            // A waker that drops the last clone runs on the client's own thread, which ends.
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of a waker was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Via for Client {
    type Call<E: Handler<M>, M: Message> = ClientRequest<E, M>;

    /// # Panics
    /// When `E` is not registered with this client, or the message is not for the wire.
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> ClientRequest<E, M> {
        let number = self.common().number_of::<E, M>();
        let Some(number) = number else {
            panic!(
                "{} is not for the wire: put `#[wire]` on the handler, and add `.entity::<{}>()` \
                 where the client is built",
                std::any::type_name::<M>(),
                E::NAME
            )
        };
        ClientRequest::new(self, number, key, message)
    }
}

/// The node does not take a message as this program would send it.
fn message_error(row: &WireRow, standing: Standing) -> ClientError {
    let WireRow { name: (entity, method), version, schema, .. } = *row;
    ClientError::Message { name: format!("{entity}.{method}"), version, schema, standing }
}
