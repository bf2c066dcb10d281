//! Tokens that are accepted, and the traps.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA512, RsaPublicKeyComponents,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;

use super::{key::Key, *};

const NOW: f64 = 1_700_000_000.0;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rule(algorithms: &[Algorithm]) -> Rule {
    Rule {
        algorithms: algorithms.to_vec(),
        issuer: "https://id.example".to_owned(),
        audiences: vec!["api".to_owned()],
        claims: Vec::new(),
        types: Vec::new(),
        skew_s: 30.0,
        needs_exp: true,
        bytes_max: 8192,
        subject: "sub".to_owned(),
        groups: "groups".to_owned(),
        scopes: "scope".to_owned(),
    }
}

fn claims() -> Value {
    json!({ "iss": "https://id.example", "aud": "api", "exp": NOW + 60.0, "sub": "alice" })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    let Value::Object(change) = change else { panic!("no object") };
    for (name, value) in change {
        match value {
            Value::Null => drop(claims.as_object_mut().map(|claims| claims.remove(&name))),
            value => claims[name] = value,
        }
    }
    claims
}

fn hs256(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
}

fn secrets() -> KeySet {
    KeySet::of(vec![Key::secret(SECRET, None, &[Algorithm::Hs256]).expect("long enough")])
        .expect("a set")
}

fn told(rule: &Rule, token: &str, keys: &KeySet) -> String {
    match rule.judge(token.as_bytes(), Some(keys), &"main".into(), NOW) {
        Judged::Accepted(verified) => verified.identity.subject.to_string(),
        Judged::Refused(refusal) => refusal.reason.token.to_owned(),
        Judged::KeyUnknown => "key unknown".to_owned(),
    }
}

#[test]
fn claims_that_are_asked_for() {
    let plain = || rule(&[Algorithm::Hs256]);
    let asks = |path: &str, values: Vec<Value>| Rule {
        claims: vec![(path.to_owned(), values)],
        ..plain()
    };
    let table: Vec<(Rule, Value, &str)> = vec![
        (plain(), claims(), "alice"),
        (plain(), with(json!({ "sub": 7 })), "7"),
        (plain(), with(json!({ "sub": null })), ""),
        (plain(), with(json!({ "iss": null })), "auth.issuer"),
        (plain(), with(json!({ "iss": "https://id.example/" })), "auth.issuer"),
        (plain(), with(json!({ "iss": ["https://id.example"] })), "auth.issuer"),
        (Rule { issuer: String::new(), ..plain() }, with(json!({ "iss": "x" })), "alice"),
        (plain(), with(json!({ "aud": null })), "auth.audience"),
        (plain(), with(json!({ "aud": "apis" })), "auth.audience"),
        (plain(), with(json!({ "aud": ["x", "api"] })), "alice"),
        (plain(), with(json!({ "aud": ["api", 7] })), "auth.audience"),
        (plain(), with(json!({ "aud": [] })), "auth.audience"),
        (Rule { audiences: Vec::new(), ..plain() }, with(json!({ "aud": null })), "alice"),
        (plain(), with(json!({ "exp": null })), "auth.claim"),
        (Rule { needs_exp: false, ..plain() }, with(json!({ "exp": null })), "alice"),
        (plain(), with(json!({ "exp": "1800000000" })), "auth.invalid"),
        (plain(), with(json!({ "exp": NOW })), "alice"),
        (plain(), with(json!({ "exp": NOW - 29.5 })), "alice"),
        (plain(), with(json!({ "exp": NOW - 30.0 })), "auth.expired"),
        (plain(), with(json!({ "exp": 0 })), "auth.expired"),
        (plain(), with(json!({ "exp": -1e300 })), "auth.expired"),
        (plain(), with(json!({ "exp": 1e300 })), "alice"),
        (plain(), with(json!({ "nbf": NOW + 30.0 })), "alice"),
        (plain(), with(json!({ "nbf": NOW + 30.5 })), "auth.not_yet"),
        (plain(), with(json!({ "nbf": true })), "auth.invalid"),
        (asks("azp", vec![]), claims(), "auth.claim"),
        (asks("azp", vec![]), with(json!({ "azp": "web" })), "alice"),
        (asks("azp", vec![json!("web"), json!("cli")]), with(json!({ "azp": "cli" })), "alice"),
        (asks("azp", vec![json!("web")]), with(json!({ "azp": "webs" })), "auth.claim"),
        (
            asks("roles.all", vec![json!("a")]),
            with(json!({ "roles": { "all": ["b", "a"] } })),
            "alice",
        ),
        (asks("verified", vec![json!(true)]), with(json!({ "verified": "true" })), "auth.claim"),
        (asks("verified", vec![json!(true)]), with(json!({ "verified": true })), "alice"),
    ];
    for (rule, claims, wanted) in table {
        let token = hs256(&json!({ "alg": "HS256" }), &claims);
        assert_eq!(told(&rule, &token, &secrets()), wanted, "{claims} {:?}", rule.claims);
    }
}

