//! The handshake: which messages both sides mean by which numbers, and within which bounds.

use std::fmt;

use coreside_shard::{HashKey, WireRow};

use super::frame::{Code, Header, Kind, MAGIC, VERSION};

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The lowest and the highest version of the protocol that it speaks.
    pub versions: (u16, u16),
    /// The shard that it wants to talk to; `None` for any.
    pub shard: Option<u16>,
    /// The cluster that it means; 0 for any.
    pub cluster: u128,
    /// Number and schema of each message that it is going to send.
    pub messages: Vec<(u64, u64)>,
}

/// What the node answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u16,
    /// The shard that the connection is on.
    pub shard: u16,
    /// How many shards the node has.
    pub shards: u16,
    /// The node's cluster.
    pub cluster: u128,
    /// The longest frame, both ways.
    pub frame_bytes_max: u32,
    /// Asks that may wait for their answers.
    pub calls_max: u32,
    /// Tells that may not be handled.
    pub tells_max: u32,
    /// How many of both should at most be for one entity.
    pub entity_messages_max: u16,
    /// What keys are hashed with, so that a client finds the shard of each; `None` where it is not
    /// told.
    pub hash_key: Option<HashKey>,
    /// What becomes of each message of the hello, in its order.
    pub messages: Vec<Standing>,
}

/// What a welcome says of the node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// This shard.
    pub shard: u16,
    /// How many there are.
    pub shards: u16,
    /// The cluster; 0 for none.
    pub cluster: u128,
    /// What keys are hashed with, where clients may know it.
    pub hash_key: Option<HashKey>,
}

/// What a node says to a message of the hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It goes by this number in headers.
    Number(u16),
    /// The node has no such message, or not for this client.
    Unknown,
    /// The node means something else by it: its archives have another schema.
    OtherSchema {
        /// The node's version of it.
        version: u16,
        /// The oldest version that the node takes.
        oldest: u16,
        /// The schema of the node's version.
        schema: u64,
    },
}

/// Why a handshake fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloError {
    /// It does not begin as a handshake does.
    NotNative,
    /// It is shorter than it says, or says more than it may.
    Malformed,
    /// Another protocol version.
    Version {
        /// The lowest that the peer speaks.
        lowest: u16,
        /// The highest.
        highest: u16,
    },
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNative => f.write_str("the peer does not speak the native protocol"),
            Self::Malformed => f.write_str("the handshake is not well-formed"),
            Self::Version { lowest, highest } => {
                write!(f, "the peer speaks versions {lowest} to {highest}, not {VERSION}")
            }
        }
    }
}

impl std::error::Error for HelloError {}

impl HelloError {
    /// What the peer is told.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Version { .. } => Code::Version,
            _ => Code::Protocol,
        }
    }
}

/// In place of a shard: any.
const ANY_SHARD: u16 = u16::MAX;
/// In place of a message's number.
const UNKNOWN: u16 = u16::MAX;
const OTHER_SCHEMA: u16 = u16::MAX - 1;
/// The flag of a welcome that tells what keys are hashed with.
const HAS_HASH_KEY: u16 = 1;

impl Hello {
    /// Appends the frame to `out`, which holds whole frames.
    ///
    /// # Panics
    /// With more than 65,535 messages.
    pub fn write(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.messages.len()).expect("messages have 16-bit numbers");
        let content = |out: &mut Vec<u8>| {
            out.extend_from_slice(&MAGIC);
            let shard = self.shard.unwrap_or(ANY_SHARD);
            for word in [self.versions.0, self.versions.1, shard, count] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(&self.cluster.to_le_bytes());
            for (id, schema) in &self.messages {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&schema.to_le_bytes());
            }
            Ok::<(), std::convert::Infallible>(())
        };
        Header::new(Kind::Hello).write_with(out, content).unwrap_or_default();
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// Why it is no hello that this side can answer.
    pub fn read(content: &[u8], messages_max: u16) -> Result<Self, HelloError> {
        let mut reader = Reader(content);
        if reader.take()? != MAGIC {
            return Err(HelloError::NotNative);
        }
        let (lowest, highest) = (reader.u16()?, reader.u16()?);
        if !(lowest..=highest).contains(&VERSION) {
            return Err(HelloError::Version { lowest, highest });
        }
        let (shard, count) = (reader.u16()?, reader.u16()?);
        let cluster = u128::from_le_bytes(reader.take()?);
        if count > messages_max {
            return Err(HelloError::Malformed);
        }
        let message = |_| Ok((reader.u64()?, reader.u64()?));
        let messages = (0..count).map(message).collect::<Result<_, _>>()?;
        let shard = (shard != ANY_SHARD).then_some(shard);
        Ok(Self { versions: (lowest, highest), shard, cluster, messages })
    }

    /// What the node says to each message, of those that the client may call.
    pub(crate) fn standings(
        &self,
        rows: &[WireRow],
        may_call: impl Fn(&WireRow) -> bool,
    ) -> Vec<Standing> {
        let standing = |(id, schema): &(u64, u64)| {
            let is_this = |row: &&WireRow| row.id == *id && may_call(row);
            let exactly = |row: &WireRow| row.schema == *schema && is_this(&row);
            if let Some(number) = rows.iter().position(exactly) {
                return Standing::Number(number as u16);
            }
            let versions = || rows.iter().filter(is_this);
            let newest = versions().max_by_key(|row| row.version);
            let Some(&WireRow { version, schema, .. }) = newest else {
                return Standing::Unknown;
            };
            let oldest = versions().map(|row| row.version).min().unwrap_or(version);
            Standing::OtherSchema { version, oldest, schema }
        };
        self.messages.iter().map(standing).collect()
    }
}

