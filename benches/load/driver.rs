//! The loop of one load thread.
//!
//! # Time
//! The clock is read once per batch of at most sixteen completions, not once per request. All
//! replies of a batch arrive, and in a closed loop all requests sent in answer to them depart, at
//! that time. Both roundings make a latency longer than it was, never shorter: a reply may have
//! waited for its batch, and a request is stamped before it is encoded and handed to the kernel.
//! The error is the time that a batch takes, some microseconds when the pipelines are deep.
//!
//! In an open loop a request counts from the time it was due, whenever it could be sent, so that a
//! slow target cannot slow down its own measurement ("coordinated omission").
//!
//! # Windows
//! A latency is recorded if its request counts from inside the window, even when the reply comes
//! after it. The rate is that of the replies which came inside the window.

use std::time::Duration;

use coreside_net::native::frame::HEADER_BYTES;
use hdrhistogram::Histogram;

use crate::failure::Failure;
use crate::gate::Gate;
use crate::hiccup::Meter;
use crate::ring::{Completion, Received, Ring};
use crate::schedule::Schedule;
use crate::session::{Session, Stamp};
use crate::source::Source;
use crate::tally::Tally;

/// The longest sleep; bounds how late a signal or a silent target is noticed.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Batches handled between two looks at the window.
const BATCHES_MAX: usize = 8;

/// One load thread's connections and measurements.
pub(crate) struct Driver<'a> {
    gate: &'a Gate,
    thread: usize,
    ring: Ring,
    sessions: Vec<Session>,
    timeout_ns: u64,
    /// Requests sent and not answered, over all sessions.
    outstanding: u64,
    /// Since when no reply has come though one was owed.
    quiet_since_ns: u64,
    /// Where the search for a session with room goes on.
    cursor: usize,
    /// Sessions whose outboxes were filled in the present turn.
    filled: Vec<usize>,
    /// Replies since the phase began.
    replies: u64,
    sent_bytes: u64,
    received_bytes: u64,
    tally: Tally,
}

/// What to send, when, and for how long.
pub(crate) struct Phase {
    pub(crate) source: Source,
    /// Present in an open loop.
    pub(crate) schedule: Option<Schedule>,
    /// Outstanding requests per session, at most.
    pub(crate) depth: u32,
    /// Requests that count from before this belong to the warm-up.
    pub(crate) open_ns: u64,
    /// No request counts from this on.
    pub(crate) close_ns: u64,
    /// Requests inside the window, at most.
    pub(crate) limit: u64,
    /// Ask the ring for completions without pause instead of sleeping until one comes.
    pub(crate) spin: bool,
}

/// Progress through a phase.
struct Window {
    state: State,
    /// Requests that may still be issued.
    left: u64,
    /// Replies and bytes before the window opened.
    replies_before: u64,
    sent_bytes_before: u64,
    received_bytes_before: u64,
    opened_ns: u64,
    /// When the last reply came, or the last tell was sent.
    last_done_ns: u64,
    /// Ticks while the window is open.
    meter: Meter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    WarmUp,
    Open,
    Closed,
}

impl Window {
    fn new(now_ns: u64) -> Self {
        Self {
            state: State::WarmUp,
            left: u64::MAX,
            replies_before: 0,
            sent_bytes_before: 0,
            received_bytes_before: 0,
            opened_ns: 0,
            last_done_ns: 0,
            meter: Meter::start(now_ns),
        }
    }
}

impl<'a> Driver<'a> {
    pub(crate) fn new(
        gate: &'a Gate,
        thread: usize,
        ring: Ring,
        sessions: Vec<Session>,
        timeout: Duration,
    ) -> Self {
        let filled = Vec::with_capacity(sessions.len());
        Self {
            gate,
            thread,
            ring,
            sessions,
            timeout_ns: timeout.as_nanos() as u64,
            outstanding: 0,
            quiet_since_ns: 0,
            cursor: 0,
            filled,
            replies: 0,
            sent_bytes: 0,
            received_bytes: 0,
            tally: Tally::new(),
        }
    }

