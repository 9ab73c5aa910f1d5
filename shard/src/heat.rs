//! Which entities of a shard are hot: those that have most turns, and those that take most time.
//!
//! Exact counts would need a counter per entity. This keeps 64 of them by turns and 64 by time,
//! with *Space-Saving* (Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and
//! Top-k Elements in Data Streams", ICDT 2005): an entity that has no counter takes over the lowest
//! one, adds to it, and remembers how much of it may not be its own. Two tables and not one,
//! because an entity with few and long turns would not stay in a table of those with many.
//!
//! # Bounds
//! Let N be all turns that were recorded (or all time), each halved by every decay since.
//! * Every entity with more than N/64 + 1 is in the table.
//! * Its true number is at most its count, and at least the count less its error.
//! * No error is larger than N/64 + 1.
//!
//! The 1 is what decay rounds up. What is true of samples is true of all turns as far as the
//! samples are like them.

/// How many turns an entity had and how much time they took, as far as that is known. Both were
/// halved by every decay since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hot {
    /// The number of its type.
    pub kind: u16,
    /// The words of its key.
    pub key: [u64; 2],
    /// It had at most so many turns.
    pub turns: u64,
    /// It had at most so many less than `turns`.
    pub turns_error: u64,
    /// They took at most so long.
    pub time_ns: u64,
    /// They took at most so much less than `time_ns`.
    pub time_error_ns: u64,
}

/// The hottest entities of one shard.
///
/// # Cost
/// 7 KiB, and no allocation except for an answer.
pub(crate) struct Heat {
    turns: Table,
    time: Table,
}

/// Entities that have a counter in a table.
const ROWS: usize = 64;
/// Rows that are looked at together: their tags are one word.
const GROUP: usize = size_of::<u64>();
const GROUPS: usize = ROWS / GROUP;

/// Who is hot by one measure, the table's own. The other is counted beside it.
struct Table {
    /// A byte of each entity's hash, to find its row.
    tags: [[u8; GROUP]; GROUPS],
    /// At most so much for the entity in each row; 0 in rows that are not used yet.
    counts: [[u64; GROUP]; GROUPS],
    /// The lowest count of each group.
    lowest: [u64; GROUPS],
    rows: [Row; ROWS],
    used: usize,
}

#[derive(Clone, Copy)]
struct Row {
    who: Who,
    /// At least so much: what was counted in this row for this entity.
    certain: u64,
    /// At least so much by the other measure.
    other: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Who {
    kind: u16,
    key: [u64; 2],
}

impl Heat {
    /// Nobody is hot.
    pub(crate) fn new() -> Self {
        Self { turns: Table::new(), time: Table::new() }
    }

    /// Counts `turns` turns of the entity, which took `time_ns` together. A shard that records one
    /// turn of `n` gives `n`, and `n` times its time.
    #[inline]
    pub(crate) fn record(&mut self, kind: u16, key: [u64; 2], turns: u32, time_ns: u64) {
        let who = Who { kind, key };
        let tag = who.tag();
        self.turns.add(who, tag, u64::from(turns), time_ns);
        self.time.add(who, tag, time_ns, u64::from(turns));
    }

    /// Halves all counts. Called once per period, it makes of the counts what the last periods
    /// were like, each half as important as the one after it.
    pub(crate) fn decay(&mut self) {
        self.turns.decay();
        self.time.decay();
    }

    /// Up to `n` entities, by the time that their turns took for certain, then by turns.
    pub(crate) fn top_by_time(&self, n: usize) -> Vec<Hot> {
        self.top(n, |hot| (hot.time_ns - hot.time_error_ns, hot.turns - hot.turns_error))
    }

    /// Up to `n` entities, by the turns that they had for certain, then by time.
    pub(crate) fn top_by_turns(&self, n: usize) -> Vec<Hot> {
        self.top(n, |hot| (hot.turns - hot.turns_error, hot.time_ns - hot.time_error_ns))
    }

    fn top(&self, n: usize, certain: impl Fn(&Hot) -> (u64, u64)) -> Vec<Hot> {
        let by_turns = self.turns.entities();
        let only_by_time = self.time.entities().filter(|row| self.turns.find(row.who).is_none());
        let mut all: Vec<Hot> = by_turns.chain(only_by_time).map(|row| self.hot(row)).collect();
        all.retain(|hot| certain(hot) != (0, 0));
        // Names last, so that equals have an order too.
        all.sort_by_key(|hot| (std::cmp::Reverse(certain(hot)), hot.kind, hot.key));
        all.truncate(n);
        all
    }

