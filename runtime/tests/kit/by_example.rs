//! How to test entities with the kit, by example: a saga, a timer, a fault, a poison message, an
//! async turn, a supervisor. `methods.rs` has the rest of the kit.

use std::time::Duration;

use coreside::kit::Kit;
use coreside::{
    AskError, Cx, End, Entity, Fault, Handler, Later, Message, Reason, Registration, Terminated,
    Via, entity, handlers,
};

/// An account that moves money by a saga: take it off, ask the other to take it in, and put it back
/// where that failed.
#[entity]
#[derive(Debug)]
struct Account {
    balance: i64,
    /// Money on its way.
    under_way: i64,
    reminders: u32,
}

#[handlers]
impl Account {
    fn deposit(&mut self, amount: i64) -> i64 {
        assert!(amount > 0, "nothing to deposit: {amount}");
        self.balance += amount;
        self.balance
    }

    fn transfer(&mut self, to: u64, amount: i64, cx: &mut Cx<Self>) -> Later<bool> {
        let (later, reply) = cx.later();
        if amount > self.balance {
            cx.reply(reply, false);
            return later;
        }
        self.balance -= amount;
        self.under_way += amount;
        let arrived = move |this: &mut Self, arrived: Result<i64, AskError>, cx: &mut Cx<Self>| {
            match arrived {
                Ok(_) => this.under_way -= amount,
                // Nothing was done: the money comes back.
                Err(AskError::NotSent | AskError::Failed) => {
                    this.under_way -= amount;
                    this.balance += amount;
                }
                // Nobody knows: it stays under way, and a clerk hears of it.
                Err(_) => {
                    let told = cx.entity::<Clerk>(0).look_into(amount).try_tell();
                    assert!(told.is_ok(), "room");
                }
            }
            cx.reply(reply, arrived.is_ok());
        };
        assert!(cx.entity::<Account>(to).deposit(amount).ask(arrived).is_ok(), "room");
        later
    }

    /// Reminds itself every hour, for as long as it is in memory.
    fn remind_hourly(&mut self, cx: &mut Cx<Self>) {
        let hour = Duration::from_secs(3600);
        cx.every_keyed(1, hour, AccountRemind).ok().expect("room");
    }

    fn stop_reminding(&mut self, cx: &mut Cx<Self>) -> bool {
        cx.cancel_keyed(1)
    }

    fn remind(&mut self) {
        self.reminders += 1;
    }

    /// Collects what others have, one after the other; nobody sees the account meanwhile.
    fn collect(&mut self, from: u64, until: u64, cx: &mut Cx<Self>) -> Later<i64> {
        cx.run(async move |this: &mut Self, cx| {
            for key in from..until {
                cx.sleep(Duration::from_millis(100)).await;
                match cx.entity::<Clerk>(key).due().await {
                    Ok(due) => this.balance += due,
                    Err(_) => break,
                }
            }
            this.balance
        })
    }
}

#[entity]
struct Clerk;

#[handlers]
impl Clerk {
    fn look_into(&mut self, amount: i64) {
        let _ = amount;
    }

    fn due(&self) -> i64 {
        0
    }
}

impl Clone for AccountRemind {
    fn clone(&self) -> Self {
        Self
    }
}

fn account() -> Kit<Account> {
    Kit::builder().other::<Clerk>().build(1)
}

// A saga: the test plays the other account.

#[test]
fn money_arrives_at_the_other_account() {
    let mut kit = account();
    assert_eq!(kit.entity().deposit(100).ask(), Ok(100));
    let transfer = kit.entity().transfer(2, 30).begin();
    assert_eq!(kit.state(|account| (account.balance, account.under_way)), (70, 30));
    let deposit = kit.expect_sent::<Account, AccountDeposit>();
    assert_eq!((deposit.key, deposit.message.amount), (2, 30));
    kit.answer(deposit, Ok(30));
    assert_eq!(transfer.take(), Some(Ok(true)));
    assert_eq!(kit.state(|account| (account.balance, account.under_way)), (70, 0));
    kit.expect_nothing_sent();
}

#[test]
fn money_comes_back_when_the_other_account_failed() {
    let mut kit = account();
    kit.entity().deposit(100).tell();
    for error in [AskError::NotSent, AskError::Failed] {
        kit.when::<Account, AccountDeposit>(move |_, _| Err(error.clone()));
        assert_eq!(kit.entity().transfer(2, 30).ask(), Ok(false));
        assert_eq!(kit.state(|account| (account.balance, account.under_way)), (100, 0));
    }
}