    /// Runs a phase to its end and returns what was measured in its window.
    ///
    /// # Errors
    /// When a connection breaks, speaks something else, or falls silent.
    pub(crate) fn run(&mut self, phase: &mut Phase) -> Result<Tally, Failure> {
        let mut now_ns = self.gate.clock.now_ns();
        let mut window = Window::new(now_ns);
        self.replies = 0;
        self.tally = Tally::new();
        self.quiet_since_ns = now_ns;
        self.advance(phase, &mut window, now_ns);
        if phase.schedule.is_none() {
            for session in 0..self.sessions.len() {
                self.top_up(phase, &mut window, session, now_ns)?;
            }
        }
        loop {
            self.idle(phase, &window, now_ns)?;
            now_ns = self.complete(phase, &mut window)?;
            if window.state == State::Open {
                window.meter.look(now_ns, &mut self.tally.hiccups);
            }
            self.dispatch(phase, &mut window, now_ns)?;
            self.advance(phase, &mut window, now_ns);
            self.gate.publish(self.thread, self.replies);
            let finished = window.left == 0 && self.outstanding == 0 && self.all_is_sent();
            if finished || self.given_up(&window, now_ns)? {
                break;
            }
        }
        self.tally.unanswered = self.outstanding;
        Ok(self.tally.clone())
    }

    /// Opens and closes the window.
    fn advance(&mut self, phase: &mut Phase, window: &mut Window, now_ns: u64) {
        if self.outstanding == 0 {
            self.quiet_since_ns = now_ns;
        }
        if window.state == State::WarmUp && now_ns >= phase.open_ns {
            window.state = State::Open;
            window.left = phase.limit;
            window.replies_before = self.replies;
            window.opened_ns = now_ns;
            window.meter = Meter::start(now_ns);
            window.sent_bytes_before = self.sent_bytes;
            window.received_bytes_before = self.received_bytes;
            if phase.schedule.is_none() {
                // What was stamped up to now was issued on the warm-up's account, if there was one.
                phase.open_ns = now_ns + u64::from(self.outstanding > 0);
            }
        }
        if self.gate.stopping() && now_ns < phase.close_ns {
            phase.close_ns = now_ns;
        }
        let exhausted = window.left == 0 && self.outstanding == 0;
        if window.state != State::Closed && (now_ns >= phase.close_ns || exhausted) {
            self.close(phase, window, now_ns);
        }
    }

    fn close(&mut self, phase: &mut Phase, window: &mut Window, now_ns: u64) {
        if window.state == State::Open {
            // A limited run ends with its last reply, not with the turn that noticed it, and the
            // last replies to the warm-up are not among those it asked for.
            let limited = window.left == 0;
            let end_ns = if limited { window.last_done_ns } else { now_ns };
            let in_window = self.replies - window.replies_before;
            self.tally.window_ns = end_ns.saturating_sub(window.opened_ns);
            self.tally.replies = if limited { self.tally.latency.len() } else { in_window };
            self.tally.sent_bytes = self.sent_bytes - window.sent_bytes_before;
            self.tally.received_bytes = self.received_bytes - window.received_bytes_before;
            if let Some(schedule) = &mut phase.schedule
                && !limited
            {
                let latency = &mut self.tally.latency;
                let late = leave_behind(schedule, phase.open_ns, phase.close_ns, latency);
                self.tally.due += late;
                self.tally.unsent += late;
            }
        }
        window.state = State::Closed;
        window.left = 0;
    }

    /// Lets the kernel work, and sleeps if there is nothing else to do.
    fn idle(&mut self, phase: &Phase, window: &Window, now_ns: u64) -> Result<(), Failure> {
        if phase.spin {
            return self.ring.poll().map_err(Failure::Ring);
        }
        let mut limit = WAIT_MAX;
        if window.state == State::Open {
            limit = Duration::from_nanos(window.meter.due_ns().saturating_sub(now_ns));
        }
        if now_ns < phase.close_ns {
            limit = limit.min(Duration::from_nanos(phase.close_ns - now_ns));
        }
        if let Some(schedule) = &phase.schedule {
            let due = schedule.due_ns();
            // An overdue request waits for room, which only a completion makes.
            if now_ns < due && due < phase.close_ns {
                limit = limit.min(Duration::from_nanos(due - now_ns));
            }
        }
        self.ring.wait(limit.max(Duration::from_nanos(1))).map_err(Failure::Ring)
    }

