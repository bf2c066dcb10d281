//! Keys that signatures are verified with, from JSON (JWK, RFC 7517) or PEM.
//!
//! jsonwebtoken decodes them and verifies. Here is what it leaves open: what a key may be used
//! for, and whether it is a good one, which is found out when it is read and not with a token.
//!
//! Invariants: a key verifies only what it was made for. What it is says which algorithms it may
//! be used with, before any token is seen, so that a public key is never a secret; a set has
//! secrets or public keys, never both; a name (`kid`) stands for one key of an algorithm.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents},
};
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    crypto::aws_lc::DEFAULT_PROVIDER,
    jwk::{AlgorithmParameters, Jwk, OctetKeyParameters, OctetKeyType},
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Map, Value};
use x509_parser::{
    prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate},
    public_key::PublicKey,
};

use super::algorithm::{Algorithm, Family};

/// Keys of one set, usable or not.
pub const KEYS_MAX: usize = 256;

/// Keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Of what they were made from.
    print: Vec<u8>,
}

impl PartialEq for KeySet {
    fn eq(&self, other: &KeySet) -> bool {
        self.print == other.print
    }
}

/// One key.
pub struct Key {
    kid: Option<Box<str>>,
    /// That it may be used with.
    algorithms: Vec<Algorithm>,
    material: Material,
    print: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.kid)
    }
}

enum Material {
    Decoded(DecodingKey),
    /// A key for ES512, which jsonwebtoken lacks.
    P521(ParsedPublicKey),
}

/// Why a key, or a set, cannot be used.
pub type Unusable = String;

impl Key {
    /// A secret shared with whoever signs. Long enough for at least one of `algorithms`.
    pub fn secret(
        secret: &[u8],
        kid: Option<&str>,
        algorithms: &[Algorithm],
    ) -> Result<Key, Unusable> {
        let long_enough = |a: &Algorithm| a.secret_min().is_some_and(|min| secret.len() >= min);
        let fits: Vec<_> = algorithms.iter().copied().filter(long_enough).collect();
        if fits.is_empty() {
            let n = secret.len();
            return Err(format!("the secret has {n} bytes, fewer than the hash (RFC 7518 §3.2)"));
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| "the secret is empty")?;
        Ok(Key::new(kid, fits, Material::Decoded(key), secret))
    }

    fn new(
        kid: Option<&str>,
        algorithms: Vec<Algorithm>,
        material: Material,
        printed: &[u8],
    ) -> Key {
        let print = digest(&SHA256, printed).as_ref().to_vec();
        Key { kid: kid.map(Box::from), algorithms, material, print }
    }

