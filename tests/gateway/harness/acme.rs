//! A small authority (RFC 8555): accounts, orders and challenges over TLS. It believes nothing that
//! it can check: signatures, nonces, addresses, states, and whether names are really the client's.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SerialNumber,
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Client, PATIENCE, eventually};

/// Connections by which a challenge is looked at: every worker must know it.
const LOOKS: usize = 8;

/// What the authority does otherwise than usual, and where it looks.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// Connections are closed as they come.
    pub is_down: bool,
    /// How long certificates are for, in seconds. Default: 90 days.
    pub lifetime_s: Option<u64>,
    /// So many good nonces are refused.
    pub bad_nonces: u32,
    /// Orders are refused with this type and detail, and to be tried again after so many seconds.
    pub refuses: Option<(&'static str, &'static str, u64)>,
    /// Renewal is suggested from so many seconds ago on.
    pub suggests_since_s: Option<u64>,
    /// Name and HMAC key of the account that new ones must be bound to.
    pub external: Option<(&'static str, Vec<u8>)>,
    /// Where names lead without TLS, and with it.
    pub http: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

/// An order, as a test may look at it.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub name: String,
    pub status: &'static str,
    pub account: usize,
    pub replaces: Option<String>,
    pub at: SystemTime,
    token: String,
    /// What the challenge was.
    pub challenge: Option<&'static str>,
    error: Option<Value>,
    /// PEM.
    pub certificate: Option<String>,
}

#[derive(Default)]
struct Books {
    nonces: HashSet<String>,
    /// Key and contacts.
    accounts: Vec<(Value, Value)>,
    orders: Vec<Ordered>,
    replaced: HashMap<String, usize>,
}

struct Desk {
    url: String,
    ways: Mutex<Ways>,
    books: Mutex<Books>,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    count: AtomicU64,
    stop: AtomicBool,
    connections: AtomicU64,
}

pub struct Authority {
    desk: Arc<Desk>,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Authority {
    pub fn start(ways: Ways) -> Authority {
        let (issuer, root_pem) = root();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.pem"), &root_pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(own_tls(&issuer));
        let desk = Arc::new(Desk {
            url: format!("https://{address}"),
            ways: Mutex::new(ways),
            books: Mutex::default(),
            issuer,
            root_pem,
            count: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let own = desk.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                if own.stop.load(Ordering::SeqCst) {
                    return;
                }
                own.connections.fetch_add(1, Ordering::SeqCst);
                if own.ways().is_down {
                    continue;
                }
                let (own, tls) = (own.clone(), tls.clone());
                std::thread::spawn(move || {
                    tcp.set_read_timeout(Some(PATIENCE * 6)).unwrap();
                    let session = ServerConnection::new(tls).unwrap();
                    // The client may go at any time.
                    let _ = own.serve(StreamOwned::new(session, tcp));
                });
            }
        });
        Authority { desk, address, dir }
    }

    pub fn directory(&self) -> String {
        format!("{}/dir", self.desk.url)
    }

    /// PEM file with the certificate that issues all others.
    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root.pem")
    }

    pub fn root_pem(&self) -> &str {
        &self.desk.root_pem
    }

    /// The key `acme` of a listener, with a storage folder of the test's.
    pub fn key(&self, storage: &Path, names: &[&str], more: &str) -> String {
        format!(
            "acme = {{ domains = {names:?}, agree_tos = true, directory = \"{}\", ca = {:?}, \
             storage = {:?}{more} }}",
            self.directory(),
            self.root(),
            storage
        )
    }

    pub fn set(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.desk.ways.lock().unwrap());
    }

    pub fn orders(&self) -> Vec<Ordered> {
        self.desk.books().orders.clone()
    }

    /// Orders whose certificate was fetched or can be.
    pub fn issued(&self) -> usize {
        self.orders().iter().filter(|order| order.certificate.is_some()).count()
    }

    /// Contacts of each account.
    pub fn accounts(&self) -> Vec<Value> {
        self.desk.books().accounts.iter().map(|(_, contacts)| contacts.clone()).collect()
    }

    pub fn forget_accounts(&self) {
        for (key, _) in &mut self.desk.books().accounts {
            *key = Value::Null;
        }
    }

    pub fn connections(&self) -> u64 {
        self.desk.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn root() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "Authority of a test");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn own_tls(issuer: &Issuer<'static, KeyPair>) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .unwrap()
}

