//! Authorities and certificates for tests, and files that are gone with them.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("randomness");
        Self(CertifiedIssuer::self_signed(params, key).expect("valid parameters"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certifies somebody by `name`: an address, a DNS name or a URI.
    pub(crate) fn certify(&self, name: &str) -> Identity {
        self.certify_until(name, 4000)
    }

    /// Certifies somebody whose certificate has run out long ago.
    pub(crate) fn certify_expired(&self, name: &str) -> Identity {
        self.certify_until(name, 2001)
    }

    fn certify_until(&self, name: &str, year: i32) -> Identity {
        let is_uri = name.contains("://");
        let names = if is_uri { Vec::new() } else { vec![name.to_owned()] };
        let mut params = CertificateParams::new(names).expect("a name");
        if is_uri {
            params.subject_alt_names.push(SanType::URI(name.try_into().expect("ASCII")));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.signed_by(&key, &self.0).expect("valid parameters");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A folder of its own, which is gone when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("coreside-certificates-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder of our own");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the folder is there");
        path
    }

    /// Puts `NAME.crt` and `NAME.key`.
    pub(crate) fn put_identity(&self, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
        let certificate = self.put(&format!("{name}.crt"), &identity.certificate);
        (certificate, self.put(&format!("{name}.key"), &identity.key))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}
