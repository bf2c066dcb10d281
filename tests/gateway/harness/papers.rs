//! Certificates and keys for tests, made anew each time.

use std::path::PathBuf;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::Badge;

/// A folder with certificates that issue themselves, as `NAME.pem` and `NAME.key`.
#[derive(Debug)]
pub struct Papers(tempfile::TempDir);

impl Papers {
    pub fn new() -> Papers {
        Papers(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Makes one for these names, or puts it in the place of the one that is there.
    pub fn issue(&self, file: &str, names: &[&str]) -> &Papers {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        // The key first, and both in one move each, as tools that renew certificates do.
        for (kind, text) in [("key", made.signing_key.serialize_pem()), ("pem", made.cert.pem())] {
            let new = self.path("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, self.path(&format!("{file}.{kind}"))).unwrap();
        }
        self
    }

    /// A listener with these certificates, in this order.
    pub fn listener(&self, files: &[&str], more: &str) -> String {
        let one = |file: &&str| {
            let path = |kind| self.path(&format!("{file}.{kind}")).display().to_string();
            format!("{{ file = \"{}\", key = \"{}\" }}", path("pem"), path("key"))
        };
        let certificates: Vec<String> = files.iter().map(one).collect();
        // The whole suite, with sessions that the kernel has: scripts/ktls-in-a-vm.
        let is_kernels = std::env::var_os("RINGWAY_TEST_KTLS").is_some();
        let kernel =
            if is_kernels && !more.contains("kernel =") { ", kernel = \"auto\"" } else { "" };
        format!(
            "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ certificates = [{}]{more}{kernel} }}\n",
            certificates.join(", ")
        )
    }

    pub fn certificate(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{file}.pem"))).unwrap()
    }

    /// A client that trusts these and nobody else.
    pub fn trusting(&self, files: &[&str]) -> ClientConfig {
        self.showing(files, None)
    }

    /// The same that shows a certificate of its own.
    pub fn showing(&self, files: &[&str], badge: Option<&Badge>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        files.iter().for_each(|file| roots.add(self.certificate(file)).unwrap());
        let builder = ClientConfig::builder().with_root_certificates(roots);
        match badge {
            None => builder.with_no_client_auth(),
            Some(badge) => builder
                .with_client_auth_cert(vec![badge.certificate.clone()], badge.key.clone_key())
                .unwrap(),
        }
    }
}
