//! One call of a running gateway's admin interface, and how the gateway is found: by `--admin`,
//! else by `[admin]` of the configuration file, else where an admin socket usually is.

use std::{
    io,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    config,
    config::snapshot::AdminBind,
    control::{admin::socket, cli::FILE_DEFAULT},
};

/// For a connection to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For an answer: longer than the gateway itself waits for a reload.
const ANSWER_MAX: Duration = Duration::from_secs(65);
/// For that of an upgrade, which may be given an hour (`shutdown.upgrade_timeout`).
const UPGRADE_MAX: Duration = Duration::from_secs(3700);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Which gateway.
#[derive(Clone, Debug, Args)]
pub struct Where {
    /// The gateway's admin socket (a path), or its `admin.status_bind` (`host:port`) for what may
    /// be read there. Default: what the configuration says.
    #[arg(long, value_name = "PATH|HOST:PORT")]
    pub admin: Option<String>,
    /// The gateway's configuration, for its `[admin]` section. Default: ringway.toml if it is
    /// there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A place where a gateway may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    Tcp(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(address) => f.write_str(address),
        }
    }
}

/// What the gateway answered.
pub struct Answer {
    pub status: u16,
    body: Bytes,
}

/// What came of an order that was not carried out.
pub enum Not {
    /// No gateway answered what can be read; why.
    Answered(String),
    /// It was refused, or is not as it should be.
    Done(Answer),
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let other = "is it a gateway of another version?";
            format!("the answer of the gateway cannot be read ({e}); {other}")
        })
    }

    /// Why it was refused: the problem's detail.
    pub fn problem(&self) -> String {
        let problem: Option<Value> = serde_json::from_slice(&self.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let found = detail.map(str::to_owned);
        found.unwrap_or_else(|| format!("the gateway answered {}: {}", self.status, self.text()))
    }
}

impl Where {
    /// Makes one call. An error says why there is no answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot make a runtime: {e}"))?;
        runtime.block_on(async {
            let mut tried = String::new();
            for place in self.places()? {
                match connect(&place).await {
                    Ok((stream, host)) => {
                        let max = if path == "/upgrade" { UPGRADE_MAX } else { ANSWER_MAX };
                        let answer = timeout(max, exchange(stream, &host, method, path, body));
                        let late = |_| format!("no answer within {} s", max.as_secs());
                        let answer = answer.await.map_err(late).and_then(|answer| answer);
                        return answer.map_err(|e| format!("{place}: {e}"));
                    }
                    Err(e) => tried.push_str(&format!("\n  {place}: {e}")),
                }
            }
            Err(format!(
                "no gateway answers. Tried:{tried}\nIs it running? Name its socket with --admin, \
                 or its configuration with --config."
            ))
        })
    }

    /// Has the gateway do something, and answers what it says of it. The problem of a gateway that
    /// did not has been printed.
    pub fn order(&self, path: &str) -> Result<Value, Not> {
        let answer = self.call("POST", path, None).map_err(Not::Answered)?;
        if answer.is_success() {
            return answer.json().map_err(Not::Answered);
        }
        eprintln!("{}\n", answer.problem());
        Err(Not::Done(answer))
    }

    /// Where to look, first choice first.
    fn places(&self) -> Result<Vec<Place>, String> {
        if let Some(given) = &self.admin {
            let path = given.strip_prefix("unix:").unwrap_or(given);
            return Ok(vec![match path.contains('/') || path != given {
                true => Place::Unix(PathBuf::from(path)),
                false if given.contains(':') => Place::Tcp(given.clone()),
                false => {
                    return Err(format!(
                        "`{given}` is neither a path nor HOST:PORT; write ./{given} for a file of \
                         this folder"
                    ));
                }
            }]);
        }
        let bind = match &self.config {
            Some(file) => config::admin_of(file).map(|admin| admin.bind).ok_or_else(|| {
                let file = file.display();
                format!("{file} does not tell where the gateway is; name its socket with --admin")
            })?,
            // Without a file, or with one that cannot be read at all, where it usually is.
            None => config::admin_of(Path::new(FILE_DEFAULT))
                .map_or(AdminBind::Auto, |admin| admin.bind),
        };
        if bind == AdminBind::Off {
            return Err("`admin.bind` is \"off\" in the configuration".to_owned());
        }
        Ok(socket::candidates(&bind).into_iter().map(Place::Unix).collect())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection, and the Host field for it. A name is not used there: the gateway may not know it
/// (`admin.status_hosts`), but it always answers to its address.
async fn connect(place: &Place) -> io::Result<(Box<dyn Stream>, String)> {
    match place {
        Place::Unix(path) => {
            let stream = timeout(CONNECT_MAX, UnixStream::connect(path)).await??;
            Ok((Box::new(stream), "localhost".to_owned()))
        }
        Place::Tcp(name) => {
            let addresses: Vec<_> = name.to_socket_addrs()?.collect();
            let stream = timeout(CONNECT_MAX, TcpStream::connect(&*addresses)).await??;
            let host = stream.peer_addr()?.to_string();
            Ok((Box::new(stream), host))
        }
    }
}

async fn exchange(
    stream: Box<dyn Stream>,
    host: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let broken = |e: hyper::Error| format!("the connection broke: {e}");
    let (mut sender, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    drop(tokio::spawn(connection));
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::from(body.map_or_else(String::new, Value::to_string));
    let request = request.body(body).map_err(|e| format!("no such request: {e}"))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|e| format!("the answer was cut off: {e}"))?.to_bytes();
    Ok(Answer { status, body })
}

/// A parameter of a query.
pub fn query(name: &str, value: &str) -> String {
    format!("{name}={}", segment(value))
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_from_the_command_line() {
        let place = |admin: &str| {
            let given = Where { admin: Some(admin.to_owned()), config: None };
            given.places().map(|places| places[0].to_string())
        };
        assert_eq!(place("/run/a.sock"), Ok("unix:/run/a.sock".to_owned()));
        assert_eq!(place("unix:a.sock"), Ok("unix:a.sock".to_owned()));
        assert_eq!(place("./a.sock"), Ok("unix:./a.sock".to_owned()));
        assert_eq!(place("127.0.0.1:9180"), Ok("127.0.0.1:9180".to_owned()));
        assert!(place("a.sock").is_err_and(|e| e.contains("./a.sock")));
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("10.0.0.1:80"), "10.0.0.1%3A80");
        assert_eq!(segment("unix:/run/é"), "unix%3A%2Frun%2F%C3%A9");
    }
}
