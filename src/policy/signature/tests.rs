//! Signatures: those of RFC 9421 (appendix B), what is refused, and that nothing covered can
//! change.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::{
    policy::signature::key::Material,
    wire::{HeadLimits, Parsed},
};

/// When the examples of RFC 9421 were signed.
const THEN: u64 = 1_618_884_473;

// The keys of RFC 9421 §B.1.
const RSA_PSS: &str = "-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2\n\
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+\n\
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq\n\
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W\n\
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4\n\
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI\n\
2wIDAQAB\n-----END PUBLIC KEY-----\n";
const P256: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\n\
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n\
-----END PUBLIC KEY-----\n";
const ED: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n\
-----END PUBLIC KEY-----\n";
const SECRET: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

fn secret() -> Vec<u8> {
    STANDARD.decode(SECRET).expect("base64")
}

fn keys() -> Keys {
    let mut keys = Keys::default();
    let public = |pem: &str, algorithm| Material::public(pem.as_bytes(), algorithm);
    for (id, algorithm, material) in [
        ("test-key-rsa-pss", Algorithm::RsaPssSha512, public(RSA_PSS, Algorithm::RsaPssSha512)),
        ("test-key-ecc-p256", Algorithm::EcdsaP256Sha256, public(P256, Algorithm::EcdsaP256Sha256)),
        ("test-key-ed25519", Algorithm::Ed25519, public(ED, Algorithm::Ed25519)),
        ("test-shared-secret", Algorithm::HmacSha256, Material::secret(&secret())),
    ] {
        keys.add(Key::new(id, algorithm, 7, material.expect("a key")));
    }
    keys
}

/// One that asks for nothing but a signature that is not old.
fn lax() -> Rule {
    Rule { max_age_s: 300, skew_s: 30, ..Rule::default() }
}

/// The usual one.
fn strict() -> Rule {
    let components =
        vec![Component::Method, Component::Authority, Component::Path, Component::Query];
    Rule { components, content_digest: true, ..lax() }
}

struct Request {
    bytes: Vec<u8>,
    head: RequestHead,
}

fn request(text: &str) -> Request {
    let bytes = text.as_bytes().to_vec();
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes_max: 16384, target_bytes_max: 4096, fields_max: 100 };
    assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete(())), "{text}");
    Request { bytes, head }
}

impl Request {
    fn message(&self) -> Message<'_> {
        Message { head: &self.head, bytes: &self.bytes, scheme: "https" }
    }

    fn told(&self, rule: &Rule, now_s: u64) -> Result<String, &'static str> {
        match rule.judge(&self.message(), &keys(), now_s) {
            Judged::Signed(signed) => Ok(signed.key.id.to_string()),
            Judged::Refused(reason) => Err(reason.token),
            Judged::NotShown => Err("nothing"),
        }
    }
}

/// The request of RFC 9421 §B.2.
const TEST_REQUEST: &str = "POST /foo?param=Value&Pet=dog HTTP/1.1\r\nHost: example.com\r\n\
    Date: Tue, 20 Apr 2021 02:07:55 GMT\r\nContent-Type: application/json\r\n\
    Content-Digest: sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNy\
    ealdVLvRwEmTHWXvJwew==:\r\nContent-Length: 18\r\n";

fn signed(input: &str, signature: &str) -> Request {
    let fields = format!("Signature-Input: {input}\r\nSignature: {signature}\r\n\r\n");
    request(&format!("{TEST_REQUEST}{fields}"))
}

/// Requests of RFC 9421 §B.2: input, signature, key.
const EXAMPLES: [(&str, &str, &str); 5] = [
    (
        r#"sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd""#,
        "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
        "test-key-rsa-pss",
    ),
    (
        r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
        "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
        "test-key-rsa-pss",
    ),
    (
        r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
        "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
        "test-key-rsa-pss",
    ),
    (
        r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
        "test-shared-secret",
    ),
    (
        r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        "test-key-ed25519",
    ),
];

