//! Which driver the tests run on: both, by `cargo test` and `CORESIDE_DRIVER=epoll cargo test`.

use coreside_net::{DriverKind, NetConfig};

/// The same, on the driver that was asked for.
pub(crate) fn driven(config: NetConfig) -> NetConfig {
    let driver = match std::env::var("CORESIDE_DRIVER").as_deref() {
        Ok("epoll") => DriverKind::Epoll,
        Ok("uring") | Err(_) => DriverKind::Uring,
        Ok(other) => panic!("CORESIDE_DRIVER is uring or epoll, not {other}"),
    };
    NetConfig { driver, ..config }
}
