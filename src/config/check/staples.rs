//! What an authority says of a certificate (OCSP, RFC 6960), read from a file to be stapled to it.
//!
//! Who signed it is not judged: clients do that, and whoever can write the file can replace the
//! certificate as well. A file that is no such response is an error. One that clients would hold
//! against this gateway (out of its time, of another certificate, not good) is reported and not
//! stapled: a new certificate is not kept from being used by the staple of the old one.

use std::path::Path;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::{Any, Class},
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use super::TOP;
use crate::config::{
    bounded,
    decode::Sink,
    file::Certificate,
    report::{Place, Problem},
    snapshot::Staple,
};

/// Content of the identifier of the only kind of response there is (RFC 6960 §4.2.1).
const BASIC: [u8; 9] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// Largest file, in bytes. Responses have one or two KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What is to be stapled to `certificate`, whose first part is `der`.
pub(super) fn of_certificate(
    certificate: &Certificate,
    der: &CertificateDer<'_>,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Staple> {
    let file = certificate.ocsp.some()?;
    let place = file.place().unwrap_or(TOP);
    let path = folder.join(&file.value);
    let bytes = match bounded::read(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            let title = format!("cannot read the OCSP response `{}`: {error}", path.display());
            let fix = "write a path relative to this configuration, or an absolute one; the \
                       gateway's user must be able to read it";
            sink.push(Problem::error(place, title).fix(fix));
            return None;
        }
    };
    let (_, subject) = X509Certificate::from_der(der).ok()?;
    match judge(&bytes, &subject, ASN1Time::now().timestamp()) {
        Ok(until_s) => Some(Staple { response: bytes, until_s }),
        Err(Useless::Malformed) => {
            let title = format!("`{}` is not an OCSP response", file.value);
            let fix = "name a file in DER, as `openssl ocsp -respout` writes it";
            sink.push(Problem::error(place, title).fix(fix));
            None
        }
        Err(useless) => {
            warn(place, &file.value, &useless, sink);
            None
        }
    }
}

fn warn(place: Place, file: &str, useless: &Useless, sink: &mut Sink) {
    let why = match useless {
        Useless::Malformed | Useless::Other => {
            "it is for another certificate than the first of `file`"
        }
        Useless::Failed => "the authority did not answer (its status is not `successful`)",
        Useless::Revoked => "it says that the certificate is revoked",
        Useless::Unknown => "the authority does not know the certificate",
        Useless::Early => "its time has not come",
        Useless::Late => "its time is over",
    };
    let title = format!("the OCSP response `{file}` is not stapled: {why}");
    let fix = match useless {
        Useless::Revoked => "have a new certificate issued",
        _ => "fetch a new one for this certificate (openssl ocsp -respout)",
    };
    sink.push(Problem::warning(place, title).fix(fix));
}

/// Why a response is not stapled.
#[derive(Debug, PartialEq, Eq)]
enum Useless {
    Malformed,
    /// It speaks of another certificate.
    Other,
    /// The authority gave no answer.
    Failed,
    Revoked,
    Unknown,
    Early,
    Late,
}

/// Unix time until which a response may be shown; without an end, the largest.
fn judge(bytes: &[u8], subject: &X509Certificate<'_>, now_s: i64) -> Result<i64, Useless> {
    let responses = responses(bytes).ok_or(Useless::Malformed)??;
    let mut responses = Parts(responses);
    let mut single = None;
    while single.is_none() && !responses.0.is_empty() {
        let next = responses.sequence().and_then(Single::read).ok_or(Useless::Malformed)?;
        single = Some(next).filter(|next| next.is_of(subject));
    }
    let single = single.ok_or(Useless::Other)?;
    match single.status {
        0 => {}
        1 => return Err(Useless::Revoked),
        _ => return Err(Useless::Unknown),
    }
    if single.from_s > now_s {
        return Err(Useless::Early);
    }
    if single.until_s < now_s {
        return Err(Useless::Late);
    }
    Ok(single.until_s)
}

/// The part of a response that speaks of single certificates (RFC 6960 §4.2.1). The outer `None`:
/// it is malformed.
fn responses(bytes: &[u8]) -> Option<Result<&[u8], Useless>> {
    let mut file = Parts(bytes);
    let mut whole = file.sequence()?;
    if !file.0.is_empty() {
        return None;
    }
    let status = whole.universal(10)?;
    if status != [0] {
        return Some(Err(Useless::Failed));
    }
    let mut body = Parts(whole.tagged(0)?).sequence()?;
    if body.universal(6)? != BASIC {
        return None;
    }
    let mut data = Parts(body.universal(4)?).sequence()?.sequence()?;
    let _version = data.tagged(0);
    let _responder = data.next()?;
    let _produced = data.universal(24)?;
    Some(Ok(data.universal(16)?))
}

/// What is said of one certificate.
struct Single<'a> {
    issuer_name_hash: &'a [u8],
    serial: &'a [u8],
    status: u32,
    from_s: i64,
    until_s: i64,
}

