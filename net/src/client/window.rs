//! What may be under way on one connection, and what waits for it here.
//!
//! The welcome says how many asks and how many tells may be under way, and how many of both for one
//! entity. What goes beyond waits, in order, in the account of its entity. Accounts that may go on
//! take turns: a slow entity has its own messages wait, and nobody else's. Nor does it get all of
//! the memory: while much waits, each entity that has something wait may have its share of it.
//!
//! # Invariants
//! - An account exists while something of its entity is under way or waits.
//! - An account is in a line exactly while something of it waits and fewer than a share of it are
//!   under way; in the line for the sort of its first message.
//! - While a line is not empty, as many messages of its sort are under way as may be.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use coreside_shard::KeyWords;

use super::calls::Pending;
use crate::native::Welcome;

/// What there are separate bounds for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Ask,
    Tell,
}

/// An entity: the number of its type, and its key.
pub(super) type Entity = (u16, KeyWords);

/// A frame that waits until it may be sent.
pub(super) struct Held {
    pub(super) sort: Sort,
    pub(super) frame: Vec<u8>,
    /// The number of an ask, and its serial.
    pub(super) call: (u32, u64),
    /// Who waits until a tell is sent.
    pub(super) notice: Option<Notice>,
}

/// Is told when a message has been sent, or that it will not be.
pub(super) type Notice = Arc<dyn Pending>;

/// What may be under way on one connection, what is, and what waits.
pub(super) struct Window {
    /// By sort: what may be under way, and what is.
    granted: [u32; 2],
    under_way: [u32; 2],
    /// What may be for one entity.
    share: u32,
    accounts: Vec<Account>,
    free: Vec<u32>,
    by_entity: HashMap<Entity, u32>,
    /// By sort: accounts that go on when others are done.
    lines: [VecDeque<u32>; 2],
    held_bytes: usize,
    /// Accounts in which something waits.
    holders: usize,
}

/// More of a sort are not under way, whatever a node allows: it may never give credit back.
const UNDER_WAY_MAX: u32 = 1 << 20;

/// One entity's.
struct Account {
    entity: Entity,
    under_way: u32,
    /// How many of them are tells.
    tells: u32,
    in_line: bool,
    held: VecDeque<Held>,
    held_bytes: usize,
}

impl Window {
    pub(super) fn new(welcome: &Welcome) -> Self {
        Self {
            granted: [welcome.calls_max, welcome.tells_max].map(|max| max.clamp(1, UNDER_WAY_MAX)),
            under_way: [0; 2],
            share: u32::from(welcome.entity_messages_max.max(1)),
            accounts: Vec::new(),
            free: Vec::new(),
            by_entity: HashMap::new(),
            lines: Default::default(),
            held_bytes: 0,
            holders: 0,
        }
    }

    /// The number of an entity's account.
    pub(super) fn account(&mut self, entity: Entity) -> u32 {
        let Self { accounts, free, by_entity, .. } = self;
        *by_entity.entry(entity).or_insert_with(|| {
            let account = Account {
                entity,
                under_way: 0,
                tells: 0,
                in_line: false,
                held: VecDeque::new(),
                held_bytes: 0,
            };
            match free.pop() {
                Some(number) => {
                    accounts[number as usize] = account;
                    number
                }
                None => {
                    accounts.push(account);
                    accounts.len() as u32 - 1
                }
            }
        })
    }

    /// Whether the next message of an account may be sent at once.
    pub(super) fn is_open(&self, account: u32, sort: Sort) -> bool {
        let Account { under_way, held, .. } = &self.accounts[account as usize];
        let has_room = self.under_way[sort as usize] < self.granted[sort as usize];
        has_room && held.is_empty() && *under_way < self.share
    }

    /// A message of an account is under way.
    pub(super) fn begin(&mut self, account: u32, sort: Sort) {
        let account = &mut self.accounts[account as usize];
        account.under_way += 1;
        account.tells += u32::from(sort == Sort::Tell);
        self.under_way[sort as usize] += 1;
    }

    /// Whether another message of an account may wait, where `bytes_max` may wait in all: half of
    /// that in any case, and beyond it each account may have its share of that half.
    pub(super) fn has_room(&self, account: u32, bytes_max: usize) -> bool {
        let Account { held, held_bytes, .. } = &self.accounts[account as usize];
        let holders = self.holders + usize::from(held.is_empty());
        let half = bytes_max / 2;
        self.held_bytes <= half || *held_bytes <= half / holders
    }

    /// Keeps a message until others are done.
    pub(super) fn hold(&mut self, number: u32, held: Held) {
        let account = &mut self.accounts[number as usize];
        self.holders += usize::from(account.held.is_empty());
        self.held_bytes += held.frame.len();
        account.held_bytes += held.frame.len();
        account.held.push_back(held);
        self.stand_in_line(number);
    }