    /// What both tables know about the entity of a row of either.
    fn hot(&self, row: &Row) -> Hot {
        let by_turns = self.turns.find(row.who);
        let by_time = self.time.find(row.who);
        let beside = |row: Option<usize>, table: &Table| row.map_or(0, |row| table.rows[row].other);
        let (turns, turns_error) = self.turns.bounds(by_turns, beside(by_time, &self.time));
        let (time_ns, time_error_ns) = self.time.bounds(by_time, beside(by_turns, &self.turns));
        let Who { kind, key } = row.who;
        Hot { kind, key, turns, turns_error, time_ns, time_error_ns }
    }
}

impl Table {
    fn new() -> Self {
        let who = Who { kind: 0, key: [0; 2] };
        Self {
            tags: [[0; GROUP]; GROUPS],
            counts: [[0; GROUP]; GROUPS],
            lowest: [0; GROUPS],
            rows: [Row { who, certain: 0, other: 0 }; ROWS],
            used: 0,
        }
    }

    #[inline]
    fn add(&mut self, who: Who, tag: u8, count: u64, other: u64) {
        if let Some(row) = self.find_tagged(who, tag) {
            let entity = &mut self.rows[row];
            entity.certain = entity.certain.saturating_add(count);
            entity.other = entity.other.saturating_add(other);
            self.raise(row, count);
        } else if count > 0 {
            // Another row, or the one with the lowest count.
            let row = if self.used < ROWS { self.used } else { self.coldest() };
            self.used = self.used.max(row + 1);
            self.tags[row / GROUP][row % GROUP] = tag;
            self.rows[row] = Row { who, certain: count, other };
            self.raise(row, count);
        }
    }

    fn find(&self, who: Who) -> Option<usize> {
        self.find_tagged(who, who.tag())
    }

    #[inline]
    fn find_tagged(&self, who: Who, tag: u8) -> Option<usize> {
        const ONES: u64 = u64::MAX / 0xff;
        for (group, tags) in self.tags.iter().enumerate() {
            // A byte that is equal becomes 0, and the subtraction sets its highest bit. It may do
            // so in a byte above it too; the entity itself is compared anyway.
            let differences = u64::from_le_bytes(*tags) ^ (ONES * u64::from(tag));
            let mut equal = differences.wrapping_sub(ONES) & !differences & (ONES << 7);
            while equal != 0 {
                let row = group * GROUP + equal.trailing_zeros() as usize / 8;
                if self.rows[row].who == who && row < self.used {
                    return Some(row);
                }
                equal &= equal - 1;
            }
        }
        None
    }

    #[inline]
    fn raise(&mut self, row: usize, count: u64) {
        let counts = &mut self.counts[row / GROUP];
        let before = counts[row % GROUP];
        counts[row % GROUP] = before.saturating_add(count);
        if before == self.lowest[row / GROUP] {
            self.lowest[row / GROUP] = counts[first_lowest(counts)];
        }
    }

    /// The first row with the lowest count.
    #[inline]
    fn coldest(&self) -> usize {
        let group = first_lowest(&self.lowest);
        group * GROUP + first_lowest(&self.counts[group])
    }

    /// The lowest count: an entity without a row has at most so much.
    fn least(&self) -> u64 {
        self.lowest[first_lowest(&self.lowest)]
    }

    /// Rounds counts up and what is certain down, so that the bounds stay bounds.
    fn decay(&mut self) {
        for row in &mut self.rows {
            row.certain /= 2;
            row.other /= 2;
        }
        for count in self.counts.as_flattened_mut().iter_mut().chain(&mut self.lowest) {
            *count = count.div_ceil(2);
        }
    }

    fn entities(&self) -> impl Iterator<Item = &Row> {
        self.rows[..self.used].iter()
    }

