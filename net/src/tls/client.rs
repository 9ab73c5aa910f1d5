//! What a client secures its connection with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use super::channel::Channel;
use super::error::TlsError;
use super::files;

/// Whom a client trusts, and how it shows who it is. The files are read for each connection, so
/// renewed ones are used from the next on.
#[derive(Clone, Debug)]
pub struct ClientTls {
    ca: PathBuf,
    server_name: Option<String>,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// Trusts nodes with a certificate from an authority in this file (PEM) for the address at
    /// which they are met.
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self { ca: ca.into(), server_name: None, certificate: None }
    }

    /// The name that the node's certificate has to hold instead of its address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Shows this certificate, with the chain above it, to nodes that ask for one: files in PEM.
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// The client's side of a new connection to `address`.
    pub(crate) fn connect(&self, address: IpAddr) -> Result<Channel, TlsError> {
        let name = match &self.server_name {
            Some(name) => {
                ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))?
            }
            None => ServerName::from(address.to_canonical()),
        };
        let builder = ClientConfig::builder_with_provider(files::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(files::roots(&self.ca, &files::read(&self.ca)?)?);
        let mut config = match &self.certificate {
            Some((certificate, key)) => builder.with_client_auth_cert(
                files::certificates(certificate, &files::read(certificate)?)?,
                files::key(key, &files::read(key)?)?,
            )?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let connection = rustls::ClientConnection::new(Arc::new(config), name)?;
        Ok(Channel::new(connection.into(), Arc::default()))
    }
}
