//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Connections by where they come from. Never holds more entries than there are connections.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    // Keyed at random: peers choose addresses.
    counts: HashMap<Source, u32>,
}

/// Where a connection comes from, as far as connections are counted together: an IPv4 address, or
/// the 64 bits of an IPv6 address that name its network, in which a peer has as many addresses as
/// it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(u128);

impl Source {
    /// `None` for whoever is not counted: the machine itself, on which proxies and tests run.
    pub(super) fn of(peer: Option<SocketAddr>) -> Option<Self> {
        match peer?.ip().to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(Self(ip.to_ipv6_mapped().to_bits())),
            IpAddr::V6(ip) => Some(Self(ip.to_bits() >> 64 << 64)),
        }
    }
}

impl Addresses {
    /// Counts one connection more, unless there are `max` of its source.
    #[must_use]
    pub(super) fn admit(&mut self, source: Option<Source>, max: u32) -> bool {
        let Some(source) = source else { return true };
        let count = self.counts.get(&source).copied().unwrap_or(0);
        if count >= max {
            return false;
        }
        self.counts.insert(source, count + 1);
        true
    }

    /// Counts one connection less.
    pub(super) fn release(&mut self, source: Option<Source>) {
        let Some(source) = source else { return };
        match self.counts.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Option<Source> {
        Source::of(Some(text.parse().expect("an address")))
    }

    #[test]
    fn networks_are_counted_and_the_machine_itself_is_not() {
        assert_eq!(source("127.0.0.1:1"), None);
        assert_eq!(source("[::ffff:127.0.0.1]:1"), None);
        assert_eq!(source("[::1]:1"), None);
        assert_eq!(Source::of(None), None);
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.1]:2"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff]:1"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn counts_are_forgotten_with_their_connections() {
        let mut addresses = Addresses::default();
        let (one, other) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert!(addresses.admit(one, 2) && addresses.admit(one, 2) && addresses.admit(other, 2));
        assert!(!addresses.admit(one, 2));
        addresses.release(one);
        assert!(addresses.admit(one, 2));
        for source in [one, one, other] {
            addresses.release(source);
        }
        assert!(addresses.counts.is_empty());
    }
}
