//! Versions of messages: clients that were built before the last change, and after the next.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use coreside::{
    AskError, Client, ClientError, Entity, Node, NodeBuilder, NodeError, RegistryError,
};
use coreside_net::native::frame::{Code, HEADER_BYTES, Header, KEY_BYTES, Kind, VERSION};
use coreside_net::native::{Hello, Standing, Welcome};
use coreside_shard::{Encode, Registry};

/// What the last release had.
mod released {
    use coreside::{entity, handlers, wire};

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        pub item: u64,
        pub tags: Vec<String>,
    }

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub enum Refusal {
        Closed,
        TooMany(u32),
    }

    #[wire]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Basket {
        pub orders: Vec<Order>,
        pub first: Option<Order>,
    }

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[local]
        #[wire]
        pub fn place(&mut self, basket: Basket) -> Result<Vec<Order>, Refusal> {
            Ok(basket.orders)
        }

        #[wire]
        pub fn price(&self, euros: i64) -> i64 {
            euros
        }

        #[local]
        #[wire]
        pub fn close(&mut self, hour: u8) -> u8 {
            hour
        }

        #[wire]
        pub fn same(&self, a: u64) -> u64 {
            a
        }
    }
}

/// What this tree has.
mod current {
    use coreside::{Cx, Later, Previous, Unconvertible, entity, handlers, wire};

    #[wire(version = 2)]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        pub item: u64,
        pub tags: Vec<String>,
        #[wire(since = 2, default = 1)]
        pub count: u32,
    }

    #[wire(version = 2)]
    #[derive(Clone, Debug, PartialEq)]
    pub enum Refusal {
        Closed,
        TooMany(u32),
        #[wire(since = 2, instead = Closed)]
        Holiday {
            days: u8,
        },
        #[wire(since = 2)]
        Unsaid,
    }

    #[wire(version = 2)]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Basket {
        pub orders: Vec<Order>,
        pub first: Option<Order>,
    }

    #[wire(message)]
    #[derive(Debug)]
    pub struct PriceV1 {
        pub euros: i64,
    }

    impl Previous<ShopPrice> for PriceV1 {
        type Reply = i64;

        fn upgrade(self) -> Result<ShopPrice, Unconvertible> {
            assert_ne!(self.euros, -1, "panics, as conversions may");
            let cents = self.euros.checked_mul(100).ok_or(Unconvertible)?;
            Ok(ShopPrice { cents })
        }

        fn downgrade(cents: i64) -> Result<i64, Unconvertible> {
            assert!(cents > -200, "panics, as conversions may");
            Ok(cents / 100)
        }
    }

    /// Hours used to be a number.
    #[wire(version = 2, from = u8)]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Hour {
        pub hour: u8,
    }

    impl TryFrom<u8> for Hour {
        type Error = &'static str;

        fn try_from(hour: u8) -> Result<Self, Self::Error> {
            if hour < 24 { Ok(Self { hour }) } else { Err("a day has 24 hours") }
        }
    }

    impl From<Hour> for u8 {
        fn from(hour: Hour) -> Self {
            hour.hour
        }
    }

    #[entity]
    pub struct Shop {
        turns: u32,
    }

    #[handlers]
    impl Shop {
        #[local]
        #[wire(version = 2)]
        pub fn place(
            &mut self,
            basket: Basket,
            #[wire(since = 2)] holiday: Option<u8>,
            cx: &mut Cx<Self>,
        ) -> Later<Result<Vec<Order>, Refusal>> {
            self.turns += 1;
            let (later, reply) = cx.later();
            let answer = match (holiday, basket.orders.first()) {
                (Some(days), _) => Err(Refusal::Holiday { days }),
                (None, Some(order)) if order.item == 13 => Err(Refusal::Holiday { days: 13 }),
                (None, Some(order)) if order.item == 14 => Err(Refusal::Unsaid),
                (None, Some(order)) if order.item == 15 => Err(Refusal::TooMany(order.count)),
                _ => Ok(basket.orders),
            };
            cx.reply(reply, answer);
            later
        }

        #[wire(version = 2, from = PriceV1)]
        pub fn price(&self, cents: i64) -> i64 {
            cents + i64::from(self.turns)
        }

        #[local]
        #[wire(version = 2)]
        pub fn close(&mut self, hour: Hour) -> Hour {
            self.turns += 1;
            hour
        }

        /// Nothing has changed since version 2, whatever the number.
        #[wire(version = 2)]
        pub fn same(&self, a: u64) -> u64 {
            a
        }
    }
}

fn start(builder: NodeBuilder) -> (Node, SocketAddr) {
    let node = builder.shards(2).listen_native(([127, 0, 0, 1], 0).into());
    let node = node.start().expect("a node");
    let address = node.native_addr().expect("it listens");
    (node, address)
}

fn order(item: u64) -> released::Order {
    released::Order { item, tags: vec!["a tag of some length".to_owned()] }
}

fn basket(item: u64) -> released::Basket {
    released::Basket { orders: vec![order(item), order(2)], first: Some(order(3)) }
}

