//! A useful part of Redis: one entity per key, with the replies and the error texts of Redis 7.0.
//!
//! ```text
//! cargo run --release -p coreside --features cli --example kv
//! redis-cli -p 7379 SET greeting hello EX 60
//! ```
//!
//! An entity is called by a 128-bit keyed hash of the key's bytes, and lives while it has a value:
//! a question for an absent key activates an entity that ends with the same turn.
//!
//! # What differs from Redis
//! - `MSET`, `MGET`, `DEL`, `UNLINK` and `EXISTS` are one message per key. Each key changes at
//!   once; the command as a whole does not, and other clients may see it half done.
//! - A key whose time has passed is gone for every command, but its memory comes free only when a
//!   command names the key, or when `DBSIZE` or `FLUSHALL` passes over it.
//! - `DBSIZE` counts what has not expired, where Redis also counts what it has yet to find out.
//! - Nothing is written to disk, and there is one database.

mod arguments;
mod reply;
mod value;

use std::error::Error;
use std::num::NonZeroI64;
use std::ops::AddAssign;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use coreside::{Cx, Name, Node, NodeOptions, ToValue, ValueWriter, Visit, entity, handlers};

use crate::arguments::{
    Condition, Decrement, Expiry, Increment, Lifetime, PSETEX_TIME, SET_TIME, SETEX_TIME, Set,
    SetFor,
};
use crate::reply::Reply;
use crate::value::{Bytes, VALUE_BYTES_MAX, Value};

/// A useful part of Redis: strings, counters and lifetimes, one entity per key
#[derive(Parser)]
#[command(after_help = "Try: redis-cli -p 7379 SET greeting hello EX 60")]
struct Options {
    #[command(flatten)]
    node: NodeOptions,
}

/// What is stored under one key. Between turns it has a value: an entry without one ends with the
/// turn that finds it so.
#[entity(name = "kv", key = Name)]
struct Entry {
    value: Value,
    /// Milliseconds since 1970 at which the value goes.
    end_ms: Option<NonZeroI64>,
}

// With a 128-bit key and the generation it fills one cache line.
const _: () = assert!(size_of::<Entry>() == 40);

#[handlers]
impl Entry {
    #[command("GET")]
    fn get(&mut self, cx: &mut Cx<Self>) -> Reply {
        Reply::Value(self.read(cx).clone())
    }

    #[command("MGET", each = array)]
    fn mget(&mut self, cx: &mut Cx<Self>) -> Reply {
        Reply::Value(self.read(cx).clone())
    }

    #[command("STRLEN")]
    fn strlen(&mut self, cx: &mut Cx<Self>) -> i64 {
        self.read(cx).len() as i64
    }

    #[command("EXISTS", each = sum)]
    fn exists(&mut self, cx: &mut Cx<Self>) -> i64 {
        i64::from(!self.read(cx).is_absent())
    }

