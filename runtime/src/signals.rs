//! SIGTERM and Ctrl-C.

use std::io;
use std::sync::mpsc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;

/// The stop signals of this process, in the order of their arrival.
pub(crate) struct Signals {
    arrivals: mpsc::Receiver<()>,
}

impl Signals {
    /// Catches them from now on.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut caught = Caught::new([SIGINT, SIGTERM])?;
        let (arrived, arrivals) = mpsc::channel();
        thread::Builder::new().name("coreside-signals".to_owned()).spawn(move || {
            for _ in caught.forever() {
                if arrived.send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { arrivals })
    }

    /// Waits for the next one.
    pub(crate) fn wait(&self) {
        // The sending thread lives as long as this receiver.
        let _ = self.arrivals.recv();
    }

    /// Runs `then` at the next one, on a thread of its own.
    pub(crate) fn on_next(self, then: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            self.wait();
            then();
        });
    }
}