    /// A JWK; `None`: it is not for signatures.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Option<Key>, Unusable> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        if let Some(operations) = jwk.get("key_ops") {
            let may = |op: &Value| matches!(op.as_str(), Some("verify" | "sign"));
            if !operations.as_array().is_some_and(|operations| operations.iter().any(may)) {
                return Ok(None);
            }
        }
        let own = match jwk.get("alg") {
            None => None,
            Some(name) => {
                let name = name.as_str().unwrap_or_default();
                let unknown = || format!("its algorithm `{name}` signs nothing that is served");
                Some(Algorithm::named(name).ok_or_else(unknown)?)
            }
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or("its `kid` is no text")?),
        };
        let of = |family: Family| {
            let fits = family.algorithms().into_iter();
            fits.filter(|algorithm| own.is_none_or(|own| own == *algorithm)).collect::<Vec<_>>()
        };
        let key = match text("kty") {
            Some("oct") => oct(jwk, kid, &of(Family::Secret))?,
            Some("RSA") => rsa(jwk, kid, of(Family::Rsa))?,
            Some("EC") => ec(jwk, kid, &of(Family::Ec))?,
            Some("OKP") if text("crv") == Some("Ed25519") => ed(jwk, kid, &of(Family::Ed))?,
            Some("OKP") => return Err("its curve (`crv`) is not served".to_owned()),
            _ => return Err("its kind (`kty`) is not served".to_owned()),
        };
        Ok(Some(key))
    }

    /// Public keys and certificates of a PEM text, of which there is at least one.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Key>, Unusable> {
        let mut keys = Vec::new();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            keys.push(Key::from_spki(&spki.map_err(not_pem)?)?);
        }
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let der = certificate.map_err(not_pem)?;
            let (_, parsed) =
                X509Certificate::from_der(&der).map_err(|_| "a certificate is not well-formed")?;
            keys.push(Key::from_spki(parsed.public_key().raw)?);
        }
        if keys.is_empty() {
            return Err("there is no public key (PUBLIC KEY or CERTIFICATE) in it".to_owned());
        }
        Ok(keys)
    }

    /// A public key in DER (SubjectPublicKeyInfo): of whichever kind can be read from it.
    fn from_spki(der: &[u8]) -> Result<Key, Unusable> {
        let (_, info) =
            SubjectPublicKeyInfo::from_der(der).map_err(|_| "a public key is not well-formed")?;
        if let Ok(PublicKey::RSA(key)) = info.parsed() {
            return rsa_of(key.modulus, key.exponent, None, Family::Rsa.algorithms());
        }
        let mut all = Algorithm::ALL.iter().map(|(algorithm, _)| *algorithm);
        let fits =
            |a: &Algorithm| a.point().is_some_and(|how| ParsedPublicKey::new(how, der).is_ok());
        let Some(algorithm) = all.find(fits) else {
            return Err("a public key is not RSA, P-256, P-384, P-521 or Ed25519".to_owned());
        };
        let bytes = &info.subject_public_key.data;
        let key = match algorithm.family() {
            Family::Ed => DecodingKey::from_ed_der(bytes),
            _ => DecodingKey::from_ec_der(bytes),
        };
        point(key, None, algorithm)
    }

    /// Whether `signature` over `message` is this key's; `None`: it is not for that algorithm.
    pub fn verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Option<bool> {
        if !self.algorithms.contains(&algorithm) {
            return None;
        }
        Some(match &self.material {
            Material::P521(key) => key.verify_sig(message, signature).is_ok(),
            // As `jsonwebtoken::crypto::verify` does for a signature in base64url.
            Material::Decoded(key) => algorithm.decoded().is_some_and(|algorithm| {
                let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key);
                verifier.is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
            }),
        })
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    fn is_secret(&self) -> bool {
        self.algorithms.iter().any(|algorithm| algorithm.family() == Family::Secret)
    }

    /// Whether a token of `kid` could mean both.
    fn is_ambiguous_with(&self, other: &Key) -> bool {
        let shares = |own: &Algorithm| other.algorithms.contains(own);
        self.kid.is_some() && self.kid == other.kid && self.algorithms.iter().any(shares)
    }
}

fn not_pem(_: rustls::pki_types::pem::Error) -> Unusable {
    "it is not well-formed PEM".to_owned()
}

/// A member in base64url.
fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, Unusable> {
    let text = jwk.get(name).and_then(Value::as_str);
    text.ok_or_else(|| format!("its `{name}` is not there, or no text"))
}

fn not_base64(_: jsonwebtoken::errors::Error) -> Unusable {
    "it is empty, or not base64url".to_owned()
}

fn none_of_its_kind<E>(_: E) -> Unusable {
    "it is no public key of its kind".to_owned()
}

/// Of the algorithms of a kind that its `alg` leaves, at least one.
fn another_kind() -> Unusable {
    "it is of another kind than its algorithm (`alg`)".to_owned()
}

fn oct(jwk: &Map<String, Value>, kid: Option<&str>, own: &[Algorithm]) -> Result<Key, Unusable> {
    if own.is_empty() {
        return Err(another_kind());
    }
    let value = text(jwk, "k")?.to_owned();
    let secret = OctetKeyParameters { key_type: OctetKeyType::Octet, value };
    let algorithm = AlgorithmParameters::OctetKey(secret);
    let key = DecodingKey::from_jwk(&Jwk { common: Default::default(), algorithm });
    let key = key.map_err(not_base64)?;
    Key::secret(key.try_get_as_bytes().map_err(not_base64)?, kid, own)
}

fn ed(jwk: &Map<String, Value>, kid: Option<&str>, own: &[Algorithm]) -> Result<Key, Unusable> {
    let algorithm = *own.first().ok_or_else(another_kind)?;
    let key = DecodingKey::from_ed_components(text(jwk, "x")?).map_err(not_base64)?;
    match key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32) {
        true => point(key, kid, algorithm),
        false => Err(none_of_its_kind(())),
    }
}