    /// Handles the completions there are, some batches of them at most: handing in requests brings
    /// further ones, and a fast target would never let this end. Returns the latest reading of the
    /// clock.
    fn complete(&mut self, phase: &mut Phase, window: &mut Window) -> Result<u64, Failure> {
        let mut now_ns = 0;
        for _ in 0..BATCHES_MAX {
            let count = self.ring.take_batch();
            now_ns = self.gate.clock.now_ns();
            if count == 0 {
                break;
            }
            for index in 0..count {
                let completion = self.ring.completion(index).map_err(Failure::Ring)?;
                let session = match completion {
                    Completion::Received(received) => {
                        let session = received.session;
                        self.received(phase, window, received, now_ns)?;
                        session
                    }
                    Completion::Sent(session) => session,
                    Completion::Settled => continue,
                    Completion::Closed(session) => return Err(Failure::Closed { session }),
                    Completion::Failed(session, error) => {
                        return Err(Failure::Broken { session, error });
                    }
                };
                self.answer_pings(session)?;
                if phase.schedule.is_none() {
                    self.top_up(phase, window, session, now_ns)?;
                }
            }
            self.ring.submit().map_err(Failure::Ring)?;
        }
        Ok(now_ns)
    }

    fn received(
        &mut self,
        phase: &Phase,
        window: &mut Window,
        received: Received,
        now_ns: u64,
    ) -> Result<(), Failure> {
        let session = &mut self.sessions[received.session];
        let bytes = self.ring.bytes(&received);
        self.received_bytes += bytes.len() as u64;
        let Tally { latency, errors, .. } = &mut self.tally;
        let answered = |stamp: Stamp| {
            if stamp.since_ns >= phase.open_ns {
                let latency_ns = now_ns.saturating_sub(stamp.since_ns);
                latency.saturating_record_n(latency_ns, u64::from(stamp.count));
            }
        };
        let credit = session.credit();
        let replies = session
            .receive(bytes, errors, answered)
            .map_err(|error| Failure::Nonsense { session: received.session, error })?;
        if replies > 0 {
            self.replies += replies;
            self.outstanding -= replies;
            self.quiet_since_ns = now_ns;
            window.last_done_ns = now_ns;
        }
        if self.sessions[received.session].credit() > credit {
            self.quiet_since_ns = now_ns;
        }
        self.ring.give_back(received);
        Ok(())
    }

    /// Gives the target its sign of life, unless the kernel still holds what was sent before: when
    /// it does not any more, this is called again.
    #[inline]
    fn answer_pings(&mut self, session: usize) -> Result<(), Failure> {
        let noted = &mut self.sessions[session];
        if !noted.owes_pong() {
            return Ok(());
        }
        match self.ring.outbox(session) {
            Some(outbox) if outbox.room_bytes() >= HEADER_BYTES => {
                outbox.append(|bytes, at| noted.pong(bytes, at));
                self.ring.send(session).map_err(Failure::Ring)
            }
            _ => Ok(()),
        }
    }

    /// Notes that nobody will answer `count` requests.
    fn note_told(&mut self, window: &mut Window, count: u32, now_ns: u64) {
        if window.state == State::Open {
            self.tally.told += u64::from(count);
            window.last_done_ns = now_ns;
        }
    }

    /// Whether the kernel has all that was written: of what is told, nothing else says so.
    fn all_is_sent(&mut self) -> bool {
        (0..self.sessions.len()).all(|session| self.ring.outbox(session).is_some())
    }

    /// Closed loop: fills a session's pipeline again.
    fn top_up(
        &mut self,
        phase: &mut Phase,
        window: &mut Window,
        session: usize,
        now_ns: u64,
    ) -> Result<(), Failure> {
        let noted = &mut self.sessions[session];
        let wanted = u64::from(phase.depth - noted.outstanding().min(phase.depth));
        let wanted = wanted.min(window.left) as u32;
        let Some(outbox) = self.ring.outbox(session) else { return Ok(()) };
        let needed = phase.source.room_bytes();
        let (mut count, mut told) = (0, 0);
        while count < wanted && noted.may_send() && outbox.room_bytes() >= needed {
            let bytes = outbox.append(|bytes, at| phase.source.encode(noted, now_ns, bytes, at));
            self.sent_bytes += bytes as u64;
            count += 1;
            told += u32::from(phase.source.told());
        }
        if count == 0 {
            return Ok(());
        }
        noted.note(now_ns, count);
        self.outstanding += u64::from(count - told);
        window.left -= u64::from(count);
        self.note_told(window, told, now_ns);
        self.ring.send(session).map_err(Failure::Ring)
    }

