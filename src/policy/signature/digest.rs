//! Whether a body is what its digest says (Content-Digest, RFC 9530 §2).

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Algorithm, SHA256, SHA512, digest},
};
use sfv::{Dictionary, ListEntry, Parser};

use crate::{policy::refusal, wire::Reason};

/// Algorithms that are believed (RFC 9530 §5).
const KNOWN: [(&str, &Algorithm); 2] = [("sha-256", &SHA256), ("sha-512", &SHA512)];

/// Compares a body, as it was sent, with the field: each digest of an algorithm that is known must
/// be its own, and there must be one. Others are passed over.
pub fn check(field: &[u8], body: &[u8]) -> Result<(), &'static Reason> {
    let told: Dictionary = Parser::new(field).parse().map_err(|_| refusal::AUTH_DIGEST)?;
    let mut is_checked = false;
    for (name, algorithm) in KNOWN {
        let Some(entry) = told.get(name) else { continue };
        let ListEntry::Item(item) = entry else { return Err(refusal::AUTH_DIGEST) };
        let told = item.bare_item.as_byte_sequence().ok_or(refusal::AUTH_DIGEST)?;
        let own = digest(algorithm, body);
        verify_slices_are_equal(own.as_ref(), told).map_err(|_| refusal::AUTH_DIGEST)?;
        is_checked = true;
    }
    if is_checked { Ok(()) } else { Err(refusal::AUTH_DIGEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_rfc_9530_and_others() {
        let body = b"{\"hello\": \"world\"}\n";
        let sha256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        // RFC 9421 §B.2, of the text without line end.
        let sha512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNN\
                      yealdVLvRwEmTHWXvJwew==:";
        let other = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        let (long, short) = (&body[..], &body[..18]);
        for (field, body, is_good) in [
            (sha256.to_owned(), long, true),
            (sha512.to_owned(), short, true),
            (other.to_owned(), b"", true),
            (sha256.to_owned(), short, false),
            (sha512.to_owned(), long, false),
            (sha256.to_owned(), b"", false),
            // One that is not known counts for nothing.
            (format!("md5=:AAAA:, {sha256}"), long, true),
            ("md5=:AAAA:".to_owned(), long, false),
            // Each that is known counts.
            (format!("{sha256}, {sha512}"), long, false),
            (format!("{sha512}, {sha256}"), short, false),
            ("sha-256=RK".to_owned(), long, false),
            ("sha-256=(:RK/0:)".to_owned(), long, false),
            ("sha-256".to_owned(), long, false),
            ("sha-256=:RK/0:".to_owned(), long, false),
            (sha256.replace("sha-256", "SHA-256"), long, false),
            (String::new(), long, false),
        ] {
            assert_eq!(check(field.as_bytes(), body).is_ok(), is_good, "{field}");
        }
    }
}