impl<'a> Single<'a> {
    fn read(mut parts: Parts<'a>) -> Option<Single<'a>> {
        let mut id = parts.sequence()?;
        let _algorithm = id.sequence()?;
        let issuer_name_hash = id.universal(4)?;
        let _issuer_key_hash = id.universal(4)?;
        let serial = id.universal(2)?;
        let status = parts.next().filter(|any| any.class() == Class::ContextSpecific)?.tag().0;
        let from_s = parts.time()?;
        let until_s = match parts.tagged(0) {
            Some(next) => Parts(next).time()?,
            None => i64::MAX,
        };
        Some(Single { issuer_name_hash, serial, status, from_s, until_s })
    }

    fn is_of(&self, subject: &X509Certificate<'_>) -> bool {
        let algorithm = match self.issuer_name_hash.len() {
            20 => &SHA1_FOR_LEGACY_USE_ONLY,
            32 => &SHA256,
            // Nobody uses another one; the serial number must do.
            _ => return self.serial == subject.raw_serial(),
        };
        let issuer = digest(algorithm, subject.issuer().as_raw());
        self.serial == subject.raw_serial() && self.issuer_name_hash == issuer.as_ref()
    }
}

/// Values in DER, one after the other.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn next(&mut self) -> Option<Any<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(any)
    }

    /// The content of the next value, if it is of this class and tag; else nothing is taken.
    fn of(&mut self, class: Class, tag: u32) -> Option<&'a [u8]> {
        let mut ahead = Parts(self.0);
        let any = ahead.next().filter(|any| any.class() == class && any.tag().0 == tag)?;
        self.0 = ahead.0;
        Some(any.data)
    }

    fn universal(&mut self, tag: u32) -> Option<&'a [u8]> {
        self.of(Class::Universal, tag)
    }

    fn tagged(&mut self, tag: u32) -> Option<&'a [u8]> {
        self.of(Class::ContextSpecific, tag)
    }

    fn sequence(&mut self) -> Option<Parts<'a>> {
        self.universal(16).map(Parts)
    }

    /// Unix time.
    fn time(&mut self) -> Option<i64> {
        let (rest, time) = ASN1Time::from_der(self.0).ok()?;
        self.0 = rest;
        Some(time.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    use super::*;

    /// 2030-01-01 and a day later.
    const FROM_S: i64 = 1_893_456_000;
    const UNTIL_S: i64 = FROM_S + 86_400;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let len = content.len();
        let head = match u8::try_from(len) {
            Ok(short @ 0..128) => vec![tag, short],
            _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
        };
        [head, content].concat()
    }

    struct Made {
        answer: u8,
        serial: u8,
        issuer: Vec<u8>,
        status: Vec<u8>,
        ends: bool,
    }

    impl Made {
        fn bytes(&self) -> Vec<u8> {
            let hash = digest(&SHA256, &self.issuer);
            let id = tlv(
                0x30,
                &[
                    &tlv(0x30, &[&tlv(6, &[&[0x60]])]),
                    &tlv(4, &[hash.as_ref()]),
                    &tlv(4, &[&[7; 32]]),
                    &tlv(2, &[&[self.serial]]),
                ],
            );
            let from = tlv(24, &[b"20300101000000Z"]);
            let until = tlv(0xa0, &[&tlv(24, &[b"20300102000000Z"])]);
            let until = if self.ends { until } else { Vec::new() };
            let single = tlv(0x30, &[&id, &self.status, &from, &until]);
            let data =
                tlv(0x30, &[&tlv(0xa2, &[&tlv(4, &[b"key"])]), &from, &tlv(0x30, &[&single])]);
            let basic = tlv(0x30, &[&data, &tlv(3, &[&[0; 9]])]);
            let body = tlv(0x30, &[&tlv(6, &[&BASIC]), &tlv(4, &[&basic])]);
            tlv(0x30, &[&tlv(10, &[&[self.answer]]), &tlv(0xa0, &[&body])])
        }
    }

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(5));
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn what_is_not_of_use_is_told_apart() {
        let der = certificate();
        let (_, subject) = X509Certificate::from_der(&der).expect("a certificate");
        let issuer = subject.issuer().as_raw().to_vec();
        let good = || Made {
            answer: 0,
            serial: 5,
            issuer: issuer.clone(),
            status: tlv(0x80, &[]),
            ends: true,
        };
        let revoked = tlv(0xa1, &[&tlv(24, &[b"20290101000000Z"])]);
        let table = [
            (good(), FROM_S, Ok(UNTIL_S)),
            (good(), UNTIL_S, Ok(UNTIL_S)),
            (good(), FROM_S - 1, Err(Useless::Early)),
            (good(), UNTIL_S + 1, Err(Useless::Late)),
            (Made { ends: false, ..good() }, UNTIL_S + 1, Ok(i64::MAX)),
            (Made { answer: 3, ..good() }, FROM_S, Err(Useless::Failed)),
            (Made { serial: 6, ..good() }, FROM_S, Err(Useless::Other)),
            (Made { issuer: b"other".to_vec(), ..good() }, FROM_S, Err(Useless::Other)),
            (Made { status: revoked, ..good() }, FROM_S, Err(Useless::Revoked)),
            (Made { status: tlv(0x82, &[]), ..good() }, FROM_S, Err(Useless::Unknown)),
        ];
        for (row, (made, now_s, wanted)) in table.into_iter().enumerate() {
            assert_eq!(judge(&made.bytes(), &subject, now_s), wanted, "{row}");
        }
        let bytes = good().bytes();
        for cut in 0..bytes.len() {
            assert_eq!(judge(&bytes[..cut], &subject, FROM_S), Err(Useless::Malformed), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_judged(bytes: Vec<u8>, at: usize, byte: u8) {
            let der = certificate();
            let (_, subject) = X509Certificate::from_der(&der).expect("a certificate");
            let _ = judge(&bytes, &subject, FROM_S);
            let issuer = subject.issuer().as_raw().to_vec();
            let made = Made { answer: 0, serial: 5, issuer, status: tlv(0x80, &[]), ends: true };
            let mut damaged = made.bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = judge(&damaged, &subject, FROM_S);
        }
    }
}