#[test]
fn client_of_the_last_release_is_served_beside_one_of_today() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let old = Client::builder().entity::<released::Shop>().connect(address).expect("served");
    let new = Client::builder().entity::<current::Shop>().connect(address).expect("served");
    for key in 0..20 {
        let placed = old.entity::<released::Shop>(key).place(basket(1)).wait();
        assert_eq!(placed, Ok(Ok(vec![order(1), order(2)])));
        let counted = current::Order { item: 1, tags: Vec::new(), count: 7 };
        let basket = current::Basket { orders: vec![counted.clone()], first: None };
        let placed = new.entity::<current::Shop>(key).place(basket, None).wait();
        assert_eq!(placed, Ok(Ok(vec![counted])));
        // Both had a turn of one entity.
        assert_eq!(new.entity::<current::Shop>(key).price(100).wait(), Ok(102));
        assert_eq!(old.entity::<released::Shop>(key).price(7).wait(), Ok(7), "euros");
        assert_eq!(old.entity::<released::Shop>(key).same(9).wait(), Ok(9));
    }
    node.stop();
}

#[test]
fn what_was_added_is_its_default_for_an_old_client() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let old = Client::builder().entity::<released::Shop>().connect(address).expect("served");
    let place = |item| old.entity::<released::Shop>(1).place(basket(item)).wait();
    assert_eq!(place(15), Ok(Err(released::Refusal::TooMany(1))), "count = 1, holiday = None");
    node.stop();
}

#[test]
fn reply_that_an_old_client_cannot_read_is_another_or_an_error() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let old = Client::builder().entity::<released::Shop>().connect(address).expect("served");
    let place = |item| old.entity::<released::Shop>(1).place(basket(item)).wait();
    assert_eq!(place(13), Ok(Err(released::Refusal::Closed)), "instead of a holiday");
    assert_eq!(place(14), Err(AskError::Unsayable), "the work was done, and none can say so");
    assert!(place(1).is_ok(), "the connection lives");
    node.stop();
}

#[test]
fn message_that_has_no_counterpart_is_an_error_and_nothing_is_done() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let old = Client::builder().entity::<released::Shop>().connect(address).expect("served");
    let shop = || old.entity::<released::Shop>(1);
    assert_eq!(shop().close(23).wait(), Ok(23));
    assert_eq!(shop().close(24).wait(), Err(AskError::Unconvertible));
    assert_eq!(shop().price(i64::MAX).wait(), Err(AskError::Unconvertible));
    let new = Client::builder().entity::<current::Shop>().connect(address).expect("served");
    assert_eq!(new.entity::<current::Shop>(1).price(0).wait(), Ok(1), "one turn, not two");
    node.stop();
}

#[test]
fn client_that_is_ahead_of_the_node_is_told_to_wait_for_it() {
    let (node, address) = start(Node::builder().entity::<released::Shop>());
    let ahead = Client::builder().entity::<current::Shop>().connect(address);
    let Err(error @ ClientError::Message { version: 2, standing, .. }) = ahead else {
        panic!("{ahead:?}")
    };
    assert!(matches!(standing, Standing::OtherSchema { version: 1, oldest: 1, .. }));
    let text = error.to_string();
    for part in ["Shop.place has version 2", "takes version 1", "bring the node up to date first"] {
        assert!(text.contains(part), "{text}");
    }
    node.stop();
}

#[test]
fn conversion_that_panics_is_an_error_of_its_message_alone() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let old = Client::builder().entity::<released::Shop>().connect(address).expect("served");
    // A panic may be told with a backtrace, and that may take a while.
    let long = Duration::from_secs(20);
    let price = |euros| old.entity::<released::Shop>(1).price(euros).within(long).wait();
    assert_eq!(price(-1), Err(AskError::Unconvertible));
    assert_eq!(price(-2), Err(AskError::Unsayable));
    assert_eq!(price(5), Ok(5), "the shard lives, and so does the entity");
    assert_eq!(node.stats().faults, 0);
    node.stop();
}

/// A connection by the letter of the protocol, on which one old message has a number.
struct Raw {
    stream: TcpStream,
    number: u16,
}

impl Raw {
    /// Shakes hands for `Shop.method` as `E` has it.
    fn connect<E: Entity>(address: SocketAddr, method: &str) -> Self {
        let mut registry = Registry::new();
        registry.entity::<E>();
        let row = registry.wire().find(|row| row.name.1 == method).expect("it is on the wire");
        let messages = vec![(row.id, row.schema)];
        let hello = Hello { versions: (VERSION, VERSION), shard: None, cluster: 0, messages };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        stream.write_all(&bytes).expect("it reads");
        let mut raw = Self { stream, number: 0 };
        let (_, content) = raw.read();
        let welcome = Welcome::read(&content).expect("a welcome");
        let [Standing::Number(number)] = welcome.messages[..] else { panic!("{welcome:?}") };
        raw.number = number;
        raw
    }

