//! `ringway demo`: two sample upstreams and the gateway in one process, no file needed.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

use super::run;
use crate::{
    config::{self, snapshot::Bind},
    wire::{HeadLimits, Parsed, RequestHead},
};

/// Where the demo listens when it can.
const PORT: u16 = 8080;

/// Runs the demo until Ctrl-C.
pub fn demo() -> ExitCode {
    let upstreams = ["lemon", "lime"].map(sample_upstream);
    let [lemon, lime] = match upstreams {
        [Ok(lemon), Ok(lime)] => [lemon, lime],
        [Err(e), _] | [_, Err(e)] => {
            eprintln!("the demo's upstreams cannot listen on 127.0.0.1: {e}");
            return ExitCode::FAILURE;
        }
    };
    let port = free_port();
    match config::from_text("the demo's configuration", &text(port, lemon, lime)) {
        Ok((snapshot, _)) => run::serve(snapshot, None, None, welcome),
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn text(port: u16, lemon: SocketAddr, lime: SocketAddr) -> String {
    format!(
        r#"
[[listeners]]
bind = "127.0.0.1:{port}"

[[routes]]
path = "/fruit"
upstream = "fruit"

[[routes]]
path_template = "/hello/{{name}}"
rewrite_path = "/greet/{{name}}"
upstream = "fruit"

[[routes]]
path = "/admin"
respond = {{ status = 403, body = "not for you\n" }}

[[routes]]
path_exact = "/"
redirect = {{ status = 302, path = "/fruit" }}

[upstreams.fruit]
endpoints = ["{lemon}", "{lime}"]

[limits]
connections = 1000
connections_per_worker = 1000
"#
    )
}

/// The usual port, or any when that one is taken.
fn free_port() -> u16 {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)) {
        Ok(_) => PORT,
        Err(_) => 0,
    }
}

fn welcome(binds: &[Bind]) {
    let Some(Bind::Tcp(at)) = binds.first() else { return };
    println!(
        "\nRingway is in front of two sample upstreams, lemon and lime. In another terminal:\n\n\
         \x20 curl http://{at}/fruit              # again and again: they take turns\n\
         \x20 curl http://{at}/hello/world        # the path is rewritten\n\
         \x20 curl -i http://{at}/admin           # a fixed response\n\
         \x20 curl -i http://{at}/public/../admin # --path-as-is does not get around it\n\
         \x20 curl -i http://{at}/nowhere         # no route: a problem+json with its reason\n\
         \x20 curl -L http://{at}/                # a redirect\n\n\
         Ctrl-C ends it: connections are drained first.\n"
    );
}

/// A small HTTP/1.1 server that says who it is and what it was asked.
fn sample_upstream(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = listener.local_addr()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A demo upstream that cannot start a thread drops the connection.
            let _ = thread::Builder::new().spawn(move || answer(name, stream));
        }
    })?;
    Ok(at)
}

fn answer(name: &str, mut stream: TcpStream) -> io::Result<()> {
    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 65536, target_bytes_max: 65536, fields_max: 256 };
    let mut head = RequestHead::default();
    let mut bytes = Vec::new();
    loop {
        match head.parse(&bytes, &LIMITS) {
            Ok(Parsed::Complete(())) => {
                let target = String::from_utf8_lossy(head.target.of(&bytes)).into_owned();
                let method = String::from_utf8_lossy(head.method_text.of(&bytes)).into_owned();
                bytes.drain(..head.len);
                let body = format!("{name} got {method} {target}\n");
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
            }
            Ok(Parsed::Partial) => {
                let mut more = [0u8; 4096];
                match stream.read(&mut more)? {
                    0 => return Ok(()),
                    n => bytes.extend_from_slice(&more[..n]),
                }
            }
            Err(_) => return Ok(()),
        }
    }
}
