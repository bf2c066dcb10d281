//! Keys that requests are signed with, and what verifies them (RFC 9421 §3.3).

use std::collections::HashMap;

use aws_lc_rs::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
    },
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The shortest secret, in bytes: that of the hash.
const SECRET_BYTES_MIN: usize = 32;

/// How requests are signed, by the names of the registry (RFC 9421 §6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha256,
    Ed25519,
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    RsaPssSha512,
    RsaV15Sha256,
}

use Algorithm::*;

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            HmacSha256 => "hmac-sha256",
            Ed25519 => "ed25519",
            EcdsaP256Sha256 => "ecdsa-p256-sha256",
            EcdsaP384Sha384 => "ecdsa-p384-sha384",
            RsaPssSha512 => "rsa-pss-sha512",
            RsaV15Sha256 => "rsa-v1_5-sha256",
        }
    }

    /// What verifies a signature of a public key; `None`: its key is a secret.
    fn verifier(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            HmacSha256 => return None,
            Ed25519 => &ED25519,
            EcdsaP256Sha256 => &ECDSA_P256_SHA256_FIXED,
            EcdsaP384Sha384 => &ECDSA_P384_SHA384_FIXED,
            RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
            RsaV15Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        })
    }

    pub fn is_of_secret(self) -> bool {
        self.verifier().is_none()
    }
}

/// One key.
pub struct Key {
    /// Its name (`keyid`).
    pub id: Box<str>,
    /// None other is accepted with it.
    pub algorithm: Algorithm,
    /// Whose it is.
    pub consumer: u32,
    material: Material,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm.name())
    }
}

/// What verifies.
pub enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Material {
    /// A secret that is shared with whoever signs.
    pub fn secret(secret: &[u8]) -> Result<Material, String> {
        match secret.len() {
            0..SECRET_BYTES_MIN => Err(format!(
                "it has {} bytes, fewer than the hash ({SECRET_BYTES_MIN})",
                secret.len()
            )),
            _ => Ok(Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))),
        }
    }

    /// The one public key of a PEM text (`PUBLIC KEY` or `CERTIFICATE`).
    pub fn public(pem: &[u8], algorithm: Algorithm) -> Result<Material, String> {
        let mut keys: Vec<Vec<u8>> = SubjectPublicKeyInfoDer::pem_slice_iter(pem)
            .filter_map(|key| Some(key.ok()?.as_ref().to_vec()))
            .collect();
        for der in CertificateDer::pem_slice_iter(pem).flatten() {
            let (_, certificate) = X509Certificate::from_der(&der)
                .map_err(|_| "the certificate is not well-formed")?;
            keys.push(certificate.public_key().raw.to_vec());
        }
        let [key] = keys.as_slice() else {
            return Err(format!(
                "there {} in it",
                match keys.len() {
                    0 => "is no public key (PUBLIC KEY or CERTIFICATE in PEM)".to_owned(),
                    n => format!("are {n} public keys"),
                }
            ));
        };
        let how = algorithm.verifier().ok_or("its algorithm is one of secrets")?;
        let parsed = ParsedPublicKey::new(how, key);
        parsed
            .map(Material::Public)
            .map_err(|_| format!("it is no public key for {}", algorithm.name()))
    }
}

impl Key {
    pub fn new(id: &str, algorithm: Algorithm, consumer: u32, material: Material) -> Key {
        Key { id: id.into(), algorithm, consumer, material }
    }

    /// Whether `signature` over `base` is this key's.
    pub fn verifies(&self, base: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, base, signature).is_ok(),
            Material::Public(key) => key.verify_sig(base, signature).is_ok(),
        }
    }
}

/// All keys, by their names.
#[derive(Debug, Default)]
pub struct Keys(HashMap<Box<str>, Key>);

impl Keys {
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// A name is that of one key: the first one stays.
    pub fn add(&mut self, key: Key) {
        self.0.entry(key.id.clone()).or_insert(key);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
