//! A ledger: accounts that deposit, withdraw and transfer, and an audit that adds them all up.
//!
//! ```text
//! cargo run --release -p coreside --features cli --example ledger -- --accounts 1000000
//! redis-cli -p 7379 ACCOUNT.TRANSFER 1 2 50
//! ```
//!
//! With `--listen-native 127.0.0.1:7380` native clients are served as well: all of its messages may
//! travel.
//!
//! A transfer takes the money off one account, asks the other, which may live on another core, to
//! take it in, and answers when that is done. So once every caller has its answer no money is under
//! way, and the audit adds up to the cent.

use std::error::Error;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::process::ExitCode;

use clap::Parser;
use coreside::doctor::ServiceCommand;
use coreside::{
    AskError, Cx, Later, Node, NodeOptions, ToValue, ValueWriter, entity, handlers, wire,
};

/// Accounts that deposit and transfer, and an audit that adds them all up
#[derive(Parser)]
#[command(after_help = "Try: redis-cli -p 7379 ACCOUNT.DEPOSIT 1 100")]
struct Options {
    /// What to do instead of serving
    #[command(subcommand)]
    command: Option<ServiceCommand>,

    #[command(flatten)]
    node: NodeOptions,

    /// Address to serve native clients on, too; port 0 takes any free one
    #[arg(long, value_name = "ADDR")]
    listen_native: Option<SocketAddr>,

    /// Accounts to open at the start, numbered from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    accounts: u64,

    /// What each of them holds at first
    #[arg(long, value_name = "AMOUNT", default_value_t = 1000)]
    opening_balance: i64,
}

/// One account. Amounts are whole cents.
#[entity]
pub(crate) struct Account {
    balance: i64,
    turnover: u64,
}

/// Why an amount was not moved.
#[wire]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotPositive,
    Insufficient,
    Overflow,
    SameAccount,
    Unknown,
    Busy,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPositive => f.write_str("the amount must be positive"),
            Self::Insufficient => f.write_str("INSUFFICIENT the balance is too low"),
            Self::Overflow => f.write_str("the balance would be out of range"),
            Self::SameAccount => f.write_str("both accounts are the same"),
            Self::Unknown => f.write_str("UNKNOWN it may have arrived; only an audit can tell"),
            Self::Busy => f.write_str("BUSY nothing was moved; try again later"),
        }
    }
}

/// What a transfer hears of the other account.
type Arrival = Result<Result<i64, Refusal>, AskError>;

/// What an audit adds up.
#[derive(Default)]
struct Audit {
    accounts: u64,
    total: i128,
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

#[handlers]
impl Account {
    /// Puts money in; answers with the balance.
    #[wire]
    pub(crate) fn deposit(&mut self, amount: i64) -> Result<i64, Refusal> {
        if amount <= 0 {
            return Err(Refusal::NotPositive);
        }
        self.balance = self.balance.checked_add(amount).ok_or(Refusal::Overflow)?;
        self.turnover += 1;
        Ok(self.balance)
    }

    /// Takes money out; answers with the balance.
    #[wire]
    pub(crate) fn withdraw(&mut self, amount: i64) -> Result<i64, Refusal> {
        if amount <= 0 {
            return Err(Refusal::NotPositive);
        }
        if self.balance < amount {
            return Err(Refusal::Insufficient);
        }
        self.balance -= amount;
        self.turnover += 1;
        Ok(self.balance)
    }

    /// What the account holds.
    #[wire]
    pub(crate) fn balance(&self) -> i64 {
        self.balance
    }

    /// Moves money to another account; answers with what is left here once it has arrived there.
    #[wire]
    pub(crate) fn transfer(
        &mut self,
        to: u64,
        amount: i64,
        cx: &mut Cx<Self>,
    ) -> Later<Result<i64, Refusal>> {
        let (later, reply) = cx.later();
        let taken = if to == cx.key() { Err(Refusal::SameAccount) } else { self.withdraw(amount) };
        if let Err(refusal) = taken {
            cx.reply(reply, Err(refusal));
            return later;
        }
        let arrived = move |account: &mut Self, outcome: Arrival, cx: &mut Cx<Self>| {
            let outcome = match outcome {
                Ok(Ok(_)) => Ok(account.balance),
                Ok(Err(refusal)) => {
                    account.balance += amount;
                    Err(refusal)
                }
                Err(AskError::NotSent) => {
                    account.balance += amount;
                    Err(Refusal::Busy)
                }
                // It may have arrived, so it is not given back.
                Err(_) => Err(Refusal::Unknown),
            };
            cx.reply(reply, outcome);
        };
        if let Err(refused) = cx.entity::<Account>(to).deposit(amount).ask(arrived) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }

    /// Adds up all accounts.
    #[sweep]
    fn audit(&self, total: &mut Audit) {
        total.accounts += 1;
        total.total += i128::from(self.balance);
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(command) = &options.command {
        return command.run();
    }
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut builder = options.node.apply(Node::builder().entity::<Account>());
    if let Some(address) = options.listen_native {
        builder = builder.listen_native(address);
    }
    let node = builder.start()?;
    for note in node.notes() {
        eprintln!("note: {note}");
    }
    if options.accounts > 0 {
        open_accounts(&node, options);
    }
    if let Some(address) = node.local_addr() {
        println!("listening on {address}");
    }
    if let Some(address) = node.native_addr() {
        println!("listening for native clients on {address}");
    }
    let handle = node.handle();
    node.run_until_signal()?;
    let stats = handle.stats();
    println!("served {} requests with {} system calls", stats.requests, stats.system_calls);
    Ok(())
}

/// Opens the accounts by telling each its first deposit, as fast as the node takes them.
fn open_accounts(node: &Node, options: &Options) {
    for account in 0..options.accounts {
        while node.entity::<Account>(account).deposit(options.opening_balance).try_tell().is_err() {
            std::thread::yield_now();
        }
    }
    loop {
        match node.sweep::<Account, AccountAudit>() {
            Ok(audit) if audit.total.accounts < options.accounts => std::thread::yield_now(),
            Ok(audit) => return println!("opened {} accounts", audit.total.accounts),
            Err(error) => return eprintln!("the accounts were not opened: {error}"),
        }
    }
}
