//! Authorities that issue certificates and lists of revoked ones.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::OffsetDateTime;

pub struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate, which clients and servers may show, and its key.
pub struct Badge {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Issuer {
    pub fn new(name: &str) -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Issuer { issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    /// One for this name that is good until the first day of a year.
    pub fn issue(&self, name: &str, serial: u64, last_year: i32) -> Badge {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Badge { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// The list of revoked certificates, in force until the first day of a year; in PEM.
    pub fn revoked(&self, serials: &[u64], until_year: i32) -> String {
        self.list(serials, date_time_ymd(until_year, 1, 1)).pem().unwrap()
    }

    /// The same in DER.
    pub fn revoked_der(&self, serials: &[u64], until_year: i32) -> Vec<u8> {
        self.list(serials, date_time_ymd(until_year, 1, 1)).der().to_vec()
    }

    /// The same, in force until some moment.
    pub fn list(&self, serials: &[u64], until: OffsetDateTime) -> rcgen::CertificateRevocationList {
        let one = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: until,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }
}