#[test]
fn headers_and_forms() {
    let plain = rule(&[Algorithm::Hs256]);
    let typed = Rule { types: vec!["at+jwt".to_owned()], ..plain.clone() };
    let header = |more: Value| {
        let mut header = json!({ "alg": "HS256" });
        for (name, value) in more.as_object().expect("an object") {
            header[name] = value.clone();
        }
        hs256(&header, &claims())
    };
    let good = header(json!({}));
    let [head, body, tail] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let unsigned = format!("{}.{body}.", b64(r#"{"alg":"none"}"#));
    let deep = "[".repeat(100_000);
    for (rule, token, wanted) in [
        (&plain, good.clone(), "alice"),
        (
            &plain,
            header(json!({ "typ": "JWT", "cty": "x", "jku": "https://evil.example" })),
            "alice",
        ),
        (&typed, header(json!({ "typ": "at+jwt" })), "alice"),
        (&typed, header(json!({ "typ": "application/AT+JWT" })), "alice"),
        (&typed, header(json!({ "typ": "JWT" })), "auth.invalid"),
        (&typed, good.clone(), "auth.invalid"),
        (&plain, header(json!({ "crit": ["exp"] })), "auth.invalid"),
        (&plain, header(json!({ "crit": [] })), "auth.invalid"),
        (&plain, header(json!({ "crit": null })), "auth.invalid"),
        (&plain, header(json!({ "b64": false })), "auth.invalid"),
        (&plain, header(json!({ "kid": 7 })), "auth.invalid"),
        (&plain, header(json!({ "alg": "HS384" })), "auth.invalid"),
        (&plain, header(json!({ "alg": "hs256" })), "auth.invalid"),
        (&plain, header(json!({ "alg": ["HS256"] })), "auth.invalid"),
        (&plain, unsigned, "auth.invalid"),
        (&plain, format!("{}.{body}.", b64(r#"{"alg":"None"}"#)), "auth.invalid"),
        (
            &plain,
            format!("{}.{body}.{tail}", b64(r#"{"alg":"none","alg":"HS256"}"#)),
            "auth.invalid",
        ),
        (&plain, format!("{head}.{body}."), "auth.invalid"),
        (&plain, format!("{head}.{body}"), "auth.invalid"),
        (&plain, format!("{good}.x"), "auth.invalid"),
        (&plain, format!("{good}="), "auth.invalid"),
        (&plain, format!("{good} "), "auth.invalid"),
        (&plain, format!(" {good}"), "auth.invalid"),
        (&plain, good.replace('.', " . "), "auth.invalid"),
        (&plain, format!("{{\"payload\":\"{body}\"}}"), "auth.invalid"),
        (&plain, format!("{head}.{}.{tail}", b64(&good)), "auth.invalid"),
        (&plain, format!("{}.{body}.{tail}", b64(&deep)), "auth.invalid"),
        (&plain, format!("{head}.{}.{tail}", b64(deep.get(..6000).unwrap_or(""))), "auth.invalid"),
        (&plain, "a".repeat(1 << 20), "auth.invalid"),
        (&plain, String::new(), "auth.invalid"),
        (&plain, "..".to_owned(), "auth.invalid"),
    ] {
        assert_eq!(told(rule, &token, &secrets()), wanted, "{token:.300}");
    }
    // Bytes that are no text.
    let judged = plain.judge(b"\xff.\0.\xff", Some(&secrets()), &"main".into(), NOW);
    assert!(matches!(judged, Judged::Refused(_)));
    // A nested token is no claims, also when it is signed.
    let nested = hs256(&json!({ "alg": "HS256", "cty": "JWT" }), &json!(good));
    assert_eq!(told(&plain, &nested, &secrets()), "auth.invalid");
}

/// A signature by every kind of key, and what comes of tokens that say otherwise.
#[test]
fn keys_verify_what_they_are_for() {
    let random = SystemRandom::new();
    let rsa = RsaPair::generate(KeySize::Rsa2048).expect("a key");
    let n_and_e = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let (p256, p384, p521) = (
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
        EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"),
        EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).expect("a key"),
    );
    let ed = Ed25519KeyPair::generate().expect("a key");
    let ec = |pair: &EcdsaKeyPair, curve: &str, kid: &str| {
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": kid })
    };
    let set = json!({ "keys": [
        { "kty": "RSA", "n": b64(&n_and_e.n), "e": b64(&n_and_e.e), "kid": "r" },
        ec(&p256, "P-256", "p256"), ec(&p384, "P-384", "p384"), ec(&p521, "P-521", "p521"),
        { "kty": "OKP", "crv": "Ed25519", "x": b64(ed.public_key()), "kid": "ed" },
        { "kty": "oct", "k": b64(SECRET), "kid": "s" },
        { "kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "ed448" },
    ] });
    let (keys, left_out) = KeySet::remote(set.to_string().as_bytes()).expect("a set");
    assert_eq!((keys.len(), left_out.len()), (5, 2), "{left_out:?}");
    let sign = |header: Value, how: &dyn Fn(&[u8]) -> Vec<u8>| {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
        format!("{message}.{}", b64(how(message.as_bytes())))
    };
    let by_rsa = |how: &'static dyn aws_lc_rs::signature::RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(how, &random, message, &mut signature).expect("a signature");
        signature
    };
    let by_ec = |pair: &EcdsaKeyPair, message: &[u8]| {
        pair.sign(&random, message).expect("a signature").as_ref().to_vec()
    };
    let public_as_secret = |message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &n_and_e.n), message).as_ref().to_vec()
    };
    let of_secret = |message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
    };
    let head = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let every: Vec<Algorithm> = Algorithm::ALL.iter().map(|(algorithm, _)| *algorithm).collect();
    let all = rule(&every);
    let pinned = rule(&[Algorithm::Rs256]);
    let (rs256, ps512) = (&RSA_PKCS1_SHA256, &RSA_PSS_SHA512);
    for (rule, token, wanted) in [
        (&all, sign(head("RS256", "r"), &|m| by_rsa(rs256, m)), "alice"),
        (&all, sign(json!({ "alg": "RS256" }), &|m| by_rsa(rs256, m)), "alice"),
        (&all, sign(head("PS512", "r"), &|m| by_rsa(ps512, m)), "alice"),
        (&pinned, sign(head("PS512", "r"), &|m| by_rsa(ps512, m)), "auth.invalid"),
        (&all, sign(head("RS256", "r"), &|m| by_rsa(ps512, m)), "auth.invalid"),
        (&all, sign(head("ES256", "p256"), &|m| by_ec(&p256, m)), "alice"),
        (&all, sign(head("ES384", "p384"), &|m| by_ec(&p384, m)), "alice"),
        (&all, sign(head("ES512", "p521"), &|m| by_ec(&p521, m)), "alice"),
        (&all, sign(head("ES256", "p384"), &|m| by_ec(&p384, m)), "auth.invalid"),
        (&all, sign(head("EdDSA", "ed"), &|m| ed.sign(m).as_ref().to_vec()), "alice"),
        (&all, sign(head("Ed25519", "ed"), &|m| ed.sign(m).as_ref().to_vec()), "alice"),
        (&all, sign(head("RS256", "gone"), &|m| by_rsa(rs256, m)), "key unknown"),
        // What is public is no secret, and a secret that was published is none either.
        (&all, sign(head("HS256", "r"), &public_as_secret), "auth.invalid"),
        (&all, sign(json!({ "alg": "HS256" }), &public_as_secret), "key unknown"),
        (&all, sign(head("HS256", "s"), &of_secret), "key unknown"),
        // Keys in a token are not looked at.
        (
            &all,
            sign(json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": b64(SECRET) } }), &of_secret),
            "key unknown",
        ),
    ] {
        assert_eq!(told(rule, &token, &keys), wanted, "{token:.120}");
    }
}

fn ed25519_in_der() -> Vec<u8> {
    let pair = Ed25519KeyPair::generate().expect("a key");
    pair.public_key().as_der().expect("DER").as_ref().to_vec()
}

#[test]
fn keys_that_are_none() {
    let x = b64([1; 32]);
    let short_n = b64([0xff; 128]);
    let n = b64([0xff; 256]);
    for (jwk, wanted) in [
        (json!({}), "kind"),
        (json!({ "kty": "EC", "crv": "P-256", "x": x, "y": x }), "no public key"),
        (json!({ "kty": "EC", "crv": "P-256", "x": x, "y": b64([1; 31]) }), "length"),
        // As long as both together have to be.
        (json!({ "kty": "EC", "crv": "P-256", "x": b64([1; 33]), "y": b64([1; 31]) }), "length"),
        (json!({ "kty": "EC", "crv": "P-256", "x": x }), "`y`"),
        (json!({ "kty": "EC", "crv": "secp256k1", "x": x, "y": x }), "curve"),
        (json!({ "kty": "EC", "crv": "P-384", "alg": "ES256", "x": x, "y": x }), "curve"),
        (json!({ "kty": "RSA", "n": short_n, "e": "AQAB" }), "1024 bits"),
        (json!({ "kty": "RSA", "n": n, "e": "AQ" }), "exponent"),
        (json!({ "kty": "RSA", "n": n, "e": "Ag" }), "exponent"),
        (json!({ "kty": "RSA", "n": format!("{n}="), "e": "AQAB" }), "base64url"),
        (json!({ "kty": "RSA", "alg": "RSA-OAEP", "n": n, "e": "AQAB" }), "signs nothing"),
        (json!({ "kty": "RSA", "alg": "ES256", "n": n, "e": "AQAB" }), "another kind"),
        (json!({ "kty": "RSA", "use": "enc", "n": n, "e": "AQAB" }), "for something else"),
        (
            json!({ "kty": "RSA", "key_ops": ["wrapKey"], "n": n, "e": "AQAB" }),
            "for something else",
        ),
        (json!({ "kty": "RSA", "key_ops": "verify", "n": n, "e": "AQAB" }), "for something else"),
        (json!({ "kty": "oct", "k": b64([7; 31]) }), "31 bytes"),
        (json!({ "kty": "oct", "k": "" }), "empty"),
        (json!({ "kty": "oct", "alg": "RS256", "k": b64([7; 64]) }), "another kind"),
        (json!({ "kty": "OKP", "alg": "ES256", "crv": "Ed25519", "x": x }), "another kind"),
        (json!({ "kty": "oct", "alg": "HS512", "k": b64([7; 63]) }), "63 bytes"),
        (json!({ "kty": "OKP", "crv": "X25519", "x": x }), "curve"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": b64([1; 31]) }), "no public key"),
        // Not the point, but a whole SubjectPublicKeyInfo.
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(ed25519_in_der()) }), "no public key"),
        (json!({ "kty": "oct", "k": b64([7; 64]), "kid": 7 }), "kid"),
    ] {
        let why = match Key::from_jwk(jwk.as_object().expect("an object")) {
            Ok(None) => "for something else".to_owned(),
            Ok(Some(key)) => panic!("{jwk}: {key:?}"),
            Err(why) => why,
        };
        assert!(why.contains(wanted), "{jwk}: {why}");
    }
}

#[test]
fn sets_are_of_one_kind_and_names_of_one_key() {
    let secret = |kid: &str, byte: u8| json!({ "kty": "oct", "k": b64([byte; 64]), "kid": kid });
    let ed = |kid: &str| {
        let pair = Ed25519KeyPair::generate().expect("a key");
        json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()), "kid": kid })
    };
    let of = |keys: Vec<Value>| {
        let (keys, left_out) =
            KeySet::from_json(json!({ "keys": keys }).to_string().as_bytes()).expect("JSON");
        assert!(left_out.is_empty(), "{left_out:?}");
        KeySet::of(keys)
    };
    assert!(of(vec![secret("a", 1), secret("b", 2)]).is_ok());
    assert!(of(vec![secret("a", 1), secret("a", 2)]).expect_err("one name").contains("`a`"));
    assert!(of(vec![secret("a", 1), ed("b")]).expect_err("both").contains("mixed"));
    let twin = ed("a");
    let remote = |keys: Vec<Value>| {
        KeySet::remote(json!({ "keys": keys }).to_string().as_bytes()).map(|(keys, _)| keys.len())
    };
    assert_eq!(remote(vec![twin.clone(), twin.clone(), ed("b")]), Ok(2));
    assert_eq!(remote(vec![twin.clone(), ed("a"), ed("b")]), Ok(1));
    assert!(remote(vec![secret("a", 1)]).is_err());
    assert!(remote(vec![]).is_err());
    assert!(remote(vec![twin; key::KEYS_MAX + 1]).is_err());
}

