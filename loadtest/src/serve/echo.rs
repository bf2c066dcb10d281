//! A WebSocket that sends back what it receives.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::task::connect::Io;

/// Small, because there may be thousands.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(16 << 20))
}

/// Echoes until the peer closes; `received` came with the request.
pub async fn echo(io: Box<dyn Io>, received: &[u8]) {
    let received = received.to_vec();
    let mut socket =
        WebSocketStream::from_partially_read(io, received, Role::Server, Some(config())).await;
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        // Pings and closes are answered by the library.
        let sent = if is_data { socket.send(message).await } else { socket.flush().await };
        if sent.is_err() {
            return;
        }
    }
}
