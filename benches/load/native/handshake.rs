use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use coreside_net::native::frame::{Code, FrameError, HEADER_BYTES, Header, Kind, VERSION};
use coreside_net::native::{Hello, HelloError, Standing, Welcome};

use coreside_shard::HashKey;

use super::message::Named;

/// The longest welcome that is read.
const WELCOME_BYTES_MAX: u32 = 64 * 1024;

/// What a node has granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The number of each of the workload's messages.
    pub(crate) numbers: Vec<u16>,
    pub(crate) frame_bytes_max: u32,
    /// Tells that may be under way.
    pub(crate) tells_max: u32,
    /// Of how many shards the node is made.
    pub(crate) shards: u16,
    /// What keys are hashed with, if the node tells.
    pub(crate) hash_key: Option<HashKey>,
}

/// Why a node cannot be driven.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    Io(io::Error),
    /// No answer within the time-out.
    Silent,
    Frame(FrameError),
    Welcome(HelloError),
    /// It answers with something else.
    Kind(Kind),
    Refused(Option<Code>),
    Unknown(String),
    OtherSchema(String),
    /// More requests than may wait for their answers.
    Depth {
        depth: u32,
        calls_max: u32,
    },
    TooLong {
        name: String,
        frame_bytes_max: u32,
    },
    /// Another node has given other numbers.
    OtherNumbers,
    /// Nobody can know which shard a key is on.
    NoHashKey,
    FewConnections {
        connections: usize,
        shards: u16,
    },
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Silent => write!(f, "no welcome within the time-out; is it a native port?"),
            Self::Frame(error) => write!(f, "the answer is {error}; is it a native port?"),
            Self::Welcome(error) => write!(f, "{error}"),
            Self::Kind(kind) => write!(f, "the answer is an unexpected frame: {kind:?}"),
            Self::Refused(Some(code)) => write!(f, "refused: {code}"),
            Self::Refused(None) => write!(f, "refused"),
            Self::Unknown(name) => write!(f, "it knows no {name} that clients may send"),
            Self::OtherSchema(name) => {
                write!(f, "its {name} has other arguments (names, types, order) or another reply")
            }
            Self::Depth { depth, calls_max } => {
                write!(f, "depth {depth}, but {calls_max} asks may wait on a connection")
            }
            Self::TooLong { name, frame_bytes_max } => {
                write!(f, "{name} is longer than a frame may be, {frame_bytes_max} bytes")
            }
            Self::OtherNumbers => {
                write!(f, "it numbers messages in another way than the target before it")
            }
            Self::NoHashKey => {
                write!(f, "it does not tell what keys are hashed with, as --shard-aware needs")
            }
            Self::FewConnections { connections, shards } => {
                write!(f, "{connections} connections, but {shards} shards")
            }
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

/// Says hello on a connection that is new, to `shard` or to any, and waits for the welcome.
///
/// # Errors
/// When the node or the network refuse, or when the node means something else by a message.
pub(crate) fn shake(
    mut socket: &TcpStream,
    shard: Option<u16>,
    messages: &[Named],
    depth: u32,
    timeout: Duration,
) -> Result<Granted, HandshakeError> {
    let hello = Hello {
        versions: (VERSION, VERSION),
        shard,
        cluster: 0,
        messages: messages.iter().map(|named| (named.id, named.schema)).collect(),
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    socket.set_read_timeout(Some(timeout))?;
    socket.write_all(&bytes)?;
    bytes.resize(HEADER_BYTES, 0);
    socket.read_exact(&mut bytes)?;
    let header = match Header::read(&bytes, WELCOME_BYTES_MAX) {
        Ok(Some(header)) => header,
        Ok(None) => return Err(HandshakeError::Welcome(HelloError::Malformed)),
        Err(error) => return Err(HandshakeError::Frame(error)),
    };
    match header.kind {
        Kind::Welcome => {}
        Kind::GoAway => return Err(HandshakeError::Refused(Code::from_byte(header.code))),
        kind => return Err(HandshakeError::Kind(kind)),
    }
    bytes.resize(header.padded() - HEADER_BYTES, 0);
    socket.read_exact(&mut bytes)?;
    socket.set_read_timeout(None)?;
    let content = &bytes[..header.length as usize - HEADER_BYTES];
    let welcome = Welcome::read(content).map_err(HandshakeError::Welcome)?;
    grant(&welcome, messages, depth)
}

fn grant(welcome: &Welcome, messages: &[Named], depth: u32) -> Result<Granted, HandshakeError> {
    let &Welcome { frame_bytes_max, calls_max, tells_max, shards, hash_key, .. } = welcome;
    if depth > calls_max {
        return Err(HandshakeError::Depth { depth, calls_max });
    }
    if welcome.messages.len() != messages.len() {
        return Err(HandshakeError::Welcome(HelloError::Malformed));
    }
    let number = |(named, standing): (&Named, &Standing)| {
        let name = named.name.clone();
        match standing {
            Standing::Number(_) if named.frame_bytes > frame_bytes_max as usize => {
                Err(HandshakeError::TooLong { name, frame_bytes_max })
            }
            Standing::Number(number) => Ok(*number),
            Standing::Unknown => Err(HandshakeError::Unknown(name)),
            Standing::OtherSchema { .. } => Err(HandshakeError::OtherSchema(name)),
        }
    };
    let numbers = messages.iter().zip(&welcome.messages).map(number).collect::<Result<_, _>>()?;
    Ok(Granted { numbers, frame_bytes_max, tells_max, shards, hash_key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::message::Message;
    use crate::native::shape::Types;

    #[test]
    fn bounds_of_the_welcome_are_kept() {
        let text = "A.note(text: String = {value})";
        let message = Message::compile(text, &"x".repeat(2_000), &Types::default());
        let messages = [message.expect("valid").named().clone()];
        let welcome = |frame_bytes_max, standing| Welcome {
            version: VERSION,
            shard: 0,
            shards: 1,
            cluster: 0,
            frame_bytes_max,
            calls_max: 8,
            tells_max: 8,
            entity_messages_max: 4,
            hash_key: None,
            messages: vec![standing],
        };
        let known = welcome(4_096, Standing::Number(3));
        let granted = Granted {
            numbers: vec![3],
            frame_bytes_max: 4_096,
            tells_max: 8,
            shards: 1,
            hash_key: None,
        };
        assert_eq!(grant(&known, &messages, 8).expect("within all bounds"), granted);
        let error = |welcome: &Welcome, depth| {
            grant(welcome, &messages, depth).expect_err("beyond a bound").to_string()
        };
        assert_eq!(error(&known, 9), "depth 9, but 8 asks may wait on a connection");
        assert!(error(&welcome(1_024, Standing::Number(3)), 8).contains("longer than a frame"));
        assert!(error(&welcome(4_096, Standing::Unknown), 8).contains("no A.note"));
        let other = Standing::OtherSchema { version: 2, oldest: 1, schema: 3 };
        assert!(error(&welcome(4_096, other), 8).contains("other arguments"));
        let none = Welcome { messages: Vec::new(), ..known };
        assert!(error(&none, 8).contains("not well-formed"));
    }
}
