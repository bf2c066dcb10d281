//! Who a client is by its certificate: read once for a connection, after the handshake has verified
//! it, in a form that policies compare and logs write.
//!
//! Invariant: what is here is of a certificate that an authority of the listener issued and whose
//! key the client has. What of it cannot be read is left out, never guessed.

use std::{
    cell::OnceCell,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use x509_parser::{
    asn1_rs::ToDer,
    prelude::{FromDer, GeneralName, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

use super::identity::{Claims, Identity, Shown};

/// A client's verified certificate.
#[derive(Clone, Debug, Default)]
pub struct ClientCert {
    /// The certificate as the field Client-Cert has it (RFC 9440 §2).
    pub field: String,
    /// Its subject (RFC 4514): `CN=alice,O=Example`. Empty where it has none.
    pub subject: String,
    /// Other names of the subject (RFC 5280 §4.2.1.6), in the certificate's order.
    pub names: Vec<SubjectName>,
    /// SHA-256 of the whole certificate, as 64 lower-case hexadecimal digits.
    pub sha256: String,
    identity: OnceCell<Rc<Identity>>,
}

/// One of the subject's other names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    Dns(String),
    /// Such as a SPIFFE id.
    Uri(String),
    Email(String),
    Ip(IpAddr),
}

impl ClientCert {
    /// Of a certificate in DER.
    pub fn read(der: &[u8]) -> ClientCert {
        let mut read = ClientCert {
            // A byte sequence of structured fields (RFC 8941 §3.3.5).
            field: format!(":{}:", STANDARD.encode(der)),
            sha256: hex(digest(&SHA256, der).as_ref()),
            ..ClientCert::default()
        };
        if let Ok((_, certificate)) = X509Certificate::from_der(der) {
            read.subject = subject(certificate.subject());
            let names = certificate.subject_alternative_name().ok().flatten();
            let names = names.iter().flat_map(|names| &names.value.general_names);
            read.names = names.filter_map(name).collect();
        }
        read
    }

    /// The identity that the certificate gives, made once: its subject, and as claims `subject`,
    /// `sha256`, and of each kind of other names (`dns`, `uri`, `email`, `ip`) a list.
    pub fn identity(&self) -> Rc<Identity> {
        self.identity.get_or_init(|| Rc::new(self.make_identity())).clone()
    }

    fn make_identity(&self) -> Identity {
        let subject = Rc::from(self.subject.as_str());
        let mut identity = Identity::plain(Shown::Certificate, "certificate".into(), subject);
        let mut claims = Claims::new();
        claims.insert("subject".to_owned(), self.subject.clone().into());
        claims.insert("sha256".to_owned(), self.sha256.clone().into());
        for name in &self.names {
            let (kind, text) = match name {
                SubjectName::Dns(name) => ("dns", name.clone()),
                SubjectName::Uri(uri) => ("uri", uri.clone()),
                SubjectName::Email(address) => ("email", address.clone()),
                SubjectName::Ip(address) => ("ip", address.to_string()),
            };
            let list = claims.entry(kind).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(text.into());
            }
        }
        identity.claims = Rc::new(claims);
        identity
    }
}

fn name(name: &GeneralName<'_>) -> Option<SubjectName> {
    Some(match name {
        GeneralName::DNSName(name) => SubjectName::Dns((*name).to_owned()),
        GeneralName::URI(uri) => SubjectName::Uri((*uri).to_owned()),
        GeneralName::RFC822Name(address) => SubjectName::Email((*address).to_owned()),
        GeneralName::IPAddress(bytes) => SubjectName::Ip(match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?).into(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).into(),
        }),
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 4514 §2: the last part first, so that no value can be taken for another part.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.iter().rev() {
        for (n, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if n == 0 { ',' } else { '+' });
            }
            write_attribute(attribute, &mut text);
        }
    }
    text
}

/// The names of attributes (RFC 4514 §3). Others are written by number.
const SHORT: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let number = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(of, _)| *of == number).map(|(_, short)| *short);
    text.push_str(short.unwrap_or(&number));
    text.push('=');
    match (short, attribute.as_str()) {
        (Some(_), Ok(value)) => write_value(value, text),
        _ => {
            text.push('#');
            text.push_str(&hex(&attribute.attr_value().to_der_vec().unwrap_or_default()));
        }
    }
}

fn write_value(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn der(parts: &[(DnType, DnValue)], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn subjects_cannot_be_mistaken() {
        use DnType::{CommonName, CountryName, CustomDnType, OrganizationName};
        let table: [(&[(DnType, DnValue)], &str); 7] = [
            (&[], ""),
            (&[(CountryName, utf8("DE")), (CommonName, utf8("alice"))], "CN=alice,C=DE"),
            (&[(CommonName, utf8("alice,O=admins"))], "CN=alice\\,O=admins"),
            (&[(CommonName, utf8("a+b;<c>\\\"d"))], "CN=a\\+b\\;\\<c\\>\\\\\\\"d"),
            (&[(CommonName, utf8(" #x ")), (OrganizationName, utf8("#"))], "O=\\#,CN=\\ #x\\ "),
            (&[(CommonName, utf8("a\n\0é"))], "CN=a\\0a\\00é"),
            (&[(CustomDnType(vec![1, 2, 3, 4]), utf8("hi"))], "1.2.3.4=#0c026869"),
        ];
        for (parts, wanted) in table {
            assert_eq!(ClientCert::read(&der(parts, Vec::new())).subject, wanted);
        }
    }

    #[test]
    fn names_and_print_are_there() {
        let text = |text: &str| text.try_into().expect("ASCII");
        let address: IpAddr = "2001:db8::1".parse().expect("an address");
        let names = vec![
            SanType::DnsName(text("client.test")),
            SanType::URI(text("spiffe://example/alice")),
            SanType::Rfc822Name(text("alice@example.com")),
            SanType::IpAddress(address),
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        ];
        let der = der(&[], names);
        let read = ClientCert::read(&der);
        let wanted = [
            SubjectName::Dns("client.test".to_owned()),
            SubjectName::Uri("spiffe://example/alice".to_owned()),
            SubjectName::Email("alice@example.com".to_owned()),
            SubjectName::Ip(address),
            SubjectName::Ip(Ipv4Addr::LOCALHOST.into()),
        ];
        assert_eq!(read.names, wanted);
        assert_eq!(read.field, format!(":{}:", STANDARD.encode(&der)));
        assert_eq!(read.sha256.len(), 64);
    }

    #[test]
    fn the_print_is_of_the_whole_certificate() {
        // FIPS 180-2, appendix B.1.
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ClientCert::read(b"abc").sha256, wanted);
    }

    proptest! {
        #[test]
        fn anything_is_read(bytes: Vec<u8>, at: usize, byte: u8) {
            let _ = ClientCert::read(&bytes);
            let mut damaged = der(&[(DnType::CommonName, utf8("alice"))], Vec::new());
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = ClientCert::read(&damaged);
        }
    }
}