    /// The most that the entity may have, and how much less it may be, if its row is this, and the
    /// other table counted `beside` for it.
    fn bounds(&self, row: Option<usize>, beside: u64) -> (u64, u64) {
        let (count, certain) = match row {
            Some(row) => (self.counts.as_flattened()[row], self.rows[row].certain.max(beside)),
            None => (self.least(), beside),
        };
        let count = count.max(certain);
        (count, count - certain)
    }
}

/// Where the lowest of them stands first. Without a branch that could be guessed wrongly.
#[inline(always)]
fn first_lowest(counts: &[u64; GROUP]) -> usize {
    let (mut at, mut lowest) = (0, counts[0]);
    for (other, count) in counts.iter().enumerate().skip(1) {
        at = if *count < lowest { other } else { at };
        lowest = lowest.min(*count);
    }
    at
}

impl Who {
    /// The upper byte of a product folded, in which all bits of the key count.
    #[inline]
    fn tag(self) -> u8 {
        let [low, high] = self.key;
        let word = low ^ high.rotate_left(29) ^ u64::from(self.kind) << 48;
        let product = u128::from(word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        (((product >> 64) as u64 ^ product as u64) >> 56) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Xorshift (Marsaglia 2003).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }

        fn below(&mut self, end: u64) -> u64 {
            (self.next() >> 32) % end
        }

        fn fraction(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Heat beside exact counts, halved exactly.
    struct Model {
        heat: Heat,
        exact: BTreeMap<(u16, [u64; 2]), [f64; 2]>,
    }

    impl Model {
        fn new() -> Self {
            Self { heat: Heat::new(), exact: BTreeMap::new() }
        }

        fn record(&mut self, kind: u16, key: [u64; 2], turns: u32, time_ns: u64) {
            self.heat.record(kind, key, turns, time_ns);
            let exact = self.exact.entry((kind, key)).or_default();
            exact[0] += f64::from(turns);
            exact[1] += time_ns as f64;
        }

        fn decay(&mut self) {
            self.heat.decay();
            self.exact.values_mut().flatten().for_each(|count| *count /= 2.0);
        }

        /// All that the module's documentation promises.
        fn check(&self) {
            for (measure, table) in [&self.heat.turns, &self.heat.time].into_iter().enumerate() {
                check_rows(table);
                let total: f64 = self.exact.values().map(|counts| counts[measure]).sum();
                let bound = total / ROWS as f64 + 1.0;
                for (&(kind, key), counts) in &self.exact {
                    let who = Who { kind, key };
                    let exact = counts[measure];
                    match table.find(who) {
                        Some(row) => {
                            let (count, error) = table.bounds(Some(row), 0);
                            assert!(exact <= count as f64 && exact >= (count - error) as f64);
                            assert!(error as f64 <= bound, "{error} > {bound}");
                        }
                        None => {
                            assert!(exact <= bound, "{who:?} has {exact} of {total}");
                            assert!(exact <= table.least() as f64);
                        }
                    }
                }
            }
            for hot in self.heat.top_by_time(usize::MAX) {
                let [turns, time_ns] = self.exact[&(hot.kind, hot.key)];
                assert!(turns <= hot.turns as f64 && time_ns <= hot.time_ns as f64, "{hot:?}");
                assert!(turns >= (hot.turns - hot.turns_error) as f64, "{hot:?} {turns}");
                assert!(time_ns >= (hot.time_ns - hot.time_error_ns) as f64, "{hot:?} {time_ns}");
            }
        }
    }

    fn check_rows(table: &Table) {
        for (row, entity) in table.entities().enumerate() {
            assert_eq!(table.find(entity.who), Some(row), "it has one row");
        }
        for (counts, lowest) in table.counts.iter().zip(&table.lowest) {
            assert_eq!(counts.iter().min(), Some(lowest));
        }
    }

    impl std::fmt::Debug for Who {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}:{:?}", self.kind, self.key)
        }
    }

    /// Chooses among `len` entities, the first most often (Zipf's law with this exponent).
    fn zipf(len: usize, exponent: f64) -> Vec<f64> {
        let weights = (1..=len).map(|rank| (rank as f64).powf(-exponent));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        sums.collect()
    }

    #[test]
    fn hot_entities_are_in_the_table_and_bounds_hold() {
        for seed in 1..=40 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let sums = zipf(1 + random.below(5000) as usize, random.fraction() * 2.0);
            let (kinds, decays) = (1 + random.below(3), random.below(4) > 0);
            let mut model = Model::new();
            for step in 1..=20_000 {
                let at = random.fraction() * sums[sums.len() - 1];
                let rank = sums.partition_point(|sum| *sum < at) as u64;
                // The names change now and then, so that others become hot.
                let key = [rank.wrapping_add(step / 7000).rotate_left(seed as u32), rank % 2];
                let turns = if seed % 2 == 0 { 64 } else { random.below(100) as u32 };
                let time_ns = u64::from(turns) * random.below(2000) * (1 + rank % 50);
                model.record((rank % kinds) as u16, key, turns, time_ns);
                if decays && random.below(1000) == 0 {
                    model.decay();
                }
                if step % 1000 == 0 {
                    model.check();
                }
            }
        }
    }

