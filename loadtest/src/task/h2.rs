//! HTTP/2: many requests at once on each connection, by the `h2` crate.
//!
//! A request that the server says it has not processed (GOAWAY, REFUSED_STREAM), or that found its
//! connection ended before it was sent, goes to another connection and keeps its due time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::client::{self, SendRequest};

use super::connect::Connector;
use super::{Broken, REST, Shared};
use crate::load::Flight;
use crate::tally::Failure;

/// Receive windows that never hold a response back.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;

/// What came of a request.
enum Sent {
    Answered((u16, u64, Option<u32>)),
    /// Not processed because the connection takes no more: may be sent on another.
    Unprocessed,
    /// Not processed this time: may be sent again.
    Refused,
    Broken(Broken),
}

/// Sends requests until the run is over, over one connection at a time with `streams` slots.
pub async fn connection(shared: Rc<Shared>, streams: usize) {
    let plan = shared.plan();
    let connector = Connector::new(&plan.target, plan.tls.as_ref(), true);
    loop {
        // Where connecting is part of the request.
        let first = if plan.new_connections {
            let Some(flight) = shared.next().await else { return };
            Some(flight)
        } else {
            None
        };
        let nothing_left = shared.load.borrow().is_over() && shared.returned.borrow().is_empty();
        if first.is_none() && nothing_left {
            return;
        }
        match connect(&shared, &connector).await {
            Ok(send) => {
                match first {
                    Some(flight) => drop(one(&shared, send, flight).await),
                    None => {
                        let slots = (0..streams).map(|_| slot(&shared, send.clone()));
                        join_all(slots).await;
                    }
                }
                shared.load.borrow_mut().open -= 1;
            }
            Err((failure, note)) => {
                fail(&shared, first, failure, note);
                monoio::time::sleep(REST).await;
            }
        }
    }
}

/// There is no connection for this request, for one that was given back, or for none.
fn fail(shared: &Shared, flight: Option<Flight>, failure: Failure, note: String) {
    let flight = flight.or_else(|| shared.returned.borrow_mut().pop());
    let mut load = shared.load.borrow_mut();
    match flight {
        Some(flight) => load.fail(&flight, failure, || note),
        None => load.fail_idle(failure, || note),
    }
}

async fn connect(shared: &Shared, connector: &Connector) -> Result<SendRequest<Bytes>, Broken> {
    let connecting = async {
        let connected = connector.connect().await?;
        let handshake = client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(connected.io)
            .await;
        let made = handshake.map_err(|e| (Failure::Connect, format!("HTTP/2 preface: {e}")))?;
        Ok((made, connected.resumed))
    };
    let timed = monoio::time::timeout(shared.timeout(), connecting).await;
    let late = || Err((Failure::Connect, "not connected in time".to_owned()));
    let ((send, connection), resumed) = timed.unwrap_or_else(|_| late())?;
    // Its end is seen by the requests on it.
    monoio::spawn(async move { drop(connection.await) });
    let mut load = shared.load.borrow_mut();
    load.open += 1;
    if let Some(resumed) = resumed {
        load.note_handshake(resumed);
    }
    Ok(send)
}

/// One request after the other, until the run or the connection is over.
async fn slot(shared: &Shared, send: SendRequest<Bytes>) {
    while let Some(flight) = shared.next().await {
        if !one(shared, send.clone(), flight).await {
            return;
        }
        let think_ns = shared.load.borrow().request(&flight).think_ns;
        if think_ns > 0 {
            monoio::time::sleep(Duration::from_nanos(think_ns)).await;
        }
    }
}

/// Sends one request; false when the connection is of no more use.
async fn one(shared: &Shared, send: SendRequest<Bytes>, flight: Flight) -> bool {
    let timed = monoio::time::timeout(shared.timeout(), request(shared, send, &flight)).await;
    let late = || Sent::Broken((Failure::Timeout, "no response in time".to_owned()));
    match timed.unwrap_or_else(|_| late()) {
        Sent::Answered(facts) => {
            let now_ns = shared.now_ns();
            shared.load.borrow_mut().finish(&flight, now_ns, facts);
            true
        }
        Sent::Unprocessed => {
            give_back(shared, flight);
            false
        }
        Sent::Refused => {
            give_back(shared, flight);
            monoio::time::sleep(REST).await;
            true
        }
        Sent::Broken((failure, note)) => {
            shared.load.borrow_mut().fail(&flight, failure, || note);
            monoio::time::sleep(REST).await;
            true
        }
    }
}

fn give_back(shared: &Shared, flight: Flight) {
    shared.returned.borrow_mut().push(flight);
    // Somebody may be waiting for the next one to be due.
    shared.pacer.wake_all();
}

async fn request(shared: &Shared, send: SendRequest<Bytes>, flight: &Flight) -> Sent {
    let request = shared.load.borrow().request(flight);
    let Ok(mut send) = send.ready().await else { return Sent::Unprocessed };
    let end = request.body.is_empty();
    let (response, mut body) = match send.send_request(request.head.clone(), end) {
        Ok(sent) => sent,
        Err(e) => return broken(&e, false),
    };
    if !end && let Err(e) = body.send_data(Bytes::from_static(request.body), true) {
        return broken(&e, false);
    }
    let response = match response.await {
        Ok(response) => response,
        Err(e) => return broken(&e, false),
    };
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut crc = request.expect.checksum.map(|_| crc32fast::Hasher::new());
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(e) => return broken(&e, true),
        };
        length += data.len() as u64;
        if let Some(crc) = &mut crc {
            crc.update(&data);
        }
        if let Err(e) = body.flow_control().release_capacity(data.len()) {
            return broken(&e, true);
        }
    }
    Sent::Answered((status, length, crc.map(crc32fast::Hasher::finalize)))
}

fn broken(e: &h2::Error, begun: bool) -> Sent {
    let refused = e.reason() == Some(Reason::REFUSED_STREAM);
    let going = e.is_go_away() && e.is_remote() && e.reason() == Some(Reason::NO_ERROR);
    if !begun && refused {
        return Sent::Refused;
    }
    if !begun && going {
        return Sent::Unprocessed;
    }
    let failure = match begun {
        _ if e.is_reset() => Failure::Reset,
        true if e.is_io() => Failure::Short,
        false if e.is_io() => Failure::Reset,
        _ => Failure::Malformed,
    };
    Sent::Broken((failure, e.to_string()))
}
