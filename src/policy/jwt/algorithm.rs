//! Algorithms of signatures (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). `none` is not one.

use aws_lc_rs::signature as sign;
use jsonwebtoken::Algorithm as Decoded;

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

    /// As jsonwebtoken knows it, which verifies it; all but ES512.
    pub(super) fn decoded(self) -> Option<Decoded> {
        Some(match self {
            Hs256 => Decoded::HS256,
            Hs384 => Decoded::HS384,
            Hs512 => Decoded::HS512,
            Rs256 => Decoded::RS256,
            Rs384 => Decoded::RS384,
            Rs512 => Decoded::RS512,
            Ps256 => Decoded::PS256,
            Ps384 => Decoded::PS384,
            Ps512 => Decoded::PS512,
            Es256 => Decoded::ES256,
            Es384 => Decoded::ES384,
            Es512 => return None,
            EdDsa => Decoded::EdDSA,
        })
    }

    /// The shortest secret for it (RFC 7518 §3.2).
    pub(super) fn secret_min(self) -> Option<usize> {
        match self {
            Hs256 => Some(32),
            Hs384 => Some(48),
            Hs512 => Some(64),
            _ => None,
        }
    }

    /// What says whether a public key is a point of its curve.
    pub(super) fn point(self) -> Option<&'static dyn sign::VerificationAlgorithm> {
        match self {
            Es256 => Some(&sign::ECDSA_P256_SHA256_FIXED),
            Es384 => Some(&sign::ECDSA_P384_SHA384_FIXED),
            Es512 => Some(&sign::ECDSA_P521_SHA512_FIXED),
            EdDsa => Some(&sign::ED25519),
            _ => None,
        }
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
            let is_of_curve = matches!(algorithm.family(), Family::Ec | Family::Ed);
            assert_eq!(algorithm.secret_min().is_some(), algorithm.family() == Family::Secret);
            assert_eq!(algorithm.point().is_some(), is_of_curve);
            assert_eq!(algorithm.decoded(), name.parse().ok());
        }
        for name in ["none", "None", "", "hs256", "RS256 ", "ES256K", "RSA1_5", "A256KW", "dir"] {
            assert_eq!(Algorithm::named(name), None, "{name}");
        }
    }
}
