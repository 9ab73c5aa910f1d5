//! Who may call what, by the names in certificates.

use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use webpki::EndEntityCert;

/// What clients may call, by a name in their certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<(String, Vec<String>)>);

/// What one client may call.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// Names of messages and commands; one that ends with `*` stands for all that begin like it.
    patterns: Vec<String>,
}

impl Rules {
    pub(super) fn add(&mut self, client: String, messages: impl Iterator<Item = String>) {
        self.0.push((client, messages.collect()));
    }

    /// The rights of whoever has shown these certificates; `None`: everybody may call everything.
    pub(super) fn rights(&self, shown: Option<&[CertificateDer<'_>]>) -> Option<Arc<Rights>> {
        if self.0.is_empty() {
            return None;
        }
        let mut rights = Rights::default();
        // The first one is the client's own. It was verified in the handshake.
        let own = shown.and_then(<[_]>::first);
        if let Some(own) = own.and_then(|own| EndEntityCert::try_from(own).ok()) {
            for name in own.valid_dns_names().chain(own.valid_uri_names()) {
                let of_name = self.0.iter().filter(|(client, _)| client == name);
                rights.patterns.extend(of_name.flat_map(|(_, messages)| messages.iter().cloned()));
            }
        }
        Some(Arc::new(rights))
    }
}

impl Rights {
    /// Whether the message of this name may be called.
    pub(crate) fn allow(&self, name: impl Iterator<Item = u8> + Clone) -> bool {
        self.patterns.iter().any(|pattern| covers(pattern.as_bytes(), name.clone()))
    }
}

fn covers(pattern: &[u8], mut name: impl Iterator<Item = u8>) -> bool {
    let stem = pattern.strip_suffix(b"*");
    let begins_so = stem.unwrap_or(pattern).iter().all(|byte| name.next() == Some(*byte));
    begins_so && (stem.is_some() || name.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_whole_names_or_beginnings() {
        let allow = |pattern: &str, name: &str| covers(pattern.as_bytes(), name.bytes());
        assert!(allow("GET", "GET"));
        assert!(!allow("GET", "GETSET") && !allow("GET", "GE") && !allow("GET", "get"));
        assert!(allow("Account.*", "Account.deposit") && allow("Account.*", "Account."));
        assert!(!allow("Account.*", "Account") && !allow("Account.*", "Accounts.deposit"));
        assert!(allow("*", "") && allow("*", "anything"));
        assert!(!allow("", "anything") && !allow("**", "x"));
    }

    #[test]
    fn without_rules_everybody_may_call_everything_and_with_them_nobody_unnamed() {
        let mut rules = Rules::default();
        assert!(rules.rights(None).is_none());
        rules.add("somebody".to_owned(), ["*".to_owned()].into_iter());
        let rights = rules.rights(None).expect("there are rules");
        assert!(!rights.allow("GET".bytes()));
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        let rights = rules.rights(Some(&[garbage])).expect("there are rules");
        assert!(!rights.allow("GET".bytes()));
    }
}
