//! What has changed between a lock file and a tree, and what of it breaks clients.

use std::collections::BTreeSet;
use std::fmt;

use super::{LockedMessage, WireLock, WireLockError};

/// What clients of the last release would miss.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireBreak {
    /// The tree has no such message.
    Removed {
        /// Entity type and method.
        name: String,
    },
    /// Another schema under the same version.
    Changed {
        /// Entity type and method.
        name: String,
        /// The version.
        version: u16,
        /// What it looked like, then what it looks like, line by line.
        difference: Vec<String>,
    },
    /// The tree has newer versions only.
    NotServed {
        /// Entity type and method.
        name: String,
        /// The version of the last release.
        version: u16,
        /// What it looked like, then what the tree takes in its place, line by line.
        difference: Vec<String>,
    },
    /// The same schema under another version.
    Renumbered {
        /// Entity type and method.
        name: String,
        /// The version in the last release.
        version: u16,
        /// The version in the tree.
        here: u16,
    },
    /// The same name has another number.
    OtherId {
        /// Entity type and method.
        name: String,
    },
    /// The entity has a key of another size.
    OtherKey {
        /// Entity type and method.
        name: String,
        /// Bits of the key in the last release.
        bits: u16,
    },
}

/// What has changed and breaks nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireChange {
    /// A message that the last release has not.
    Added {
        /// Entity type and method.
        name: String,
    },
    /// A message has a new version, and the old one is served.
    NewVersion {
        /// Entity type and method.
        name: String,
        /// The new version.
        version: u16,
    },
}

impl fmt::Display for WireBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed { name } => {
                write!(
                    f,
                    "{name} is gone: keep the handler, its name and its `#[wire]` for one more \
                     release"
                )
            }
            Self::Changed { name, version, difference } => {
                write!(
                    f,
                    "{name} was changed without a new version: say `#[wire(version = {})]` on the \
                     handler, and mark what is new in it with `#[wire(since = ..)]`, or write the \
                     version before by hand (`from = ..`)",
                    version + 1
                )?;
                difference.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::NotServed { name, version, difference } => {
                write!(
                    f,
                    "version {version} of {name} is served no more: what is marked as new since \
                     then, in the handler and in its types, has to leave what the last release had"
                )?;
                difference.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Renumbered { name, version, here } => write!(
                f,
                "version {version} of {name} goes by number {here}: versions keep their numbers"
            ),
            Self::OtherId { name } => {
                write!(f, "{name} has another number than before: ids are made of names alone")
            }
            Self::OtherKey { name, bits } => write!(
                f,
                "{name} has a key of another size: clients know it with {bits} bits, and a key has \
                 no versions"
            ),
        }
    }
}

impl fmt::Display for WireChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { name } => write!(f, "{name} is new"),
            Self::NewVersion { name, version } => write!(f, "{name} has a new version, {version}"),
        }?;
        f.write_str(
            "; it is held to from the next release on (write the file with it: \
             CORESIDE_WIRE_LOCK=release)",
        )
    }
}

impl WireLock {
    /// What has changed since `released`.
    ///
    /// # Errors
    /// [`WireLockError::Broken`], with all that clients of then would miss.
    pub fn compare(&self, released: &Self) -> Result<Vec<WireChange>, WireLockError> {
        let mut breaks = Vec::new();
        for (name, versions) in &released.messages {
            let here = self.messages.get(name).map_or(&[][..], Vec::as_slice);
            breaks.extend(versions.iter().filter_map(|was| missed(name, was, here)));
        }
        if !breaks.is_empty() {
            return Err(WireLockError::Broken(breaks));
        }
        let current = self.messages.iter().flat_map(|(name, versions)| {
            versions.iter().filter(|message| !message.is_previous).map(move |is| (name, is))
        });
        let change = |(name, is): (&String, &LockedMessage)| {
            let name = name.clone();
            match released.messages.get(&name) {
                None => Some(WireChange::Added { name }),
                Some(was) if was.iter().all(|was| was.schema != is.schema) => {
                    Some(WireChange::NewVersion { name, version: is.version })
                }
                Some(_) => None,
            }
        };
        Ok(current.filter_map(change).collect())
    }
}

/// What a client of then misses of one message, which has the versions `here`.
fn missed(name: &str, was: &LockedMessage, here: &[LockedMessage]) -> Option<WireBreak> {
    let (name, version) = (name.to_owned(), was.version);
    let Some(newest) = here.iter().max_by_key(|is| is.version) else {
        return Some(WireBreak::Removed { name });
    };
    if newest.id != was.id {
        return Some(WireBreak::OtherId { name });
    }
    if newest.key_bits != was.key_bits {
        return Some(WireBreak::OtherKey { name, bits: was.key_bits });
    }
    match here.iter().find(|is| is.schema == was.schema) {
        Some(is) if is.version == version => return None,
        Some(is) => return Some(WireBreak::Renumbered { name, version, here: is.version }),
        None => {}
    }
    if newest.version == version {
        return Some(WireBreak::Changed { name, version, difference: difference(was, newest) });
    }
    // What is meant to be that version, if anything is.
    let is = here.iter().find(|is| is.version == version).unwrap_or(newest);
    Some(WireBreak::NotServed { name, version, difference: difference(was, is) })
}

/// What differs, line by line: the call, and what is in types of one name.
fn difference(was: &LockedMessage, is: &LockedMessage) -> Vec<String> {
    let mut lines = Vec::new();
    if was.shape != is.shape {
        lines.push(format!("was {}", was.shape));
        lines.push(format!("is  {}", is.shape));
    }
    let types = |message: &LockedMessage, name: &str| -> Vec<String> {
        let named = message.types.iter().filter(|ty| ty.name == name);
        named.flat_map(|ty| ty.lines.clone()).collect()
    };
    let names: BTreeSet<_> = was.types.iter().chain(&is.types).map(|ty| &ty.name).collect();
    for name in names {
        let (was, is) = (types(was, name), types(is, name));
        if was == is || was.is_empty() || is.is_empty() {
            continue;
        }
        let before = lines.len();
        lines
            .extend(was.iter().filter(|line| !is.contains(line)).map(|l| format!("{name}: - {l}")));
        lines
            .extend(is.iter().filter(|line| !was.contains(line)).map(|l| format!("{name}: + {l}")));
        if lines.len() == before {
            lines.push(format!("{name}: in another order: {}", is[1..].join(", ")));
        }
    }
    lines
}