    fn send(&mut self, kind: Kind, value: &impl Encode) {
        let mut bytes = Vec::new();
        let content = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0; KEY_BYTES]);
            value.encode(out)
        };
        let header = Header { message: self.number, call: 5, ..Header::new(kind) };
        header.write_with(&mut bytes, content).expect("small");
        self.stream.write_all(&bytes).expect("it reads");
    }

    fn read(&mut self) -> (Header, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).expect("an answer");
        let header = Header::read(&head, 1 << 20).expect("a header").expect("whole");
        let mut content = vec![0; header.padded() - HEADER_BYTES];
        self.stream.read_exact(&mut content).expect("all of it");
        content.truncate(header.length as usize - HEADER_BYTES);
        (header, content)
    }

    fn code(&mut self, kind: Kind) -> Option<Code> {
        let (header, _) = self.read();
        assert_eq!(header.kind, kind);
        Code::from_byte(header.code)
    }
}

#[test]
fn codes_say_whether_the_message_or_its_reply_has_no_counterpart() {
    let (node, address) = start(Node::builder().entity::<current::Shop>());
    let mut raw = Raw::connect::<released::Shop>(address, "close");
    raw.send(Kind::Ask, &released::ShopClose { hour: 24 });
    assert_eq!(raw.code(Kind::Error), Some(Code::Unconvertible));
    raw.send(Kind::Ask, &released::ShopClose { hour: 23 });
    assert_eq!(raw.code(Kind::Reply), None);
    // A tell has no answer, so the connection ends with the reason.
    raw.send(Kind::Tell, &released::ShopClose { hour: 24 });
    assert_eq!(raw.code(Kind::GoAway), Some(Code::Unconvertible));

    let mut raw = Raw::connect::<released::Shop>(address, "place");
    raw.send(Kind::Ask, &released::ShopPlace { basket: basket(14) });
    assert_eq!(raw.code(Kind::Error), Some(Code::Unsayable));
    raw.send(Kind::Ask, &released::ShopPlace { basket: basket(1) });
    assert_eq!(raw.code(Kind::Reply), None);
    node.stop();
}

/// A release after today's, which has forgotten what the last one sent.
mod ahead {
    use coreside::{entity, handlers};

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[wire(version = 4)]
        pub fn price(&self, cents: u64, #[wire(since = 4)] item: u64) -> u64 {
            cents + item
        }
    }
}

/// One message of the last release, to be refused for its own sake.
mod one {
    use coreside::{entity, handlers};

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[wire]
        pub fn price(&self, euros: i64) -> i64 {
            euros
        }
    }
}

#[test]
fn client_that_is_too_old_is_told_to_be_built_anew() {
    let (node, address) = start(Node::builder().entity::<ahead::Shop>());
    let old = Client::builder().entity::<one::Shop>().connect(address);
    let Err(error @ ClientError::Message { version: 1, .. }) = old else { panic!("{old:?}") };
    let text = error.to_string();
    for part in ["Shop.price has version 1", "takes version 3 or 4", "newer message types"] {
        assert!(text.contains(part), "{text}");
    }
    node.stop();
}

#[test]
fn client_goes_on_when_its_node_is_brought_up_to_date() {
    let (node, address) = start(Node::builder().entity::<released::Shop>());
    let backoff = (Duration::from_millis(1), Duration::from_millis(20));
    let old = Client::builder().entity::<released::Shop>().backoff(backoff.0, backoff.1);
    let old = old.connect(address).expect("served");
    assert_eq!(old.entity::<released::Shop>(1).price(3).wait(), Ok(3));
    node.stop();
    let node = Node::builder().entity::<current::Shop>().shards(2).listen_native(address);
    let node = node.start().expect("the same address");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match old.entity::<released::Shop>(1).place(basket(1)).wait() {
            Ok(placed) => break assert_eq!(placed, Ok(vec![order(1), order(2)])),
            Err(AskError::NotSent) if Instant::now() < until => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    node.stop();
}

/// Two versions that look alike: euros, then cents.
mod alike {
    use coreside::{Previous, Unconvertible, entity, handlers, wire};

    #[wire(message)]
    pub struct PriceV1 {
        pub amount: i64,
    }

    impl Previous<ShopPrice> for PriceV1 {
        type Reply = i64;

        fn upgrade(self) -> Result<ShopPrice, Unconvertible> {
            Ok(ShopPrice { amount: self.amount * 100 })
        }

        fn downgrade(cents: i64) -> Result<i64, Unconvertible> {
            Ok(cents / 100)
        }
    }

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[wire(version = 2, from = PriceV1)]
        pub fn price(&self, amount: i64) -> i64 {
            amount
        }
    }
}

#[test]
fn versions_that_nobody_could_tell_apart_make_no_node() {
    let refused = Node::builder().entity::<alike::Shop>().shards(1).start();
    let Err(NodeError::Registry(error)) = refused else { panic!("{refused:?}") };
    let versions = (1, 2);
    assert_eq!(error, RegistryError::SameSchema { name: "Shop.price".to_owned(), versions });
}