#[test]
fn examples_of_rfc_9421() {
    for (input, signature, key) in EXAMPLES {
        let request = signed(input, signature);
        assert_eq!(request.told(&lax(), THEN), Ok(key.to_owned()), "{input}");
        // Of another one, or with another first byte.
        let other = signature.replacen("=:", "=:AA", 1).replacen("=:", "=:AAAA", 1);
        assert_eq!(signed(input, &other).told(&lax(), THEN), Err("auth.invalid"), "{input}");
    }
    // All of it at once: the usual rule.
    let (input, signature, key) = EXAMPLES[2];
    assert_eq!(signed(input, signature).told(&strict(), THEN), Ok(key.to_owned()));
    for at in [0, 1, 3, 4] {
        let (input, signature, _) = EXAMPLES[at];
        assert_eq!(signed(input, signature).told(&strict(), THEN), Err("auth.uncovered"), "{at}");
    }
    // §B.2.4 is a response, and what is signed is as there.
    let keys = keys();
    let base = "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": \
        sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aG\
        gfLQ==:\n\"content-length\": 23\n\"@signature-params\": (\"@status\" \"content-type\" \
        \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
    let signature = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj\
                     +32oiasw==";
    let signature = STANDARD.decode(signature).expect("base64");
    let key = keys.find("test-key-ecc-p256").expect("there");
    assert!(key.verifies(base.as_bytes(), &signature));
    assert!(!key.verifies(&base.as_bytes()[1..], &signature));
}

/// RFC 9421 §B.3: a proxy has put the client's certificate there.
#[test]
fn the_example_of_a_proxy() {
    let certificate = ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:";
    let text = |host: &str| {
        request(&format!(
            "POST /foo?param=Value&Pet=dog HTTP/1.1\r\nHost: {host}\r\nClient-Cert: {certificate}\r\n\
             Content-Length: 18\r\nSignature-Input: ttrp=(\"@path\" \"@query\" \"@method\" \
             \"@authority\" \"client-cert\");created=1618884473;keyid=\"test-key-ecc-p256\"\r\n\
             Signature: ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9\
             ah4JHRwMLOgmizw==:\r\n\r\n"
        ))
    };
    let key = Ok("test-key-ecc-p256".to_owned());
    assert_eq!(text("service.internal.example").told(&lax(), THEN), key);
    // The same name, as it may be written too.
    assert_eq!(text("Service.Internal.Example:443").told(&lax(), THEN), key);
    assert_eq!(text("service.internal.example:444").told(&lax(), THEN), Err("auth.invalid"));
}

/// RFC 9421 §B.4: what may change on the way, and what may not.
#[test]
fn messages_that_were_changed_on_their_way() {
    let fields = "Signature-Input: transform=(\"@method\" \"@path\" \"@authority\" \"accept\");\
        created=1618884473;keyid=\"test-key-ed25519\"\r\nSignature: transform=:ZT1kooQsEHpZ0I1IjCqt\
        QppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:\r\n\r\n";
    for (start, is_good) in [
        (
            "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\r\nHost: example.org\r\n\
          Accept: application/json\r\nAccept: */*\r\n",
            true,
        ),
        (
            "GET /demo?name1=Value1&Name2=value2&param=added HTTP/1.1\r\nHost: example.org\r\n\
          Accept: application/json\r\nAccept: */*\r\nAccept-Language: en\r\n",
            true,
        ),
        ("GET /demo HTTP/1.1\r\nAccept:   application/json, */*  \r\nHost: EXAMPLE.org\r\n", true),
        (
            "GET http://example.org/demo HTTP/1.1\r\nHost: example.org\r\n\
          accept: application/json\r\nX: 1\r\nACCEPT:\t*/*\r\n",
            true,
        ),
        (
            "POST /demo?name1=Value1 HTTP/1.1\r\nHost: example.com\r\nAccept: application/json\r\n\
          Accept: */*\r\n",
            false,
        ),
        (
            "GET /demo HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\
          Accept: application/json\r\n",
            false,
        ),
        ("GET /demo HTTP/1.1\r\nHost: example.org\r\nAccept: application/json,*/*\r\n", false),
        ("GET /demo/ HTTP/1.1\r\nHost: example.org\r\nAccept: application/json, */*\r\n", false),
        ("GET /d%65mo HTTP/1.1\r\nHost: example.org\r\nAccept: application/json, */*\r\n", false),
        ("GET /demo HTTP/1.1\r\nHost: example.org\r\n", false),
    ] {
        let told = request(&format!("{start}{fields}")).told(&lax(), THEN);
        assert_eq!(told.is_ok(), is_good, "{start}: {told:?}");
    }
}

