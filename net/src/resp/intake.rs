//! What a session needs of its shard: the seam between the real shard and the fakes of tests.

use coreside_shard::{Args, CallError, CommandId, Each, Shard, Ticket};

/// Where a session sends its requests.
pub trait Intake {
    /// How the intake knows a command again.
    type Id: Copy;

    /// The command of that name. Names are ASCII case-insensitive.
    fn find(&self, name: &[u8]) -> Option<Entry<Self::Id>>;

    /// Sends one request of one key; its answer comes later, exactly once, with this ticket.
    ///
    /// # Errors
    /// Why nothing was sent. No answer follows then.
    fn ask(
        &mut self,
        id: Self::Id,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError>;

    /// Starts a pass over all entities of a type; its answer comes later with this ticket.
    ///
    /// # Errors
    /// Why it was not started. No answer follows then.
    fn ask_sweep(
        &mut self,
        id: Self::Id,
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError>;

    /// Whether sessions should stop parsing for now.
    fn is_congested(&self) -> bool;

    /// Calls `visit` with name, keys and sweep of every command.
    fn visit_commands(&self, visit: &mut dyn FnMut(&str, Each, bool));
}

/// What a session knows of a command.
#[derive(Clone, Copy, Debug)]
pub struct Entry<Id> {
    /// How the intake knows it again.
    pub id: Id,
    /// How many keys it takes.
    pub each: Each,
    /// Whether it goes to all entities of a type instead of to one key.
    pub sweep: bool,
}

impl Intake for Shard {
    type Id = CommandId;

    #[inline]
    fn find(&self, name: &[u8]) -> Option<Entry<CommandId>> {
        let id = self.commands().find(name)?;
        let row = self.commands().row(id);
        Some(Entry { id, each: row.each, sweep: row.sweep })
    }

    #[inline]
    fn ask(
        &mut self,
        id: CommandId,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        self.ask_command(id, key, args, ticket)
    }

    fn ask_sweep(
        &mut self,
        id: CommandId,
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        self.ask_sweep(id, args, ticket)
    }

    #[inline]
    fn is_congested(&self) -> bool {
        self.is_congested()
    }

    fn visit_commands(&self, visit: &mut dyn FnMut(&str, Each, bool)) {
        for row in self.commands().iter() {
            visit(&row.name, row.each, row.sweep);
        }
    }
}