    #[test]
    fn one_that_has_little_more_than_its_share_is_found_among_equals() {
        // The others come in turn, and by the time that one comes again its row is taken over.
        let mut heat = Heat::new();
        for round in 0..1000 {
            for key in 0..62 {
                heat.record(1, [round % 2 * 100 + key, 0], 1, 10);
            }
            heat.record(2, [7, 7], 1, 10);
        }
        assert!(heat.top_by_turns(64).iter().any(|hot| (hot.kind, hot.key) == (2, [7, 7])));
        assert!(heat.top_by_time(64).iter().any(|hot| (hot.kind, hot.key) == (2, [7, 7])));
    }

    #[test]
    fn few_long_turns_are_found_among_many_short_ones() {
        let mut heat = Heat::new();
        for step in 0..100_000_u64 {
            heat.record(1, [step % 10_000, 0], 64, 64 * 100);
            if step % 1000 == 0 {
                heat.record(2, [5, 5], 64, 64 * 1_000_000);
            }
        }
        let top = heat.top_by_time(1);
        assert_eq!((top[0].kind, top[0].key), (2, [5, 5]));
        assert_eq!((top[0].time_ns, top[0].time_error_ns), (100 * 64 * 1_000_000, 0));
        assert!(top[0].turns >= 6400 && top[0].turns - top[0].turns_error <= 6400);
    }

    #[test]
    fn counts_are_exact_while_there_are_no_more_entities_than_rows() {
        let mut heat = Heat::new();
        for key in 0..64 {
            for _ in 0..=key {
                heat.record(key as u16 % 2, [key, key], 2, 100 * (64 - key));
            }
        }
        let top = heat.top_by_turns(2);
        let hot = |key: u64, turns, time_ns| Hot {
            kind: key as u16 % 2,
            key: [key, key],
            turns,
            turns_error: 0,
            time_ns,
            time_error_ns: 0,
        };
        assert_eq!(top, [hot(63, 128, 6400), hot(62, 126, 63 * 200)]);
        // 31 and 32 took the same time; turns decide.
        assert_eq!(heat.top_by_time(1), [hot(32, 66, 33 * 3200)]);
        assert_eq!(heat.top_by_time(1000).len(), 64);
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut heat = Heat::new();
        for _ in 0..1000 {
            heat.record(1, [1, 0], 64, 1000);
        }
        heat.decay();
        assert_eq!(
            (heat.top_by_turns(1)[0].turns, heat.top_by_turns(1)[0].time_ns),
            (32_000, 500_000)
        );
        for _ in 0..5 {
            heat.decay();
        }
        for _ in 0..100 {
            heat.record(1, [2, 0], 64, 1000);
        }
        assert_eq!(heat.top_by_turns(1)[0].key, [2, 0]);
        assert_eq!(heat.top_by_time(1)[0].key, [2, 0]);
        for _ in 0..64 {
            heat.decay();
        }
        assert_eq!(heat.top_by_turns(64), [], "nobody is hot any more");
    }

    #[test]
    fn same_records_give_the_same_answer() {
        let answers: Vec<_> = (0..2)
            .map(|_| {
                let (mut heat, mut random) = (Heat::new(), Random(3));
                for _ in 0..10_000 {
                    heat.record(0, [random.below(300), 0], 1, 1);
                }
                (heat.top_by_turns(64), heat.top_by_time(64))
            })
            .collect();
        assert_eq!(answers[0], answers[1]);
    }

    #[test]
    fn counts_stop_at_their_maximum() {
        let mut heat = Heat::new();
        for _ in 0..3 {
            heat.record(0, [0, 0], u32::MAX, u64::MAX);
        }
        assert_eq!(heat.top_by_time(1)[0].time_ns, u64::MAX);
        heat.record(0, [1, 0], 0, 0);
        assert_eq!(heat.top_by_time(9).len(), 1, "nothing was recorded of the other");
    }
}