#[test]
fn money_stays_under_way_when_nobody_knows() {
    let mut kit = account();
    kit.entity().deposit(100).tell();
    let transfer = kit.entity().transfer(2, 30).begin();
    kit.advance(Duration::from_secs(1));
    assert_eq!(kit.state(|account| (account.balance, account.under_way)), (70, 30));
    assert_eq!(transfer.take(), Some(Err(AskError::MaybeExecuted)));
    let told = kit.expect_sent::<Clerk, ClerkLookInto>();
    assert_eq!((told.key, told.message.amount, told.within), (0, 30, None));
    // The answer that comes after all finds nobody.
    let deposit = kit.expect_sent::<Account, AccountDeposit>();
    kit.answer(deposit, Ok(30));
    assert_eq!(kit.state(|account| account.under_way), 30);
}

// A timer: hours pass in no time.

#[test]
fn reminders_come_every_hour_until_they_are_stopped() {
    let mut kit = account();
    kit.entity().remind_hourly().tell();
    kit.advance(Duration::from_secs(3599));
    assert_eq!(kit.state(|account| account.reminders), 0);
    kit.advance(Duration::from_secs(1));
    assert_eq!(kit.state(|account| account.reminders), 1);
    kit.advance(Duration::from_secs(10 * 3600 + 1));
    assert_eq!(kit.state(|account| account.reminders), 11);
    assert_eq!(kit.entity().stop_reminding().ask(), Ok(true));
    kit.advance(Duration::from_secs(1_000_000));
    assert_eq!(kit.state(|account| account.reminders), 11);
}

// A fault, and the restart behind it.

#[test]
fn fault_costs_the_state_and_not_the_messages_behind_it() {
    let mut kit = account();
    kit.entity().deposit(100).tell();
    assert_eq!(kit.entity().deposit(-1).ask(), Err(AskError::Failed));
    let fault = kit.expect_fault();
    assert!(fault.reason.contains("nothing to deposit: -1"), "{}", fault.reason);
    assert_eq!((fault.message, fault.count), ("deposit", 1));
    assert!(kit.is_restarting());
    let behind = kit.entity().deposit(5).begin();
    assert_eq!((behind.take(), kit.stashed()), (None, 1));
    // The first restart waits for 10 ms, and up to a fifth of it more.
    kit.advance(Duration::from_millis(12));
    assert_eq!(behind.take(), Some(Ok(5)));
    assert_eq!(kit.state(|account| account.balance), 5);
}

// An async turn: the test gives it time and answers, step by step.

#[test]
fn collecting_goes_from_one_clerk_to_the_next() {
    let mut kit = account();
    let collect = kit.entity().collect(1, 3).begin();
    for key in 1..3 {
        assert!(kit.is_busy());
        kit.expect_nothing_sent();
        kit.advance(Duration::from_millis(100));
        let due = kit.expect_sent::<Clerk, ClerkDue>();
        assert_eq!(due.key, key);
        kit.answer(due, Ok(10));
    }
    assert_eq!(collect.take(), Some(Ok(20)));
    assert!(!kit.is_busy());
}

#[test]
fn collecting_ends_where_it_is_when_the_asker_waits_no_longer() {
    let mut kit = account();
    kit.when::<Clerk, ClerkDue>(|key, _| Ok(key as i64));
    let collect = kit.entity().collect(1, 1000).within(Duration::from_millis(350)).begin();
    let deposit = kit.entity().deposit(1).begin();
    kit.advance(Duration::from_millis(300));
    assert_eq!((collect.take(), deposit.take(), kit.stashed()), (None, None, 1));
    kit.advance(Duration::from_millis(50));
    assert_eq!(collect.take(), Some(Err(AskError::MaybeExecuted)));
    assert_eq!(deposit.take(), Some(Ok(1 + 1 + 2 + 3)), "three clerks had paid");
    let asked: Vec<_> = kit.sent::<Clerk, ClerkDue>().iter().map(|sent| sent.key).collect();
    assert_eq!(asked, [1, 2, 3]);
}

