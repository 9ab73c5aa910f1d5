//! Lock files: what of the last release's wire a tree has to take, and what happens if it does not.

use std::path::PathBuf;

use crate::ledger;
use coreside::{Entity, Node, WireBreak, WireChange, WireLock, WireLockError};

/// What the last release had.
mod released {
    use coreside::{entity, handlers, wire};

    #[wire]
    pub struct Order {
        pub item: u64,
        pub count: u32,
    }

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[local]
        #[wire]
        pub fn place(&mut self, order: Order) -> bool {
            order.count > 0
        }

        #[wire]
        pub fn price(&self, item: u64) -> u64 {
            item
        }
    }
}

/// A field more, properly.
mod evolved {
    use coreside::{entity, handlers, wire};

    #[wire(version = 2)]
    pub struct Order {
        pub item: u64,
        pub count: u32,
        #[wire(since = 2)]
        pub gift: bool,
    }

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[local]
        #[wire(version = 2)]
        pub fn place(&mut self, order: Order) -> bool {
            order.gift
        }

        #[wire]
        pub fn price(&self, item: u64) -> u64 {
            item
        }

        #[wire]
        pub fn open(&mut self) {}
    }
}

/// A field more, and nobody is told; an argument renamed; and a field too much in the version
/// before.
mod broken {
    use coreside::{entity, handlers, wire};

    #[wire]
    pub struct Order {
        pub item: u64,
        pub gift: bool,
        pub count: u32,
    }

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[local]
        #[wire]
        pub fn place(&mut self, order: Order) -> bool {
            order.gift
        }

        #[wire(version = 2)]
        pub fn price(&self, article: u64, #[wire(since = 2)] _discount: u64) -> u64 {
            article
        }
    }
}

/// A message less, and one that only has another number.
mod reduced {
    use coreside::{entity, handlers};

    #[entity]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[wire(version = 7)]
        pub fn price(&self, item: u64) -> u64 {
            item
        }
    }
}

/// A key of another size, by the same messages.
mod rekeyed {
    use super::released::Order;
    use coreside::{entity, handlers};

    #[entity(key = u128)]
    pub struct Shop {}

    #[handlers]
    impl Shop {
        #[local]
        #[wire]
        pub fn place(&mut self, order: Order) -> bool {
            order.count > 0
        }

        #[wire]
        pub fn price(&self, item: u64) -> u64 {
            item
        }
    }
}

fn lock<E: Entity>() -> WireLock {
    Node::builder().entity::<E>().wire_lock().expect("a table")
}

fn breaks<E: Entity>() -> Vec<WireBreak> {
    match lock::<E>().compare(&lock::<released::Shop>()) {
        Err(WireLockError::Broken(breaks)) => breaks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ledger_understands_clients_of_its_last_release() {
    Node::builder().entity::<ledger::Account>().assert_wire_lock("examples/ledger.lock");
}

#[test]
fn what_was_added_breaks_nothing() {
    let changes = lock::<evolved::Shop>().compare(&lock::<released::Shop>()).expect("no break");
    let (open, place) = ("Shop.open".to_owned(), "Shop.place".to_owned());
    let expected =
        [WireChange::Added { name: open }, WireChange::NewVersion { name: place, version: 2 }];
    assert_eq!(changes, expected);
    assert!(changes[0].to_string().contains("CORESIDE_WIRE_LOCK=release"), "{}", changes[0]);
    let same = lock::<released::Shop>().compare(&lock::<released::Shop>());
    assert_eq!(same.expect("no break"), []);
}

#[test]
fn change_without_a_new_version_breaks() {
    let [WireBreak::Changed { name, version: 1, difference }, _] = &breaks::<broken::Shop>()[..]
    else {
        panic!("{:?}", breaks::<broken::Shop>())
    };
    assert_eq!(name, "Shop.place");
    assert_eq!(difference, &["Order: + gift: bool"]);
    let text = WireLockError::Broken(breaks::<broken::Shop>()).to_string();
    for part in ["Shop.place was changed", "`#[wire(version = 2)]` on the handler", "+ gift: bool"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn previous_version_that_is_not_what_was_released_breaks() {
    let [_, WireBreak::NotServed { name, version: 1, difference }] = &breaks::<broken::Shop>()[..]
    else {
        panic!("{:?}", breaks::<broken::Shop>())
    };
    assert_eq!(name, "Shop.price");
    assert_eq!(difference, &["was (item: u64) -> u64", "is  (article: u64) -> u64"]);
}

#[test]
fn message_that_is_gone_and_one_that_is_renumbered_break() {
    let (place, price) = ("Shop.place".to_owned(), "Shop.price".to_owned());
    let expected = [
        WireBreak::Removed { name: place },
        WireBreak::Renumbered { name: price, version: 1, here: 7 },
    ];
    assert_eq!(breaks::<reduced::Shop>(), expected);
}

#[test]
fn key_of_another_size_breaks() {
    let key = |name: &str| WireBreak::OtherKey { name: name.to_owned(), bits: 64 };
    assert_eq!(breaks::<rekeyed::Shop>(), [key("Shop.place"), key("Shop.price")]);
}

/// A folder of this test alone, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coreside-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn lock_file_says_what_clients_of_today_send_and_is_read_back() {
    let folder = Folder::new("lock-file");
    let path = folder.0.join("wire.lock");
    let evolved = || Node::builder().entity::<evolved::Shop>();
    let released = || Node::builder().entity::<released::Shop>();
    let missing = released().check_wire_lock(&path).expect_err("no file").to_string();
    assert!(missing.contains("CORESIDE_WIRE_LOCK=release"), "{missing}");
    released().write_wire_lock(&path).expect("nothing to break");
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(text.parse::<WireLock>().expect("read back"), lock::<released::Shop>());
    for part in ["message Shop.place\n    version 1\n", "(order: Order) -> bool", "type Order\n"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(evolved().check_wire_lock(&path).expect("no break").len(), 2);
    evolved().write_wire_lock(&path).expect("no break");
    let text = std::fs::read_to_string(&path).expect("written");
    assert!(text.contains("message Shop.place\n    version 2\n"), "{text}");
    assert!(text.contains("gift: bool") && text.matches("message Shop.place").count() == 1);
    assert_eq!(evolved().check_wire_lock(&path).expect("released"), []);
    // The release before the last is no longer held to, and a break is not written over.
    let refused = released().write_wire_lock(&path).expect_err("a break");
    assert!(matches!(refused, WireLockError::Broken(_)), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).expect("untouched"), text);
}

#[test]
#[should_panic(expected = "Shop.place is gone: keep the handler")]
fn assertion_fails_on_a_break() {
    let folder = Folder::new("lock-assertion");
    let path = folder.0.join("wire.lock");
    Node::builder().entity::<released::Shop>().write_wire_lock(&path).expect("nothing to break");
    Node::builder().entity::<reduced::Shop>().assert_wire_lock(&path);
}

#[test]
fn damaged_lock_file_is_named_by_its_line() {
    let text = lock::<released::Shop>().to_string();
    for (at, line) in text.lines().enumerate() {
        let damaged: String = text
            .lines()
            .enumerate()
            .map(|(other, line)| if other == at { "??\n".into() } else { format!("{line}\n") })
            .collect();
        if line.is_empty() || line.starts_with('#') || line.contains(": ") {
            continue;
        }
        match damaged.parse::<WireLock>() {
            Err(WireLockError::Malformed { line }) => {
                assert!(line.abs_diff(at + 1) <= 1, "line {line}, not {}", at + 1);
            }
            other => panic!("line {}: {other:?}", at + 1),
        }
    }
}
