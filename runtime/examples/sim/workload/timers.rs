//! Timers of every kind, set, replaced and cancelled, while their entities fail, stop, are busy and
//! are put away: none fires early, twice, for another life, or when it was cancelled.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use coreside::sim::{Sim, SimError};
use coreside::{AsyncCx, Cx, Message, Timer, entity, handlers};

use crate::suite::book::{Life, Stamp, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "timers",
    about: "timers over lives",
    shape: |scenario| keep_small(scenario, 24, 1000),
    make: || {
        LOG.take();
        Box::new(Plain {
            register: |builder| builder.entity::<Alarm>().oracle(Noted(WORD)),
            send,
            end,
        })
    },
};

const WORD: &str = "timers";

/// Timers that are set, by number.
#[derive(Default)]
struct Log {
    next: u64,
    set: BTreeMap<u64, Set>,
}

struct Set {
    life: u64,
    name: Option<u64>,
    due_ns: u64,
    /// 0 for one that fires once.
    period_ns: u64,
    handle: Option<Timer>,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

fn send(load: &mut Load<'_>) {
    let key = load.key();
    if load.random.one_in(12) {
        let nap_ns = load.random.magnitude(1, 40_000_000);
        let make = move |stamp| AlarmNap { stamp, nap_ns };
        load.tell::<Alarm, _>(key, make, |message| message.stamp);
    } else {
        let act = load.random.below(32);
        let time_ns = load.random.magnitude(1_000, 200_000_000);
        let make = move |stamp| AlarmTurn { stamp, act, time_ns };
        load.tell::<Alarm, _>(key, make, |message| message.stamp);
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    sim.calm();
    sim.run_for(Duration::from_millis(500))?;
    let now_ns = LOG.with_borrow(|log| {
        let late = log.set.values().filter(|set| set.period_ns == 0);
        late.map(|set| set.due_ns).max().unwrap_or_default()
    });
    if now_ns > 0 {
        note(WORD, format!("a timer due at {now_ns} ns did not fire"));
    }
    for key in 0..24 {
        let _ = sim.entity::<Alarm>(key).close().try_tell();
        sim.run_for(Duration::from_millis(5))?;
    }
    settle(sim)
}

/// Fires once.
#[derive(Clone, Debug)]
struct Ring {
    number: u64,
}

/// Fires again and again.
#[derive(Clone, Debug)]
struct Tick {
    number: u64,
}

impl Message for Tick {
    type Reply = ();
}

/// Fires when nothing came for so long.
#[derive(Clone, Debug)]
struct Silence {
    time_ns: u64,
}

impl Message for Silence {
    type Reply = ();
}

/// Has timers.
#[entity(
    activate = Alarm::begin,
    on_passivate = Self::put_away,
    idle = "20ms",
    backoff = "1ms..4ms",
    faults = "1000000 in 1m"
)]
struct Alarm {
    number: u64,
    /// When the last message came from elsewhere, and how long the silence is that is told.
    last_ns: u64,
    quiet_ns: Option<u64>,
    life: Life,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let life = self.life.number();
        LOG.with_borrow_mut(|log| log.set.retain(|_, set| set.life != life));
    }
}

#[handlers]
impl Alarm {
    fn begin(key: u64, cx: &mut Cx<Self>) -> Self {
        let last_ns = cx.monotonic_ns();
        Self { number: key, last_ns, quiet_ns: None, life: begin(key) }
    }

    #[skip]
    fn put_away(&mut self, _cx: &mut Cx<Self>) {
        let life = self.life.number();
        let timers = LOG.with_borrow(|log| log.set.values().filter(|set| set.life == life).count());
        if timers > 0 || self.quiet_ns.is_some() {
            note(WORD, format!("alarm {} was put away with {timers} timers set", self.number));
        }
    }

    #[local]
    fn turn(&mut self, mut stamp: Stamp, act: u64, time_ns: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        self.last_ns = cx.monotonic_ns();
        let name = Some(act % 3);
        match act {
            0..8 => self.set(None, time_ns, cx),
            8..12 => self.set(name, time_ns, cx),
            12..14 => self.set_periodic(None, time_ns, cx),
            14..16 => self.set_periodic(name, time_ns, cx),
            16 => {
                cx.receive_timeout(Duration::from_nanos(time_ns), Silence { time_ns });
                self.quiet_ns = Some(time_ns);
            }
            17 => {
                cx.cancel_receive_timeout();
                self.quiet_ns = None;
            }
            18..24 => self.cancel(cx),
            24..26 => self.cancel_named(act % 3, cx),
            26 => cx.stop(),
            27 => cx.fail("told to"),
            28 => panic!("told to"),
            _ => {}
        }
    }

    /// Is busy for a while, so that timers wait.
    #[local]
    async fn nap(&mut self, mut stamp: Stamp, nap_ns: u64, cx: &mut AsyncCx<Self>) {
        stamp.arrive(self.number);
        self.last_ns = cx.monotonic_ns();
        cx.sleep(Duration::from_nanos(nap_ns)).await;
    }

