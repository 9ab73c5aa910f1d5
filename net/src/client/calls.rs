//! Asks that wait for their answers, by call number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::native::frame::Code;

/// Waits for the answer to an ask.
pub(super) trait Pending: Send + Sync {
    /// Takes the archive of the reply, or why there is none. Returns the task to be woken.
    fn end(&self, answer: Result<&[u8], Code>) -> Option<Waker>;
}

/// An ask that waits.
pub(super) struct Call {
    pub(super) pending: Arc<dyn Pending>,
    /// `None` for an instant that the clock cannot name, which is as good as never.
    pub(super) deadline: Option<Instant>,
    /// The account of its entity, once it is under way; until then it waits here.
    pub(super) account: Option<u32>,
}

impl Call {
    /// Whether anybody else has a hold of what waits.
    pub(super) fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.pending) > 1
    }
}

/// Asks that wait for their answers, by call number.
#[derive(Default)]
pub(super) struct Calls {
    places: Vec<Place>,
    /// In the order in which they became free.
    free: VecDeque<u32>,
    len: usize,
    /// Tells the calls apart that ever were.
    next_serial: u64,
    /// When an overdue ask is looked for next; not later than any deadline.
    next_look: Option<Instant>,
}

#[derive(Default)]
struct Place {
    /// The high bits of the call number: tells the calls apart that had this place.
    turn: u32,
    call: Option<Call>,
    serial: u64,
}

/// Places take the low bits of a call number.
const PLACE_BITS: u32 = 20;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// So many places are used in turn, however few calls there are: a number comes again after four
/// million calls, and no answer is so late.
const PLACES_MIN: usize = 1024;

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of the next call; [`put`](Self::put) makes it one. `None` when there are as many
    /// as there are numbers.
    pub(super) fn next(&mut self) -> Option<u32> {
        if self.free.is_empty() || self.places.len() < PLACES_MIN {
            let place = self.places.len() as u32;
            if place > PLACE_MASK {
                return None;
            }
            self.places.push(Place::default());
            self.free.push_front(place);
        }
        let place = *self.free.front()?;
        Some(self.places[place as usize].turn << PLACE_BITS | place)
    }

    pub(super) fn put(&mut self, number: u32, call: Call) {
        let popped = self.free.pop_front();
        debug_assert_eq!(popped, Some(number & PLACE_MASK));
        self.next_look = [self.next_look, call.deadline].into_iter().flatten().min();
        let place = &mut self.places[(number & PLACE_MASK) as usize];
        place.call = Some(call);
        place.serial = self.next_serial;
        self.next_serial += 1;
        self.len += 1;
    }

    pub(super) fn take(&mut self, number: u32) -> Option<Call> {
        let index = number & PLACE_MASK;
        let place = self.places.get_mut(index as usize)?;
        if place.turn != number >> PLACE_BITS {
            return None;
        }
        let call = place.call.take()?;
        place.turn = (place.turn + 1) & (u32::MAX >> PLACE_BITS);
        self.free.push_back(index);
        self.len -= 1;
        Some(call)
    }

    /// The serial of the next call.
    pub(super) fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// The call of this number and serial, if it still waits.
    pub(super) fn get_mut(&mut self, (number, serial): (u32, u64)) -> Option<&mut Call> {
        let place = self.places.get_mut((number & PLACE_MASK) as usize)?;
        place.call.as_mut().filter(|_| place.serial == serial)
    }

    /// Takes out the call of this number and serial, if it still waits.
    pub(super) fn take_this(&mut self, call: (u32, u64)) -> Option<Call> {
        self.get_mut(call)?;
        self.take(call.0)
    }

    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Call> {
        let mut overdue = Vec::new();
        if self.next_look.is_none_or(|next| next > now) {
            return overdue;
        }
        self.next_look = None;
        for index in 0..self.places.len() as u32 {
            let place = &self.places[index as usize];
            let Some(call) = &place.call else { continue };
            match call.deadline {
                Some(at) if at <= now => {
                    let number = place.turn << PLACE_BITS | index;
                    overdue.extend(self.take(number));
                }
                at => self.next_look = [self.next_look, at].into_iter().flatten().min(),
            }
        }
        overdue
    }

    /// Takes out those that are not under way.
    pub(super) fn take_waiting(&mut self) -> Vec<Call> {
        let waits = |place: &Place| place.call.as_ref().is_some_and(|call| call.account.is_none());
        let numbers: Vec<u32> = (0..self.places.len() as u32)
            .filter(|index| waits(&self.places[*index as usize]))
            .map(|index| self.places[index as usize].turn << PLACE_BITS | index)
            .collect();
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// How long there is to the next look, which is not later than any deadline. `None` when no
    /// look is due.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.next_look.map(|at| at.saturating_duration_since(now))
    }

    /// When an overdue ask is looked for next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    pub(super) fn into_calls(self) -> impl Iterator<Item = Call> {
        self.places.into_iter().filter_map(|place| place.call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Pending for Nobody {
        fn end(&self, _: Result<&[u8], Code>) -> Option<Waker> {
            None
        }
    }

    fn put(calls: &mut Calls, deadline: Option<Instant>) -> u32 {
        let number = calls.next().expect("there are a million");
        calls.put(number, Call { pending: Arc::new(Nobody), deadline, account: None });
        number
    }

    #[test]
    fn number_names_its_call_once() {
        let mut calls = Calls::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 * PLACES_MIN {
            let serial = calls.next_serial();
            let number = put(&mut calls, None);
            assert!(seen.insert(number), "{number:08x} again so soon");
            assert!(calls.take(number ^ 1).is_none(), "another place, or another turn");
            assert!(calls.get_mut((number, serial + 1)).is_none());
            assert!(calls.take_this((number, serial)).is_some());
            assert!(calls.take(number).is_none());
        }
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn there_are_places_for_as_many_calls_as_there_are() {
        let mut calls = Calls::default();
        let numbers: Vec<_> = (0..3 * PLACES_MIN).map(|_| put(&mut calls, None)).collect();
        assert_eq!(calls.len(), numbers.len());
        assert!(numbers.iter().rev().all(|number| calls.take(*number).is_some()));
        assert_eq!((calls.len(), calls.places.len()), (0, numbers.len()));
    }

    #[test]
    fn overdue_calls_are_found_and_others_left() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        for seconds in [3, 1, 2] {
            put(&mut calls, at(seconds));
        }
        put(&mut calls, None);
        assert_eq!(calls.next_look(), at(1));
        assert!(calls.take_overdue(start).is_empty());
        assert_eq!(calls.take_overdue(start + Duration::from_secs(2)).len(), 2);
        assert_eq!((calls.len(), calls.next_look()), (2, at(3)));
        assert_eq!(calls.left(start), Some(Duration::from_secs(3)));
        assert_eq!(calls.into_calls().count(), 2);
    }
}
