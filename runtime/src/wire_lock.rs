//! The wire of the last release, kept as text, and what a change would break.
//!
//! A client that was built with the last release must be understood by the next node. What it sends
//! is written down in a lock file; a test compares it with what the tree takes
//! ([`NodeBuilder::assert_wire_lock`]). The file is written anew with each release, so it also says
//! which version is the previous one.

mod compare;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use coreside_shard::{RegistryError, Shapes, WireRow};

pub use self::compare::{WireBreak, WireChange};
use crate::node::NodeBuilder;

/// The variable that has the lock file written: `CORESIDE_WIRE_LOCK=release`.
const VARIABLE: &str = "CORESIDE_WIRE_LOCK";
const RELEASE: &str = "release";

/// What the messages of a node look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireLock {
    /// Each version of each message that is taken, by entity type and method.
    messages: BTreeMap<String, Vec<LockedMessage>>,
}

/// One version of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LockedMessage {
    version: u16,
    id: u64,
    schema: u64,
    /// Bits of the entity's key.
    key_bits: u16,
    /// Arguments and reply.
    shape: String,
    /// The named types in it.
    types: BTreeSet<LockedType>,
    is_previous: bool,
}

/// A named type: its kind and its fields, or its variants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LockedType {
    name: String,
    lines: Vec<String>,
}

/// Why a lock file and a tree do not go together.
#[derive(Debug)]
#[non_exhaustive]
pub enum WireLockError {
    /// The registered types do not make a table.
    Registry(RegistryError),
    /// There is no such file.
    Missing(PathBuf),
    /// The system's own.
    Io(PathBuf, std::io::Error),
    /// The file is not what was written.
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// Clients of the last release would not be understood.
    Broken(Vec<WireBreak>),
}

impl fmt::Display for WireLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(error) => write!(f, "{error}"),
            Self::Missing(path) => write!(
                f,
                "there is no lock file {}: write it with {VARIABLE}={RELEASE} in the environment \
                 of this test, and commit it",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Malformed { line } => write!(
                f,
                "line {line} of the lock file is not what was written: take the file from the \
                 last release"
            ),
            Self::Broken(breaks) => {
                f.write_str("clients of the last release would not be understood:\n")?;
                breaks.iter().try_for_each(|broken| writeln!(f, "- {broken}"))?;
                f.write_str(
                    "To end the support of a message on purpose, remove it from the lock file.",
                )
            }
        }
    }
}

impl std::error::Error for WireLockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Registry(error) => Some(error),
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl WireLock {
    /// What these rows look like.
    fn of<'a>(rows: impl Iterator<Item = &'a WireRow>) -> Self {
        let mut lock = Self::default();
        for row in rows {
            let mut shapes = Shapes::default();
            let shape = row.shape(&mut shapes);
            let types = shapes.types();
            let types = types
                .map(|(name, _, lines)| LockedType { name: name.to_owned(), lines: lines.to_vec() })
                .collect();
            let name = format!("{}.{}", row.name.0, row.name.1);
            lock.messages.entry(name).or_default().push(LockedMessage {
                version: row.version,
                id: row.id,
                schema: row.schema,
                key_bits: u16::from(row.key_words) * 64,
                shape,
                types,
                is_previous: row.is_previous,
            });
        }
        lock
    }

    /// What a client of this tree sends, for a lock file: nothing of previous versions.
    fn released(mut self) -> Self {
        for versions in self.messages.values_mut() {
            versions.retain(|message| !message.is_previous);
        }
        self
    }
}

impl NodeBuilder {
    /// What the node's messages look like, previous versions included.
    ///
    /// # Errors
    /// The registered types do not make a table.
    pub fn wire_lock(&self) -> Result<WireLock, RegistryError> {
        self.registry.check_wire()?;
        Ok(WireLock::of(self.registry.wire()))
    }

    /// Compares the node's messages with those of the last release, which stand in the file `path`;
    /// a relative one counts from the package's folder, where `cargo test` runs. Returns what has
    /// changed and breaks nothing: it will be in the file with the next release.
    ///
    /// # Errors
    /// What clients of the last release would not find, or why the file cannot be read.
    pub fn check_wire_lock(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Vec<WireChange>, WireLockError> {
        let path = path.as_ref();
        let here = self.wire_lock().map_err(WireLockError::Registry)?;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WireLockError::Missing(path.to_owned()));
            }
            Err(error) => return Err(WireLockError::Io(path.to_owned(), error)),
        };
        let there: WireLock = text.parse()?;
        here.compare(&there)
    }

    /// Writes the file that [`check_wire_lock`](Self::check_wire_lock) reads, with the messages as
    /// they are. What was there is replaced only if nothing breaks.
    ///
    /// # Errors
    /// As for [`check_wire_lock`](Self::check_wire_lock), and why the file cannot be written.
    pub fn write_wire_lock(&self, path: impl AsRef<Path>) -> Result<(), WireLockError> {
        let path = path.as_ref();
        match self.check_wire_lock(path) {
            Ok(_) | Err(WireLockError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        let text = self.wire_lock().map_err(WireLockError::Registry)?.released().to_string();
        std::fs::write(path, text).map_err(|error| WireLockError::Io(path.to_owned(), error))
    }

    /// Asserts in a test that clients of the last release are still understood, as
    /// [`check_wire_lock`](Self::check_wire_lock) sees it. With `CORESIDE_WIRE_LOCK=release` in the
    /// environment the file is written: before a release, with its tag.
    ///
    /// # Examples
    /// ```no_run
    /// # use coreside::{Node, entity, handlers};
    /// # #[entity]
    /// # struct Account;
    /// # #[handlers]
    /// # impl Account {}
    /// #[test]
    /// fn clients_of_the_last_release_are_understood() {
    ///     Node::builder().entity::<Account>().assert_wire_lock("wire.lock");
    /// }
    /// ```
    ///
    /// # Panics
    /// With what breaks, and what to do about it.
    #[track_caller]
    pub fn assert_wire_lock(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        if std::env::var_os(VARIABLE).is_some_and(|value| value == RELEASE) {
            return self.write_wire_lock(path).unwrap_or_else(|error| panic!("{error}"));
        }
        match self.check_wire_lock(path) {
            Ok(changes) => {
                for change in changes {
                    eprintln!("{}: {change}", path.display());
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