/// An importer that takes batches, each in a worker that it supervises; written by hand, because it
/// handles messages of the runtime's own.
#[derive(Default)]
struct Importer {
    done: Vec<u32>,
    /// The service that it needs; a step fails without.
    service: bool,
    faults: Vec<String>,
    gone: Vec<(u64, End)>,
}

/// A step, tried three times.
#[derive(Debug)]
struct Again {
    step: u32,
}

impl Message for Again {
    type Reply = ();
    const TRIES: u32 = 3;

    fn duplicate(&self) -> Option<Self> {
        Some(Self { step: self.step })
    }
}

struct Connect;

impl Message for Connect {
    type Reply = ();
}

/// Begins a batch.
struct Batch {
    worker: u64,
}

impl Message for Batch {
    type Reply = ();
}

impl Entity for Importer {
    type Key = u64;
    type Ref<V: Via> = coreside::Address<Self, V>;
    const NAME: &'static str = "importer";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self::default()
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Again>("again").message::<Connect>("connect").message::<Batch>("batch");
        table.message::<Fault>("fault").message::<Terminated>("terminated");
    }
}

impl Handler<Again> for Importer {
    type Answer = ();

    fn handle(&mut self, again: Again, _: &mut Cx<'_, Self>) {
        assert!(self.service, "step {} has no service", again.step);
        self.done.push(again.step);
    }
}

impl Handler<Connect> for Importer {
    type Answer = ();

    fn handle(&mut self, _: Connect, _: &mut Cx<'_, Self>) {
        self.service = true;
    }
}

impl Handler<Batch> for Importer {
    type Answer = ();

    fn handle(&mut self, batch: Batch, cx: &mut Cx<'_, Self>) {
        cx.start::<Clerk>(batch.worker).expect("room");
        cx.watch::<Clerk>(batch.worker).expect("room");
    }
}

impl Handler<Fault> for Importer {
    type Answer = ();

    fn handle(&mut self, fault: Fault, cx: &mut Cx<'_, Self>) {
        if fault.count == 3
            && let Some(worker) = fault.entity.key::<Clerk>()
        {
            cx.stop_entity::<Clerk>(worker).expect("room");
        }
        self.faults.push(fault.reason);
    }
}

impl Handler<Terminated> for Importer {
    type Answer = ();

    fn handle(&mut self, gone: Terminated, _: &mut Cx<'_, Self>) {
        self.gone.extend(gone.entity.key::<Clerk>().map(|key| (key, gone.end)));
    }
}

// A poison message: it fails each time, is put aside, and is replayed when the cause is gone.

#[test]
fn poison_message_is_put_aside_and_can_be_replayed() {
    let mut kit = Kit::<Importer>::new(1);
    kit.tell(Again { step: 7 });
    for count in 1..=3 {
        let fault = kit.expect_fault();
        assert_eq!((fault.count, fault.reason.as_str()), (count, "step 7 has no service"));
        // The waits double from 10 ms.
        kit.advance(Duration::from_millis(50));
    }
    let letter = kit.expect_dead_letter();
    assert_eq!(letter.reason(), Reason::Poison);
    assert_eq!(letter.message::<Importer, Again>().map(|again| again.step), Some(7));
    kit.tell(Connect);
    kit.replay(letter);
    assert_eq!(kit.state(|importer| importer.done.clone()), [7]);
    assert_eq!(kit.dead_letters().count(), 0);
}

// A supervisor: the test lets those fail and end whom it started.

#[test]
fn supervisor_stops_a_worker_that_fails_three_times() {
    let mut kit = Kit::<Importer>::builder().other::<Clerk>().build(1);
    kit.tell(Batch { worker: 5 });
    assert!(kit.other::<Clerk>(5).is_started() && kit.other::<Clerk>(5).is_watched());
    for reason in ["no disk", "no disk", "no network"] {
        assert!(!kit.other::<Clerk>(5).is_told_to_stop());
        kit.other::<Clerk>(5).fails(reason);
    }
    assert!(kit.other::<Clerk>(5).is_told_to_stop());
    kit.other::<Clerk>(5).ends(End::Stopped);
    assert_eq!(kit.state(|importer| importer.gone.clone()), [(5, End::Stopped)]);
    assert_eq!(kit.state(|importer| importer.faults.len()), 3);
    assert!(kit.started().is_empty() && kit.watched().is_empty());
}
