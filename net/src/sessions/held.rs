//! Output that was sent without a copy, and that the kernel still reads.
//!
//! # Invariants
//! - A place is taken from the first such send of an output until the kernel has given notice of
//!   each of them and the output is not being sent any more. Meanwhile its memory is neither
//!   written nor freed.
//! - `bytes` is the sum over the places.

use super::output::Output;

/// Names a place of one connection: less than [`PLACES_MAX`].
pub(crate) type Place = u8;

/// Outputs of one connection that the kernel may read at a time; the next one is copied.
pub(crate) const PLACES_MAX: Place = 16;

/// What one connection has lent to the kernel.
#[derive(Debug, Default)]
pub(super) struct Held {
    places: Vec<Option<Lent>>,
    bytes: usize,
}

/// One output.
#[derive(Debug, Default)]
struct Lent {
    /// Empty while the output is being sent: it lies with the sender then.
    output: Output,
    /// Notices to come.
    notices: u32,
}

impl Held {
    /// Whether the kernel reads nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// Bytes of output that was sent, and that the kernel still reads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a place.
    pub(super) fn place(&mut self) -> Option<Place> {
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.places.len() < usize::from(PLACES_MAX) => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => return None,
        };
        self.places[place] = Some(Lent::default());
        Some(place as Place)
    }

    /// One more notice is to come for the output in `place`.
    pub(super) fn lent(&mut self, place: Place) {
        match self.find(place) {
            Some(lent) => lent.notices += 1,
            None => debug_assert!(false, "a send of an output that has a place"),
        }
    }

    /// The output in `place` is sent: keeps it, or gives it back if no notice is to come.
    pub(super) fn keep(&mut self, place: Place, output: Output) -> Option<Output> {
        match self.find(place) {
            Some(lent) if lent.notices > 0 => {
                lent.output = output;
                self.bytes += self.places[usize::from(place)].as_ref()?.output.len();
                None
            }
            _ => {
                self.places[usize::from(place)] = None;
                Some(output)
            }
        }
    }

    /// A notice has come. Gives the output back if it was the last one, unless the output is still
    /// being sent.
    pub(super) fn noticed(&mut self, place: Place, in_use: bool) -> Option<Output> {
        let Some(lent) = self.find(place) else {
            debug_assert!(false, "a notice of a place that is taken");
            return None;
        };
        debug_assert!(lent.notices > 0, "as many notices as there were sends");
        lent.notices = lent.notices.saturating_sub(1);
        if lent.notices > 0 || in_use {
            return None;
        }
        let lent = self.places[usize::from(place)].take()?;
        self.bytes -= lent.output.len();
        Some(lent.output)
    }

    fn find(&mut self, place: Place) -> Option<&mut Lent> {
        self.places.get_mut(usize::from(place))?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_back_at_the_last_notice_and_not_before() {
        let mut held = Held::default();
        let place = held.place().expect("room");
        held.lent(place);
        held.lent(place);
        assert!(held.noticed(place, true).is_none(), "it is still being sent");
        assert!(held.keep(place, Output::new(vec![1; 10])).is_none());
        assert_eq!(held.bytes(), 10);
        assert_eq!(*held.noticed(place, false).expect("the last"), vec![1; 10]);
        assert!(held.is_empty() && held.bytes() == 0);
    }

    #[test]
    fn output_of_which_all_notices_have_come_is_not_kept() {
        let mut held = Held::default();
        let place = held.place().expect("room");
        held.lent(place);
        assert!(held.noticed(place, true).is_none());
        assert!(!held.is_empty(), "the place is taken while the output is sent");
        assert_eq!(*held.keep(place, Output::new(vec![2])).expect("no notice to come"), [2]);
        assert!(held.is_empty());
    }

    #[test]
    fn places_are_few_and_are_used_again() {
        let mut held = Held::default();
        let all: Vec<_> = std::iter::from_fn(|| held.place()).collect();
        assert_eq!(all, (0..PLACES_MAX).collect::<Vec<_>>());
        assert!(held.keep(3, Output::default()).is_some());
        assert_eq!(held.place(), Some(3));
    }
}