    #[command("TYPE")]
    fn kind(&mut self, cx: &mut Cx<Self>) -> &'static str {
        if self.read(cx).is_absent() { "none" } else { "string" }
    }

    #[command("SET")]
    fn set(&mut self, set: Set, cx: &mut Cx<Self>) -> Reply {
        let is_absent = self.value(cx).is_absent();
        let is_met = match set.condition {
            Condition::Always => true,
            Condition::IfAbsent => is_absent,
            Condition::IfPresent => !is_absent,
        };
        let Ok(end_ms) = self.end_after(set.lifetime, cx) else {
            self.read(cx);
            return Reply::Error(SET_TIME);
        };
        let reply = match (set.get, is_met) {
            (true, _) => Reply::Value(self.value.clone()),
            (false, true) => Reply::OK,
            (false, false) => Reply::NIL,
        };
        if is_met {
            (self.value, self.end_ms) = (Value::Bytes(set.value), end_ms);
        } else {
            self.read(cx);
        }
        reply
    }

    #[command("SETEX")]
    fn setex(&mut self, set: SetFor<false>, cx: &mut Cx<Self>) -> Reply {
        self.set_for(set.value, set.lifetime, SETEX_TIME, cx)
    }

    #[command("PSETEX")]
    fn psetex(&mut self, set: SetFor<true>, cx: &mut Cx<Self>) -> Reply {
        self.set_for(set.value, set.lifetime, PSETEX_TIME, cx)
    }

    /// Each key of the command changes at once, the command as a whole does not.
    #[command("MSET", each = pairs)]
    fn mset(&mut self, value: Bytes) {
        (self.value, self.end_ms) = (Value::Bytes(value), None);
    }

    #[command("SETNX")]
    fn setnx(&mut self, value: Bytes, cx: &mut Cx<Self>) -> i64 {
        if !self.value(cx).is_absent() {
            return 0;
        }
        self.value = Value::Bytes(value);
        1
    }

    #[command("GETSET")]
    fn getset(&mut self, value: Bytes, cx: &mut Cx<Self>) -> Reply {
        let before = std::mem::replace(self.value(cx), Value::Bytes(value));
        self.end_ms = None;
        Reply::Value(before)
    }

    #[command("GETDEL")]
    fn getdel(&mut self, cx: &mut Cx<Self>) -> Reply {
        cx.stop();
        Reply::Value(std::mem::take(self.value(cx)))
    }

    #[command("DEL", each = sum)]
    fn del(&mut self, cx: &mut Cx<Self>) -> i64 {
        cx.stop();
        i64::from(!self.value(cx).is_absent())
    }

    #[command("UNLINK", each = sum)]
    fn unlink(&mut self, cx: &mut Cx<Self>) -> i64 {
        self.del(cx)
    }

    #[command("APPEND")]
    fn append(&mut self, more: Bytes, cx: &mut Cx<Self>) -> Reply {
        let value = self.value(cx);
        if value.len() + more.as_slice().len() > VALUE_BYTES_MAX {
            return Reply::TOO_LONG;
        }
        Reply::Integer(value.append(more) as i64)
    }

    #[command("INCR")]
    fn incr(&mut self, cx: &mut Cx<Self>) -> Reply {
        self.add(1, cx)
    }

    #[command("INCRBY")]
    fn incrby(&mut self, by: Increment, cx: &mut Cx<Self>) -> Reply {
        self.add(by.0, cx)
    }

    #[command("DECR")]
    fn decr(&mut self, cx: &mut Cx<Self>) -> Reply {
        self.add(-1, cx)
    }

    #[command("DECRBY")]
    fn decrby(&mut self, by: Decrement, cx: &mut Cx<Self>) -> Reply {
        self.add(by.0, cx)
    }

    #[command("EXPIRE")]
    fn expire(&mut self, expiry: Expiry, cx: &mut Cx<Self>) -> Reply {
        let wrong = "ERR invalid expire time in 'expire' command";
        self.end_at(expiry, (1000, now_ms(cx)), wrong, cx)
    }

    #[command("PEXPIRE")]
    fn pexpire(&mut self, expiry: Expiry, cx: &mut Cx<Self>) -> Reply {
        let wrong = "ERR invalid expire time in 'pexpire' command";
        self.end_at(expiry, (1, now_ms(cx)), wrong, cx)
    }

    #[command("EXPIREAT")]
    fn expireat(&mut self, expiry: Expiry, cx: &mut Cx<Self>) -> Reply {
        let wrong = "ERR invalid expire time in 'expireat' command";
        self.end_at(expiry, (1000, 0), wrong, cx)
    }

    #[command("PEXPIREAT")]
    fn pexpireat(&mut self, expiry: Expiry, cx: &mut Cx<Self>) -> Reply {
        let wrong = "ERR invalid expire time in 'pexpireat' command";
        self.end_at(expiry, (1, 0), wrong, cx)
    }

    #[command("TTL")]
    fn ttl(&mut self, cx: &mut Cx<Self>) -> i64 {
        match self.pttl(cx) {
            none @ ..0 => none,
            left_ms => (left_ms + 500) / 1000,
        }
    }

    #[command("PTTL")]
    fn pttl(&mut self, cx: &mut Cx<Self>) -> i64 {
        if self.read(cx).is_absent() {
            return -2;
        }
        self.end_ms.map_or(-1, |end_ms| end_ms.get() - now_ms(cx))
    }

    #[command("PERSIST")]
    fn persist(&mut self, cx: &mut Cx<Self>) -> i64 {
        self.read(cx);
        i64::from(self.end_ms.take().is_some())
    }

    /// Counts the keys, and frees those whose time has passed.
    #[sweep("DBSIZE")]
    fn dbsize(&mut self, keys: &mut Keys) -> Visit {
        if self.end_ms.is_some_and(|end_ms| end_ms.get() < keys.now_ms) {
            return Visit::Stop;
        }
        keys.count += 1;
        Visit::Keep
    }

    #[sweep("FLUSHALL", words("ASYNC", "SYNC"))]
    fn flushall(&mut self, _done: &mut Done) -> Visit {
        Visit::Stop
    }
}