/// A point of a curve. Whether it is one jsonwebtoken would find out with each token.
fn point(key: DecodingKey, kid: Option<&str>, algorithm: Algorithm) -> Result<Key, Unusable> {
    let bytes = key.try_get_as_bytes().map_err(none_of_its_kind)?;
    let how = algorithm.point().ok_or_else(another_kind)?;
    let parsed = ParsedPublicKey::new(how, bytes).map_err(none_of_its_kind)?;
    let bytes = bytes.to_vec();
    let material = match algorithm.decoded() {
        Some(_) => Material::Decoded(key),
        None => Material::P521(parsed),
    };
    Ok(Key::new(kid, vec![algorithm], material, &bytes))
}

fn rsa(jwk: &Map<String, Value>, kid: Option<&str>, own: Vec<Algorithm>) -> Result<Key, Unusable> {
    if own.is_empty() {
        return Err(another_kind());
    }
    let key = DecodingKey::from_rsa_components(text(jwk, "n")?, text(jwk, "e")?);
    match key.map_err(not_base64)?.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => rsa_of(n, e, kid, own),
        DecodingKeyKind::SecretOrDer(_) => Err(none_of_its_kind(())),
    }
}

fn rsa_of(n: &[u8], e: &[u8], kid: Option<&str>, own: Vec<Algorithm>) -> Result<Key, Unusable> {
    let n = strip_zeros(n);
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("an RSA key of {bits} bits; 2048 to 8192 are served"));
    }
    let e = strip_zeros(e);
    if e.is_empty() || e == [1] || e.last().is_some_and(|last| last % 2 == 0) {
        return Err("its exponent is not odd, or 1".to_owned());
    }
    if is_roca(n) {
        return Err("it was made by a chip whose keys can be guessed (CVE-2017-15361)".to_owned());
    }
    // What jsonwebtoken would find out with each token.
    let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
    parsed.map_err(none_of_its_kind)?;
    let material = Material::Decoded(DecodingKey::from_rsa_raw_components(n, e));
    Ok(Key::new(kid, own, material, &[n, b"|", e].concat()))
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The mark of moduli made by Infineon's library: modulo each of these primes they are a power of
/// 65537 (Nemec and others, "The Return of Coppersmith's Attack", 2017, §2.3).
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 17] =
        [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];
    PRIMES.iter().all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65537 % prime;
            power == rest
        })
    })
}

fn ec(jwk: &Map<String, Value>, kid: Option<&str>, own: &[Algorithm]) -> Result<Key, Unusable> {
    let curve = jwk.get("crv").and_then(Value::as_str).unwrap_or_default();
    let mut own = own.iter().filter_map(|algorithm| Some((*algorithm, algorithm.curve()?)));
    let Some((algorithm, (_, size))) = own.find(|(_, (name, _))| *name == curve) else {
        return Err(format!("its curve `{curve}` is not that of its algorithm, or not served"));
    };
    let (x, y) = (text(jwk, "x")?, text(jwk, "y")?);
    let key = DecodingKey::from_ec_components(x, y).map_err(not_base64)?;
    // Texts without padding that are as long have as many bytes.
    let is_whole = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 1 + 2 * size);
    if x.len() != y.len() || !is_whole {
        return Err("its point does not have the length of its curve".to_owned());
    }
    point(key, kid, algorithm)
}