/// Status, body and further fields.
struct Answer(u16, Value, Vec<(&'static str, String)>);

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    Answer(status, json!({ "type": kind, "detail": detail }), Vec::new())
}

/// What was signed, by whom.
struct Signed {
    payload: Value,
    /// Of a new account.
    key: Option<Value>,
    /// Of a known one.
    account: usize,
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn ways(&self) -> Ways {
        self.ways.lock().unwrap().clone()
    }

    fn fresh(&self) -> String {
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        BASE64.encode(digest(&SHA256, format!("{n} {}", self.url).as_bytes()))
    }

    fn serve(self: &Arc<Self>, mut stream: impl Read + Write) -> io::Result<()> {
        loop {
            let (method, path, body) = read_request(&mut stream)?;
            let Answer(status, body, fields) = self.answer(&method, &path, &body);
            let nonce = self.fresh();
            self.books().nonces.insert(nonce.clone());
            let (kind, body) = match &body {
                Value::String(pem) => ("application/pem-certificate-chain", pem.clone()),
                body if status >= 400 => ("application/problem+json", body.to_string()),
                body => ("application/json", body.to_string()),
            };
            let mut head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Replay-Nonce: {nonce}\r\n",
                body.len()
            );
            fields.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            let body = if method == "HEAD" { "" } else { &body };
            stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
            stream.flush()?;
        }
    }

    fn answer(self: &Arc<Self>, method: &str, path: &str, body: &[u8]) -> Answer {
        let parts: Vec<&str> = path[1..].split('/').collect();
        match (method, &*parts) {
            ("GET", ["dir"]) => return Answer(200, self.directory(), Vec::new()),
            ("HEAD", ["nonce"]) => return Answer(200, json!({}), Vec::new()),
            ("GET", ["renewal", _]) => return self.suggestion(),
            ("POST", _) => {}
            _ => return problem(405, "malformed", "no such resource"),
        }
        let signed = match self.verified(path, body) {
            Ok(signed) => signed,
            Err(answer) => return answer,
        };
        let number = parts.get(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
        match (&*parts, signed.key.is_some()) {
            (["account"], true) => self.new_account(signed),
            (["account", _], false) if number == signed.account => {
                self.books().accounts[number].1 = signed.payload["contact"].clone();
                Answer(200, json!({ "status": "valid" }), Vec::new())
            }
            (["order"], false) => self.new_order(&signed),
            ([what, _] | [what, _, _], false) => {
                let is_own = self.books().orders.get(number).map(|o| o.account);
                match is_own {
                    Some(account) if account == signed.account => {
                        self.of_order(what, number, parts.get(2), &signed.payload)
                    }
                    _ => problem(403, "unauthorized", "not your order"),
                }
            }
            _ => problem(400, "malformed", "key and account are mixed up"),
        }
    }

    fn directory(&self) -> Value {
        let url = |path: &str| format!("{}/{path}", self.url);
        let mut directory = json!({
            "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
        });
        if self.ways().suggests_since_s.is_some() {
            directory["renewalInfo"] = url("renewal").into();
        }
        directory
    }

    fn suggestion(&self) -> Answer {
        let Some(ago) = self.ways().suggests_since_s else {
            return problem(404, "malformed", "no suggestions");
        };
        let at = |ago: u64| {
            let at = time::OffsetDateTime::from(SystemTime::now() - Duration::from_secs(ago));
            let (date, time) = (at.date(), at.time());
            format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
        };
        let window = json!({ "suggestedWindow": { "start": at(ago), "end": at(ago - 1) } });
        Answer(200, window, vec![("Retry-After", "21600".to_owned())])
    }

    /// RFC 8555 §6.2 to §6.5.
    fn verified(&self, path: &str, body: &[u8]) -> Result<Signed, Answer> {
        let bad = |what: &str| problem(400, "malformed", what);
        let json: Value = serde_json::from_slice(body).map_err(|_| bad("no JSON"))?;
        let text = |name: &str| json[name].as_str().ok_or_else(|| bad(name));
        let decoded = |text: &str| BASE64.decode(text).map_err(|_| bad("base64"));
        let (protected, payload) = (text("protected")?, text("payload")?);
        let header: Value =
            serde_json::from_slice(&decoded(protected)?).map_err(|_| bad("header"))?;
        if header["alg"] != "ES256" {
            return Err(problem(400, "badSignatureAlgorithm", "ES256 only"));
        }
        if header["url"] != format!("{}{path}", self.url) {
            return Err(problem(403, "unauthorized", "signed for another URL"));
        }
        let is_known = self.books().nonces.remove(header["nonce"].as_str().unwrap_or_default());
        let is_refused = {
            let mut ways = self.ways.lock().unwrap();
            let is_refused = is_known && ways.bad_nonces > 0;
            ways.bad_nonces -= u32::from(is_refused);
            is_refused
        };
        if !is_known || is_refused {
            return Err(problem(400, "badNonce", "unknown, used, or not liked"));
        }
        let (key, account) = match (&header["jwk"], header["kid"].as_str()) {
            (Value::Null, Some(kid)) => {
                let number = kid.strip_prefix(&format!("{}/account/", self.url));
                let number = number.and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
                match self.books().accounts.get(number) {
                    Some((key, _)) if !key.is_null() => (key.clone(), Some(number)),
                    _ => return Err(problem(400, "accountDoesNotExist", "no such account")),
                }
            }
            (key @ Value::Object(_), None) => (key.clone(), None),
            _ => return Err(bad("neither key nor account")),
        };
        let part = |name: &str| decoded(key[name].as_str().unwrap_or_default());
        let point = [vec![4], part("x")?, part("y")?].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(format!("{protected}.{payload}").as_bytes(), &decoded(text("signature")?)?)
            .map_err(|_| problem(401, "unauthorized", "the signature is wrong"))?;
        let payload = match payload {
            "" => Value::Null,
            payload => serde_json::from_slice(&decoded(payload)?).map_err(|_| bad("payload"))?,
        };
        let is_new = account.is_none();
        Ok(Signed { payload, account: account.unwrap_or(0), key: is_new.then_some(key) })
    }

    fn new_account(&self, signed: Signed) -> Answer {
        if signed.payload["termsOfServiceAgreed"] != true {
            return problem(403, "userActionRequired", "agree to the terms");
        }
        let key = signed.key.clone().unwrap();
        if let Some((name, hmac)) = self.ways().external {
            let binding = &signed.payload["externalAccountBinding"];
            if binding.is_null() {
                return problem(403, "externalAccountRequired", "whose account is it?");
            }
            if let Err(why) = self.bound(binding, &key, name, &hmac) {
                return problem(403, "unauthorized", &format!("the binding: {why}"));
            }
        }
        let mut books = self.books();
        books.accounts.push((signed.key.unwrap(), signed.payload["contact"].clone()));
        let location = format!("{}/account/{}", self.url, books.accounts.len() - 1);
        Answer(201, json!({ "status": "valid" }), vec![("Location", location)])
    }

    /// RFC 8555 §7.3.4.
    fn bound(&self, binding: &Value, key: &Value, name: &str, hmac: &[u8]) -> Result<(), String> {
        let text = |part: &str| binding[part].as_str().ok_or_else(|| part.to_owned());
        let decoded = |part: &str| BASE64.decode(text(part)?).map_err(|e| e.to_string());
        let json = |part: &str| -> Result<Value, String> {
            serde_json::from_slice(&decoded(part)?).map_err(|e| e.to_string())
        };
        let wanted = json!({ "alg": "HS256", "kid": name, "url": format!("{}/account", self.url) });
        let (header, payload) = (json("protected")?, json("payload")?);
        if header != wanted || payload != *key {
            return Err(format!("{header} {payload}"));
        }
        let signed = format!("{}.{}", text("protected")?, text("payload")?);
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, hmac);
        let verified = hmac::verify(&hmac, signed.as_bytes(), &decoded("signature")?);
        verified.map_err(|_| "the signature".to_owned())
    }

    fn new_order(&self, signed: &Signed) -> Answer {
        let names = signed.payload["identifiers"].as_array().cloned().unwrap_or_default();
        let name = match &*names {
            [one] if one["type"] == "dns" => one["value"].as_str().unwrap_or_default().to_owned(),
            _ => return problem(400, "malformed", "one name for each order, in these tests"),
        };
        let refuses = self.ways().refuses;
        let replaces = signed.payload["replaces"].as_str().map(str::to_owned);
        let token = self.fresh();
        let mut books = self.books();
        let number = books.orders.len();
        let error = refuses.map(|(kind, detail, _)| problem(429, kind, detail).1);
        books.orders.push(Ordered {
            name,
            status: if error.is_some() { "invalid" } else { "pending" },
            account: signed.account,
            replaces: replaces.clone(),
            at: SystemTime::now(),
            token,
            challenge: None,
            error: None,
            certificate: None,
        });
        if let Some((kind, detail, after)) = refuses {
            let Answer(status, body, _) = problem(429, kind, detail);
            return Answer(status, body, vec![("Retry-After", after.to_string())]);
        }
        if let Some(replaces) = replaces
            && books.replaced.insert(replaces, number).is_some()
        {
            return problem(409, "alreadyReplaced", "that one has been replaced");
        }
        drop(books);
        let Answer(_, body, _) = self.order(number);
        Answer(201, body, vec![("Location", format!("{}/order/{number}", self.url))])
    }

    fn order(&self, number: usize) -> Answer {
        let order = self.books().orders[number].clone();
        let url = |what: &str| format!("{}/{what}/{number}", self.url);
        let mut body = json!({
            "status": order.status,
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [url("authorization")],
            "finalize": url("finalize"),
        });
        if order.certificate.is_some() {
            body["certificate"] = url("certificate").into();
        }
        if let Some(replaces) = &order.replaces {
            body["replaces"] = replaces.as_str().into();
        }
        Answer(200, body, Vec::new())
    }

    fn of_order(
        self: &Arc<Self>,
        what: &str,
        number: usize,
        more: Option<&&str>,
        payload: &Value,
    ) -> Answer {
        let order = self.books().orders[number].clone();
        match (what, more) {
            ("order", None) => self.order(number),
            ("authorization", None) => self.authorization(number),
            ("challenge", Some(kind)) => {
                if order.status == "pending" && order.challenge.is_none() && !payload.is_null() {
                    let kind = if *kind == "http" { "http-01" } else { "tls-alpn-01" };
                    self.books().orders[number].challenge = Some(kind);
                    let own = self.clone();
                    std::thread::spawn(move || own.look(number, kind));
                }
                let Answer(_, body, _) = self.authorization(number);
                let at = usize::from(*kind != "http");
                Answer(200, body["challenges"][at].clone(), Vec::new())
            }
            ("finalize", None) if order.status == "ready" => self.finalize(number, payload),
            ("finalize", None) => problem(403, "orderNotReady", "prove the name first"),
            ("certificate", None) if order.certificate.is_some() => {
                Answer(200, order.certificate.unwrap().into(), Vec::new())
            }
            _ => problem(404, "malformed", "no such resource"),
        }
    }

    fn authorization(&self, number: usize) -> Answer {
        let order = self.books().orders[number].clone();
        let status = match order.status {
            "ready" | "valid" => "valid",
            other => other,
        };
        let challenge = |kind: &'static str, short: &str| {
            let is_this = order.challenge == Some(kind);
            let mut challenge = json!({
                "type": kind,
                "url": format!("{}/challenge/{number}/{short}", self.url),
                "token": order.token,
                "status": if is_this && status == "pending" { "processing" }
                    else if is_this { status } else { "pending" },
            });
            if let Some(error) = order.error.as_ref().filter(|_| is_this) {
                challenge["error"] = error.clone();
            }
            challenge
        };
        let body = json!({
            "status": status,
            "identifier": { "type": "dns", "value": order.name },
            "challenges": [challenge("http-01", "http"), challenge("tls-alpn-01", "tls")],
        });
        Answer(200, body, Vec::new())
    }

    /// Looks whether the name is the client's, from several places at once.
    fn look(&self, number: usize, kind: &str) {
        let order = self.books().orders[number].clone();
        let proof = format!("{}.{}", order.token, self.thumbprint(order.account));
        let of = |ways: Ways| if kind == "http-01" { ways.http } else { ways.tls };
        eventually("it is known where names lead", || of(self.ways()).is_some());
        let at = of(self.ways()).unwrap();
        let looked = (0..LOOKS).try_for_each(|_| match kind {
            "http-01" => look_by_http(at, &order.name, &order.token, &proof),
            _ => look_by_tls(at, &order.name, &proof),
        });
        let own = &mut self.books().orders[number];
        match looked {
            Ok(()) => own.status = "ready",
            Err(why) => {
                own.status = "invalid";
                own.error = Some(problem(403, "unauthorized", &why).1);
            }
        }
    }

    /// RFC 7638.
    fn thumbprint(&self, account: usize) -> String {
        let key = self.books().accounts[account].0.clone();
        let text = format!(
            "{{\"crv\":{},\"kty\":{},\"x\":{},\"y\":{}}}",
            key["crv"], key["kty"], key["x"], key["y"]
        );
        BASE64.encode(digest(&SHA256, text.as_bytes()))
    }

    fn finalize(&self, number: usize, payload: &Value) -> Answer {
        let csr = BASE64.decode(payload["csr"].as_str().unwrap_or_default()).unwrap_or_default();
        let Ok(mut csr) = CertificateSigningRequestParams::from_der(&csr.into()) else {
            return problem(400, "badCSR", "not well-formed, or not signed by its key");
        };
        let name = self.books().orders[number].name.clone();
        let names: Vec<_> = csr.params.subject_alt_names.clone();
        if !matches!(&*names, [rcgen::SanType::DnsName(own)] if own.as_str() == name) {
            return problem(400, "badCSR", "not for the name that was ordered");
        }
        let lifetime_s = self.ways().lifetime_s.unwrap_or(90 * 24 * 3600);
        let now = time::OffsetDateTime::now_utc();
        csr.params.not_before = now;
        csr.params.not_after = now + Duration::from_secs(lifetime_s);
        csr.params.use_authority_key_identifier_extension = true;
        let serial = self.count.fetch_add(1, Ordering::SeqCst);
        csr.params.serial_number = Some(SerialNumber::from(serial));
        let certificate = csr.signed_by(&self.issuer).unwrap();
        let order = &mut self.books().orders[number];
        order.status = "valid";
        order.certificate = Some(certificate.pem());
        let body = json!({
            "status": "valid",
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [format!("{}/authorization/{number}", self.url)],
            "finalize": format!("{}/finalize/{number}", self.url),
            "certificate": format!("{}/certificate/{number}", self.url),
        });
        Answer(200, body, Vec::new())
    }
}