/// Bytes that a component comes to, without what is around it.
fn base_of(target: &str, fields: &str, component: &str) -> Option<String> {
    let request =
        request(&format!("GET {target} HTTP/1.1\r\nHost: www.Example.com\r\n{fields}\r\n"));
    let list: sfv::List = Parser::new(&format!("({component})")).parse().expect(component);
    let ListEntry::InnerList(covered) = &list[0] else { panic!("{component}") };
    let base = String::from_utf8(base::of(&request.message(), covered)?).expect("ASCII");
    let (value, params) = base.split_once("\n\"@signature-params\": ").expect("a last line");
    assert_eq!(params, format!("({component})"));
    let value = value.strip_prefix(&format!("{component}: ")).map(str::to_owned);
    Some(value.unwrap_or_else(|| panic!("{component}: {base}")))
}

/// Examples of RFC 9421 §2, and others.
#[test]
fn components_of_requests() {
    let params = "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace\
                  &fa%C3%A7ade%22%3A%20=something&twice=1&twice=2&empty";
    let dict = "Example-Dict:  a=1,    b=2;x=1;y=2,   c=(a   b   c)\r\n";
    let more = "Example-Dict: d, e;z=?0\r\nX-Empty:\r\nX-Pad:   Leading and trailing   \r\n\
        X-Two: a, b\r\nX-Two:  c\r\nContent-Digest: sha-256=:RK/0:,  sha-512=:AAAA:;x=1\r\n";
    let fields = &*format!("{dict}{more}");
    for (target, component, wanted) in [
        ("/path?param=value", r#""@method""#, Some("GET")),
        ("/path?param=value", r#""@authority""#, Some("www.example.com")),
        ("/path?param=value", r#""@scheme""#, Some("https")),
        ("/path?param=value", r#""@path""#, Some("/path")),
        ("/path?param=value", r#""@query""#, Some("?param=value")),
        ("/path?", r#""@query""#, Some("?")),
        ("/path", r#""@query""#, Some("?")),
        ("/path?queryString", r#""@query""#, Some("?queryString")),
        ("/path?a=b", r#""@request-target""#, Some("/path?a=b")),
        ("/path?a=b", r#""@target-uri""#, Some("https://www.example.com/path?a=b")),
        ("/path?", r#""@target-uri""#, Some("https://www.example.com/path?")),
        ("http://www.example.com", r#""@path""#, Some("/")),
        ("http://www.example.com?a", r#""@target-uri""#, Some("https://www.example.com/?a")),
        ("http://www.example.com/x", r#""@request-target""#, Some("http://www.example.com/x")),
        (params, r#""@query-param";name="var""#, Some("this%20is%20a%20big%0Amultiline%20value")),
        (params, r#""@query-param";name="bar""#, Some("with%20plus%20whitespace")),
        (params, r#""@query-param";name="fa%C3%A7ade%22%3A%20""#, Some("something")),
        (params, r#""@query-param";name="empty""#, Some("")),
        (params, r#""@query-param";name="twice""#, None),
        (params, r#""@query-param";name="none""#, None),
        (params, r#""@query-param""#, None),
        (params, r#""@query-param";name="bar";x"#, None),
        ("/", r#""x-empty""#, Some("")),
        ("/", r#""x-pad""#, Some("Leading and trailing")),
        ("/", r#""x-two""#, Some("a, b, c")),
        ("/", r#""x-two";bs"#, Some(":YSwgYg==:, :Yw==:")),
        ("/", r#""example-dict""#, Some("a=1,    b=2;x=1;y=2,   c=(a   b   c), d, e;z=?0")),
        ("/", r#""example-dict";key="a""#, Some("1")),
        ("/", r#""example-dict";key="b""#, Some("2;x=1;y=2")),
        ("/", r#""example-dict";key="c""#, Some("(a b c)")),
        ("/", r#""example-dict";key="d""#, Some("?1")),
        ("/", r#""example-dict";key="e""#, Some("?1;z=?0")),
        ("/", r#""example-dict";key="f""#, None),
        ("/", r#""content-digest";sf"#, Some("sha-256=:RK/0:, sha-512=:AAAA:;x=1")),
        // What kind of field it is nobody has said.
        ("/", r#""example-dict";sf"#, None),
        ("/", r#""x-two";bs;sf"#, None),
        ("/", r#""x-two";bs=?0"#, None),
        ("/", r#""x-two";tr"#, None),
        ("/", r#""x-two";req"#, None),
        ("/", r#""x-two";other"#, None),
        ("/", r#""X-Two""#, None),
        ("/", r#""x-none""#, None),
        ("/", r#""@method";req"#, None),
        ("/", r#""@status""#, None),
        ("/", r#""@other""#, None),
        ("/", r#"x-two"#, None),
        ("/", r#""@method" "@method""#, None),
        ("/", r#""x-two";key="a";bs "x-two";bs;key="a""#, None),
    ] {
        assert_eq!(base_of(target, fields, component).as_deref(), wanted, "{target} {component}");
    }
}

/// Signs as clients do.
fn sign(start: &str, list: &str, params: &str) -> Request {
    let input = format!("({list}){params}");
    let unsigned = request(&format!("{start}\r\n"));
    let parsed: sfv::List = Parser::new(&input).parse().expect("a list");
    let ListEntry::InnerList(covered) = &parsed[0] else { panic!("{input}") };
    let base = base::of(&unsigned.message(), covered).expect("all is there");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret()), &base);
    let signature = STANDARD.encode(signature.as_ref());
    request(&format!(
        "{start}Signature-Input: sig1={input}\r\nSignature: sig1=:{signature}:\r\n\r\n"
    ))
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n";
const FOUR: &str = r#""@method" "@authority" "@path" "@query""#;
const KEY: &str = r#";created=1618884473;keyid="test-shared-secret""#;

#[test]
fn what_has_to_be_covered() {
    let post = &*format!("{GET}Content-Length: 3\r\n").replace("GET", "POST");
    let digested = &*format!("{post}Content-Digest: sha-256=:RK/0:\r\n");
    let dated = &*format!("{GET}Date: x\r\n");
    let date = Rule { components: vec![Component::Field("date".to_owned())], ..lax() };
    let uri = Rule { components: vec![Component::TargetUri], ..lax() };
    let (good, bad) = (Ok("test-shared-secret".to_owned()), Err("auth.uncovered"));
    for (rule, start, list, wanted) in [
        (&strict(), GET, FOUR, &good),
        (&strict(), GET, r#""@method" "@target-uri""#, &good),
        (&strict(), GET, r#""@method" "@authority" "@request-target""#, &good),
        (&strict(), GET, r#""@method" "@request-target""#, &bad),
        (&strict(), GET, r#""@authority" "@path" "@query""#, &bad),
        (&strict(), GET, r#""@method" "@authority" "@path" "@query-param";name="b""#, &bad),
        (&strict(), GET, "", &bad),
        (&uri, GET, FOUR, &bad),
        // A body that nobody vouches for.
        (&strict(), post, FOUR, &bad),
        (&Rule { content_digest: false, ..strict() }, post, FOUR, &good),
        (&strict(), digested, FOUR, &bad),
        (&strict(), digested, &*format!(r#"{FOUR} "content-digest""#), &good),
        (&strict(), digested, &*format!(r#"{FOUR} "content-digest";sf"#), &good),
        (&strict(), digested, &*format!(r#"{FOUR} "content-digest";key="sha-256""#), &bad),
        // A field counts where it is.
        (&date, GET, "", &good),
        (&date, dated, "", &bad),
        (&date, dated, r#""date""#, &good),
        (&date, dated, r#""date";bs"#, &good),
    ] {
        assert_eq!(sign(start, list, KEY).told(rule, THEN), *wanted, "{start} {list}");
    }
}

#[test]
fn parameters_and_times() {
    let rule = |parameter: &str| Rule {
        needs_expires: parameter == "expires",
        needs_nonce: parameter == "nonce",
        needs_alg: parameter == "alg",
        tag: if parameter == "tag" { "app".to_owned() } else { String::new() },
        label: if parameter == "label" { "sig2".to_owned() } else { String::new() },
        ..strict()
    };
    let with = |params: &str| format!("{KEY}{params}");
    let keyid = r#";keyid="test-shared-secret""#;
    for (rule, params, now_s, wanted) in [
        (rule(""), with(""), THEN, Ok(())),
        (rule(""), with(""), THEN + 329, Ok(())),
        (rule(""), with(""), THEN + 330, Err("auth.expired")),
        (rule(""), with(""), THEN - 30, Ok(())),
        (rule(""), with(""), THEN - 31, Err("auth.not_yet")),
        (rule(""), with(";expires=1618884483"), THEN + 39, Ok(())),
        (rule(""), with(";expires=1618884483"), THEN + 40, Err("auth.expired")),
        (rule(""), with(";expires=9999999999"), THEN + 330, Err("auth.expired")),
        (rule(""), with(";expires=-1"), THEN, Err("auth.invalid")),
        (rule(""), with(";expires=\"1618884483\""), THEN, Err("auth.invalid")),
        (rule(""), keyid.to_owned(), THEN, Err("auth.uncovered")),
        (rule(""), ";created=1618884473".to_owned(), THEN, Err("auth.invalid")),
        (
            rule(""),
            ";created=1.5;keyid=\"test-shared-secret\"".to_owned(),
            THEN,
            Err("auth.invalid"),
        ),
        (rule(""), KEY.replace("test-shared", "other"), THEN, Err("auth.key_unknown")),
        (rule(""), KEY.replace("\"test-shared-secret\"", "test"), THEN, Err("auth.invalid")),
        // The algorithm is the key's, whatever a signature says.
        (rule(""), with(";alg=\"hmac-sha256\""), THEN, Ok(())),
        (rule(""), with(";alg=\"ed25519\""), THEN, Err("auth.invalid")),
        (rule(""), with(";alg=hmac-sha256"), THEN, Err("auth.invalid")),
        (rule(""), KEY.replace("shared-secret", "key-ed25519"), THEN, Err("auth.invalid")),
        (rule("alg"), with(""), THEN, Err("auth.uncovered")),
        (rule("alg"), with(";alg=\"hmac-sha256\""), THEN, Ok(())),
        (rule("expires"), with(""), THEN, Err("auth.uncovered")),
        (rule("expires"), with(";expires=1618884483"), THEN, Ok(())),
        (rule("nonce"), with(""), THEN, Err("auth.uncovered")),
        (rule("nonce"), with(";nonce=\"\""), THEN, Err("auth.invalid")),
        (rule("nonce"), with(";nonce=\"a\""), THEN, Ok(())),
        (rule("tag"), with(""), THEN, Err("nothing")),
        (rule("tag"), with(";tag=\"other\""), THEN, Err("nothing")),
        (rule("tag"), with(";tag=\"app\""), THEN, Ok(())),
        (rule("label"), with(""), THEN, Err("nothing")),
        // One that nobody knows is signed as well.
        (rule(""), with(";x=1"), THEN, Ok(())),
    ] {
        let told = sign(GET, FOUR, &params).told(&rule, now_s).map(|_| ());
        assert_eq!(told, wanted, "{params} at {now_s}");
    }
}

#[test]
fn fields_that_are_malformed_or_contradict_each_other() {
    let good = String::from_utf8(sign(GET, FOUR, KEY).bytes).expect("ASCII");
    let key = Ok("test-shared-secret".to_owned());
    assert_eq!(request(&good).told(&strict(), THEN), key);
    let line = |name: &str| {
        let at = good.find(&format!("{name}: ")).expect("there");
        good[at..].lines().next().expect("a line").to_owned()
    };
    let (input, signature) = (line("Signature-Input"), line("Signature"));
    for (from, to, wanted) in [
        (&*input, "X: 1", Err("auth.invalid")),
        (&*signature, "X: 1", Err("auth.invalid")),
        ("sig1=(", "sig2=(", Err("auth.invalid")),
        ("sig1=:", "sig1=", Err("auth.invalid")),
        ("sig1=:", "sig1=(:", Err("auth.invalid")),
        ("sig1=:", "Sig1=:", Err("auth.invalid")),
        ("sig1=(", "sig1=1, x=(", Err("auth.invalid")),
        (r#"("@method" "#, r#"("@method" "@method" "#, Err("auth.invalid")),
        (r#"("@method" "#, r#"("@METHOD" "#, Err("auth.uncovered")),
        // Space that structured fields allow changes nothing.
        (r#"("@method" "#, r#"(  "@method"    "#, key.clone()),
        // Others beside it: of no key, or of nobody's concern.
        ("sig1=(", "other=(\"@method\");created=1618884473;keyid=\"x\", sig1=(", key.clone()),
        ("Signature: ", "Signature: other=:AAAA:, ", key.clone()),
    ] {
        assert_ne!(good.replacen(from, to, 1), good, "{from}");
        let told = request(&good.replacen(from, to, 1)).told(&strict(), THEN);
        assert_eq!(told, wanted, "{from} -> {to}");
    }
    // In two lines as in one.
    let two = good.replace("Signature: ", "Signature: x=:AAAA:\r\nSignature: ");
    assert_eq!(request(&two).told(&strict(), THEN), key);
    let only = Rule { label: "sig2".to_owned(), ..strict() };
    assert_eq!(request(&good).told(&only, THEN), Err("nothing"));
    assert_eq!(request(&format!("{GET}\r\n")).told(&strict(), THEN), Err("nothing"));
    // More of them than are looked at.
    let others: Vec<String> = (0..TRIES_MAX).map(|n| format!("s{n}=()")).collect();
    let flood = others.join(", ");
    let many = good.replacen("Signature-Input: ", &format!("Signature-Input: {flood}, "), 1);
    assert_eq!(request(&many).told(&strict(), THEN), Err("auth.invalid"));
}

#[test]
fn keys_verify_what_they_are_for() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let ed = Ed25519KeyPair::generate().expect("a key");
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    let mut signature = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &random, b"text", &mut signature).expect("signed");
    let ed_signature = ed.sign(b"text").as_ref().to_vec();
    let p384_signature = p384.sign(&random, b"text").expect("signed").as_ref().to_vec();
    let pem = |der: &[u8]| {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    };
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    let rsa_pem = {
        let der: PublicKeyX509Der<'_> = rsa.public_key().as_der().expect("DER");
        pem(der.as_ref())
    };
    let ed_pem = {
        let der: PublicKeyX509Der<'_> = ed.public_key().as_der().expect("DER");
        pem(der.as_ref())
    };
    let p384_pem = {
        let der: PublicKeyX509Der<'_> = p384.public_key().as_der().expect("DER");
        pem(der.as_ref())
    };
    for (pem, algorithm, signature) in [
        (&rsa_pem, Algorithm::RsaV15Sha256, &signature),
        (&ed_pem, Algorithm::Ed25519, &ed_signature),
        (&p384_pem, Algorithm::EcdsaP384Sha384, &p384_signature),
    ] {
        let material = Material::public(pem.as_bytes(), algorithm).expect("a key");
        let key = Key::new("a", algorithm, 0, material);
        assert!(key.verifies(b"text", signature), "{}", algorithm.name());
        assert!(!key.verifies(b"texts", signature));
        assert!(!key.verifies(b"text", &signature[1..]) && !key.verifies(b"text", b""));
    }
    // The same key with another padding is another matter.
    let pss = Material::public(rsa_pem.as_bytes(), Algorithm::RsaPssSha512).expect("a key");
    assert!(!Key::new("a", Algorithm::RsaPssSha512, 0, pss).verifies(b"text", &signature));
    for (pem, algorithm) in [
        (&*rsa_pem, Algorithm::Ed25519),
        (ED, Algorithm::RsaPssSha512),
        (P256, Algorithm::EcdsaP384Sha384),
        (ED, Algorithm::HmacSha256),
        ("", Algorithm::Ed25519),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", Algorithm::Ed25519),
    ] {
        assert!(Material::public(pem.as_bytes(), algorithm).is_err(), "{}", algorithm.name());
    }
    let two = format!("{ED}{ED}");
    assert!(Material::public(two.as_bytes(), Algorithm::Ed25519).is_err());
    assert!(Material::secret(&[1; 31]).is_err() && Material::secret(&[1; 32]).is_ok());
}

#[test]
fn clients_are_told_what_is_wanted() {
    let rule = Rule { needs_nonce: true, tag: "app".to_owned(), ..strict() };
    let wanted = "partners=(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\");\
                  created;keyid;nonce;tag=\"app\"";
    assert_eq!(super::wanted(&rule, "Partners"), wanted);
    let labelled = Rule { label: "sig1".to_owned(), ..lax() };
    assert_eq!(super::wanted(&labelled, "x"), "sig1=();created;keyid");
    assert_eq!(super::wanted(&lax(), "1"), "sig=();created;keyid");
    for name in ["a.b", "!#$", "A_1"] {
        let told = super::wanted(&strict(), name);
        assert!(Parser::new(&told).parse::<Dictionary>().is_ok(), "{told}");
    }
}

proptest! {
    /// One byte of anything that is covered, or of the signature's own fields, is another one.
    #[test]
    fn nothing_covered_can_change(at in 0usize..1000, other in 0x21u8..0x7f) {
        let start = "POST /a/b?c=d&e=f HTTP/1.1\r\nHost: example.com\r\nX-One: first\r\n\
                     X-Two: second value\r\nContent-Digest: sha-256=:RK/0:\r\nContent-Length: 3\r\n";
        let list = format!(r#"{FOUR} "x-one" "x-two" "content-digest" "content-length""#);
        let good = sign(start, &list, KEY);
        prop_assert!(good.told(&strict(), THEN).is_ok());
        let mut bytes = good.bytes.clone();
        let at = at % bytes.len();
        prop_assume!(!bytes[at].is_ascii_whitespace() && bytes[at] != other);
        bytes[at] = other;
        let mut head = RequestHead::default();
        let limits = HeadLimits { head_bytes_max: 16384, target_bytes_max: 4096, fields_max: 100 };
        if head.parse(&bytes, &limits) == Ok(Parsed::Complete(())) {
            let changed = Request { head, bytes };
            // A byte sequence may be written in several ways (RFC 9651 §4.2.7).
            let decoded = |request: &Request| {
                let field = request.message().field("signature").unwrap_or_default();
                Parser::new(&field).parse::<Dictionary>().ok()
            };
            let same = |name: &str| changed.message().field(name) == good.message().field(name);
            // Names and values of fields, and the authority, mean the same in other letters; the
            // version is not signed. What has the same meaning has the same base.
            let is_same = changed.bytes.eq_ignore_ascii_case(&good.bytes)
                && ["x-one", "x-two", "content-digest", "content-length", "signature",
                    "signature-input"].iter().all(|name| same(name))
                && changed.head.target.of(&changed.bytes) == good.head.target.of(&good.bytes)
                && changed.head.method_text.of(&changed.bytes) == b"POST";
            let is_same = is_same || decoded(&changed) == decoded(&good) && at > good.bytes.len() - 60;
            let is_version = changed.head.version != good.head.version;
            let told = changed.told(&strict(), THEN);
            prop_assert!(told.is_err() || is_same || is_version, "{}: {:?}",
                String::from_utf8_lossy(&changed.bytes), told);
        }
    }

    /// Nothing that comes in makes it panic.
    #[test]
    fn any_fields_are_judged(input in "[ -~]{0,80}", signature in "[ -~]{0,40}") {
        let text = format!(
            "{GET}Signature-Input: {input}\r\nSignature: {signature}\r\n\r\n"
        );
        let told = request(&text).told(&lax(), THEN);
        prop_assert!(told.is_err());
    }
}
