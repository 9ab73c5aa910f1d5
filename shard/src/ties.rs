//! Ties: whom an entity watches, and whom it started, in order.

use std::collections::BTreeMap;

use crate::identity::{EntityId, Recipient};
use crate::key::KeyWords;

/// A watch or a child, as its holder knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tie {
    pub(crate) entity: EntityId,
    /// Tells it from an earlier one between the two, of which word may still be under way.
    pub(crate) number: u64,
}

/// The same from the other end: who holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) who: Recipient,
    pub(crate) number: u64,
}

type Who = (u16, KeyWords);

fn who(entity: &EntityId) -> Who {
    (entity.kind, entity.key)
}

/// Ties of one holder, at most one to each entity, in the order in which they were made.
///
/// # Cost
/// Each operation takes the logarithm of their number.
#[derive(Default, Debug)]
pub(crate) struct Ties {
    by_place: BTreeMap<u64, Tie>,
    places: BTreeMap<Who, u64>,
    next_place: u64,
}

impl Ties {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Whether there is a tie to the entity, whatever its number.
    pub(crate) fn has_entity(&self, entity: &EntityId) -> bool {
        self.places.contains_key(&who(entity))
    }

    /// Whether there is just this tie.
    pub(crate) fn has(&self, tie: &Tie) -> bool {
        self.place(tie).is_some()
    }

    fn place(&self, tie: &Tie) -> Option<u64> {
        let place = *self.places.get(&who(&tie.entity))?;
        (self.by_place.get(&place) == Some(tie)).then_some(place)
    }

    /// Makes a tie; one to an entity to which there is one takes its place.
    pub(crate) fn put(&mut self, tie: Tie) {
        let place = *self.places.entry(who(&tie.entity)).or_insert(self.next_place);
        self.by_place.insert(place, tie);
        self.next_place += 1;
    }

    /// Ends just this tie. Returns whether it was there.
    pub(crate) fn remove(&mut self, tie: &Tie) -> bool {
        let Some(place) = self.place(tie) else { return false };
        self.by_place.remove(&place);
        self.places.remove(&who(&tie.entity));
        true
    }

    /// Ends the tie to an entity. Returns its number.
    pub(crate) fn remove_entity(&mut self, entity: &EntityId) -> Option<u64> {
        let place = self.places.remove(&who(entity))?;
        self.by_place.remove(&place).map(|tie| tie.number)
    }

    /// All ties, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Tie> {
        self.by_place.values().copied()
    }

    /// The ties that were made after this one.
    pub(crate) fn behind(&self, tie: &Tie) -> impl Iterator<Item = Tie> {
        let from = self.place(tie).map_or(u64::MAX, |place| place + 1);
        self.by_place.range(from..).map(|(_, tie)| *tie)
    }
}

/// The holders of ties to one entity.
#[derive(Default, Debug)]
pub(crate) struct Holders(BTreeMap<(Who, u64), Holder>);

impl Holders {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, holder: Holder) {
        self.0.insert((who(&holder.who.entity), holder.number), holder);
    }

    pub(crate) fn remove(&mut self, entity: &EntityId, number: u64) {
        self.0.remove(&(who(entity), number));
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = Holder> {
        self.0.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tie(key: u64, number: u64) -> Tie {
        Tie { entity: EntityId { kind: 3, wide: false, name: "Test", key: [key, 0] }, number }
    }

    #[test]
    fn tie_to_the_same_entity_keeps_its_place_and_gets_the_new_number() {
        let mut ties = Ties::default();
        [tie(1, 1), tie(2, 2), tie(3, 3), tie(2, 4)].into_iter().for_each(|tie| ties.put(tie));
        assert!(ties.iter().eq([tie(1, 1), tie(2, 4), tie(3, 3)]));
        assert!(ties.behind(&tie(1, 1)).eq([tie(2, 4), tie(3, 3)]));
        assert_eq!(ties.behind(&tie(2, 2)).count(), 0, "that one is gone");
        assert!(!ties.remove(&tie(2, 2)) && ties.remove(&tie(2, 4)) && !ties.remove(&tie(2, 4)));
        assert_eq!(ties.remove_entity(&tie(3, 0).entity), Some(3));
        assert!(ties.has(&tie(1, 1)) && !ties.has_entity(&tie(3, 3).entity));
    }
}