    #[skip]
    fn enter(&self, name: Option<u64>, due_ns: u64, period_ns: u64) -> u64 {
        let life = self.life.number();
        count("timers set", 1);
        LOG.with_borrow_mut(|log| {
            if name.is_some() {
                log.set.retain(|_, set| set.life != life || set.name != name);
            }
            log.next += 1;
            log.set.insert(log.next, Set { life, name, due_ns, period_ns, handle: None });
            log.next
        })
    }

    #[skip]
    fn set(&mut self, name: Option<u64>, time_ns: u64, cx: &mut Cx<Self>) {
        let number = self.enter(name, cx.monotonic_ns() + time_ns, 0);
        let (delay, ring) = (Duration::from_nanos(time_ns), AlarmRing { ring: Ring { number } });
        let timer = match name {
            None => cx.after(delay, ring),
            Some(name) => cx.after_keyed(name, delay, ring),
        };
        keep(number, timer.ok());
    }

    #[skip]
    fn set_periodic(&mut self, name: Option<u64>, time_ns: u64, cx: &mut Cx<Self>) {
        let period_ns = time_ns.max(5_000_000);
        let number = self.enter(name, cx.monotonic_ns() + period_ns, period_ns);
        let (period, tick) = (Duration::from_nanos(period_ns), Tick { number });
        let timer = match name {
            None => cx.every(period, tick),
            Some(name) => cx.every_keyed(name, period, tick),
        };
        keep(number, timer.ok());
    }

    /// Cancels one of its timers: each that is set is there to be cancelled.
    #[skip]
    fn cancel(&mut self, cx: &mut Cx<Self>) {
        let life = self.life.number();
        let own = LOG.with_borrow(|log| {
            let own = log.set.iter().filter(|(_, set)| set.life == life);
            own.map(|(number, set)| (*number, set.handle)).collect::<Vec<_>>()
        });
        if own.is_empty() {
            return;
        }
        let at = draw(|random, _| random.below(own.len() as u64)) as usize;
        let (number, handle) = own[at];
        LOG.with_borrow_mut(|log| log.set.remove(&number));
        count("timers cancelled", 1);
        if !handle.is_some_and(|handle| cx.cancel(handle)) {
            note(WORD, format!("timer {number} was not there to be cancelled"));
        }
    }

    #[skip]
    fn cancel_named(&mut self, name: u64, cx: &mut Cx<Self>) {
        let life = self.life.number();
        let was_set = LOG.with_borrow_mut(|log| {
            let before = log.set.len();
            log.set.retain(|_, set| set.life != life || set.name != Some(name));
            log.set.len() < before
        });
        if cx.cancel_keyed(name) != was_set {
            note(WORD, format!("timer named {name} of life {life}: set {was_set}, but not so"));
        }
    }

    #[local]
    fn ring(&mut self, ring: Ring, cx: &mut Cx<Self>) {
        let Ring { number } = ring;
        let set = LOG.with_borrow_mut(|log| log.set.remove(&number));
        self.judge(number, set.as_ref(), cx.monotonic_ns());
    }

    #[on]
    fn tick(&mut self, Tick { number }: Tick, cx: &mut Cx<Self>) {
        let now_ns = cx.monotonic_ns();
        LOG.with_borrow_mut(|log| {
            let set = log.set.get_mut(&number);
            self.judge(number, set.as_deref(), now_ns);
            if let Some(set) = set {
                // One that waited may be followed closely, but as many periods have passed.
                set.due_ns += set.period_ns;
            }
        });
    }

    #[skip]
    fn judge(&self, number: u64, set: Option<&Set>, now_ns: u64) {
        count("timers fired", 1);
        match set {
            None => note(WORD, format!("timer {number} fired and is not set")),
            Some(set) if set.life != self.life.number() => {
                note(WORD, format!("timer {number} fired for another life"));
            }
            Some(set) if set.due_ns > now_ns => {
                note(WORD, format!("timer {number} fired {} ns early", set.due_ns - now_ns));
            }
            Some(_) => {}
        }
    }

    #[on]
    fn silence(&mut self, Silence { time_ns }: Silence, cx: &mut Cx<Self>) {
        let quiet_ns = cx.monotonic_ns() - self.last_ns;
        if self.quiet_ns.is_none_or(|wanted_ns| wanted_ns > quiet_ns || wanted_ns != time_ns) {
            note(WORD, format!("told of silence after {quiet_ns} ns, not {:?}", self.quiet_ns));
        }
        count("silences", 1);
        if draw(|random, _| random.one_in(4)) {
            cx.cancel_receive_timeout();
            self.quiet_ns = None;
        }
    }

    fn close(&mut self, cx: &mut Cx<Self>) {
        cx.stop();
    }
}

fn keep(number: u64, timer: Option<Timer>) {
    LOG.with_borrow_mut(|log| match (timer, log.set.get_mut(&number)) {
        (Some(timer), Some(set)) => set.handle = Some(timer),
        _ => drop(log.set.remove(&number)),
    });
}
