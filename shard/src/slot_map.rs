//! What some entities of a type have beside their slot, by the number of the slot.
//!
//! # Cost
//! Two loads. It grows by a page at a time, so that nothing stalls while millions move house; a
//! page takes its room for all of its slots, from the first of them that has anything.

use crate::index::SlotNumber;

/// A value for each slot, its default where none was put.
pub(crate) struct SlotMap<T> {
    pages: Vec<Option<Box<[T; PAGE]>>>,
}

/// Slots of one page: at eight bytes each, a few cache lines.
const PAGE: usize = 64;

impl<T: Default> SlotMap<T> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    #[inline]
    pub(crate) fn get(&self, slot: SlotNumber) -> Option<&T> {
        let page = self.pages.get(slot as usize / PAGE)?.as_ref()?;
        Some(&page[slot as usize % PAGE])
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: SlotNumber) -> Option<&mut T> {
        let page = self.pages.get_mut(slot as usize / PAGE)?.as_mut()?;
        Some(&mut page[slot as usize % PAGE])
    }

    /// The value of a slot, whose page is made where there is none.
    pub(crate) fn entry(&mut self, slot: SlotNumber) -> &mut T {
        let page = slot as usize / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = &mut self.pages[page];
        &mut page.get_or_insert_with(|| Box::new([(); PAGE].map(|()| T::default())))
            [slot as usize % PAGE]
    }

    /// The values of all pages, in the order of slots.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flat_map(|page| page.iter())
    }

    /// Takes them out.
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.pages.into_iter().flatten().flat_map(|page| *page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_has_its_default_until_something_is_put() {
        let mut map = SlotMap::<u32>::new();
        assert_eq!(map.get(0), None);
        assert_eq!(map.get_mut(1_000_000), None);
        *map.entry(1_000) = 7;
        *map.entry(1_001) += 1;
        assert_eq!(
            (map.get(1_000), map.get(1_001), map.get(1_002)),
            (Some(&7), Some(&1), Some(&0))
        );
        assert_eq!((map.get(900), map.get(1_100)), (None, None), "other pages");
        assert_eq!((map.values().sum::<u32>(), map.values().count()), (8, PAGE));
        assert_eq!(map.into_values().sum::<u32>(), 8);
    }
}
