//! A connection to a Redis server: over TCP, TLS or a Unix socket, with user and password, and one
//! answer to show that it works.

use std::io;

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection, cmd};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::bucket;
use crate::config::snapshot::{Redis, redis::RedisAddress};

/// A connection, and the task that reads and writes it. The task ends with the server's end, or
/// when this is dropped.
pub struct Connection {
    pub inner: MultiplexedConnection,
    pub driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects; an error says why not, in words for the log.
pub async fn connect(redis: &Redis) -> Result<Connection, String> {
    let plain: Box<dyn Stream> = match &redis.address {
        RedisAddress::Tcp(host, port) => {
            let host = host.trim_matches(['[', ']']);
            let stream = TcpStream::connect((host, *port)).await.map_err(|e| text(&e))?;
            stream.set_nodelay(true).map_err(|e| text(&e))?;
            Box::new(stream)
        }
        RedisAddress::Unix(path) => {
            Box::new(UnixStream::connect(path).await.map_err(|e| text(&e))?)
        }
    };
    let stream: Box<dyn Stream> = match &redis.tls {
        Some((client, name)) => {
            let connector = TlsConnector::from(client.clone());
            let stream = connector.connect(name.clone(), plain).await;
            Box::new(stream.map_err(|e| format!("TLS: {}", text(&e)))?)
        }
        None => plain,
    };
    let mut info =
        RedisConnectionInfo::default().set_db(redis.database.into()).set_skip_set_lib_name();
    if let Some(user) = &redis.user {
        info = info.set_username(user);
    }
    if let Some(password) = &redis.password {
        info = info.set_password(&password.0);
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (inner, driver) = made.map_err(|e| words(&e))?;
    let mut connection = Connection { inner, driver: tokio::task::spawn_local(driver) };
    ping(&mut connection).await?;
    // So that the first request does not wait for it. Who may not do that gets it with an order.
    let mut load = cmd("SCRIPT");
    load.arg("LOAD").arg(bucket::SCRIPT);
    match load.exec_async(&mut connection.inner).await {
        Err(e) if e.is_io_error() || e.is_connection_dropped() => Err(words(&e)),
        _ => Ok(connection),
    }
}

/// Asks for a sign of life.
pub async fn ping(connection: &mut Connection) -> Result<(), String> {
    cmd("PING").exec_async(&mut connection.inner).await.map_err(|e| words(&e))
}

fn text(error: &io::Error) -> String {
    error.to_string()
}

/// What a server or the client says, in one short line.
pub fn words(error: &redis::RedisError) -> String {
    let text = error.to_string();
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
