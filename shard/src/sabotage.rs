//! Bugs planted on purpose, to see whether the simulation finds them.
//!
//! They exist only in a build with `--cfg sabotage`, which nobody ships; in any other build
//! [`planted`] is a constant and its branches are gone. `scripts/sim --sabotage` plants one after
//! the other.

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(sabotage),
    allow(dead_code, unreachable_pub, reason = "public in the sabotage build only")
)]
pub enum Bug {
    /// A peer that sleeps is not woken when its ring gets a record.
    LostWakeUp,
    /// A record that finds its ring full is dropped.
    DroppedOnFullRing,
    /// A record passes those that wait in the outbox.
    PassesTheOutbox,
    /// The outbox takes records beyond its bound.
    UnboundedOutbox,
    /// A full run queue takes the message and loses it.
    LostWhenFull,
    /// The stash gives its records out in the wrong order.
    ReorderedStash,
    /// A full stash drops a message without a count.
    SilentStash,
    /// A restart loses the oldest message that waits.
    RestartLosesMessage,
    /// A restart keeps the old life's generation.
    SameLife,
    /// A restart comes at once, however many faults there were.
    NoBackoff,
    /// A timer of an earlier life fires in a later one.
    StaleTimer,
    /// A timer fires a second early.
    EarlyTimer,
    /// Passing a deadline does not end an ask.
    AskWaitsForEver,
    /// Work whose deadline has passed is done all the same.
    DoneTooLate,
    /// A reply goes to the ask that was made before.
    WrongToken,
    /// A periodic timer fires twice.
    TimerTwice,
    /// A watcher is told twice.
    TerminatedTwice,
    /// One of several watchers is not told.
    WatcherForgotten,
    /// A watch that was taken back still tells.
    UnwatchIgnored,
    /// The supervisor is not told of a fault.
    FaultNotTold,
    /// A child goes on when its supervisor ends.
    OrphanGoesOn,
    /// A state that should be kept through a fault is made anew.
    ResumeForgets,
    /// An entity is put away although it has timers set.
    PutsAwayBusy,
    /// An async turn goes on when its asker has given up.
    NotCancelled,
    /// An entity whose async turn was cancelled stays shut.
    StaysShut,
    /// Asks that wait for each other are not refused.
    CycleMissed,
    /// A sweep leaves one entity out.
    SweepSkips,
    /// A message that is given up is dropped without its value's drop.
    LeakedValue,
    /// Poison is thrown away instead of put aside.
    PoisonForgotten,
    /// A nested ask does not inherit the deadline of the one that is being handled.
    DeadlineNotInherited,
    /// An entity bound to one that failed goes on.
    BoundGoesOn,
    /// Nobody hears of a fault that is escalated.
    EscalationForgotten,
    /// A life goes on behind the fault of a read.
    ReadGoesOn,
    /// One of the subscribers to a topic gets no copy.
    CopyForgotten,
    /// An instance that always runs stays away once it has stopped.
    StaysAway,
    /// A client is not told that its tell was handled.
    NoteForgotten,
    /// A lease is never given back.
    LeaseKept,
}

impl Bug {
    /// All bugs.
    #[cfg(sabotage)]
    pub const ALL: &'static [Self] = &[
        Self::LostWakeUp,
        Self::DroppedOnFullRing,
        Self::PassesTheOutbox,
        Self::UnboundedOutbox,
        Self::LostWhenFull,
        Self::ReorderedStash,
        Self::SilentStash,
        Self::RestartLosesMessage,
        Self::SameLife,
        Self::NoBackoff,
        Self::StaleTimer,
        Self::EarlyTimer,
        Self::AskWaitsForEver,
        Self::DoneTooLate,
        Self::WrongToken,
        Self::TimerTwice,
        Self::TerminatedTwice,
        Self::WatcherForgotten,
        Self::UnwatchIgnored,
        Self::FaultNotTold,
        Self::OrphanGoesOn,
        Self::ResumeForgets,
        Self::PutsAwayBusy,
        Self::NotCancelled,
        Self::StaysShut,
        Self::CycleMissed,
        Self::SweepSkips,
        Self::LeakedValue,
        Self::PoisonForgotten,
        Self::DeadlineNotInherited,
        Self::BoundGoesOn,
        Self::EscalationForgotten,
        Self::ReadGoesOn,
        Self::CopyForgotten,
        Self::StaysAway,
        Self::NoteForgotten,
        Self::LeaseKept,
    ];
}

#[cfg(sabotage)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in all shards of this thread, in place of the one before.
#[cfg(sabotage)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
#[cfg(sabotage)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: it is not.
#[cfg(not(sabotage))]
#[inline(always)]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

/// Room for a record that nobody will find.
#[cfg(sabotage)]
pub(crate) fn nowhere() -> *mut crate::record::Word {
    use crate::record::{RECORD_WORDS_MAX, Word};
    Box::leak(vec![Word::uninit(); RECORD_WORDS_MAX].into_boxed_slice()).as_mut_ptr()
}

/// Not called: nothing is planted.
#[cfg(not(sabotage))]
pub(crate) fn nowhere() -> *mut crate::record::Word {
    unreachable!("records are lost in the sabotage build only")
}