fn read_request(stream: &mut impl Read) -> io::Result<(String, String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // Paths here have no capital letters but in an identifier, which nobody compares.
    Ok((method.to_uppercase(), path.to_owned(), body))
}

fn look_by_http(at: SocketAddr, name: &str, token: &str, proof: &str) -> Result<(), String> {
    let path = format!("/.well-known/acme-challenge/{token}");
    let response = Client::connect(at).get_from(name, &path);
    match (response.status, response.text()) {
        (200, text) if text == proof => Ok(()),
        (status, text) => Err(format!("http://{name}{path} answers {status} {text:?}")),
    }
}

/// RFC 8737 §3.
fn look_by_tls(at: SocketAddr, name: &str, proof: &str) -> Result<(), String> {
    let (shown, alpn) = handshake(at, name, &[b"acme-tls/1"]).map_err(|e| format!("{at}: {e}"))?;
    if alpn.as_deref() != Some(b"acme-tls/1") {
        return Err(format!("another protocol: {alpn:?}"));
    }
    let (_, shown) = X509Certificate::from_der(&shown).map_err(|e| e.to_string())?;
    let names = shown.subject_alternative_name().map_err(|e| e.to_string())?;
    let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    if !matches!(&*names, [GeneralName::DNSName(own)] if *own == name) {
        return Err(format!("not for {name} alone: {names:?}"));
    }
    let mut wanted = vec![4, 32];
    wanted.extend_from_slice(digest(&SHA256, proof.as_bytes()).as_ref());
    let is_it = |e: &&x509_parser::extensions::X509Extension<'_>| {
        e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31" && e.critical && e.value == wanted
    };
    shown.extensions().iter().find(is_it).map(|_| ()).ok_or_else(|| "no proof in it".to_owned())
}

/// What a client that believes everybody is shown, and what is to be spoken. With acme-tls/1 the
/// server must close.
pub fn handshake(
    at: SocketAddr,
    name: &str,
    protocols: &[&[u8]],
) -> io::Result<(CertificateDer<'static>, Option<Vec<u8>>)> {
    let provider = Arc::new(provider::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(at)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    let shown = session.peer_certificates().unwrap()[0].clone().into_owned();
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    if alpn.as_deref() == Some(b"acme-tls/1") {
        let mut stream = StreamOwned::new(session, tcp);
        // Without close_notify this is an error.
        if stream.read(&mut [0; 16])? != 0 {
            return Err(io::Error::other("something follows the handshake"));
        }
        // Nobody may listen any more.
        let _ = stream.write_all(b"GET /after-a-proof HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = stream.flush();
    }
    Ok((shown, alpn))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only 1.3 is spoken here".to_owned()))
    }

    /// By hand: what is usual refuses the critical extension of a proof.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        let (_, cert) =
            X509Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &cert.public_key().raw.into(), dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
