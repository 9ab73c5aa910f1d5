//! SIGTERM and Ctrl-C.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;

/// The stop signals of this process, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Signals {
    arrivals: Mutex<mpsc::Receiver<()>>,
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
        Ok(Self { arrivals: Mutex::new(arrivals) })
    }

    /// Waits for the next one, for so long. Returns whether it came.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        self.arrivals().recv_timeout(limit).is_ok()
    }

    fn arrivals(&self) -> MutexGuard<'_, mpsc::Receiver<()>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `then` at the next one, on a thread of its own.
    pub(crate) fn on_next(self, then: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            // The sending thread lives as long as this receiver.
            if self.arrivals().recv().is_ok() {
                then();
            }
        });
    }
}
