//! The gateway's own log on standard error.

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{Client, Launch, PATIENCE, eventually};

/// A gateway whose standard error is a socket that holds a few lines. A request for `/panic` makes
/// a worker log one.
struct Muted {
    child: Child,
    reader: UnixStream,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Muted {
    fn start() -> Muted {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("gw.sock"), dir.path().join("ringway.toml"));
        let toml = format!(
            "[[routes]]\nrespond = {{ body = \"ok\" }}\n[[listeners]]\nbind = \"unix:{}\"\n",
            path.display()
        );
        std::fs::write(&file, Launch { toml, ..Launch::default() }.complete_toml()).unwrap();
        let (reader, writer) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&writer).set_send_buffer_size(1).unwrap();
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .arg("run")
            .arg(&file)
            .env("RINGWAY_DRILL_PANIC_PATH", "/panic")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(OwnedFd::from(writer)))
            .spawn()
            .unwrap();
        let muted = Muted { child, reader, path, _dir: dir };
        eventually("it listens", || UnixStream::connect(&muted.path).is_ok());
        muted
    }

    fn log_lines(&self, lines: usize) {
        for _ in 0..lines {
            let mut client = Client::connect_unix(&self.path);
            client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
            client.expect_closed();
        }
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stopped_reader_of_standard_error_stalls_no_worker() {
    let mut gateway = Muted::start();
    // More than the socket and the queue hold together.
    gateway.log_lines(4500);
    for _ in 0..10 {
        assert_eq!(Client::connect_unix(&gateway.path).get("/").text(), "ok");
    }
    let (mut log, mut piece) = (String::new(), [0; 4096]);
    while !log.contains("lines of this log were dropped") {
        let n = gateway.reader.read(&mut piece).expect("the log goes on");
        assert!(n > 0, "{log}");
        log.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert!(log.contains("a panic was asked for"), "{log}");
}

#[test]
fn a_stopped_reader_of_standard_error_does_not_keep_the_program() {
    let mut gateway = Muted::start();
    gateway.log_lines(100);
    kill(Pid::from_raw(gateway.child.id() as i32), Signal::SIGTERM).unwrap();
    eventually("it ends", || gateway.child.try_wait().unwrap().is_some());
}
