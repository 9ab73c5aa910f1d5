//! Every option of `#[entity]` about an entity's life, and every form of turn, in a shop that runs:
//! a desk, and the orders that it opens and supervises.
#![deny(missing_docs, unreachable_pub, unsafe_code, unused, warnings)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coreside::{
    AskError, AsyncCx, Backoff, Children, Cx, Entity, Fault, Life, Message, Node, NodeError,
    OnFault, Terminated, entity, handlers,
};

/// Where all orders ask.
const DESK: u64 = 1;
/// More orders at once are not expected.
const RESIDENT_MAX: usize = 1_000_000;

/// The lives of orders that ended in good order.
static CLOSED: AtomicU32 = AtomicU32::new(0);
/// How often the carrier was asked.
static SHIPMENTS: AtomicU32 = AtomicU32::new(0);

#[entity(alive, on_fault = resume, children = one_for_one)]
struct Desk {
    faults: u32,
    reason: String,
    gone: u32,
}

/// A message that no block generates.
#[derive(Debug)]
struct Discount {
    cents: i64,
}

impl Message for Discount {
    type Reply = i64;
}

#[handlers]
impl Desk {
    fn open(&mut self, order: u64, cx: &mut Cx<Self>) -> bool {
        cx.start::<Order>(order).is_ok() && cx.watch::<Order>(order).is_ok()
    }

    fn cancel(&mut self, order: u64, cx: &mut Cx<Self>) -> bool {
        cx.stop_entity::<Order>(order).is_ok()
    }

    #[on]
    fn order_failed(&mut self, Fault { count, reason, .. }: Fault) {
        (self.faults, self.reason) = (count, reason);
    }

    #[on]
    fn order_gone(&mut self, cx: &mut Cx<Self>, gone: Terminated) {
        let _ = (cx.key(), gone.end);
        self.gone += 1;
    }

    #[on]
    #[read]
    fn discount(&self, Discount { cents }: Discount) -> i64 {
        cents / 10
    }

    #[read]
    fn tax_percent(&self, order: u64) -> i64 {
        if order == 0 { 0 } else { 20 }
    }

    #[local]
    #[read]
    fn news(&self) -> (u32, String, u32) {
        (self.faults, self.reason.clone(), self.gone)
    }
}

/// A label without a text form.
#[derive(Clone)]
struct Label(&'static str);

#[entity(
    name = "order",
    activate_async = Order::load,
    on_stop = Self::close,
    on_passivate = Order::put_away,
    on_fault = restart,
    backoff = "1ms..10ms",
    jitter = 50,
    faults = "5 in 1m",
    reset = "30s",
    children = rest_for_one,
    idle = "120s",
    resident = RESIDENT_MAX / 2,
    stash = 64
)]
struct Order {
    tax_percent: i64,
    cents: i64,
}

#[handlers]
impl Order {
    async fn load(key: u64, cx: AsyncCx<Self>) -> Self {
        let tax_percent = cx.entity::<Desk>(DESK).tax_percent(key).await.unwrap_or(0);
        Self { tax_percent, cents: 0 }
    }

    #[skip]
    fn close(&mut self, _cx: &mut Cx<Self>) {
        CLOSED.fetch_add(1, Ordering::Relaxed);
    }

    #[skip]
    fn put_away(&mut self, cx: &mut Cx<Self>) {
        self.close(cx);
    }

    /// Waits for the desk, and holds the order meanwhile.
    async fn add(&mut self, cents: i64, cx: &mut AsyncCx<Self>) -> i64 {
        let discount = cx.entity::<Desk>(DESK).discount(Discount { cents }).await.unwrap_or(0);
        self.cents += cents - discount;
        self.cents
    }

    /// Needs no context.
    async fn clear(&mut self) {
        self.cents = 0;
    }

    #[read]
    #[command("TOTAL")]
    fn total(&self) -> i64 {
        self.cents
    }

    #[read]
    async fn taxed(&self, cx: &mut AsyncCx<Self>) -> i64 {
        let percent = cx.entity::<Desk>(DESK).tax_percent(cx.key()).await;
        self.cents * (100 + percent.unwrap_or(self.tax_percent)) / 100
    }

    #[interleave]
    #[command("INVOICE")]
    async fn invoice(to: String, cx: AsyncCx<Self>) -> String {
        let percent = cx.entity::<Desk>(DESK).tax_percent(cx.key()).await.unwrap_or(0);
        let cents = cx.with(|order| order.cents).await;
        format!("{to}: {cents} and {percent} %")
    }

