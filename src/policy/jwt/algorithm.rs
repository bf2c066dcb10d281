//! Algorithms of signatures (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). `none` is not one.

use aws_lc_rs::{hmac, signature as sign};

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// What a key has to be for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Secret,
    Rsa,
    Ec,
    Ed,
}

use Algorithm::*;

impl Family {
    pub fn algorithms(self) -> Vec<Algorithm> {
        let all = Algorithm::ALL.iter().map(|(algorithm, _)| *algorithm);
        all.filter(|algorithm| algorithm.family() == self).collect()
    }
}

impl Algorithm {
    pub const ALL: [(Algorithm, &'static str); 13] = [
        (Hs256, "HS256"),
        (Hs384, "HS384"),
        (Hs512, "HS512"),
        (Rs256, "RS256"),
        (Rs384, "RS384"),
        (Rs512, "RS512"),
        (Ps256, "PS256"),
        (Ps384, "PS384"),
        (Ps512, "PS512"),
        (Es256, "ES256"),
        (Es384, "ES384"),
        (Es512, "ES512"),
        (EdDsa, "EdDSA"),
    ];

    /// The algorithm of a name, which is case-sensitive.
    pub fn named(name: &str) -> Option<Algorithm> {
        match name {
            // The name that says which of the EdDSA it is; no other one is served.
            "Ed25519" => Some(EdDsa),
            // Early drafts called it so, and so do keys that are still around.
            "ES521" => Some(Es512),
            name => Self::ALL.iter().find(|(_, known)| *known == name).map(|(one, _)| *one),
        }
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }

    pub fn family(self) -> Family {
        match self {
            Hs256 | Hs384 | Hs512 => Family::Secret,
            Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512 => Family::Rsa,
            Es256 | Es384 | Es512 => Family::Ec,
            EdDsa => Family::Ed,
        }
    }

    /// The hash of a code over a secret, and the shortest secret for it (RFC 7518 §3.2).
    pub(super) fn code(self) -> Option<(hmac::Algorithm, usize)> {
        match self {
            Hs256 => Some((hmac::HMAC_SHA256, 32)),
            Hs384 => Some((hmac::HMAC_SHA384, 48)),
            Hs512 => Some((hmac::HMAC_SHA512, 64)),
            _ => None,
        }
    }

    /// How a signature by a private key is verified; RSA keys of 2048 bits and more.
    pub(super) fn signature(self) -> Option<&'static dyn sign::VerificationAlgorithm> {
        Some(match self {
            Hs256 | Hs384 | Hs512 => return None,
            Es256 => &sign::ECDSA_P256_SHA256_FIXED,
            Es384 => &sign::ECDSA_P384_SHA384_FIXED,
            Es512 => &sign::ECDSA_P521_SHA512_FIXED,
            EdDsa => &sign::ED25519,
            rsa => rsa.rsa()?,
        })
    }

    pub(super) fn rsa(self) -> Option<&'static sign::RsaParameters> {
        Some(match self {
            Rs256 => &sign::RSA_PKCS1_2048_8192_SHA256,
            Rs384 => &sign::RSA_PKCS1_2048_8192_SHA384,
            Rs512 => &sign::RSA_PKCS1_2048_8192_SHA512,
            Ps256 => &sign::RSA_PSS_2048_8192_SHA256,
            Ps384 => &sign::RSA_PSS_2048_8192_SHA384,
            Ps512 => &sign::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// Curve of a key (RFC 7518 §6.2.1.1), and bytes of one coordinate.
    pub(super) fn curve(self) -> Option<(&'static str, usize)> {
        match self {
            Es256 => Some(("P-256", 32)),
            Es384 => Some(("P-384", 48)),
            Es512 => Some(("P-521", 66)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (algorithm, name) in Algorithm::ALL {
            assert_eq!(Algorithm::named(name), Some(algorithm));
            assert_eq!(algorithm.name(), name);
            assert_eq!(algorithm.code().is_some(), algorithm.family() == Family::Secret);
            assert_eq!(algorithm.signature().is_some(), algorithm.family() != Family::Secret);
        }
        for name in ["none", "None", "", "hs256", "RS256 ", "ES256K", "RSA1_5", "A256KW", "dir"] {
            assert_eq!(Algorithm::named(name), None, "{name}");
        }
    }
}