impl KeySet {
    /// A set of these; refused when secrets and public keys are mixed, or a name is ambiguous.
    pub fn of(keys: Vec<Key>) -> Result<KeySet, Unusable> {
        if keys.iter().any(Key::is_secret) && !keys.iter().all(Key::is_secret) {
            return Err("secrets and public keys are mixed".to_owned());
        }
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|before| before.is_ambiguous_with(key)) {
                let kid = key.kid().unwrap_or_default();
                return Err(format!("two keys are called `{kid}`"));
            }
        }
        let print = digest(&SHA256, &keys.iter().flat_map(Key::whole_print).collect::<Vec<u8>>());
        Ok(KeySet { print: print.as_ref().to_vec(), keys })
    }

    /// A JWK Set (RFC 7517 §5), or one JWK. Keys for signatures that cannot be used are left out,
    /// and told; keys for something else are not there.
    pub fn from_json(text: &[u8]) -> Result<(Vec<Key>, Vec<Unusable>), Unusable> {
        let json: Value =
            serde_json::from_slice(text).map_err(|e| format!("it is not JSON: {e}"))?;
        let list = match &json {
            Value::Object(set) => match set.get("keys") {
                Some(keys) => keys.as_array().ok_or("its member `keys` is no array")?.as_slice(),
                None if set.contains_key("kty") => std::slice::from_ref(&json),
                None => return Err("it has no member `keys`: it is no JWK Set".to_owned()),
            },
            _ => return Err("it is no JWK Set".to_owned()),
        };
        if list.len() > KEYS_MAX {
            return Err(format!("it has more than {KEYS_MAX} keys"));
        }
        let (mut keys, mut unusable) = (Vec::new(), Vec::new());
        for (at, jwk) in list.iter().enumerate() {
            let key = jwk.as_object().ok_or("it is no object".to_owned()).and_then(Key::from_jwk);
            let name = || match jwk.get("kid").and_then(Value::as_str) {
                Some(kid) => format!("key `{}`", kid.escape_debug()),
                None => format!("key {at}"),
            };
            match key {
                Ok(key) => keys.extend(key),
                Err(why) => unusable.push(format!("{}: {why}", name())),
            }
        }
        Ok((keys, unusable))
    }

    /// A set from the other end of a connection: public keys only, and none whose name is
    /// ambiguous. Told: what was left out.
    pub fn remote(text: &[u8]) -> Result<(KeySet, Vec<Unusable>), Unusable> {
        let (keys, mut left_out) = KeySet::from_json(text)?;
        let mut kept: Vec<Key> = Vec::with_capacity(keys.len());
        let mut ambiguous: Vec<Box<str>> = Vec::new();
        for key in keys {
            if key.is_secret() {
                // Whoever can read it could sign.
                left_out.push(format!("key {:?}: a secret that is published", key.kid));
            } else if let Some(twin) = kept.iter().find(|kept| kept.is_ambiguous_with(&key)) {
                // The same key twice is one key.
                if twin.print != key.print {
                    ambiguous.extend(key.kid);
                }
            } else {
                kept.push(key);
            }
        }
        for kid in ambiguous {
            left_out.push(format!("key `{}`: two keys have this name", kid.escape_debug()));
            kept.retain(|key| key.kid() != Some(&kid));
        }
        match kept.is_empty() {
            true => Err(format!("no key of it can be used: {}", left_out.join("; "))),
            false => Ok((KeySet::of(kept)?, left_out)),
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key may be used with one of these.
    pub fn serves(&self, algorithms: &[Algorithm]) -> bool {
        let of = |key: &Key| key.algorithms.iter().any(|own| algorithms.contains(own));
        self.keys.iter().any(of)
    }

    /// The keys a token may mean that names `kid`, or none: those of that name; else those without
    /// a name.
    pub(super) fn candidates(&self, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let named = kid.is_some() && self.keys.iter().any(|key| key.kid() == kid);
        self.keys.iter().filter(move |key| match (kid, key.kid()) {
            // A token without name may be of any key.
            (None, _) => true,
            (Some(kid), Some(own)) => kid == own,
            (Some(_), None) => !named,
        })
    }
}

impl Key {
    fn whole_print(&self) -> Vec<u8> {
        let mut print = self.print.clone();
        print.extend_from_slice(self.kid().unwrap_or_default().as_bytes());
        print.extend(self.algorithms.iter().map(|algorithm| *algorithm as u8));
        print.push(0xff);
        print
    }
}

#[cfg(test)]
mod tests {
    use super::is_roca;

    /// 65537 to this power, which a modulus of such a chip looks like.
    fn power(exponent: u32) -> Vec<u8> {
        let mut digits = vec![1u8];
        for _ in 0..exponent {
            let mut carry = 0u32;
            digits.iter_mut().for_each(|digit| {
                let value = u32::from(*digit) * 65537 + carry;
                (*digit, carry) = (value as u8, value >> 8);
            });
            digits.extend(carry.to_le_bytes());
        }
        digits.reverse();
        digits
    }

    #[test]
    fn the_mark_of_weak_moduli() {
        for exponent in [1, 7, 128] {
            assert!(is_roca(&power(exponent)), "{exponent}");
        }
        let mut other = power(128);
        *other.last_mut().expect("not empty") += 2;
        assert!(!is_roca(&other));
    }
}
