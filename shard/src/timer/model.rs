//! The wheel beside an ordered map that does the same.

use std::collections::BTreeMap;

use super::tests::{HOUR_NS, Random, TICK_NS, check};
use super::{TICK_BITS, TimerId, Wheel};

/// What the wheel should do: timers by tick, then by the order in which they were set.
struct Model {
    wheel: Wheel<u64>,
    /// By tick and by the order in which they were set: name, deadline and value.
    timers: BTreeMap<(u64, u64), (TimerId, u64, u64)>,
    set: u64,
    now_ns: u64,
    random: Random,
}

impl Model {
    fn deadline_ns(&mut self) -> u64 {
        let ahead_ns = match self.random.below(4) {
            0 => self.random.below(1 << 22),
            1 => self.random.below(1 << 32),
            _ => self.random.spread(),
        };
        match self.random.below(10) {
            0 => self.now_ns.saturating_sub(ahead_ns),
            _ => self.now_ns.saturating_add(ahead_ns),
        }
    }

    fn add(&mut self, id: TimerId, deadline_ns: u64, value: u64) {
        let tick = deadline_ns.div_ceil(TICK_NS).max(self.wheel.cursor);
        self.timers.insert((tick, self.set), (id, deadline_ns, value));
        self.set += 1;
    }

    fn insert(&mut self) {
        let (deadline_ns, value) = (self.deadline_ns(), self.set);
        match self.wheel.insert(deadline_ns, value) {
            Ok(id) => self.add(id, deadline_ns, value),
            Err(back) => {
                assert_eq!((back, self.timers.len()), (value, self.wheel.timers_max as usize));
            }
        }
    }

    fn cancel(&mut self) {
        let from = (self.random.spread() >> TICK_BITS, 0);
        let Some((key, _)) = self.timers.range(from..).next() else { return };
        let key = *key;
        let (id, deadline_ns, value) = self.timers.remove(&key).expect("it was just found");
        assert_eq!(self.wheel.deadline_ns(id), Some(deadline_ns));
        assert_eq!(self.wheel.get_mut(id).copied(), Some(value));
        assert_eq!(self.wheel.cancel(id), Some(value));
        assert_eq!(self.wheel.cancel(id), None);
    }

    fn advance(&mut self) {
        let ahead_ns = match self.random.below(40) {
            0 => self.random.below(10 * HOUR_NS),
            1 => self.random.spread() >> self.random.below(16),
            2 => self.wheel.next_deadline_ns().unwrap_or(0).saturating_sub(self.now_ns),
            3..20 => self.random.below(1 << 23),
            _ => self.random.below(1 << 18),
        };
        self.now_ns = self.now_ns.saturating_add(ahead_ns);
    }

    fn poll(&mut self) {
        let mut budget =
            if self.random.below(2) == 0 { u32::MAX } else { self.random.below(40) as u32 };
        while let Some(due) = self.wheel.pop_due(self.now_ns, &mut budget) {
            let (_, (id, deadline_ns, value)) = self.timers.pop_first().expect("it is set");
            assert_eq!((due, self.wheel.deadline_ns(due)), (id, Some(deadline_ns)));
            assert!(deadline_ns <= self.now_ns, "it is early");
            if self.random.below(4) == 0 {
                let deadline_ns = self.deadline_ns();
                self.wheel.set_again(id, deadline_ns);
                self.add(id, deadline_ns, value);
            } else {
                assert_eq!(self.wheel.cancel(id), Some(value));
            }
        }
        let first = self.timers.first_key_value().map(|((tick, _), _)| *tick);
        let next_ns = self.wheel.next_deadline_ns();
        assert_eq!(first.is_none(), next_ns.is_none());
        if let (Some(tick), Some(next_ns)) = (first, next_ns) {
            assert!(next_ns >> TICK_BITS <= tick, "it would be overslept");
            if budget > 0 {
                assert!(tick > self.now_ns >> TICK_BITS, "it is late");
                assert!(next_ns > self.now_ns, "nothing is due");
            }
        }
    }
}

#[test]
fn wheel_does_what_an_ordered_map_does() {
    for seed in 1..=60 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let now_ns = random.spread() >> random.below(40);
        let wheel = Wheel::new(1 + random.below(600) as u32, now_ns);
        let mut model = Model { wheel, timers: BTreeMap::new(), set: 0, now_ns, random };
        let mut most = 0;
        for step in 0..4000 {
            match model.random.below(16) {
                0..8 => model.insert(),
                8..11 => model.cancel(),
                11..14 => model.poll(),
                _ => model.advance(),
            }
            assert_eq!(model.wheel.len as usize, model.timers.len());
            most = most.max(model.timers.len());
            assert_eq!(model.wheel.entries.len(), most, "entries are used again");
            if step % 16 == 0 {
                check(&model.wheel);
            }
        }
    }
}