    #[fallible]
    fn take(&mut self, cents: i64) -> Result<i64, &'static str> {
        if cents > self.cents {
            return Err("more than the order is worth");
        }
        self.cents -= cents;
        Ok(self.cents)
    }

    #[fallible]
    async fn pay(&mut self, cx: &mut AsyncCx<Self>, cents: i64) -> Result<i64, AskError> {
        let percent = cx.entity::<Desk>(DESK).tax_percent(cx.key()).await?;
        if cents < self.cents * (100 + percent) / 100 {
            return Err(AskError::Failed);
        }
        self.cents = 0;
        Ok(cents)
    }

    /// The carrier is there at the third attempt.
    #[local]
    #[fallible]
    #[retry]
    fn ship(&mut self, label: Label) -> Result<(u32, Label), String> {
        match SHIPMENTS.fetch_add(1, Ordering::Relaxed) + 1 {
            attempt @ 3.. => Ok((attempt, label)),
            attempt => Err(format!("attempt {attempt} to ship {}", label.0)),
        }
    }

    /// Tried five times at most, and needs one.
    #[retry(5)]
    fn touch(&mut self) {}
}

#[test]
fn lives_and_turns_are_as_declared() -> Result<(), NodeError> {
    let expected = Life {
        on_fault: OnFault::Restart,
        backoff: Backoff {
            first: Duration::from_millis(1),
            most: Duration::from_millis(10),
            jitter_percent: 50,
            faults_max: 5,
            within: Duration::from_secs(60),
            reset: Duration::from_secs(30),
        },
        children: Children::RestForOne,
        idle: Some(Duration::from_secs(120)),
        resident_max: Some(RESIDENT_MAX / 2),
        stash_max: 64,
        keep_alive: false,
    };
    assert_eq!(Order::LIFE, expected);
    let expected = Life { on_fault: OnFault::Resume, keep_alive: true, ..Life::DEFAULT };
    assert_eq!(Desk::LIFE, expected);
    assert_eq!((OrderShip::TRIES, OrderTouch::TRIES, OrderTotal::TRIES), (3, 5, 1));
    assert!(OrderTouch.duplicate().is_some() && OrderTotal.duplicate().is_none());

    // One shard, so that what the desk hears is in order with what is asked.
    let node = Node::builder().entity::<Desk>().entity::<Order>().shards(1).start()?;
    assert_eq!(node.entity::<Desk>(DESK).open(7).wait(), Ok(true));
    assert_eq!(node.entity::<Order>(7).add(1000).wait(), Ok(900));
    assert_eq!(node.entity::<Order>(7).total().wait(), Ok(900));
    assert_eq!(node.entity::<Order>(7).taxed().wait(), Ok(1080));
    let invoice = node.entity::<Order>(7).invoice("Ada".to_owned()).wait();
    assert_eq!(invoice.as_deref(), Ok("Ada: 900 and 20 %"));
    assert_eq!(node.entity::<Order>(7).pay(1080).wait(), Ok(1080));
    assert_eq!(node.entity::<Order>(7).add(100).wait(), Ok(90));
    assert_eq!(node.entity::<Order>(7).take(80).wait(), Ok(10));
    assert_eq!(node.entity::<Order>(7).touch().wait(), Ok(()));
    assert_eq!(node.entity::<Order>(7).clear().wait(), Ok(()));

    let shipped = node.entity::<Order>(7).ship(Label("fragile")).wait();
    assert_eq!(shipped.map(|(attempt, Label(text))| (attempt, text)), Ok((3, "fragile")));
    assert_eq!(node.entity::<Order>(7).take(1).wait(), Err(AskError::Failed));
    assert_eq!(node.entity::<Order>(7).add(10).wait(), Ok(9));
    assert_eq!(node.entity::<Order>(7).pay(1).wait(), Err(AskError::Failed));
    assert_eq!(node.entity::<Order>(7).total().wait(), Ok(0), "in its next life");
    assert_eq!(node.entity::<Desk>(DESK).cancel(7).wait(), Ok(true));
    let news = node.entity::<Desk>(DESK).news().wait();
    assert_eq!(news, Ok((4, AskError::Failed.to_string(), 1)));
    assert_eq!(CLOSED.load(Ordering::Relaxed), 1);
    Ok(())
}
