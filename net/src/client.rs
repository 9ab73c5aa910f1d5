//! Calling entities of a node from another program, over the native protocol.
//!
//! [`Client`] is for any thread and any async executor. A thread of its own reads answers and keeps
//! the connection up; requests are sent by whoever makes them.
//!
//! | module | holds |
//! |---|---|
//! | `request` | a message on its way, as a future |
//! | `slot` | where an answer is left for whoever waits |
//! | `connection` | what requests and the client's thread share |
//! | `link` | the client's thread: connects, reads, ends what is overdue |
//! | `wakeup` | how that thread is woken |

mod connection;
mod link;
mod request;
mod slot;
mod wakeup;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use coreside_shard::{Address, Entity, Handler, Message, Registry, RegistryError, Table, Via};

use self::connection::Connection;
use self::link::Link;
pub use self::request::ClientRequest;
pub use self::slot::Slot;
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
    /// Bytes that may wait to be sent.
    pub(crate) output_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tls: None,
            cluster: 0,
            ask_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(10), Duration::from_secs(5)),
            output_bytes_max: 16 << 20,
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
    /// The node does not know a message, or means something else by it.
    Message {
        /// Entity type and method.
        name: String,
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
            Self::Message { name, standing: Standing::OtherSchema } => write!(
                f,
                "{name} has another schema on the node: build client and node from the same \
                 message types"
            ),
            Self::Message { name, .. } => {
                write!(f, "the node has no message {name}: register its entity type there")
            }
        }
    }
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

    /// The wait before a lost connection is tried again, and the longest; it doubles. 10 ms to 5 s
    /// by default.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.config.backoff = (first, longest);
        self
    }

    /// Connects to the node that listens at `address`. Blocks until the handshake is done.
    ///
    /// # Errors
    /// Why there is no connection. Later losses are mended by the client itself: requests that find
    /// no connection end with [`NotSent`](coreside_shard::AskError::NotSent).
    pub fn connect(self, address: impl ToSocketAddrs) -> Result<Client, ClientError> {
        let table = self.registry.build().map_err(ClientError::Registry)?;
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let connection = Arc::new(Connection::new(self.config, table)?);
        let mut link = Link::new(Arc::clone(&connection), addresses);
        link.connect()?;
        let thread = std::thread::Builder::new()
            .name("coreside-client".to_owned())
            .spawn(move || link.run())?;
        Ok(Client { core: Arc::new(ClientCore { connection, thread: Some(thread) }) })
    }
}

/// Calls entities of a node from any thread and any async executor. Cheap to clone; the connection
/// is closed when the last clone is dropped.
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
    connection: Arc<Connection>,
    thread: Option<JoinHandle<()>>,
}

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
        self.core.connection.is_connected()
    }

    fn connection(&self) -> &Connection {
        &self.core.connection
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        self.connection.close();
        if let Some(thread) = self.thread.take()
            // A waker that drops the last clone runs on the client's own thread, which ends by itself.
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
        let number = self.connection().number_of::<E, M>();
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

/// Entity type and method of each message, for errors.
pub(crate) fn name_of(table: &Table, number: usize) -> String {
    let (entity, method) = table.wire()[number].name;
    format!("{entity}.{method}")
}