    /// So many messages of an account are done. Returns whether so many were under way.
    pub(super) fn end(&mut self, number: u32, sort: Sort, count: u32) -> bool {
        let Some(account) = self.accounts.get_mut(number as usize) else { return count == 0 };
        let Account { under_way, tells, .. } = account;
        let of_sort = if sort == Sort::Tell { *tells } else { *under_way - *tells };
        if count > of_sort {
            return false;
        }
        *under_way -= count;
        *tells -= if sort == Sort::Tell { count } else { 0 };
        self.under_way[sort as usize] -= count;
        self.stand_in_line(number);
        self.tidy(number);
        true
    }

    /// The next message that may be sent, and its account. It is under way.
    pub(super) fn next(&mut self) -> Option<(u32, Held)> {
        for sort in [Sort::Ask, Sort::Tell] {
            if self.under_way[sort as usize] >= self.granted[sort as usize] {
                continue;
            }
            let Some(number) = self.lines[sort as usize].pop_front() else { continue };
            let account = &mut self.accounts[number as usize];
            account.in_line = false;
            let Some(held) = account.held.pop_front() else { continue };
            self.held_bytes -= held.frame.len();
            account.held_bytes -= held.frame.len();
            self.holders -= usize::from(account.held.is_empty());
            self.begin(number, held.sort);
            self.stand_in_line(number);
            return Some((number, held));
        }
        None
    }

    /// Forgets what waits. Returns who waited for it.
    pub(super) fn clear(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for number in 0..self.accounts.len() as u32 {
            let account = &mut self.accounts[number as usize];
            account.in_line = false;
            account.held_bytes = 0;
            notices.extend(account.held.drain(..).filter_map(|held| held.notice));
            self.tidy(number);
        }
        self.lines.iter_mut().for_each(VecDeque::clear);
        (self.held_bytes, self.holders) = (0, 0);
        notices
    }

    /// Whether no tell is under way.
    pub(super) fn has_no_tells(&self) -> bool {
        self.under_way[Sort::Tell as usize] == 0
    }

    /// Bytes of what waits.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The account goes on in its turn, if there is something in it that may.
    fn stand_in_line(&mut self, number: u32) {
        let account = &mut self.accounts[number as usize];
        if let Some(first) = account.held.front()
            && !account.in_line
            && account.under_way < self.share
        {
            account.in_line = true;
            self.lines[first.sort as usize].push_back(number);
        }
    }

