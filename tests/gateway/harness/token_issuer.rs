//! An issuer of tokens: keys that it signs with, and a server that publishes them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Up,
    /// 500.
    Broken,
    /// Takes the request and never answers.
    Hung,
    /// 302 to a place that has keys.
    Elsewhere,
    /// More than anybody should read.
    Endless,
}

/// Keys, and whoever serves them.
pub struct TokenIssuer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    keys: Mutex<Vec<(String, Arc<Ed25519KeyPair>)>>,
    published: Mutex<Vec<String>>,
    mood: Mutex<Mood>,
    /// What the configuration of discovery says; empty: the truth.
    says: Mutex<String>,
    fetches: AtomicUsize,
    over: AtomicBool,
    is_tls: bool,
}

/// In base64, as JOSE has it.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with these claims (RFC 7515), that names its key `kid`.
pub fn signed(key: &Ed25519KeyPair, kid: &str, claims: &Value) -> String {
    let head = json!({ "alg": "EdDSA", "kid": kid });
    let message = format!("{}.{}", b64(head.to_string()), b64(claims.to_string()));
    format!("{message}.{}", b64(key.sign(message.as_bytes())))
}

/// A public key as a JWK.
pub fn jwk(key: &Ed25519KeyPair, kid: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": b64(key.public_key()) })
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl TokenIssuer {
    /// One that has published a key called `a`.
    pub fn start() -> TokenIssuer {
        TokenIssuer::with(None)
    }

    /// The same over TLS.
    pub fn over_tls(config: Arc<ServerConfig>) -> TokenIssuer {
        TokenIssuer::with(Some(config))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> TokenIssuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            keys: Mutex::default(),
            published: Mutex::default(),
            mood: Mutex::new(Mood::Up),
            says: Mutex::default(),
            fetches: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            is_tls: tls.is_some(),
        });
        let own = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                if own.over.load(Ordering::SeqCst) {
                    return;
                }
                let (socket, shared, tls) = (socket.unwrap(), own.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => shared.serve(socket, address),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        shared.serve(StreamOwned::new(session, socket), address);
                    }
                });
            }
        });
        let issuer = TokenIssuer { shared, address };
        issuer.publish("a");
        issuer
    }

    /// Its name, which is where it is.
    pub fn name(&self) -> String {
        self.shared.name(self.address)
    }

    pub fn keys_url(&self) -> String {
        format!("{}/keys", self.name())
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// What its configuration gives as its name.
    pub fn say(&self, name: &str) {
        name.clone_into(&mut self.shared.says.lock().unwrap());
    }

    /// Requests for keys that came in.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Makes a key that nobody knows of yet.
    pub fn make(&self, kid: &str) {
        let key = Arc::new(Ed25519KeyPair::generate().unwrap());
        self.shared.keys.lock().unwrap().push((kid.to_owned(), key));
    }

    /// Publishes a key, made now if need be.
    pub fn publish(&self, kid: &str) {
        if !self.shared.keys.lock().unwrap().iter().any(|(own, _)| own == kid) {
            self.make(kid);
        }
        self.shared.published.lock().unwrap().push(kid.to_owned());
    }

    pub fn withdraw(&self, kid: &str) {
        self.shared.published.lock().unwrap().retain(|own| own != kid);
    }

    /// A good token for `subject`, signed with the key of that name.
    pub fn token(&self, kid: &str, subject: &str) -> String {
        self.token_with(kid, json!({ "sub": subject }))
    }

    /// The same with other claims, or in place of the usual ones.
    pub fn token_with(&self, kid: &str, more: Value) -> String {
        let mut claims = json!({ "iss": self.name(), "aud": "api", "exp": now_s() + 3600 });
        let Value::Object(more) = more else { panic!("claims are an object") };
        for (name, value) in more {
            claims[name] = value;
        }
        let key =
            self.shared.keys.lock().unwrap().iter().find(|(own, _)| own == kid).unwrap().1.clone();
        signed(&key, kid, &claims)
    }

    /// What is published, as a JWK Set.
    pub fn set_text(&self) -> String {
        self.shared.set_text()
    }
}

impl Drop for TokenIssuer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn name(&self, address: SocketAddr) -> String {
        format!("http{}://localhost:{}", if self.is_tls { "s" } else { "" }, address.port())
    }

    fn set_text(&self) -> String {
        let published = self.published.lock().unwrap().clone();
        let keys = self.keys.lock().unwrap();
        let of = |kid: &String| {
            let (_, key) = keys.iter().find(|(own, _)| own == kid).unwrap();
            jwk(key, kid)
        };
        json!({ "keys": published.iter().map(of).collect::<Vec<_>>() }).to_string()
    }

    fn serve(&self, mut socket: impl Read + Write, address: SocketAddr) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match socket.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let is_discovery = head.starts_with(b"GET /.well-known/openid-configuration ");
        if !is_discovery {
            self.fetches.fetch_add(1, Ordering::SeqCst);
        }
        let mood = *self.mood.lock().unwrap();
        let text = match (mood, is_discovery) {
            (Mood::Hung, _) => {
                // Until the other end goes.
                let _ = socket.read(&mut [0]);
                return;
            }
            (Mood::Broken, _) => {
                "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            }
            (Mood::Elsewhere, false) if !head.starts_with(b"GET /else") => {
                "HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
                    .to_owned()
            }
            (Mood::Endless, _) => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{");
                while socket.write_all(&[b' '; 4096]).is_ok() {}
                return;
            }
            (_, is_discovery) => {
                let name = self.name(address);
                let says = self.says.lock().unwrap().clone();
                let body = match is_discovery {
                    true => json!({
                        "issuer": if says.is_empty() { &name } else { &says },
                        "jwks_uri": format!("{name}/keys"),
                    })
                    .to_string(),
                    false => self.set_text(),
                };
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        let _ = socket.write_all(text.as_bytes());
        let _ = socket.flush();
    }
}
