//! What the connections of a node are secured with, renewed when its files change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::channel::Channel;
use super::error::TlsError;
use super::files;
use super::rights::Rules;

/// Where the certificates of a node are, and what it asks of its clients.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// Clients without a certificate are served as well.
    anonymous_clients: bool,
    rules: Arc<Rules>,
}

impl TlsConfig {
    /// A node with this certificate and the chain above it, and its private key: files in PEM.
    /// Clients need no certificate.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            anonymous_clients: false,
            rules: Arc::default(),
        }
    }

    /// Serves only clients with a certificate from an authority in this file.
    pub fn client_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(file.into());
        self.anonymous_clients = false;
        self
    }

    /// Serves clients without a certificate too; one that is shown has to be from an authority in
    /// this file.
    pub fn optional_client_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(file.into());
        self.anonymous_clients = true;
        self
    }

    /// Lets clients whose certificate holds `client`, as a DNS name or a URI, call these messages:
    /// `Type.method` of the native protocol, commands of RESP in capitals; `Account.*` stands for
    /// all that begin like it. As soon as there is one rule, nobody may call what none of its rules
    /// names. What a node says of itself (`PING`, `INFO`) is for everybody.
    pub fn allow<T: Into<String>>(
        mut self,
        client: impl Into<String>,
        messages: impl IntoIterator<Item = T>,
    ) -> Self {
        let messages = messages.into_iter().map(Into::into);
        Arc::make_mut(&mut self.rules).add(client.into(), messages);
        self
    }

    fn read(&self) -> Result<Files, TlsError> {
        Ok(Files {
            certificate: files::read(&self.certificate)?,
            key: files::read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(files::read).transpose()?,
        })
    }

    fn build(&self, files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = files::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(path), Some(pem)) => {
                let roots = files::roots(path, pem)?;
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                if self.anonymous_clients {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| rustls::Error::General(error.to_string()))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(
            files::certificates(&self.certificate, &files.certificate)?,
            files::key(&self.key, &files.key)?,
        )?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// What the connections of a node are secured with.
pub struct ServerTls {
    config: TlsConfig,
    current: Mutex<Current>,
    /// Dropped with the rest, which ends the thread that renews.
    renewing: Mutex<Option<Sender<()>>>,
}

struct Current {
    files: Files,
    tls: Arc<ServerConfig>,
    trouble: Option<Trouble>,
}

/// The content of the files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Why the files are not in use as they are; said once.
#[derive(PartialEq, Eq)]
enum Trouble {
    Unreadable,
    Refused(Files),
}

/// What a look at the files has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// They are in use, or are known not to be usable.
    Unchanged,
    /// They have changed and are in use from now on, for new connections.
    Renewed,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(config: TlsConfig) -> Result<Arc<Self>, TlsError> {
        let files = config.read()?;
        let tls = config.build(&files)?;
        let current = Mutex::new(Current { files, tls, trouble: None });
        Ok(Arc::new(Self { config, current, renewing: Mutex::new(None) }))
    }

    /// Reads the files again and takes over what has changed. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Why the files cannot be used; once for each state of them.
    pub fn renew(&self) -> Result<Renewal, TlsError> {
        let files = match self.config.read() {
            Ok(files) => files,
            Err(error) => return self.current().note(Trouble::Unreadable, error),
        };
        {
            let mut current = self.current();
            if current.files == files {
                current.trouble = None;
                return Ok(Renewal::Unchanged);
            }
        }
        match self.config.build(&files) {
            Ok(tls) => {
                *self.current() = Current { files, tls, trouble: None };
                Ok(Renewal::Renewed)
            }
            Err(error) => self.current().note(Trouble::Refused(files), error),
        }
    }

    /// Looks at the files from time to time, on a thread of its own that ends with the last use of
    /// `self`, and reports what comes of it.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn keep_fresh(
        self: &Arc<Self>,
        every: Duration,
        mut report: impl FnMut(Result<(), TlsError>) + Send + 'static,
    ) -> io::Result<()> {
        let (in_use, ended) = mpsc::channel();
        let tls = Arc::downgrade(self);
        thread::Builder::new().name("coreside-tls".to_owned()).spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let Some(tls) = tls.upgrade() else { return };
                match tls.renew() {
                    Ok(Renewal::Unchanged) => {}
                    Ok(Renewal::Renewed) => report(Ok(())),
                    Err(error) => report(Err(error)),
                }
            }
        })?;
        *self.renewing.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_use);
        Ok(())
    }

    /// The node's side of a new connection.
    pub(crate) fn accept(&self) -> Option<Channel> {
        let tls = Arc::clone(&self.current().tls);
        // Fails only where the system has no randomness.
        let connection = rustls::ServerConnection::new(tls).ok()?;
        Some(Channel::new(connection.into(), Arc::clone(&self.config.rules)))
    }

    /// Nothing that is done under the lock can leave it half changed.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn note(&mut self, trouble: Trouble, error: TlsError) -> Result<Renewal, TlsError> {
        if self.trouble.as_ref() == Some(&trouble) {
            return Ok(Renewal::Unchanged);
        }
        self.trouble = Some(trouble);
        Err(error)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("config", &self.config).finish_non_exhaustive()
    }
}
