//! Commands: the handlers that callers outside can name.

use std::fmt;
use std::sync::Arc;

use crate::pending::Ticket;
use crate::registry::RegistryError;
use crate::request::CallError;
use crate::shard::Shard;
use crate::value::Args;

/// Sends one request: key, arguments, ticket.
pub(crate) type Ask =
    Box<dyn Fn(&mut Shard, &[u8], &mut Args<'_>, Ticket) -> Result<(), CallError> + Send + Sync>;

/// How many keys stand in a command, and what its answers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// One key, then the arguments; one answer.
    One,
    /// Every argument is a key; the integers answered are added up (`DEL`, `EXISTS`).
    Sum,
    /// Every argument is a key; an array of the answers in order (`MGET`).
    Array,
    /// Key and value in turn; `OK` when all are done (`MSET`).
    Pairs,
}

/// One name by which a handler is called.
pub struct CommandRow {
    /// The name in capitals: `TYPE.METHOD`, or the bare name.
    pub name: String,
    /// How many keys it takes.
    pub each: Each,
    /// Whether it is a pass over all entities of its type: no key, no arguments.
    pub sweep: bool,
    pub(crate) ask: Arc<Ask>,
}

impl fmt::Debug for CommandRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandRow")
            .field("name", &self.name)
            .field("each", &self.each)
            .field("sweep", &self.sweep)
            .finish_non_exhaustive()
    }
}

/// A command's number in its node's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandId(u16);

/// All commands of a node, found by name.
#[derive(Debug)]
pub struct Commands {
    rows: Vec<CommandRow>,
    /// Open addressing, a power of two long, at most a quarter full; 0 is free, else number + 1.
    cells: Box<[u16]>,
}

/// The longest name that is looked up.
const NAME_BYTES_MAX: usize = 128;

impl Commands {
    pub(crate) fn new(rows: Vec<CommandRow>) -> Result<Self, RegistryError> {
        if rows.len() >= usize::from(u16::MAX) {
            return Err(RegistryError::TooMany);
        }
        let capacity = (rows.len() * 4).next_power_of_two().max(16);
        let mut commands = Self { rows, cells: vec![0; capacity].into_boxed_slice() };
        for number in 0..commands.rows.len() {
            let name = &commands.rows[number].name;
            if name.len() > NAME_BYTES_MAX || commands.find(name.as_bytes()).is_some() {
                return Err(RegistryError::SameName { name: name.clone() });
            }
            let mut at = place(name.as_bytes()) & (capacity - 1);
            while commands.cells[at] != 0 {
                at = (at + 1) & (capacity - 1);
            }
            commands.cells[at] = number as u16 + 1;
        }
        Ok(commands)
    }

    /// The command that goes by `name`, in any case.
    ///
    /// # Cost
    /// One pass over the name; no allocation.
    pub fn find(&self, name: &[u8]) -> Option<CommandId> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut at = place(name) & (self.cells.len() - 1);
        loop {
            let number = self.cells[at].checked_sub(1)?;
            if self.rows[usize::from(number)].name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(CommandId(number));
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    /// What the command is.
    pub fn row(&self, id: CommandId) -> &CommandRow {
        &self.rows[usize::from(id.0)]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &CommandRow> {
        self.rows.iter()
    }
}

/// FNV-1a over the name in capitals; names are the program's own, not a caller's choice.
fn place(name: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name {
        hash = (hash ^ u64::from(byte.to_ascii_uppercase())).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> CommandRow {
        let ask: Ask = Box::new(|_, _, _, _| Ok(()));
        CommandRow { name: name.to_owned(), each: Each::One, sweep: false, ask: Arc::new(ask) }
    }

    #[test]
    fn commands_are_found_in_any_case() {
        let names = ["GET", "SET", "ACCOUNT.DEPOSIT", "ACCOUNT.TRANSFER", "DEL"];
        let commands = Commands::new(names.iter().map(|name| row(name)).collect()).expect("rows");
        for name in names {
            let id = commands.find(name.to_lowercase().as_bytes()).expect("registered");
            assert_eq!(commands.row(id).name, name);
        }
        for unknown in ["", "GE", "GETS", "ACCOUNT", &"X".repeat(1000)] {
            assert_eq!(commands.find(unknown.as_bytes()), None);
        }
    }

    #[test]
    fn two_commands_of_one_name_are_refused() {
        let outcome = Commands::new(vec![row("GET"), row("GET")]);
        assert!(matches!(outcome, Err(RegistryError::SameName { name }) if name == "GET"));
    }
}