    /// Forgets the account if there is nothing in it.
    pub(super) fn tidy(&mut self, number: u32) {
        let account = &self.accounts[number as usize];
        if account.under_way == 0
            && account.held.is_empty()
            && self.by_entity.get(&account.entity) == Some(&number)
        {
            self.by_entity.remove(&account.entity);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::frame::VERSION;

    fn window(calls_max: u32, tells_max: u32, entity_messages_max: u16) -> Window {
        Window::new(&Welcome {
            version: VERSION,
            shard: 0,
            shards: 1,
            cluster: 0,
            frame_bytes_max: 1024,
            calls_max,
            tells_max,
            entity_messages_max,
            hash_key: None,
            messages: Vec::new(),
        })
    }

    /// Sends a message or holds it; returns whether it was sent.
    fn send(window: &mut Window, key: u64, sort: Sort, call: u32) -> bool {
        let account = window.account((0, [key, 0]));
        let is_open = window.is_open(account, sort);
        match is_open {
            true => window.begin(account, sort),
            false => window
                .hold(account, Held { sort, frame: vec![0; 48], call: (call, 0), notice: None }),
        }
        is_open
    }

    fn next(window: &mut Window) -> Option<u32> {
        window.next().map(|(_, held)| held.call.0)
    }

    #[test]
    fn one_entity_gets_a_share_and_the_rest_is_for_others() {
        let mut window = window(4, 4, 2);
        assert!(send(&mut window, 1, Sort::Ask, 0));
        assert!(send(&mut window, 1, Sort::Tell, 0), "the share is of both");
        assert!(!send(&mut window, 1, Sort::Ask, 11));
        assert!(!send(&mut window, 1, Sort::Tell, 12));
        assert_eq!(next(&mut window), None, "its neighbours' room is not its own");
        for key in 2..5 {
            assert!(send(&mut window, key, Sort::Ask, 0));
        }
        assert!(!send(&mut window, 5, Sort::Ask, 51), "as many as may be");
        let first = window.account((0, [1, 0]));
        assert!(window.end(first, Sort::Tell, 1));
        assert_eq!(next(&mut window), None, "an ask is first, and asks have no room");
        assert!(window.end(first, Sort::Ask, 1));
        assert_eq!((next(&mut window), next(&mut window)), (Some(51), None));
        let second = window.account((0, [2, 0]));
        assert!(window.end(second, Sort::Ask, 1));
        assert_eq!((next(&mut window), next(&mut window)), (Some(11), Some(12)));
    }

    #[test]
    fn messages_of_an_entity_keep_their_order_and_entities_take_turns() {
        let mut window = window(1, 1, 1);
        assert!(send(&mut window, 9, Sort::Ask, 0));
        for call in 0..3 {
            for key in [1, 2, 3] {
                assert!(!send(&mut window, key, Sort::Ask, key as u32 * 10 + call));
            }
        }
        let (mut calls, mut account) = (Vec::new(), window.account((0, [9, 0])));
        assert_eq!(window.held_bytes(), 9 * 48);
        while window.end(account, Sort::Ask, 1)
            && let Some((number, held)) = window.next()
        {
            account = number;
            calls.push(held.call.0);
        }
        assert_eq!(calls, [10, 20, 30, 11, 21, 31, 12, 22, 32]);
        assert_eq!((window.held_bytes(), window.by_entity.len()), (0, 0));
        assert_eq!(window.free.len(), window.accounts.len(), "all accounts are closed");
    }

    #[test]
    fn entity_whose_messages_wait_leaves_room_for_those_of_others() {
        // Frames have 48 bytes.
        const BYTES_MAX: usize = 48 * 100;
        let mut window = window(1, 1, 1);
        assert!(send(&mut window, 0, Sort::Tell, 0));
        let fill = |window: &mut Window, key: u64| {
            (0..1000).find(|_| {
                let account = window.account((0, [key, 0]));
                let has_room = window.has_room(account, BYTES_MAX);
                if has_room {
                    assert!(!send(window, key, Sort::Tell, 0));
                }
                !has_room
            })
        };
        assert_eq!(fill(&mut window, 1), Some(51), "half of it, and one more");
        assert_eq!(fill(&mut window, 2), Some(26), "what its half of the half is, and one more");
        assert_eq!(fill(&mut window, 3), Some(17));
        assert_eq!(fill(&mut window, 1), Some(0));
        assert_eq!((window.held_bytes(), window.holders), (48 * 94, 3));
        // As they go on, there is room again.
        let first = window.account((0, [0, 0]));
        assert!(window.end(first, Sort::Tell, 1));
        while let Some((account, _)) = window.next() {
            assert!(window.end(account, Sort::Tell, 1));
        }
        assert_eq!((window.held_bytes(), window.holders), (0, 0));
        assert!(send(&mut window, 0, Sort::Tell, 0));
        assert_eq!(fill(&mut window, 1), Some(51));
        assert!(window.clear().is_empty());
        assert_eq!((window.held_bytes(), window.holders), (0, 0));
        assert_eq!(fill(&mut window, 2), Some(51));
    }

    #[test]
    fn what_waits_can_be_forgotten_and_what_is_under_way_goes_on() {
        let mut window = window(1, 1, 1);
        assert!(send(&mut window, 1, Sort::Ask, 0));
        for key in [1, 2, 3] {
            assert!(!send(&mut window, key, Sort::Ask, 0));
        }
        assert!(window.clear().is_empty());
        assert_eq!((window.held_bytes(), window.by_entity.len()), (0, 1));
        let account = window.account((0, [1, 0]));
        assert!(window.end(account, Sort::Ask, 1));
        assert_eq!(next(&mut window), None);
        assert!(send(&mut window, 2, Sort::Ask, 0));
    }

    #[test]
    fn node_that_never_gives_credit_back_is_told_a_bounded_number() {
        let mut window = window(u32::MAX, u32::MAX, u16::MAX);
        for key in 0..UNDER_WAY_MAX {
            assert!(send(&mut window, u64::from(key), Sort::Tell, 0));
        }
        assert!(!send(&mut window, u64::MAX, Sort::Tell, 1));
        assert!(send(&mut window, u64::MAX - 1, Sort::Ask, 0));
    }

    #[test]
    fn more_credit_than_was_taken_is_found_out() {
        let mut window = window(4, 4, 4);
        assert!(send(&mut window, 1, Sort::Tell, 0));
        let account = window.account((0, [1, 0]));
        assert!(!window.end(account, Sort::Ask, 1), "a tell is no ask");
        assert!(!window.end(account, Sort::Tell, 2));
        assert!(window.end(account, Sort::Tell, 1));
        assert!(!window.end(account, Sort::Tell, 1));
        assert!(!window.end(77, Sort::Tell, 1));
    }
}
