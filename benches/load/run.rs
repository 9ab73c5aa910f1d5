//! A run from the first connection to the merged measurements.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use coreside_shard::Placement;

use crate::arguments::Protocol;
use crate::cores;
use crate::driver::Driver;
use crate::failure::Failure;
use crate::gate::{Gate, Stage};
use crate::native::calls::Calls;
use crate::native::frames::Frames;
use crate::native::handshake::{self, HandshakeError};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::ring::Ring;
use crate::session::Session;
use crate::source::Route;
use crate::tally::Tally;

/// How a measurement ended.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Ctrl-C ended it early.
    pub(crate) interrupted: bool,
}

/// What a load thread is told to measure: an open loop at this rate, or a closed one.
type Order = Option<f64>;

/// The load threads, connected and populated, or about to be.
pub(crate) struct Crew<'a> {
    gate: &'a Gate,
    progress: Progress<'a>,
    orders: Vec<Sender<Order>>,
    results: Vec<Receiver<Result<Tally, Failure>>>,
}

/// Runs the load threads of `plan` while `conduct` has them measure, once or several times over the
/// same connections.
///
/// # Errors
/// The failure of the thread that failed first, or what `conduct` says.
pub(crate) fn run<T>(
    plan: &Plan,
    gate: &Gate,
    quiet: bool,
    conduct: impl FnOnce(&mut Crew<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    cores::raise_open_files();
    if !plan.cores.is_empty() {
        // This thread must not disturb the target either.
        cores::pin(&plan.cores).map_err(|error| Failure::Pin { core: plan.cores[0], error })?;
    }
    std::thread::scope(|scope| {
        let (mut orders, mut results) = (Vec::new(), Vec::new());
        for thread in 0..plan.threads {
            let (order, inbox) = mpsc::channel();
            let (outbox, result) = mpsc::channel();
            orders.push(order);
            results.push(result);
            scope.spawn(move || {
                if let Err(error) = load(plan, gate, thread, &inbox, &outbox) {
                    gate.fail();
                    // Nobody hears it only if the main thread has failed too.
                    let _ = outbox.send(Err(error));
                }
            });
        }
        let mut crew = Crew { gate, progress: Progress::new(plan, quiet), orders, results };
        let conducted = conduct(&mut crew);
        crew.progress.finish();
        // Threads end when no order can come any more; those that wait for another must not.
        if conducted.is_err() {
            gate.fail();
        }
        drop(crew);
        conducted
    })
}

impl Crew<'_> {
    /// Measures an open loop at this rate, or a closed one.
    ///
    /// # Errors
    /// The failure of the thread that failed first.
    pub(crate) fn measure(&mut self, rate: Option<f64>) -> Result<Outcome, Failure> {
        for order in &self.orders {
            // A thread that is gone has left its failure behind.
            let _ = order.send(rate);
        }
        let mut sum = Tally::new();
        let mut failure: Option<Failure> = None;
        for at in 0..self.results.len() {
            match self.await_result(at) {
                Ok(tally) => sum.merge(&tally),
                // Of several failures, the one that is nobody else's is the cause.
                Err(error) if matches!(failure, None | Some(Failure::Elsewhere)) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        let interrupted = self.gate.stopping();
        failure.map_or(Ok(Outcome { tally: sum, interrupted }), Err)
    }

    /// The result of one thread, while the progress of all is shown.
    fn await_result(&mut self, at: usize) -> Result<Tally, Failure> {
        /// Often enough to look alive, too seldom to be measured.
        const LOOK_AGAIN: Duration = Duration::from_millis(250);
        loop {
            match self.results[at].recv_timeout(LOOK_AGAIN) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.progress.update(self.gate),
                // It has panicked, and the scope passes that on.
                Err(RecvTimeoutError::Disconnected) => {
                    self.gate.fail();
                    return Err(Failure::Elsewhere);
                }
            }
        }
    }
}

/// The life of one load thread.
fn load(
    plan: &Plan,
    gate: &Gate,
    thread: usize,
    orders: &Receiver<Order>,
    results: &Sender<Result<Tally, Failure>>,
) -> Result<(), Failure> {
    if !plan.cores.is_empty() {
        let core = plan.cores[thread % plan.cores.len()];
        cores::pin(&[core]).map_err(|error| Failure::Pin { core, error })?;
    }
    let targets = plan.connections_of(thread);
    let route = if plan.shard_aware { Some(find_route(plan)?) } else { None };
    let sockets = targets.iter().map(|&(_, target)| connect(target, plan.timeout));
    let sockets: Vec<TcpStream> = sockets.collect::<Result<_, _>>()?;
    let shards = route.as_ref().map(|(shards, _)| *shards);
    let (sessions, numbers) = greet(plan, &targets, &sockets, shards)?;
    let ring = Ring::new(sockets, plan.outbox_bytes()).map_err(Failure::Ring)?;
    let mut driver = Driver::new(gate, thread, ring, sessions, plan.timeout);

    let begin_ns = gate.enter(Stage::Populating).ok_or(Failure::Elsewhere)?;
    if let Some(mut phase) = plan.populating_phase(thread, begin_ns) {
        phase.source.renumber(&numbers);
        let tally = driver.run(&mut phase)?;
        if let Some((text, _)) = tally.errors.texts().next() {
            return Err(Failure::Refused { count: tally.errors.count(), text: text.to_owned() });
        }
    }
    while let Ok(rate) = orders.recv() {
        let begin_ns = gate.enter(Stage::Loading).ok_or(Failure::Elsewhere)?;
        gate.publish(thread, 0);
        let mut phase = plan.loading_phase(thread, begin_ns, rate);
        phase.source.renumber(&numbers);
        phase.source.aim(route.as_ref().map(|(_, route)| route.clone()));
        let tally = driver.run(&mut phase)?;
        if gate.failed() {
            return Err(Failure::Elsewhere);
        }
        if results.send(Ok(tally)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Asks the target how many shards it has, and how keys are shared out among them.
fn find_route(plan: &Plan) -> Result<(u16, Route), Failure> {
    let target = plan.targets[0];
    let failed = |error| Failure::Handshake { target, error };
    let socket = connect(target, plan.timeout)?;
    let granted = handshake::shake(&socket, None, plan.messages(), plan.depth_max(), plan.timeout)
        .map_err(failed)?;
    let (shards, connections) = (granted.shards, plan.connections);
    let hash_key = granted.hash_key.ok_or(HandshakeError::NoHashKey).map_err(failed)?;
    if shards == 0 || connections < usize::from(shards) {
        return Err(failed(HandshakeError::FewConnections { connections, shards }));
    }
    let placement = Placement::even(shards);
    Ok((shards, Route { hash_key, placement, wide: plan.wide_keys }))
}

/// Sessions for new connections, and the numbers by which the targets know the plan's messages.
/// The connections are shared out over `shards`, or go to whichever shard takes them.
fn greet(
    plan: &Plan,
    targets: &[(usize, SocketAddr)],
    sockets: &[TcpStream],
    shards: Option<u16>,
) -> Result<(Vec<Session>, Vec<u16>), Failure> {
    let depth = plan.depth_max();
    if plan.protocol == Protocol::Resp {
        return Ok((sockets.iter().map(|_| Session::resp(depth)).collect(), Vec::new()));
    }
    let refusals = plan.refusals();
    let mut numbers: Option<Vec<u16>> = None;
    let mut sessions = Vec::with_capacity(sockets.len());
    for (socket, &(connection, target)) in sockets.iter().zip(targets) {
        let shard = shards.map(|shards| (connection % usize::from(shards)) as u16);
        let granted = handshake::shake(socket, shard, plan.messages(), depth, plan.timeout)
            .map_err(|error| Failure::Handshake { target, error })?;
        if numbers.as_ref().is_some_and(|numbers| *numbers != granted.numbers) {
            return Err(Failure::Handshake { target, error: HandshakeError::OtherNumbers });
        }
        numbers = Some(granted.numbers);
        let frames = Frames::new(granted.frame_bytes_max, granted.tells_max, Arc::clone(&refusals));
        sessions.push(Session::Native { frames, calls: Calls::new(depth), shard });
    }
    Ok((sessions, numbers.unwrap_or_default()))
}

fn connect(target: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
    let connect = || {
        let socket = TcpStream::connect_timeout(&target, timeout)?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connect().map_err(|error| Failure::Connect { target, error })
}
