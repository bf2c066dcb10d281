//! A Redis server for the tests: a real one, on a port of its own, keeping nothing on disk.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::eventually;

/// It ends with its test.
pub struct Redis {
    address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
    folder: tempfile::TempDir,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// With further settings, such as `--requirepass x`.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Redis {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let child = run(address, &arguments, folder.path());
        Redis { address, arguments, child, folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Redis::kill`], with nothing in it.
    #[track_caller]
    pub fn again(&mut self) {
        self.child = run(self.address, &self.arguments, self.folder.path());
    }

    /// A connection, without TLS.
    #[track_caller]
    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}/", self.address)).unwrap();
        client.get_connection().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn run(address: SocketAddr, arguments: &[String], folder: &Path) -> Child {
    let (port, folder) = (address.port().to_string(), folder.to_str().unwrap());
    let child = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", folder])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("redis-server: {e}; scripts/setup installs it"));
    eventually("the Redis server accepts", || TcpStream::connect(address).is_ok());
    child
}
