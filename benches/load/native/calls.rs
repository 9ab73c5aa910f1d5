/// In place of a time: the call number is free.
const FREE: u64 = u64::MAX;

/// Requests in flight by their call numbers; answers come in any order.
#[derive(Debug)]
pub(crate) struct Calls {
    calls: Box<[Call]>,
    /// Numbers not in use; all of them fit.
    free: Vec<u32>,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) since_ns: u64,
    /// Its message's place among the workload's.
    pub(crate) message: u16,
}

impl Calls {
    /// # Panics
    /// When `depth_max` is 0.
    pub(crate) fn new(depth_max: u32) -> Self {
        assert!(depth_max > 0, "a pipeline of no depth");
        let calls = vec![Call { since_ns: FREE, message: 0 }; depth_max as usize];
        Self { calls: calls.into_boxed_slice(), free: (0..depth_max).rev().collect() }
    }

    pub(crate) fn outstanding(&self) -> u32 {
        (self.calls.len() - self.free.len()) as u32
    }

    /// Notes a request and returns its number.
    ///
    /// # Panics
    /// When all numbers are in use: the driver sends no more than the depth.
    pub(crate) fn begin(&mut self, since_ns: u64, message: u16) -> u32 {
        let number = self.free.pop().expect("no more requests than the depth");
        self.calls[number as usize] = Call { since_ns, message };
        number
    }

    /// The request of this number, which is free from here on; `None` if there is none.
    pub(crate) fn end(&mut self, number: u32) -> Option<Call> {
        let call = self.calls.get_mut(number as usize)?;
        if call.since_ns == FREE {
            return None;
        }
        let ended = *call;
        call.since_ns = FREE;
        self.free.push(number);
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn agrees_with_a_map() {
        let mut calls = Calls::new(5);
        let mut model = HashMap::new();
        let mut random = crate::random::Random::new(3, 0);
        for round in 0..50_000u64 {
            if model.len() < 5 && random.below(2) == 0 {
                let number = calls.begin(round, 1);
                assert_eq!(model.insert(number, round), None, "a number in use is not given out");
            } else {
                let number = random.below(7) as u32;
                let since_ns = calls.end(number).map(|call| call.since_ns);
                assert_eq!(since_ns, model.remove(&number));
            }
            assert_eq!(calls.outstanding() as usize, model.len());
        }
    }
}
