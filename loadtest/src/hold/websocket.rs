//! One held WebSocket: a message every so often, and the same back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{Held, Plan, in_time};
use crate::body;
use crate::serve::echo;
use crate::tally::Failure;
use crate::task::connect::{Io, Refused};

type Socket = WebSocketStream<Box<dyn Io>>;

/// Opens at `at`, holds until the plan's end.
pub async fn hold(plan: &'static Plan, at: Instant, held: Rc<RefCell<Held>>) {
    monoio::time::sleep(at.saturating_duration_since(Instant::now())).await;
    let mut socket = match in_time(plan, "not open", open(plan)).await {
        Ok(socket) => socket,
        Err(refused) => return held.borrow_mut().fail(refused),
    };
    held.borrow_mut().opened += 1;
    let ended = match plan.echo_every {
        Some(_) => talk(plan, &mut socket, &held).await,
        None => listen(plan, &mut socket).await,
    };
    if let Err(refused) = ended {
        held.borrow_mut().end_early(refused);
    }
    // A peer that is gone does not mind.
    let _ = in_time(plan, "not closed", async { Ok(socket.close(None).await) }).await;
}

async fn open(plan: &'static Plan) -> Result<Socket, Refused> {
    let connected = plan.connector().connect().await?;
    let scheme = if plan.tls.is_some() { "wss" } else { "ws" };
    let url = format!("{scheme}://{}{}", plan.host, plan.path);
    let opened = client_async_with_config(url, connected.io, Some(echo::config())).await;
    opened.map(|(socket, _)| socket).map_err(|e| (Failure::Status, e.to_string()))
}

/// Sends and awaits messages; each is due one interval after the one before.
async fn talk(plan: &Plan, socket: &mut Socket, held: &RefCell<Held>) -> Result<(), Refused> {
    let every = plan.echo_every.unwrap_or_default();
    let mut due = Instant::now();
    for number in 0u64.. {
        if due >= plan.end {
            return Ok(());
        }
        let mut begun = due;
        if Instant::now() < due {
            monoio::time::sleep(due.saturating_duration_since(Instant::now())).await;
            // Timers tick in milliseconds: what this one was late is not the target's.
            begun = Instant::now();
        }
        let mut message = body::bytes(plan.message);
        message[..8].copy_from_slice(&number.to_be_bytes());
        held.borrow_mut().sent += 1;
        let echo = in_time(plan, "no echo", exchange(socket, message.clone())).await?;
        let mut held = held.borrow_mut();
        held.received += 1;
        held.wrong += u64::from(echo != message);
        held.time_ns.saturating_record(begun.elapsed().as_nanos() as u64);
        due += every;
    }
    Ok(())
}

async fn exchange(socket: &mut Socket, message: Vec<u8>) -> Result<Vec<u8>, Refused> {
    let broken = |e: tokio_tungstenite::tungstenite::Error| (Failure::Reset, e.to_string());
    socket.send(Message::binary(message)).await.map_err(broken)?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                return Err((Failure::Unanswered, format!("closed: {frame:?}")));
            }
            Some(Ok(message)) => return Ok(message.into_data().to_vec()),
            Some(Err(e)) => return Err(broken(e)),
            None => return Err((Failure::Unanswered, "the connection ended".to_owned())),
        }
    }
}

/// Nothing is said; the end of the connection is noticed.
async fn listen(plan: &Plan, socket: &mut Socket) -> Result<(), Refused> {
    let rest = plan.end.saturating_duration_since(Instant::now());
    let ended = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return format!("closed: {frame:?}"),
                Some(Ok(_)) => {}
                Some(Err(e)) => return e.to_string(),
                None => return "the connection ended".to_owned(),
            }
        }
    };
    match monoio::time::timeout(rest, ended).await {
        Ok(note) => Err((Failure::Unanswered, note)),
        Err(_) => Ok(()),
    }
}