impl Welcome {
    /// Appends the frame to `out`, which holds whole frames.
    ///
    /// # Panics
    /// With more than 65,535 messages.
    pub fn write(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.messages.len()).expect("messages have 16-bit numbers");
        let content = |out: &mut Vec<u8>| {
            out.extend_from_slice(&MAGIC);
            for word in [self.version, self.shard, self.shards, count] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(&self.cluster.to_le_bytes());
            out.extend_from_slice(&self.frame_bytes_max.to_le_bytes());
            out.extend_from_slice(&self.calls_max.to_le_bytes());
            let flags = if self.hash_key.is_some() { HAS_HASH_KEY } else { 0 };
            out.extend_from_slice(&flags.to_le_bytes());
            out.extend_from_slice(&self.entity_messages_max.to_le_bytes());
            out.extend_from_slice(&self.tells_max.to_le_bytes());
            let secret = self.hash_key.map_or(0, |key| key.secret());
            out.extend_from_slice(&secret.to_le_bytes());
            for standing in &self.messages {
                let number = match standing {
                    Standing::Number(number) => *number,
                    Standing::Unknown => UNKNOWN,
                    Standing::OtherSchema { .. } => OTHER_SCHEMA,
                };
                out.extend_from_slice(&number.to_le_bytes());
            }
            for standing in &self.messages {
                if let Standing::OtherSchema { version, oldest, schema } = standing {
                    out.extend_from_slice(&version.to_le_bytes());
                    out.extend_from_slice(&oldest.to_le_bytes());
                    out.extend_from_slice(&schema.to_le_bytes());
                }
            }
            Ok::<(), std::convert::Infallible>(())
        };
        Header::new(Kind::Welcome).write_with(out, content).unwrap_or_default();
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// Why it is no welcome.
    pub fn read(content: &[u8]) -> Result<Self, HelloError> {
        let mut reader = Reader(content);
        if reader.take()? != MAGIC {
            return Err(HelloError::NotNative);
        }
        let version = reader.u16()?;
        if version != VERSION {
            return Err(HelloError::Version { lowest: version, highest: version });
        }
        let (shard, shards, count) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let cluster = u128::from_le_bytes(reader.take()?);
        let (frame_bytes_max, calls_max) = (reader.u32()?, reader.u32()?);
        let (flags, entity_messages_max, tells_max) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let secret = u128::from_le_bytes(reader.take()?);
        let hash_key = (flags & HAS_HASH_KEY != 0).then(|| HashKey::new(secret));
        let number = |_| reader.u16();
        let numbers = (0..count).map(number).collect::<Result<Vec<_>, _>>()?;
        let standing = |number| {
            Ok(match number {
                UNKNOWN => Standing::Unknown,
                OTHER_SCHEMA => {
                    let (version, oldest) = (reader.u16()?, reader.u16()?);
                    Standing::OtherSchema { version, oldest, schema: reader.u64()? }
                }
                number => Standing::Number(number),
            })
        };
        let messages = numbers.into_iter().map(standing).collect::<Result<_, _>>()?;
        Ok(Self {
            version,
            shard,
            shards,
            cluster,
            frame_bytes_max,
            calls_max,
            tells_max,
            entity_messages_max,
            hash_key,
            messages,
        })
    }
}

/// Takes numbers off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HelloError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HelloError> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::frame::HEADER_BYTES;

    fn content(out: &[u8]) -> &[u8] {
        let header = Header::read(out, u32::MAX).expect("a header").expect("whole");
        &out[HEADER_BYTES..header.length as usize]
    }

    #[test]
    fn hello_and_welcome_survive_the_trip_and_no_part_of_them_does() {
        let hello = Hello {
            versions: (1, 3),
            shard: Some(2),
            cluster: 5 << 100,
            messages: vec![(1, 2), (u64::MAX, 4)],
        };
        let mut out = Vec::new();
        hello.write(&mut out);
        assert_eq!(Hello::read(content(&out), 2).as_ref(), Ok(&hello));
        assert_eq!(Hello::read(content(&out), 1), Err(HelloError::Malformed));
        for len in 0..content(&out).len() {
            assert_eq!(Hello::read(&content(&out)[..len], 2), Err(HelloError::Malformed), "{len}");
        }
        let welcome = Welcome {
            version: VERSION,
            shard: 1,
            shards: 4,
            cluster: 9,
            frame_bytes_max: 1 << 18,
            calls_max: 7,
            tells_max: 70_000,
            entity_messages_max: 3,
            hash_key: Some(HashKey::new(0xfeed << 90 | 7)),
            messages: vec![
                Standing::OtherSchema { version: 3, oldest: 2, schema: u64::MAX - 4 },
                Standing::Number(3),
                Standing::Unknown,
            ],
        };
        out.clear();
        welcome.write(&mut out);
        assert_eq!(Welcome::read(content(&out)).as_ref(), Ok(&welcome));
        for len in 0..content(&out).len() {
            assert!(Welcome::read(&content(&out)[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn other_protocols_and_versions_are_told_apart() {
        let hello = Hello { versions: (7, 9), shard: None, cluster: 0, messages: Vec::new() };
        let mut out = Vec::new();
        hello.write(&mut out);
        let versions = HelloError::Version { lowest: 7, highest: 9 };
        assert_eq!(Hello::read(content(&out), 0), Err(versions));
        out[HEADER_BYTES] = b'X';
        assert_eq!(Hello::read(content(&out), 0), Err(HelloError::NotNative));
    }
}
