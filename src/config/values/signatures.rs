//! What the keys of signatures may hold.

use super::{Bad, FromText, bad, is_token};
use crate::{
    choice,
    config::snapshot::SecretEncoding,
    policy::signature::{Algorithm, Component, NAME_BYTES_MAX},
};

choice!(Algorithm:
    Algorithm::HmacSha256 = "hmac-sha256",
    Algorithm::Ed25519 = "ed25519",
    Algorithm::EcdsaP256Sha256 = "ecdsa-p256-sha256",
    Algorithm::EcdsaP384Sha384 = "ecdsa-p384-sha384",
    Algorithm::RsaPssSha512 = "rsa-pss-sha512",
    Algorithm::RsaV15Sha256 = "rsa-v1_5-sha256",
);

choice!(SecretEncoding: SecretEncoding::Text = "text", SecretEncoding::Base64 = "base64");

/// A parameter that a signature must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureParameter {
    Expires,
    Alg,
    Nonce,
}

choice!(SignatureParameter:
    SignatureParameter::Expires = "expires",
    SignatureParameter::Alg = "alg",
    SignatureParameter::Nonce = "nonce",
);

/// A part of a request that is to be covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentName(pub Component);

impl FromText for ComponentName {
    const WHAT: &'static str = "a component: \"@method\", \"@authority\", \"@path\", \"@query\", \
                                \"@target-uri\", \"@request-target\", \"@scheme\" or the name of a \
                                field";
    const EXAMPLE: &'static str = "@target-uri";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Some(known) = Component::DERIVED.iter().find(|known| known.name() == text) {
            return Ok(ComponentName(known.clone()));
        }
        match () {
            () if text == "@status" => bad("of responses, not of requests", "leave it out"),
            () if text.starts_with('@') => bad(
                "no such component can be asked for",
                "write \"@method\", \"@authority\", \"@path\", \"@query\", \"@target-uri\", \
                 \"@request-target\" or \"@scheme\"",
            ),
            () if !is_token(text) => bad(
                "has a character that no such name has",
                "write the name of a field, such as \"content-type\"",
            ),
            () if matches!(&*text.to_ascii_lowercase(), "signature" | "signature-input") => {
                bad("a signature cannot cover itself", "leave it out")
            }
            () => Ok(ComponentName(Component::Field(text.to_ascii_lowercase()))),
        }
    }

    fn show(&self) -> String {
        self.0.name().to_owned()
    }
}

/// The label of a signature: a key of a dictionary (RFC 9651 §3.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(pub String);

impl FromText for Label {
    const WHAT: &'static str = "the label of a signature";
    const EXAMPLE: &'static str = "sig1";

    fn read(text: &str) -> Result<Self, Bad> {
        match sfv::KeyRef::from_str(text) {
            Ok(_) if text.len() <= NAME_BYTES_MAX => Ok(Label(text.to_owned())),
            _ => bad(
                "no such label can be",
                "write lower-case letters, digits, dashes, dots and underscores, such as \"sig1\"",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A text in a parameter of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureText(pub String);

impl FromText for SignatureText {
    const WHAT: &'static str = "a text that a signature can have";
    const EXAMPLE: &'static str = "alice-1";

    fn read(text: &str) -> Result<Self, Bad> {
        let is_odd = |c: char| !(' '..='~').contains(&c) || matches!(c, '"' | '\\');
        match () {
            () if text.is_empty() => bad("empty", "write a name, such as \"alice-1\""),
            () if text.len() > NAME_BYTES_MAX => {
                bad("longer than 256 bytes", "write a shorter one")
            }
            () if text.chars().any(is_odd) => bad(
                "has a quotation mark, a backslash, or a character beyond ASCII",
                "write letters, digits and other signs of ASCII",
            ),
            () => Ok(SignatureText(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components() {
        for (text, wanted) in [
            ("@method", Some("@method")),
            ("@target-uri", Some("@target-uri")),
            ("Content-Type", Some("content-type")),
            ("@status", None),
            ("@query-param", None),
            ("@Method", None),
            ("signature", None),
            ("Signature-Input", None),
            ("a b", None),
            ("", None),
        ] {
            let read = ComponentName::read(text).ok().map(|name| name.show());
            assert_eq!(read.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn labels_and_texts() {
        for (text, is_label, is_text) in [
            ("sig1", true, true),
            ("*a-b_c.d", true, true),
            ("Sig1", false, true),
            ("1", false, true),
            ("a b", false, true),
            ("", false, false),
            ("a\"b", false, false),
            ("a\\b", false, false),
            ("é", false, false),
        ] {
            assert_eq!(Label::read(text).is_ok(), is_label, "{text}");
            assert_eq!(SignatureText::read(text).is_ok(), is_text, "{text}");
        }
    }
}
