//! Where a node is, which may be somewhere else after it was started anew.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The addresses of a node.
pub(super) struct Addresses {
    look_up: Box<dyn Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync>,
    /// What was found last, and when it was looked up last.
    known: Mutex<(Arc<[SocketAddr]>, Option<Instant>)>,
}

/// What was looked up is believed for so long: all connections of a client are lost at once.
const FRESH: Duration = Duration::from_secs(1);

impl Addresses {
    pub(super) fn new(address: impl ToSocketAddrs + Send + Sync + 'static) -> Self {
        let look_up = Box::new(move || Ok(address.to_socket_addrs()?.collect()));
        Self { look_up, known: Mutex::default() }
    }

    /// The addresses as they are now; those of before while the system cannot tell.
    ///
    /// # Errors
    /// The system's, when there were none before.
    pub(super) fn get(&self) -> io::Result<Arc<[SocketAddr]>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (addresses, looked_up) = &mut *known;
        if looked_up.is_none_or(|at| at.elapsed() >= FRESH) {
            let found = (self.look_up)();
            *looked_up = Some(Instant::now());
            match found {
                Ok(found) if !found.is_empty() => *addresses = found.into(),
                Err(error) if addresses.is_empty() => {
                    *looked_up = None;
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(Arc::clone(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU16, Ordering};

    #[test]
    fn addresses_are_those_of_before_while_the_system_cannot_tell() {
        static PORT: AtomicU16 = AtomicU16::new(0);
        struct Name;
        impl ToSocketAddrs for Name {
            type Iter = std::option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                match PORT.load(Ordering::Relaxed) {
                    0 => Err(io::ErrorKind::NotFound.into()),
                    1 => Ok(None.into_iter()),
                    port => Ok(Some(([127, 0, 0, 1], port).into()).into_iter()),
                }
            }
        }
        let addresses = Addresses::new(Name);
        let get = |port| {
            PORT.store(port, Ordering::Relaxed);
            addresses.get().map(|found| found.iter().map(SocketAddr::port).collect::<Vec<_>>())
        };
        let forget = || addresses.known.lock().expect("no panic").1 = None;
        assert!(get(0).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert_eq!(get(7).ok(), Some(vec![7]), "an error is not believed for any time");
        assert_eq!(get(8).ok(), Some(vec![7]), "what was found is, for a moment");
        for (port, expected) in [(8, 8), (0, 8), (1, 8), (9, 9)] {
            forget();
            assert_eq!(get(port).ok(), Some(vec![expected]));
        }
    }
}