    /// Open loop: sends what is due, as far as the pipelines have room.
    ///
    /// Requests go to the sessions in turn, past those that are full. Those that find no room stay
    /// in the schedule, with the time they were due.
    fn dispatch(
        &mut self,
        phase: &mut Phase,
        window: &mut Window,
        now_ns: u64,
    ) -> Result<(), Failure> {
        let Some(schedule) = &mut phase.schedule else { return Ok(()) };
        let needed = phase.source.room_bytes();
        let horizon_ns = now_ns.min(phase.close_ns.saturating_sub(1));
        while window.left > 0 && schedule.due_ns() <= horizon_ns {
            let Some(session) = self.session_with_room(phase.depth, needed) else { break };
            let Some(outbox) = self.ring.outbox(session) else { break };
            let untouched = outbox.is_empty();
            let (due_ns, noted) = (schedule.due_ns(), &mut self.sessions[session]);
            let bytes = outbox.append(|bytes, at| phase.source.encode(noted, due_ns, bytes, at));
            self.sessions[session].note(due_ns, 1);
            if untouched {
                self.filled.push(session);
            }
            self.tally.due += u64::from(due_ns >= phase.open_ns);
            self.sent_bytes += bytes as u64;
            let told = u32::from(phase.source.told());
            self.outstanding += u64::from(1 - told);
            self.note_told(window, told, now_ns);
            window.left -= 1;
            schedule.advance();
        }
        for session in self.filled.drain(..) {
            self.ring.send(session).map_err(Failure::Ring)?;
        }
        Ok(())
    }

    fn session_with_room(&mut self, depth: u32, needed_bytes: usize) -> Option<usize> {
        let count = self.sessions.len();
        for _ in 0..count {
            let session = self.cursor;
            self.cursor = if session + 1 == count { 0 } else { session + 1 };
            let noted = &self.sessions[session];
            if noted.outstanding() < depth
                && noted.may_send()
                && let Some(outbox) = self.ring.outbox(session)
                && outbox.room_bytes() >= needed_bytes
            {
                return Some(session);
            }
        }
        None
    }

    /// Whether to end without the replies that are owed.
    fn given_up(&mut self, window: &Window, now_ns: u64) -> Result<bool, Failure> {
        if self.gate.failed() {
            return Ok(true);
        }
        let quiet_ns = now_ns.saturating_sub(self.quiet_since_ns);
        let waits = self.outstanding > 0 || !self.sessions.iter().all(Session::may_send);
        if !waits || quiet_ns < self.timeout_ns {
            return Ok(false);
        }
        if window.state == State::Closed {
            // The window is over, so its measurements stand; the report says what is missing.
            return Ok(true);
        }
        Err(Failure::Silent { outstanding: self.outstanding, quiet_ns })
    }
}

/// Records the requests that fell due in a window and were not sent before it closed, with the time
/// they had waited by then; returns their number.
///
/// A backlog from the warm-up comes before them in the schedule and is passed over.
fn leave_behind(
    schedule: &mut Schedule,
    open_ns: u64,
    close_ns: u64,
    latency: &mut Histogram<u64>,
) -> u64 {
    let mut late = 0;
    while schedule.due_ns() < close_ns {
        if schedule.due_ns() >= open_ns {
            latency.saturating_record(close_ns - schedule.due_ns());
            late += 1;
        }
        schedule.advance();
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_the_window_count_and_those_of_the_warm_up_do_not() {
        const SECOND: u64 = 1_000_000_000;
        let mut schedule = Schedule::constant(0, 1_000.0, 0, 1);
        let mut tally = Tally::new();
        let late = leave_behind(&mut schedule, SECOND, 3 * SECOND, &mut tally.latency);
        assert_eq!((late, tally.latency.len()), (2_000, 2_000));
        assert!(tally.latency.max().abs_diff(2 * SECOND) < SECOND / 500);
        assert_eq!(schedule.due_ns(), 3 * SECOND);
    }
}
