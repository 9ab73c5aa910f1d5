//! Many to many: each entity sends rows of messages to each other, small ones and large ones.

use coreside::sim::SimBuilder;
use coreside::{Cx, Full, entity, handlers};

use crate::suite::book::{Life, Stamp, draw};
use crate::suite::workload::{Kind, Load, Workload, begin, may_fail};

pub(crate) const KIND: Kind = Kind {
    name: "many",
    about: "rows of tells between all",
    shape: |scenario| scenario.keys = scenario.keys.min(24),
    make: || Box::new(Many),
};

struct Many;

impl Workload for Many {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Writer>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        for _ in 0..load.random.between(1, 4) {
            let (key, letters) = (load.key(), load.batch());
            load.tell::<Writer, _>(key, move |stamp| WriterWrite { stamp, letters }, |m| m.stamp);
        }
    }
}

/// Writes letters when it is told to, and reads those of others.
#[entity(activate = Writer::begin)]
struct Writer {
    number: u64,
    _life: Life,
}

/// A message above the inline limit.
struct Page([u64; 20]);

#[handlers]
impl Writer {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn write(&mut self, mut stamp: Stamp, letters: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        let (mut to, mut large) = (self.number, 0);
        for _ in 0..letters {
            draw(|random, scenario| {
                large = random.below(3);
                if random.one_in(4) {
                    to = random.below(scenario.keys);
                }
            });
            let stamp = Stamp::new((self.number, to));
            let writer = cx.entity::<Writer>(to);
            let refused = match large {
                0 => writer.letter(stamp, Page([to; 20])).try_tell().err().map(|Full(m)| m.stamp),
                1 => writer.card(stamp, [to; 11]).try_tell().err().map(|Full(m)| m.stamp),
                _ => writer.note(stamp).try_tell().err().map(|Full(m)| m.stamp),
            };
            refused.into_iter().for_each(Stamp::take_back);
        }
        may_fail(&stamp, cx);
    }

    #[local]
    fn note(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        may_fail(&stamp, cx);
    }

    #[local]
    fn card(&mut self, mut stamp: Stamp, words: [u64; 11], cx: &mut Cx<Self>) {
        // A message whose words were mixed up with another's is not for this entity.
        let to = if words == [self.number; 11] { self.number } else { u64::MAX };
        stamp.arrive(to);
        may_fail(&stamp, cx);
    }

    #[local]
    fn letter(&mut self, mut stamp: Stamp, page: Page, cx: &mut Cx<Self>) {
        let to = if page.0 == [self.number; 20] { self.number } else { u64::MAX };
        stamp.arrive(to);
        may_fail(&stamp, cx);
    }
}
