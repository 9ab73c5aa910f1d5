//! A run from the first connection to the merged measurements.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::cores;
use crate::driver::Driver;
use crate::failure::Failure;
use crate::gate::{Gate, Stage};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::ring::Ring;
use crate::session::Session;
use crate::tally::Tally;

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Ctrl-C ended it early.
    pub(crate) interrupted: bool,
}

/// Runs `plan` on threads of its own and shows its progress meanwhile.
///
/// # Errors
/// The failure of the thread that failed first.
pub(crate) fn run(plan: &Plan, gate: &Gate, quiet: bool) -> Result<Outcome, Failure> {
    /// Often enough to look alive, too seldom to be measured.
    const LOOK_AGAIN: Duration = Duration::from_millis(250);
    cores::raise_open_files();
    if !plan.cores.is_empty() {
        // This thread must not disturb the target either.
        cores::pin(&plan.cores).map_err(|error| Failure::Pin { core: plan.cores[0], error })?;
    }
    let main = std::thread::current();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let main = main.clone();
                scope.spawn(move || {
                    let result = load(plan, gate, thread);
                    if result.is_err() {
                        gate.fail();
                    }
                    main.unpark();
                    result
                })
            })
            .collect();
        let mut progress = Progress::new(plan, quiet);
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(LOOK_AGAIN);
            progress.update(gate);
        }
        progress.finish();
        let tally = merge(threads)?;
        Ok(Outcome { tally, interrupted: gate.stop.load(Ordering::Relaxed) })
    })
}

/// Merges the measurements; of several failures, the one that is nobody else's is the cause.
fn merge(threads: Vec<ScopedJoinHandle<'_, Result<Tally, Failure>>>) -> Result<Tally, Failure> {
    let mut sum = Tally::new();
    let mut failure: Option<Failure> = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(tally)) => sum.merge(&tally),
            Ok(Err(error)) if matches!(failure, None | Some(Failure::Elsewhere)) => {
                failure = Some(error);
            }
            Ok(Err(_)) => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    failure.map_or(Ok(sum), Err)
}

/// The life of one load thread.
fn load(plan: &Plan, gate: &Gate, thread: usize) -> Result<Tally, Failure> {
    if !plan.cores.is_empty() {
        let core = plan.cores[thread % plan.cores.len()];
        cores::pin(&[core]).map_err(|error| Failure::Pin { core, error })?;
    }
    let targets = plan.connections_of(thread);
    let sockets = targets.iter().map(|&target| connect(target, plan.timeout));
    let sockets: Vec<TcpStream> = sockets.collect::<Result<_, _>>()?;
    let sessions = sockets.iter().map(|_| Session::new(plan.depth_max())).collect();
    let ring = Ring::new(sockets, plan.outbox_bytes()).map_err(Failure::Ring)?;
    let mut driver = Driver::new(gate, thread, ring, sessions, plan.timeout);

    let begin_ns = gate.enter(Stage::Populating).ok_or(Failure::Elsewhere)?;
    if let Some(mut phase) = plan.populating_phase(thread, begin_ns) {
        let tally = driver.run(&mut phase)?;
        if let Some((text, _)) = tally.errors.texts().next() {
            return Err(Failure::Refused { count: tally.errors.count(), text: text.to_owned() });
        }
    }
    let begin_ns = gate.enter(Stage::Loading).ok_or(Failure::Elsewhere)?;
    gate.publish(thread, 0);
    let tally = driver.run(&mut plan.loading_phase(thread, begin_ns))?;
    if gate.failed() { Err(Failure::Elsewhere) } else { Ok(tally) }
}

fn connect(target: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
    let connect = || {
        let socket = TcpStream::connect_timeout(&target, timeout)?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connect().map_err(|error| Failure::Connect { target, error })
}