fn in_pem(base64: &str) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn keys_in_pem() {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let pem = pair.public_key_pem();
    let keys = KeySet::of(Key::from_pem(pem.as_bytes()).expect("a key")).expect("a set");
    assert!(keys.serves(&[Algorithm::Es256]) && !keys.serves(&[Algorithm::Es384]));
    let certificate = rcgen::CertificateParams::new(Vec::new())
        .and_then(|params| params.self_signed(&pair))
        .expect("a certificate");
    let same = KeySet::of(Key::from_pem(certificate.pem().as_bytes()).expect("a key"));
    assert_eq!(same, Ok(keys));
    for text in [pair.serialize_pem(), "-----BEGIN PUBLIC KEY-----".to_owned(), String::new()] {
        assert!(Key::from_pem(text.as_bytes()).is_err(), "{text}");
    }
    // X25519, whose keys are as long as those of Ed25519, and secp256k1, as long as P-256.
    for der in [
        "MCowBQYDK2VuAyEAolDtjETM2QgDy8nHSQoDACYMDTVr+PbEBTJFJa6ltDc=",
        "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE1f7LOYIXW8mQux9zDsmMNFpIrzi4hCWTQWJP9rrIvEOzSh8tVBpLrnw1RO6p\
         Oa95wdoRItvRx3/nwtbAn22GGA==",
    ] {
        let why = Key::from_pem(in_pem(der).as_bytes()).expect_err("other kinds");
        assert!(why.contains("is not RSA"), "{why}");
    }
}

