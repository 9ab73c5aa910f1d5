//! An endless stream of encoded requests: a weighted choice of commands filled with numbers.

use coreside_shard::{HashKey, Placement};

use crate::decimal::Decimal;
use crate::keys::Keys;
use crate::native::message::{Message, upper_half};
use crate::random::Random;
use crate::session::Session;
use crate::template::{NUMBERS_MAX, Number, SLACK_BYTES, Template};

/// One command of a workload and its share.
#[derive(Clone, Debug)]
pub(crate) struct Weighted {
    /// Requests of this command per sum of all weights.
    pub(crate) weight: u32,
    pub(crate) command: Command,
}

/// What is sent, but for the numbers in it.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Resp(Template),
    Native(Message),
}

impl Weighted {
    /// Room that a request may need, including what encoding may overwrite behind it.
    pub(crate) fn room_bytes(&self) -> usize {
        match &self.command {
            Command::Resp(template) => template.bytes_max() + SLACK_BYTES,
            Command::Native(message) => message.frame_bytes(),
        }
    }
}

/// Which shard a key is on.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) hash_key: HashKey,
    pub(crate) placement: Placement,
    /// Keys have 128 bits.
    pub(crate) wide: bool,
}

impl Route {
    fn shard(&self, key: u64) -> u16 {
        let hash = match self.wide {
            true => self.hash_key.hash(u128::from(upper_half(key)) << 64 | u128::from(key)),
            false => self.hash_key.hash(key),
        };
        self.placement.shard(hash)
    }
}

/// Draws requests. Every load thread has its own.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    commands: Vec<Weighted>,
    weight_sum: u64,
    room_bytes: usize,
    keys: Keys,
    random: Random,
    /// Given where each session gets the keys of its shard.
    route: Option<Route>,
    /// Nobody answers the last request.
    told: bool,
    sequence: u64,
    sequence_step: u64,
    /// The present request's numbers; here rather than on the stack so that only those in use are
    /// written.
    numbers: [u64; NUMBERS_MAX],
    texts: [Decimal; NUMBERS_MAX],
}

impl Source {
    /// `sequence` starts at the thread's number and steps by the number of threads, so that no two
    /// requests of a run share one.
    pub(crate) fn new(
        commands: Vec<Weighted>,
        keys: Keys,
        random: Random,
        sequence: u64,
        sequence_step: u64,
    ) -> Self {
        let weight_sum = commands.iter().map(|command| u64::from(command.weight)).sum();
        let room_bytes = commands.iter().map(Weighted::room_bytes).max().unwrap_or(0);
        assert!(weight_sum > 0, "a workload without commands");
        Self {
            commands,
            weight_sum,
            room_bytes,
            keys,
            random,
            route: None,
            told: false,
            sequence,
            sequence_step,
            numbers: [0; NUMBERS_MAX],
            texts: [Decimal::ZERO; NUMBERS_MAX],
        }
    }

    /// Room that any of the requests may need.
    pub(crate) fn room_bytes(&self) -> usize {
        self.room_bytes
    }

    /// Gives native messages the numbers by which the target knows them.
    pub(crate) fn renumber(&mut self, numbers: &[u16]) {
        for command in &mut self.commands {
            if let Command::Native(message) = &mut command.command {
                message.renumber(numbers);
            }
        }
    }

    /// Draws keys that are on the shard of the session that they are for.
    pub(crate) fn aim(&mut self, route: Option<Route>) {
        self.route = route;
    }

    /// Whether nobody answers the request that was written last.
    #[inline]
    pub(crate) fn told(&self) -> bool {
        self.told
    }