impl Entry {
    /// The value as of now: one whose time has passed is gone.
    #[inline]
    fn value(&mut self, cx: &Cx<Self>) -> &mut Value {
        if self.end_ms.is_some_and(|end_ms| end_ms.get() < now_ms(cx)) {
            (self.value, self.end_ms) = (Value::Absent, None);
        }
        &mut self.value
    }

    /// The value for a command that makes none: an entry without one ends with this turn.
    #[inline]
    fn read(&mut self, cx: &mut Cx<Self>) -> &mut Value {
        if self.value(cx).is_absent() {
            cx.stop();
        }
        &mut self.value
    }

    /// When a value with this lifetime ends, if ever; an error when it would be out of range.
    fn end_after(
        &self,
        lifetime: Lifetime,
        cx: &Cx<Self>,
    ) -> Result<Option<NonZeroI64>, OutOfRange> {
        match lifetime {
            Lifetime::Endless => Ok(None),
            Lifetime::Kept => Ok(self.end_ms),
            Lifetime::Until(end_ms) => Ok(NonZeroI64::new(end_ms)),
            Lifetime::For(ms) => match now_ms(cx).checked_add(ms) {
                Some(end_ms) => Ok(NonZeroI64::new(end_ms)),
                None => Err(OutOfRange),
            },
        }
    }

    fn set_for(
        &mut self,
        value: Bytes,
        lifetime: Lifetime,
        wrong: &'static str,
        cx: &mut Cx<Self>,
    ) -> Reply {
        let Ok(end_ms) = self.end_after(lifetime, cx) else {
            self.read(cx);
            return Reply::Error(wrong);
        };
        (self.value, self.end_ms) = (Value::Bytes(value), end_ms);
        Reply::OK
    }

    fn add(&mut self, by: i64, cx: &mut Cx<Self>) -> Reply {
        let value = self.value(cx);
        let Some(before) = value.to_integer() else {
            return Reply::NOT_AN_INTEGER;
        };
        let Some(after) = before.checked_add(by) else {
            return Reply::OVERFLOW;
        };
        *value = Value::Integer(after);
        Reply::Integer(after)
    }

    /// Sets when the key ends: `expiry` in units of `unit_ms`, counted from `base_ms`.
    fn end_at(
        &mut self,
        expiry: Expiry,
        (unit_ms, base_ms): (i64, i64),
        wrong: &'static str,
        cx: &mut Cx<Self>,
    ) -> Reply {
        let is_absent = self.read(cx).is_absent();
        let at = match expiry {
            Expiry::At(at) => at,
            Expiry::Unknown(option) => return Reply::UnknownOption(option),
        };
        let end_ms = at.time.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base_ms));
        let Some(end_ms) = end_ms else {
            return Reply::Error(wrong);
        };
        if is_absent || !at.allows(self.end_ms.map(NonZeroI64::get), end_ms) {
            return Reply::Integer(0);
        }
        if end_ms <= now_ms(cx) {
            cx.stop();
        } else {
            self.end_ms = NonZeroI64::new(end_ms);
        }
        Reply::Integer(1)
    }
}