#[test]
fn keys_in_pem_verify() {
    let random = SystemRandom::new();
    let message = b"message";
    let rsa = RsaPair::generate(KeySize::Rsa2048).expect("a key");
    let mut by_rsa = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PSS_SHA512, &random, message, &mut by_rsa).expect("a signature");
    let ed = Ed25519KeyPair::generate().expect("a key");
    let der = |der: Result<PublicKeyX509Der<'_>, Unspecified>| der.expect("DER").as_ref().to_vec();
    let mut table = vec![
        (Algorithm::Ps512, der(rsa.public_key().as_der()), by_rsa),
        (Algorithm::EdDsa, der(ed.public_key().as_der()), ed.sign(message).as_ref().to_vec()),
    ];
    for (algorithm, how) in [
        (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
    ] {
        let pair = EcdsaKeyPair::generate(how).expect("a key");
        let signature = pair.sign(&random, message).expect("a signature").as_ref().to_vec();
        table.push((algorithm, der(pair.public_key().as_der()), signature));
    }
    for (algorithm, der, mut signature) in table {
        let keys = Key::from_pem(in_pem(&STANDARD.encode(&der)).as_bytes()).expect("a key");
        let [key] = keys.as_slice() else { panic!("{algorithm:?}: {keys:?}") };
        assert_eq!(key.verifies(algorithm, message, &signature), Some(true), "{algorithm:?}");
        assert_eq!(key.verifies(algorithm, b"another", &signature), Some(false), "{algorithm:?}");
        assert_eq!(key.verifies(Algorithm::Hs256, message, &signature), None, "{algorithm:?}");
        signature[7] ^= 1;
        assert_eq!(key.verifies(algorithm, message, &signature), Some(false), "{algorithm:?}");
    }
}
