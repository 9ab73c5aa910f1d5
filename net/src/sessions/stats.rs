//! What was counted.

/// What the sessions have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionsStats {
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Requests taken, wrong ones and those that the session answers itself included.
    pub requests: u64,
    /// Connections closed because the peer does not speak the protocol.
    pub protocol_errors: u64,
    /// Connections closed because they went beyond a limit.
    pub limit_closes: u64,
    /// Connections closed because they missed a deadline.
    pub timeouts: u64,
    /// Connections that were not opened because there were too many of their address.
    pub address_refusals: u64,
    /// Connections closed because of what they said instead of TLS, or in it.
    pub tls_failures: u64,
    /// Answers to connections that are gone.
    pub late_answers: u64,
}
