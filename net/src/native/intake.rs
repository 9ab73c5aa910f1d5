//! What a session needs of its shard: the seam between the real shard and the fakes of tests.

use coreside_shard::{Body, KeyWords, Shard, WireCall, WireError, WireRow};

/// Where a session sends its messages.
pub trait Intake {
    /// What may be sent, by number.
    fn messages(&self) -> &[WireRow];

    /// Sends one message, whose archive is `body`; to an ask an answer comes later, exactly once.
    ///
    /// # Errors
    /// Why nothing was sent. No answer follows then.
    fn send(
        &mut self,
        number: u16,
        key: KeyWords,
        body: Body<'_>,
        call: WireCall,
    ) -> Result<(), WireError>;

    /// Whether sessions should stop parsing for now.
    fn is_congested(&self) -> bool;

    /// When an ask ends that has `time_us` left; 0 stands for as long as the node allows, which is
    /// the most that it has in any case.
    fn deadline_ns(&self, time_us: u32) -> u64;
}

impl Intake for Shard {
    fn messages(&self) -> &[WireRow] {
        self.wire()
    }

    #[inline]
    fn send(
        &mut self,
        number: u16,
        key: KeyWords,
        body: Body<'_>,
        call: WireCall,
    ) -> Result<(), WireError> {
        self.send_wire(number, key, body, call)
    }

    #[inline]
    fn is_congested(&self) -> bool {
        self.is_congested()
    }

    #[inline]
    fn deadline_ns(&self, time_us: u32) -> u64 {
        match time_us {
            0 => self.ask_deadline_ns(),
            us => self.now().monotonic_ns.saturating_add(u64::from(us) * 1000),
        }
    }
}
