//! Registration: from entity types to the closed message table of a node.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::commands::{CommandRow, Commands, Each};
use crate::entity::{Entity, Handler, Message};
use crate::group::Instances;
use crate::key::Key;
use crate::pending::Ticket;
use crate::record::Payload;
use crate::request::CallError;
use crate::schedule::{self, Kept};
use crate::shard::Shard;
use crate::slot::Layout;
use crate::sweep::{Sweep, SweepRow};
use crate::table::{Directory, Row, Table, TypeRow};
use crate::turn::{self, Hooks};
use crate::value::{Args, ArgumentError, ToValue};
use crate::view::{View, ViewHandler, Viewable};
use crate::wire::{Decode, Encode, Previous, WireRow, WireType};

/// Collects the entity types of a node.
///
/// # Examples
/// ```ignore
/// let table = Registry::new().entity::<Account>().entity::<Order>().build()?;
/// ```
#[derive(Default)]
pub struct Registry {
    types: Vec<TypeRow>,
    rows: Vec<Row>,
    sweeps: Vec<SweepRow>,
    numbers: Vec<(TypeId, u16)>,
    commands: Vec<CommandRow>,
    wire: Vec<WireRow>,
    /// Previous versions of messages, which get the numbers behind.
    wire_previous: Vec<WireRow>,
}

/// Numbers on the wire that have a meaning of their own: see `net/PROTOCOL.md`.
const WIRE_NUMBERS_RESERVED: usize = 2;

/// Why the types of a node do not make a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two types, or two commands, go by the same name.
    SameName {
        /// The name, in capitals.
        name: String,
    },
    /// More types or messages than 16-bit numbers.
    TooMany,
    /// Two messages have the same number on the wire, though not the same name.
    SameId {
        /// The one, as in `TYPE.METHOD`.
        one: String,
        /// The other.
        other: String,
    },
    /// Two versions of a message have the same schema, so nobody could tell them apart.
    SameSchema {
        /// The message.
        name: String,
        /// The numbers of the versions.
        versions: (u16, u16),
    },
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameName { name } => {
                write!(f, "two registrations go by the name {name}; rename one of them")
            }
            Self::TooMany => {
                f.write_str("more than 65,535 message types, sweeps included, are registered")
            }
            Self::SameId { one, other } => write!(
                f,
                "the names of {one} and {other} make the same number on the wire; rename one of \
                 the methods"
            ),
            Self::SameSchema { name, versions: (one, other) } => write!(
                f,
                "versions {one} and {other} of {name} have the same schema, so that nobody could \
                 tell them apart; give the argument that means something else another name"
            ),
        }
    }
}

impl std::error::Error for RegistryError {}

impl Registry {
    /// Nothing registered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an entity type with all its messages. A second time does nothing.
    pub fn entity<E: Entity>(&mut self) -> &mut Self {
        let id = TypeId::of::<E>();
        if self.numbers.iter().all(|(known, _)| *known != id) {
            let number = self.types.len() as u16;
            self.types.push(TypeRow {
                name: E::full_name(),
                layout: Layout::of::<E>(),
                life: E::LIFE,
                hooks: Hooks::of::<E>(),
                instances: Instances::default(),
            });
            self.numbers.push((id, number));
            E::register(&mut Registration { registry: self, number, entity: PhantomData });
        }
        self
    }

    /// The row of an entity type, which is registered if it is not yet.
    pub(crate) fn row_of<E: Entity>(&mut self) -> &mut TypeRow {
        self.entity::<E>();
        let id = TypeId::of::<E>();
        let number = self.numbers.iter().find(|(known, _)| *known == id).map_or(0, |row| row.1);
        &mut self.types[usize::from(number)]
    }