    /// Writes the next request at `at` and returns the place behind it. It counts from `since_ns`,
    /// which `session` knows at once if it needs a call number, else by [`Session::note`].
    #[inline]
    pub(crate) fn encode(
        &mut self,
        session: &mut Session,
        since_ns: u64,
        out: &mut [u8],
        at: usize,
    ) -> usize {
        let chosen = self.choose();
        let Self { commands, keys, random, route, numbers, texts, sequence, .. } = self;
        let aim = route.as_ref().zip(session.shard());
        let sequence_now = *sequence;
        *sequence = sequence.wrapping_add(self.sequence_step);
        let mut first_key = 0;
        let mut draw = |numbers: &[u64], number| match number {
            Number::Key => {
                first_key = match aim {
                    None => keys.draw(random),
                    Some((route, shard)) => draw_on(keys, random, |key| route.shard(key) == shard),
                };
                first_key
            }
            Number::OtherKey => keys.draw_other(first_key, random),
            Number::Below(bound) => random.below(bound),
            Number::Sequence => sequence_now,
            Number::Same(earlier) => numbers[earlier],
        };
        match &commands[chosen].command {
            Command::Resp(template) => {
                for (index, &number) in template.numbers().iter().enumerate() {
                    numbers[index] = draw(numbers, number);
                    texts[index] = Decimal::new(numbers[index]);
                }
                template.encode(texts, out, at)
            }
            Command::Native(message) => {
                for (index, &number) in message.numbers().iter().enumerate() {
                    numbers[index] = draw(numbers, number);
                }
                self.told = message.tells();
                let call = if self.told {
                    session.tell();
                    0
                } else {
                    session.call(since_ns, message.index())
                };
                message.encode(numbers, call, out, at)
            }
        }
    }

    fn choose(&mut self) -> usize {
        if self.commands.len() == 1 {
            return 0;
        }
        let mut left = self.random.below(self.weight_sum);
        for (index, command) in self.commands.iter().enumerate() {
            match left.checked_sub(u64::from(command.weight)) {
                Some(further) => left = further,
                None => return index,
            }
        }
        // The draw lies below the sum of the weights, so one of them has swallowed it.
        unreachable!("a draw beyond all weights")
    }
}

/// A key that fits. Where none turns up for long, any other: a node sends it on.
fn draw_on(keys: &mut Keys, random: &mut Random, fits: impl Fn(u64) -> bool) -> u64 {
    const DRAWS_MAX: u32 = 1_000;
    let mut key = keys.draw(random);
    for _ in 1..DRAWS_MAX {
        if fits(key) {
            break;
        }
        key = keys.draw(random);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(commands: &[(u32, &str)]) -> Source {
        let commands = commands
            .iter()
            .map(|&(weight, text)| Weighted {
                weight,
                command: Command::Resp(Template::compile(text, b"v").expect("a valid template")),
            })
            .collect();
        Source::new(commands, Keys::Uniform { count: 1_000 }, Random::new(1, 0), 3, 2)
    }

    fn next(source: &mut Source) -> String {
        let mut out = vec![0; source.room_bytes()];
        let end = source.encode(&mut Session::resp(1), 0, &mut out, 0);
        String::from_utf8_lossy(&out[..end]).into_owned()
    }

    #[test]
    fn commands_come_by_weight() {
        let mut source = source(&[(9, "GET {key}"), (1, "SET {key} {value}")]);
        let sets = (0..10_000).filter(|_| next(&mut source).contains("SET")).count();
        assert!((900..1_100).contains(&sets), "{sets}");
    }

    #[test]
    fn sequences_step_over_the_other_threads() {
        let mut source = source(&[(1, "ECHO {seq}")]);
        assert!(next(&mut source).ends_with("$1\r\n3\r\n"));
        assert!(next(&mut source).ends_with("$1\r\n5\r\n"));
    }

    #[test]
    fn transfers_have_two_ends() {
        let mut source = source(&[(1, "MOVE {key} {key2} {key}")]);
        for _ in 0..10_000 {
            let request = next(&mut source);
            let words: Vec<&str> = request.split("\r\n").collect();
            assert_ne!(words[4], words[6]);
            assert_eq!(words[4], words[8]);
        }
    }
}
