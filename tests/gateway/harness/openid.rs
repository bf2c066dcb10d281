//! An OpenID provider: it is asked for tokens as a real one, and whoever tests decides who logs in
//! and what goes wrong.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::Ed25519KeyPair,
};
use serde_json::{Value, json};

use super::token_issuer::{b64, jwk, now_s, signed};

/// What a token request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Tokens,
    /// `invalid_grant`.
    Refused,
    /// `invalid_client`.
    Wrong,
    /// 500.
    Broken,
    /// Takes the request and answers when [`OpenId::release`] is called.
    Held,
    /// More than anybody should read.
    Endless,
}

/// How it is.
#[derive(Clone)]
pub struct Manner {
    pub answer: Answer,
    pub expires_in: Option<u64>,
    pub gives_refresh_token: bool,
    /// Claims of ID tokens in place of the usual ones; `null`: without.
    pub claims: Value,
    /// ID tokens are signed with a key that is not published.
    pub forges: bool,
    /// Bytes that each token has more.
    pub padding: usize,
    /// Without an ID token.
    pub is_bare: bool,
    pub has_end_session: bool,
    pub names_issuer: bool,
}

struct Code {
    nonce: String,
    challenge: String,
    redirect_uri: String,
    subject: String,
}

/// A request for tokens as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub form: HashMap<String, String>,
    pub authorization: Option<String>,
}

pub struct OpenId {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    key: Ed25519KeyPair,
    other_key: Ed25519KeyPair,
    manner: Mutex<Manner>,
    state: Mutex<State>,
    released: Condvar,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    serial: u64,
    codes: HashMap<String, Code>,
    /// Refresh tokens that are good, and whose.
    refresh: HashMap<String, String>,
    asked: Vec<Asked>,
    /// Requests that are let go on.
    released: usize,
    held: usize,
}

/// The parameters of a query or form.
pub fn parameters(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

impl OpenId {
    pub fn start() -> OpenId {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            key: Ed25519KeyPair::generate().unwrap(),
            other_key: Ed25519KeyPair::generate().unwrap(),
            manner: Mutex::new(Manner {
                answer: Answer::Tokens,
                expires_in: Some(3600),
                gives_refresh_token: true,
                claims: json!({}),
                forges: false,
                padding: 0,
                is_bare: false,
                has_end_session: true,
                names_issuer: false,
            }),
            state: Mutex::default(),
            released: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let own = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                if own.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = own.clone();
                thread::spawn(move || shared.serve(&socket.unwrap()));
            }
        });
        OpenId { shared }
    }

    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    pub fn set(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.shared.manner.lock().unwrap());
    }

    /// What the browser is sent back to after `subject` logged in, for a browser that was sent to
    /// `location`.
    #[track_caller]
    pub fn log_in(&self, location: &str, subject: &str) -> String {
        let (redirect_uri, code, state) = self.code(location, subject);
        let (_, rest) = redirect_uri.split_once("://").unwrap();
        let path = &rest[rest.find('/').unwrap()..];
        format!("{path}?code={code}&state={state}")
    }

    /// The redirect URI, a code and the `state`.
    #[track_caller]
    pub fn code(&self, location: &str, subject: &str) -> (String, String, String) {
        let (url, query) = location.split_once('?').expect("a query");
        assert_eq!(url, format!("{}/authorize", self.issuer()));
        let asked = parameters(query);
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], "shop");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
        assert!(asked["state"].len() >= 43 && asked["nonce"].len() >= 43);
        let mut state = self.shared.state.lock().unwrap();
        state.serial += 1;
        let code = format!("code{}", state.serial);
        let issued = Code {
            nonce: asked["nonce"].clone(),
            challenge: asked["code_challenge"].clone(),
            redirect_uri: asked["redirect_uri"].clone(),
            subject: subject.to_owned(),
        };
        state.codes.insert(code.clone(), issued);
        (asked["redirect_uri"].clone(), code, asked["state"].clone())
    }

    /// Requests for tokens so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state.lock().unwrap().asked.clone()
    }

    /// Those that came with a refresh token.
    pub fn refreshes(&self) -> usize {
        let is_it = |asked: &&Asked| asked.form["grant_type"] == "refresh_token";
        self.asked().iter().filter(is_it).count()
    }

    /// Requests that wait for [`OpenId::release`].
    pub fn held(&self) -> usize {
        self.shared.state.lock().unwrap().held
    }

    /// Lets one that is held, or will be, go on.
    pub fn release(&self) {
        self.shared.state.lock().unwrap().released += 1;
        self.shared.released.notify_all();
    }

    /// No refresh token is good any more.
    pub fn revoke(&self) {
        self.shared.state.lock().unwrap().refresh.clear();
    }
}