    /// The table of everything registered.
    ///
    /// # Errors
    /// Two types or commands with one name, or too many of them.
    pub fn build(self) -> Result<Arc<Table>, RegistryError> {
        // Sweeps have the numbers behind those of the messages.
        let numbers = self.rows.len() + self.sweeps.len();
        if numbers > usize::from(u16::MAX) || self.types.len() > usize::from(u16::MAX) {
            return Err(RegistryError::TooMany);
        }
        self.check_wire()?;
        let mut names: Vec<_> = self.types.iter().map(|row| row.name.to_uppercase()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RegistryError::SameName { name: pair[0].clone() });
        }
        let commands = Commands::new(self.commands)?;
        let mut wire = self.wire;
        wire.extend(self.wire_previous);
        Ok(Arc::new(Table {
            types: self.types,
            rows: self.rows,
            sweeps: self.sweeps,
            directory: Directory::new(&self.numbers),
            commands: Arc::new(commands),
            wire,
        }))
    }

    /// What callers on the network may send, previous versions included.
    pub fn wire(&self) -> impl Iterator<Item = &WireRow> {
        self.wire.iter().chain(&self.wire_previous)
    }

    /// Whether each number on the wire means one thing.
    ///
    /// # Errors
    /// Which do not, or that there are too many.
    pub fn check_wire(&self) -> Result<(), RegistryError> {
        let mut rows: Vec<_> = self.wire().collect();
        if rows.len() > usize::from(u16::MAX) + 1 - WIRE_NUMBERS_RESERVED {
            return Err(RegistryError::TooMany);
        }
        rows.sort_by_key(|row| (row.id, row.schema, row.is_previous));
        for pair in rows.windows(2).filter(|pair| pair[0].id == pair[1].id) {
            let [one, other] = [pair[0], pair[1]];
            let name = |row: &WireRow| format!("{}.{}", row.name.0, row.name.1);
            if one.name != other.name {
                return Err(RegistryError::SameId { one: name(one), other: name(other) });
            }
            if one.is_previous == other.is_previous {
                return Err(RegistryError::SameName { name: name(one) });
            }
            if one.schema == other.schema {
                let versions = (other.version, one.version);
                return Err(RegistryError::SameSchema { name: name(one), versions });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.types.iter().map(|row| row.name).collect();
        f.debug_struct("Registry").field("types", &names).finish_non_exhaustive()
    }
}

/// The messages of one entity type, as [`Entity::register`] names them.
pub struct Registration<'a, E> {
    registry: &'a mut Registry,
    number: u16,
    entity: PhantomData<fn(E)>,
}

