//! What holds for any bytes that are taken for a message of the examples, or for its reply.

use std::cell::RefCell;
use std::sync::Arc;

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{
    Decode, Encode, Handler, HashKey, KeyWords, Message, Now, Registry, Shard, ShardConfig, Table,
    Ticket, WireCall, WireError,
};

use crate::ledger::{
    Account, AccountBalance, AccountDeposit, AccountTransfer, AccountWithdraw, Refusal,
};

/// A message that goes on the wire, and its reply: checks bytes that are taken for one of them.
struct Row {
    /// Among those on the wire.
    number: u16,
    message: fn(&[u8]) -> Result<(), WireError>,
    reply: fn(&[u8]) -> Result<(), WireError>,
}

impl Row {
    fn of<E, M>(table: &Table) -> Self
    where
        E: Handler<M>,
        M: Message<Reply: Encode + Decode> + Encode + Decode,
    {
        let number = table.find_wire::<E, M>().expect("it is on the wire");
        Self { number, message: read::<M>, reply: read::<M::Reply> }
    }
}

/// What comes out of bytes goes into bytes out of which the same comes.
fn read<T: Encode + Decode>(bytes: &[u8]) -> Result<(), WireError> {
    let value = T::decode(bytes)?;
    let written = write(&value);
    let again = T::decode(&aligned(&written)).expect("our own bytes");
    assert_eq!(write(&again), written, "the same value");
    Ok(())
}

fn write(value: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out).expect("a small value");
    out
}

fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(bytes);
    aligned
}

fn table() -> Arc<Table> {
    let mut registry = Registry::new();
    registry.entity::<Account>();
    registry.build().expect("no name twice")
}

/// All messages of the examples that go on the wire.
fn rows(table: &Table) -> Vec<Row> {
    let rows = vec![
        Row::of::<Account, AccountDeposit>(table),
        Row::of::<Account, AccountWithdraw>(table),
        Row::of::<Account, AccountBalance>(table),
        Row::of::<Account, AccountTransfer>(table),
    ];
    for (number, row) in table.wire().iter().enumerate() {
        let is_listed = rows.iter().any(|listed| usize::from(listed.number) == number);
        assert!(is_listed, "{}.{} has to be listed here", row.name.0, row.name.1);
    }
    rows
}

/// A shard that takes messages as a connection hands them on, and the rows of its table.
struct Setting {
    shard: Shard,
    rows: Vec<Row>,
    now_ns: u64,
}

impl Setting {
    fn new() -> Self {
        let table = table();
        let rows = rows(&table);
        let config = ShardConfig::new(HashKey::new(7));
        let shard = Shard::alone(&config, table).expect("addresses for the stores");
        Self { shard, rows, now_ns: 0 }
    }

    /// Any message to any of a few entities: it has its turn exactly if it can be read.
    fn send(&mut self, at: usize, key: KeyWords, body: &[u8], can_be_read: bool) {
        self.now_ns += 1_000_000;
        let now = Now { monotonic_ns: self.now_ns, ..Now::default() };
        let calls = [
            WireCall::Tell,
            WireCall::Ask { deadline_ns: self.now_ns + 1_000_000, ticket: Ticket([0, 0]) },
        ];
        self.shard.tick(now);
        for call in calls {
            let sent = self.shard.send_wire(self.rows[at].number, key, body.into(), call);
            let expected = if can_be_read { Ok(()) } else { Err(WireError::Invalid) };
            assert_eq!(sent, expected);
            // What one turn sends is there for the next poll: a transfer takes four of them.
            for _ in 0..8 {
                self.shard.poll(now, &mut ());
            }
        }
        assert_eq!(self.shard.asks_waiting(), 0, "every ask has its answer");
    }
}

/// The first byte says which message, whether it is the reply that is meant, and which entity.
pub(crate) fn check(input: &[u8]) {
    thread_local!(static SETTING: RefCell<Setting> = RefCell::new(Setting::new()));
    let Some((first, body)) = input.split_first() else { return };
    let body = aligned(body);
    SETTING.with_borrow_mut(|setting| {
        let at = usize::from(*first) % setting.rows.len();
        if first & 0x40 != 0 {
            let _ = (setting.rows[at].reply)(&body);
            return;
        }
        let read = (setting.rows[at].message)(&body);
        setting.send(at, [u64::from(first >> 3 & 7), 0], &body, read.is_ok());
    });
}

/// Each message and each reply.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let table = table();
    let row = |number: Option<u16>| {
        let number = number.expect("it is on the wire");
        rows(&table).iter().position(|row| row.number == number).expect("it is listed") as u8
    };
    let deposit = row(table.find_wire::<Account, AccountDeposit>());
    let withdraw = row(table.find_wire::<Account, AccountWithdraw>());
    let balance = row(table.find_wire::<Account, AccountBalance>());
    let transfer = row(table.find_wire::<Account, AccountTransfer>());
    let seed = |first: u8, value: Vec<u8>| [&[first], value.as_slice()].concat();
    let refused = |refusal| write(&Err::<i64, Refusal>(refusal));
    vec![
        seed(deposit, write(&AccountDeposit { amount: 1_000 })),
        seed(withdraw, write(&AccountWithdraw { amount: -1 })),
        seed(balance, write(&AccountBalance {})),
        seed(transfer, write(&AccountTransfer { to: 3, amount: 5 })),
        seed(deposit | 0x40, write(&Ok::<i64, Refusal>(7))),
        seed(withdraw | 0x40, refused(Refusal::Insufficient)),
        seed(balance | 0x40, write(&i64::MAX)),
        seed(transfer | 0x40, refused(Refusal::Busy)),
    ]
}
