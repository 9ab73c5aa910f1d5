//! A ledger: money moves between accounts on all shards by asks, while turns panic before and
//! after it moved. What a fault destroys is in the book; all the rest must be in the accounts.

use coreside::sim::{Shard, Sim, SimError};
use coreside::{AskError, Cx, Later, entity, handlers};

use crate::suite::book::{Asked, Coins, Life, MONEY, Stamp, book, draw, note};
use crate::suite::workload::{Kind, Load, Plain, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "ledger",
    about: "money between accounts",
    shape: |_| (),
    make: || Box::new(Plain { register: |builder| builder.entity::<Account>(), send, end }),
};

fn send(load: &mut Load<'_>) {
    let (key, to) = (load.key(), load.key());
    let amount = load.random.magnitude(1, 1_000);
    if load.random.one_in(3) {
        let make = move |stamp| AccountDeposit { stamp, coins: Coins::mint(amount) };
        load.ask::<Account, _>(key, make, |message| message.stamp);
    } else {
        let make = move |stamp| AccountSend { stamp, to, amount };
        load.ask::<Account, _>(key, make, |message| message.stamp);
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    // Dead letters hold what was sent in them.
    for shard in 0..sim.shards() as u16 {
        let burn = |shard: &mut Shard| while shard.take_dead_letter(0).is_some() {};
        sim.handle().by_way_of(shard).with_shard(burn);
    }
    settle(sim)?;
    let total = sim.sweep::<Account, AccountAudit>();
    settle(sim)?;
    let (minted, destroyed) = book(|book| (book.minted, book.destroyed));
    match total.take() {
        Some(Ok(AccountAudit { total })) if total == minted - destroyed => {}
        // Too few asks may wait for one to each shard.
        Some(Err(AskError::NotSent)) if sim.limits().asks_max < sim.shards() as u32 => {}
        Some(Err(error)) => note(MONEY, format!("the audit failed: {error}")),
        None => note(MONEY, "the audit has no end".to_owned()),
        Some(Ok(AccountAudit { total })) => note(
            MONEY,
            format!("accounts hold {total}, of {minted} made and {destroyed} destroyed"),
        ),
    }
    // For the oracles to find it.
    sim.run_until_idle(1).map(|_| ())
}

/// Holds money.
#[entity(activate = Account::begin)]
struct Account {
    number: u64,
    coins: Coins,
    life: Life,
}

/// The answer to a credit: what was not taken comes back.
struct Receipt {
    reply: u64,
    change: Coins,
}

#[handlers]
impl Account {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, coins: Coins::default(), life: begin(key) }
    }

    #[local]
    fn deposit(&mut self, mut stamp: Stamp, coins: Coins, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        may_fail(&stamp, cx);
        self.coins.put(coins);
        stamp.reply()
    }

    #[local]
    fn send(&mut self, mut stamp: Stamp, to: u64, amount: u64, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let coins = self.coins.take(amount);
        let (later, reply_to) = cx.later();
        let credit = Stamp::new((self.number, to));
        let (asked, promise) = (Asked::by(&self.life, &credit), stamp.promise());
        let then = move |account: &mut Self, answer: Result<Receipt, AskError>, cx: &mut Cx<_>| {
            let outcome = answer.as_ref().map(|receipt| receipt.reply).map_err(Clone::clone);
            asked.end_in(&account.life, outcome);
            if let Ok(receipt) = answer {
                account.coins.put(receipt.change);
            }
            cx.reply(reply_to, promise.reply());
        };
        if let Err(refused) = cx.entity::<Account>(to).credit(credit, coins).ask(then) {
            let AccountCredit { stamp, coins } = refused.message;
            stamp.take_back();
            self.coins.put(coins);
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        may_fail(&stamp, cx);
        later
    }

    #[local]
    fn credit(&mut self, mut stamp: Stamp, mut coins: Coins, cx: &mut Cx<Self>) -> Receipt {
        stamp.arrive(self.number);
        let (early, declines) = draw(|random, _| (random.one_in(2), random.one_in(5)));
        if early {
            may_fail(&stamp, cx);
        }
        let change = if declines { coins.amount() / 2 } else { 0 };
        let change = coins.take(change);
        self.coins.put(coins);
        if !early {
            may_fail(&stamp, cx);
        }
        Receipt { reply: stamp.reply(), change }
    }

    #[sweep]
    fn audit(&self, total: &mut u64) {
        *total += self.coins.amount();
    }
}