/// A lifetime that ends behind the last millisecond there is a number for.
struct OutOfRange;

/// Milliseconds since 1970, as of this poll.
#[inline]
fn now_ms(cx: &Cx<Entry>) -> i64 {
    cx.unix_ms() as i64
}

/// How many keys there are on a shard.
struct Keys {
    count: i64,
    /// When the pass over the shard began.
    now_ms: i64,
}

impl Default for Keys {
    fn default() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { count: 0, now_ms: since_1970.as_millis() as i64 }
    }
}

impl AddAssign for Keys {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
    }
}

impl ToValue for Keys {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.integer(self.count);
    }
}

/// What is left to say of a shard that was emptied: `OK`.
#[derive(Default)]
struct Done;

impl AddAssign for Done {
    fn add_assign(&mut self, _other: Self) {}
}

impl ToValue for Done {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        out.status("OK");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let node = options.node.apply(Node::builder().entity::<Entry>()).start()?;
    for note in node.notes() {
        eprintln!("note: {note}");
    }
    if let Some(address) = node.local_addr() {
        println!("listening on {address}");
    }
    node.run_until_signal()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use coreside::AskError;

    use super::*;

    /// A node that serves nobody but the test.
    fn start() -> Node {
        Node::builder().entity::<Entry>().shards(2).start().expect("a node")
    }

    fn set(value: &[u8], lifetime: Lifetime) -> Set {
        Set { value: Bytes::new(value), lifetime, condition: Condition::Always, get: false }
    }

    fn keys(node: &Node) -> Result<i64, AskError> {
        node.sweep::<Entry, EntryDbsize>().map(|keys| keys.total.count)
    }

    #[test]
    fn questions_for_absent_keys_leave_nothing_behind() {
        let node = start();
        for number in 0..100 {
            let key = || node.entity::<Entry>(Name::new(format!("{number}"), node.hash_key()));
            assert_eq!(key().get().wait(), Ok(Reply::NIL));
            assert_eq!(key().strlen().wait(), Ok(0));
            assert_eq!(key().exists().wait(), Ok(0));
            assert_eq!(key().kind().wait(), Ok("none"));
            assert_eq!(key().pttl().wait(), Ok(-2));
            assert_eq!(key().persist().wait(), Ok(0));
            assert_eq!(key().getdel().wait(), Ok(Reply::NIL));
            assert_eq!(key().del().wait(), Ok(0));
            let condition = Condition::IfPresent;
            let refused = Set { condition, ..set(b"x", Lifetime::Endless) };
            assert_eq!(key().set(refused).wait(), Ok(Reply::NIL));
            let endless = set(b"x", Lifetime::For(i64::MAX));
            assert_eq!(key().set(endless).wait(), Ok(Reply::Error(SET_TIME)));
        }
        assert_eq!(keys(&node), Ok(0));
    }

    #[test]
    fn what_has_expired_is_gone_and_is_not_counted() {
        let node = start();
        let key = |name| node.entity::<Entry>(Name::new(name, node.hash_key()));
        for name in ["read", "counted", "kept"] {
            assert_eq!(key(name).set(set(b"7", Lifetime::Until(1))).wait(), Ok(Reply::OK));
        }
        assert_eq!(key("kept").incr().wait(), Ok(Reply::Integer(1)), "it began anew");
        assert_eq!(key("read").get().wait(), Ok(Reply::NIL));
        assert_eq!(keys(&node), Ok(1));
        assert_eq!(key("kept").ttl().wait(), Ok(-1));
    }
}
