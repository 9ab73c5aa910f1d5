//! Every form a handler may take, under the lints that a careful crate denies.
#![deny(missing_docs, unreachable_pub, unsafe_code, unused, warnings)]
#![deny(rustdoc::all)]

use std::ops::AddAssign;
use std::rc::Rc;

use coreside::{
    Address, Archived, Cx, Entity, Handler, Key, Later, Message, Name, ToValue, ValueWriter, Via,
    Visit, entity, handlers,
};

/// What a shard's accounts add up to.
#[derive(Default)]
pub struct Audit {
    accounts: u64,
    total: i64,
}

impl AddAssign for Audit {
    fn add_assign(&mut self, other: Self) {
        self.accounts += other.accounts;
        self.total += other.total;
    }
}

impl ToValue for Audit {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        (self.accounts, self.total).write_to(out);
    }
}

/// An account with every form of handler.
#[entity(key = Name, name = "account", activate = Account::open)]
#[derive(Debug)]
pub struct Account {
    balance: i64,
    notes: Vec<Rc<str>>,
}

#[handlers]
impl Account {
    /// How many notes are kept.
    pub const NOTES_MAX: usize = 8;

    fn open(_key: Name, _cx: &mut Cx<Self>) -> Self {
        Self { balance: 0, notes: Vec::new() }
    }

    /// Adds to the balance; see [`Self::balance`].
    pub fn deposit(&mut self, mut amount: i64) -> i64 {
        amount = amount.max(0);
        self.balance += amount;
        self.balance
    }

    /// Notes a text that lies in its archive, and how much it is about.
    #[local]
    #[wire]
    #[archived]
    #[fallible]
    pub fn note_archived(
        &mut self,
        text: &Archived<String>,
        amount: i64,
        cx: &mut Cx<Self>,
    ) -> Result<u64, String> {
        let _ = (cx.key(), amount);
        self.notes.push(text.as_str().into());
        Ok(self.notes.len() as u64)
    }

    /// Whether there is such a note.
    #[read]
    #[local]
    #[wire]
    #[archived]
    pub fn has_note(&self, text: &Archived<String>) -> bool {
        self.notes.iter().any(|note| **note == **text)
    }

    /// The balance.
    #[command("GET")]
    pub fn balance(&self) -> i64 {
        self.balance
    }

    /// The context stands anywhere, and the reply may follow.
    pub fn transfer(
        &mut self,
        to: u64,
        cx: &mut Cx<'_, Self>,
        amount: i64,
    ) -> Later<Result<i64, String>> {
        let _ = (to, amount);
        let (later, reply) = cx.later();
        cx.reply(reply, Ok(amount));
        later
    }

    /// Answers nothing.
    pub fn touch(&mut self, context: &mut coreside::Cx<Account>) {
        let _ = context;
        self.balance += self.step();
    }

    /// Says one thing per key.
    #[command("DEL", each = sum)]
    pub fn del(&mut self) -> i64 {
        1
    }

    /// One answer per key.
    #[command(each = array, "MGET")]
    pub fn mget(&self) -> Option<Vec<u8>> {
        None
    }

    /// Key and value in turn.
    #[command("MSET", each = pairs)]
    pub fn mset(&mut self, value: Vec<u8>) {
        drop(value);
    }

    /// Types without a text form stay inside; `Self` may be named.
    #[local]
    pub fn merge(
        &mut self,
        others: Vec<(u8, Box<dyn Fn(&str) -> usize + Send>)>,
    ) -> Option<[u8; Self::NOTES_MAX]> {
        let _ = others;
        None
    }

    /// A name that is a keyword, and arguments named like the locals of the expansion.
    pub fn r#type(
        &self,
        args: u64,
        message: String,
        table: Option<bool>,
        r#move: i64,
    ) -> &'static str {
        let _ = (args, message, table, r#move);
        "account"
    }

    #[cfg(any())]
    pub fn absent(&self, missing: Missing) -> Missing {
        missing
    }

    /// Private to this module, but open to callers outside.
    fn quiet(&self, _unused: u64) -> bool {
        true
    }

    /// Old.
    #[deprecated = "say deposit"]
    pub fn add(&mut self, amount: i64) -> i64 {
        self.balance += amount;
        self.balance
    }

    /// Adds up all accounts.
    #[sweep]
    pub fn audit(&self, total: &mut Audit) {
        total.accounts += 1;
        total.total += self.balance;
    }

    /// Counts.
    #[sweep("DBSIZE")]
    pub fn dbsize(&self, keys: &mut u64) {
        *keys += 1;
    }

    /// Puts every account away.
    #[sweep("FLUSHALL")]
    pub fn flush(&mut self, key: Name) -> Visit {
        let _ = key;
        Visit::Stop
    }

    #[skip]
    fn step(&self) -> i64 {
        self.notes.iter().map(|note| note.len() as i64).sum()
    }
}

/// An entity of a module of its own, with its behaviour in another.
pub mod remote {
    /// State only.
    #[coreside::entity(key = u128)]
    #[derive(Default)]
    pub(crate) struct Counter(pub(super) u64, #[cfg(any())] Missing);

    /// No fields.
    #[coreside::entity]
    pub(super) struct Nothing;

    #[coreside::handlers]
    impl Nothing {}
}

#[handlers(crate = coreside)]
impl remote::Counter {
    pub(crate) fn increment(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[entity(activate = State::begin)]
enum State {
    On,
    Off,
}

#[handlers]
impl State {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        if key == 0 { State::Off } else { State::On }
    }

    fn is_on(&self) -> bool {
        matches!(self, State::On)
    }
}

/// A way that goes nowhere: the prepared call is the message itself.
struct Nowhere;

impl Via for Nowhere {
    type Call<E: Handler<M>, M: Message> = (E::Key, M);

    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> (E::Key, M) {
        (key, message)
    }
}

fn account(key: Name) -> AccountRef<Nowhere> {
    AccountRef::from(Address::new(key, Nowhere))
}

fn handles<E: Handler<M>, M: Message<Reply = R>, R>() {}

#[test]
fn every_form_compiles() {
    handles::<Account, AccountTransfer, Result<i64, String>>();
    handles::<Account, AccountTouch, ()>();
    handles::<remote::Counter, CounterIncrement, u64>();
    assert_eq!((Account::NAME, State::NAME), ("account", "State"));

    let key = Name::from_words([1, 2]);
    assert_eq!(account(key).key(), key);
    assert_eq!(format!("{:?}", account(key)), format!("Account({key:?})"));
    let (to, AccountDeposit { amount }) = account(key).deposit(5);
    assert_eq!((to, amount), (key, 5));
    let (_, AccountType { args, message, table, r#move }) =
        account(key).r#type(1, "text".to_owned(), None, 2);
    assert_eq!((args, message.as_str(), table, r#move), (1, "text", None, 2));
    let (_, AccountBalance) = account(key).balance();
    let (_, message) = Address::from(account(key)).message(AccountTransfer { to: 7, amount: 8 });
    assert_eq!((message.to, message.amount), (7, 8));
}