/// A message that callers outside may send: its names and its syntax.
#[derive(Clone, Copy)]
pub struct Command<M> {
    /// The method, as in `TYPE.METHOD`.
    pub method: &'static str,
    /// A name that stands for `TYPE.METHOD`, such as `GET`.
    pub bare: Option<&'static str>,
    /// Makes the message of everything behind the key. Arguments left over are an error of count.
    pub parse: fn(&mut Args<'_>) -> Result<M, ArgumentError>,
    /// Whether one key or many stand in the command.
    pub each: Each,
}

impl<E: Entity> Registration<'_, E> {
    /// Registers a message that only this node's own code sends.
    pub fn message<M: Message>(&mut self, method: &'static str) -> &mut Self
    where
        E: Handler<M>,
    {
        let number = self.registry.rows.len() as u16;
        self.registry.rows.push(Row {
            run_tell: turn::run::<false, E, M>,
            run_ask: turn::run::<true, E, M>,
            store: self.number,
            key_words: E::Key::WORDS as u16,
            method,
            reads: <E as Handler<M>>::READ,
            reply_type: TypeId::of::<M::Reply>(),
            drop_message: Payload::<M>::drop,
            drop_reply: Payload::<M::Reply>::drop,
            value_words: Payload::<M>::WORDS as u16,
            unkeep: schedule::unkeep::<M>,
            drop_kept: Kept::<M>::drop,
            wire: None,
        });
        self.registry.numbers.push((TypeId::of::<(E, M)>(), number));
        self
    }

    /// Lets callers on the network send a message that was [registered](Self::message) before.
    pub fn wire<M>(&mut self, method: &'static str) -> &mut Self
    where
        E: Handler<M>,
        M: Message<Reply: WireType + Encode> + WireType + Decode,
    {
        self.add_wire::<M>(WireRow::of::<E, M>(method));
        self
    }

    /// Like [`wire`](Self::wire), for a message that is handled in its archive: what comes from
    /// callers on the network is a [`View`].
    pub fn wire_archived<M>(&mut self, method: &'static str) -> &mut Self
    where
        E: ViewHandler<M>,
        M: Message<Reply: WireType + Encode> + Viewable,
    {
        self.message::<View<M>>(method);
        self.add_wire::<M>(WireRow::of_view::<E, M>(method));
        self
    }

    fn add_wire<M: 'static>(&mut self, row: WireRow) {
        let id = TypeId::of::<(E, M)>();
        let known = self.registry.numbers.iter().rev().find(|(known, _)| *known == id);
        if let Some((_, number)) = known {
            let wire = self.registry.wire.len() as u16;
            self.registry.rows[usize::from(*number)].wire = Some(wire);
            self.registry.wire.push(row);
        }
    }

    /// Lets callers on the network also send the version before of a message, by the same name.
    pub fn wire_previous<M, P>(&mut self, method: &'static str) -> &mut Self
    where
        E: Handler<M>,
        M: Message<Reply: WireType + Encode> + WireType + Decode,
        P: Previous<M>,
    {
        self.registry.wire_previous.push(WireRow::previous::<E, M, P>(method));
        self
    }

    /// Like [`wire_previous`](Self::wire_previous), for a version that is made of the types as they
    /// were: where none of them has changed, there is nothing to let in.
    pub fn wire_previous_if_changed<M, P>(&mut self, method: &'static str) -> &mut Self
    where
        E: Handler<M>,
        M: Message<Reply: WireType + Encode> + WireType + Decode,
        P: Previous<M>,
    {
        let row = WireRow::previous::<E, M, P>(method);
        if row.schema != WireRow::of::<E, M>(method).schema {
            self.registry.wire_previous.push(row);
        }
        self
    }

    /// Registers a message that callers outside may send too.
    pub fn command<M: Message>(&mut self, command: Command<M>) -> &mut Self
    where
        E: Handler<M>,
        M::Reply: ToValue,
    {
        self.message::<M>(command.method);
        let parse = command.parse;
        let ask = move |shard: &mut Shard, key: &[u8], args: &mut Args<'_>, ticket: Ticket| {
            let key = E::Key::from_bytes(key, shard.hash_key())
                .map_err(|expected| CallError::Argument(ArgumentError::Key(expected)))?;
            let message = parse(args).map_err(CallError::Argument)?;
            shard.ask_outside::<E, M>(key, message, ticket)
        };
        self.add_command(command.method, command.bare, command.each, false, Box::new(ask));
        self
    }

    /// Registers a pass over all entities of the type on all shards, callable as `TYPE.METHOD`
    /// without key, and by a bare name.
    pub fn sweep<S: Sweep<E> + ToValue>(
        &mut self,
        method: &'static str,
        bare: Option<&'static str>,
    ) -> &mut Self {
        self.sweep_with_words::<S>(method, bare, &[])
    }

    /// Like [`sweep`](Self::sweep), for a command that one of `words` may follow, in any case,
    /// which changes nothing (`FLUSHALL ASYNC`).
    pub fn sweep_with_words<S: Sweep<E> + ToValue>(
        &mut self,
        method: &'static str,
        bare: Option<&'static str>,
        words: &'static [&'static str],
    ) -> &mut Self {
        let number = self.registry.sweeps.len() as u16;
        self.registry.sweeps.push(SweepRow::of::<E, S>(self.number));
        self.registry.numbers.push((TypeId::of::<(E, S, ())>(), number));
        let ask = move |shard: &mut Shard, _: &[u8], args: &mut Args<'_>, ticket: Ticket| {
            let is_word = |arg: &[u8]| words.iter().any(|w| w.as_bytes().eq_ignore_ascii_case(arg));
            match (args.next(), args.is_empty()) {
                (None, _) => {}
                (Some(arg), true) if is_word(arg) => {}
                _ if words.is_empty() => return Err(CallError::Argument(ArgumentError::Count)),
                _ => return Err(CallError::Argument(ArgumentError::Syntax)),
            }
            shard
                .sweep::<E, S, _>(move |total, outside| match total {
                    Ok(total) => outside.answer(ticket, Ok(&total)),
                    Err(error) => outside.answer(ticket, Err(error)),
                })
                .map_err(|_| CallError::Full)
        };
        self.add_command(method, bare, Each::One, true, Box::new(ask));
        self
    }

    fn add_command(
        &mut self,
        method: &str,
        bare: Option<&str>,
        each: Each,
        sweep: bool,
        ask: crate::commands::Ask,
    ) {
        let ask = Arc::new(ask);
        let full = format!("{}.{method}", E::NAME);
        for name in [Some(full.as_str()), bare].into_iter().flatten() {
            self.registry.commands.push(CommandRow {
                name: name.to_uppercase(),
                each,
                sweep,
                ask: Arc::clone(&ask),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireError;

    fn row(id: u64, schema: u64, method: &'static str) -> WireRow {
        WireRow {
            id,
            schema,
            version: 1,
            name: ("Shop", method),
            key_words: 1,
            looks: false,
            is_previous: false,
            shape: |_| String::new(),
            send: |_, _, _, _| Err(WireError::Full),
        }
    }

    fn check(wire: Vec<WireRow>, wire_previous: Vec<WireRow>) -> Result<(), RegistryError> {
        Registry { wire, wire_previous, ..Registry::new() }.check_wire()
    }

    #[test]
    fn names_that_make_one_number_on_the_wire_are_refused() {
        assert_eq!(check(vec![row(1, 5, "place"), row(2, 5, "price")], Vec::new()), Ok(()));
        let (one, other) = ("Shop.place".to_owned(), "Shop.price".to_owned());
        let collision = RegistryError::SameId { one, other };
        let rows = vec![row(7, 1, "place"), row(1, 2, "gift"), row(7, 3, "price")];
        assert_eq!(check(rows.clone(), Vec::new()), Err(collision.clone()));
        assert_eq!(check(rows[..2].to_vec(), vec![rows[2]]), Err(collision.clone()));
        assert!(collision.to_string().contains("rename one of the methods"));
    }

    #[test]
    fn versions_of_a_message_share_its_number_and_nothing_else() {
        let previous = |schema| WireRow { is_previous: true, ..row(1, schema, "place") };
        let current = || vec![WireRow { version: 2, ..row(1, 5, "place") }];
        assert_eq!(check(current(), vec![previous(4)]), Ok(()));
        let name = || "Shop.place".to_owned();
        let alike = RegistryError::SameSchema { name: name(), versions: (1, 2) };
        assert_eq!(check(current(), vec![previous(5)]), Err(alike));
        let twice = RegistryError::SameName { name: name() };
        assert_eq!(check([current(), current()].concat(), Vec::new()), Err(twice));
    }

    #[test]
    fn numbers_with_a_meaning_of_their_own_are_given_to_no_message() {
        let rows = |count| (0..count).map(|id| row(id, 1, "place")).collect::<Vec<_>>();
        let (ours, one) = (rows(65_533), WireRow { is_previous: true, ..row(1 << 20, 1, "gift") });
        assert_eq!(check(ours.clone(), vec![one]), Ok(()));
        assert_eq!(check(ours, vec![one, one]), Err(RegistryError::TooMany));
    }
}