impl Drop for OpenId {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.shared.address);
    }
}

impl Shared {
    fn issuer(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    fn serve(&self, socket: &TcpStream) {
        let mut reader = BufReader::new(socket);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(n) if n > 2 => lines.push(line.trim_end().to_owned()),
                Ok(2) => break,
                _ => return,
            }
        }
        let field = |name: &str| {
            let fields = lines.iter().filter_map(|line| line.split_once(": "));
            let mut own = fields.filter(|(own, _)| own.eq_ignore_ascii_case(name));
            own.next().map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, body) = match lines[0].split(' ').nth(1).unwrap() {
            "/.well-known/openid-configuration" => (200, self.configuration()),
            "/keys" => (200, self.keys()),
            "/token" => {
                let form = parameters(str::from_utf8(&body).unwrap());
                self.tokens(socket, &Asked { form, authorization: field("authorization") })
            }
            _ => (404, json!({})),
        };
        let body = body.to_string();
        let text = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = (&*socket).write_all(text.as_bytes());
    }

    fn configuration(&self) -> Value {
        let (name, manner) = (self.issuer(), self.manner.lock().unwrap().clone());
        let mut all = json!({
            "issuer": name,
            "jwks_uri": format!("{name}/keys"),
            "authorization_endpoint": format!("{name}/authorize"),
            "token_endpoint": format!("{name}/token"),
            "authorization_response_iss_parameter_supported": manner.names_issuer,
        });
        if manner.has_end_session {
            all["end_session_endpoint"] = format!("{name}/end").into();
        }
        all
    }

    fn keys(&self) -> Value {
        json!({ "keys": [jwk(&self.key, "a")] })
    }

    fn tokens(&self, mut socket: &TcpStream, asked: &Asked) -> (u16, Value) {
        let manner = self.manner.lock().unwrap().clone();
        self.state.lock().unwrap().asked.push(asked.clone());
        match manner.answer {
            Answer::Tokens => {}
            Answer::Refused => return (400, json!({ "error": "invalid_grant" })),
            Answer::Wrong => return (401, json!({ "error": "invalid_client" })),
            Answer::Broken => return (500, json!({})),
            Answer::Held => {
                let mut state = self.state.lock().unwrap();
                state.held += 1;
                while state.released == 0 {
                    state = self.released.wait(state).unwrap();
                }
                state.released -= 1;
                state.held -= 1;
            }
            Answer::Endless => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{");
                while socket.write_all(&[b' '; 4096]).is_ok() {}
                return (200, json!({}));
            }
        }
        // What was set meanwhile counts.
        self.granted(&self.manner.lock().unwrap().clone(), &asked.form)
    }

    fn granted(&self, manner: &Manner, form: &HashMap<String, String>) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        let refused = (400, json!({ "error": "invalid_grant" }));
        let (subject, nonce) = match &*form["grant_type"] {
            "authorization_code" => {
                let Some(code) = state.codes.remove(&form["code"]) else { return refused };
                let challenge = b64(digest(&SHA256, form["code_verifier"].as_bytes()));
                if challenge != code.challenge || form["redirect_uri"] != code.redirect_uri {
                    return refused;
                }
                (code.subject, Some(code.nonce))
            }
            // Each is good once.
            _ => match state.refresh.remove(&form["refresh_token"]) {
                Some(subject) => (subject, None),
                None => return refused,
            },
        };
        state.serial += 1;
        let serial = state.serial;
        let padding = "x".repeat(manner.padding);
        let mut answer = json!({
            "access_token": format!("access{serial}{padding}"), "token_type": "Bearer",
            "scope": "openid orders:read",
        });
        if let Some(expires_in) = manner.expires_in {
            answer["expires_in"] = expires_in.into();
        }
        if manner.gives_refresh_token {
            let token = format!("refresh{serial}");
            state.refresh.insert(token.clone(), subject.clone());
            answer["refresh_token"] = token.into();
        }
        if !manner.is_bare {
            answer["id_token"] = self.id_token(manner, &subject, nonce.as_deref()).into();
        }
        (200, answer)
    }

    fn id_token(&self, manner: &Manner, subject: &str, nonce: Option<&str>) -> String {
        let now = now_s();
        let mut claims = json!({
            "iss": self.issuer(), "aud": "shop", "sub": subject, "iat": now, "exp": now + 300,
            "groups": ["staff"], "email": format!("{subject}@example.com"),
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        for (name, value) in manner.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let key = if manner.forges { &self.other_key } else { &self.key };
        signed(key, "a", &claims)
    }
}
