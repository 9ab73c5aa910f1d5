//! How fast a session takes commands and writes replies, without sockets and without a shard's
//! work: `cargo bench -p coreside-net` (add `-- 2` for two seconds per line).

use std::hint::black_box;
use std::time::{Duration, Instant};

use coreside_net::resp::{Entry, Intake, Limits, Sessions};
use coreside_net::sessions::SessionId;
use coreside_shard::{Args, CallError, Each, Outside, Ticket};

/// Sessions that take turns, so that none stays in the nearest cache.
const SESSIONS: usize = 64;

fn main() {
    // Cargo passes `--bench`; a run by hand may pass seconds. By default it is quick, for CI.
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(0.2);
    let shapes: [(&str, &[u8]); 4] = [
        ("GET, 36 bytes", b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n"),
        ("ACCOUNT.DEPOSIT", b"*3\r\n$15\r\nACCOUNT.DEPOSIT\r\n$5\r\n12345\r\n$3\r\n100\r\n"),
        ("GET inline", b"GET key:000000000042\r\n"),
        ("PING", b"*1\r\n$4\r\nPING\r\n"),
    ];
    for (name, command) in shapes {
        for depth in [1, 16, 64] {
            for order in [Order::Sent, Order::Swapped] {
                let (count, time) = measure(command, depth, order, seconds);
                let ns = time.as_nanos() as f64 / count as f64;
                println!("{name:16} depth {depth:2} {order:?}: {ns:6.1} ns, {:5.1} M/s", 1e3 / ns);
            }
        }
    }
}

/// In which order the answers come.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// As the commands were sent: the case of one shard.
    Sent,
    /// Every other answer before its turn: as when half of the keys are in another shard.
    Swapped,
}

fn measure(command: &[u8], depth: usize, order: Order, seconds: f64) -> (u64, Duration) {
    let mut sessions = Sessions::new(Limits::default());
    let ids: Vec<SessionId> = (0..SESSIONS).filter_map(|_| sessions.open(None)).collect();
    let mut sink = Sink { tickets: Vec::new() };
    let input = command.repeat(depth);
    let (mut count, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        for _ in 0..16 {
            for id in &ids {
                sessions.receive(*id, &input, &mut sink);
            }
            if let Order::Swapped = order {
                sink.tickets.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            for ticket in sink.tickets.drain(..) {
                sessions.answer(ticket, Ok(&42_i64));
            }
            while let Some(id) = sessions.next_dirty() {
                let len = sessions.begin_send(id).map_or(0, <[u8]>::len);
                sessions.end_send(id, len);
            }
            count += (SESSIONS * depth) as u64;
        }
    }
    (count, start.elapsed())
}

/// Takes every request and does nothing.
struct Sink {
    tickets: Vec<Ticket>,
}

impl Intake for Sink {
    type Id = u8;

    fn find(&self, name: &[u8]) -> Option<Entry<u8>> {
        let known = [&b"GET"[..], b"ACCOUNT.DEPOSIT"];
        let id = known.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(Entry { id: id as u8, each: Each::One, sweep: false })
    }

    fn ask(
        &mut self,
        id: u8,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        black_box((id, key, args.count()));
        self.tickets.push(ticket);
        Ok(())
    }

    fn ask_sweep(
        &mut self,
        _id: u8,
        _args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        self.tickets.push(ticket);
        Ok(())
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn visit_commands(&self, _visit: &mut dyn FnMut(&str, Each, bool)) {}
}
