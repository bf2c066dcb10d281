//! HTTP/1.1 on one connection at a time, over anything that [`Connector`] makes.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connect::{Connector, Io};
use super::{Broken, REST, Shared};
use crate::http1::Malformed;
use crate::load::Flight;
use crate::response::Response;
use crate::tally::Failure;

const READ_BYTES: usize = 16 * 1024;

/// What one slot keeps from request to request.
struct Slot {
    shared: Rc<Shared>,
    connector: Connector,
    kept: Option<Box<dyn Io>>,
    response: Response,
    buf: Vec<u8>,
}

/// Sends requests until the run is over.
pub async fn connection(shared: Rc<Shared>) {
    let plan = shared.plan();
    // Where connecting is part of the request, or not wanted before there is one.
    let lazy = plan.new_connections || shared.load.borrow().is_open();
    let connector = Connector::new(&plan.target, plan.tls.as_ref(), false);
    let buf = vec![0; READ_BYTES];
    let mut slot = Slot { shared, connector, kept: None, response: Response::new(), buf };
    loop {
        if !lazy && slot.kept.is_none() {
            if slot.shared.load.borrow().is_over() {
                return;
            }
            if let Err((failure, note)) = slot.connect().await {
                slot.shared.load.borrow_mut().fail_idle(failure, || note);
                monoio::time::sleep(REST).await;
                continue;
            }
        }
        let Some(flight) = slot.shared.next().await else { return };
        slot.look_at_kept().await;
        let sent = monoio::time::timeout(slot.shared.timeout(), slot.request(&flight)).await;
        let timeout = || (Failure::Timeout, "no response in time".to_owned());
        slot.judge(&flight, sent.unwrap_or_else(|_| Err(timeout()))).await;
    }
}

impl Slot {
    async fn connect(&mut self) -> Result<(), Broken> {
        let timed = monoio::time::timeout(self.shared.timeout(), self.connector.connect()).await;
        let late = || (Failure::Connect, "not connected in time".to_owned());
        let connected = timed.unwrap_or_else(|_| Err(late()))?;
        let mut load = self.shared.load.borrow_mut();
        load.open += 1;
        if let Some(resumed) = connected.resumed {
            load.note_handshake(resumed);
        }
        self.kept = Some(connected.io);
        Ok(())
    }

    fn hang_up(&mut self) -> Option<Box<dyn Io>> {
        let io = self.kept.take()?;
        self.shared.load.borrow_mut().open -= 1;
        Some(io)
    }

    /// Drops the kept connection if the target has ended it meanwhile.
    async fn look_at_kept(&mut self) {
        let Some(io) = &mut self.kept else { return };
        let mut buf = [0; 1];
        let ended = poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut buf);
            // Bytes nobody asked for are as good a reason not to use it.
            Poll::Ready(Pin::new(&mut *io).poll_read(cx, &mut read).is_ready())
        });
        if ended.await {
            self.hang_up();
            self.shared.load.borrow_mut().note_idle_closed();
        }
    }

    async fn request(&mut self, flight: &Flight) -> Result<(), Broken> {
        if self.kept.is_none() {
            self.connect().await?;
        }
        let request = self.shared.load.borrow().request(flight);
        self.response.expect(request.bodiless, request.expect.checksum.is_some());
        let io = self.kept.as_mut().expect("invariant: connected above");
        let broken = |response: &Response, e: &std::io::Error| {
            let failure = match (e.kind(), response.begun) {
                (std::io::ErrorKind::UnexpectedEof, true) => Failure::Short,
                (std::io::ErrorKind::UnexpectedEof, false) => Failure::Unanswered,
                _ => Failure::Reset,
            };
            (failure, e.to_string())
        };
        io.write_all(request.wire).await.map_err(|e| broken(&self.response, &e))?;
        let mut flushed = false;
        loop {
            let read = poll_fn(|cx| {
                // What is still to be written goes out while the response is awaited.
                if !flushed {
                    match Pin::new(&mut *io).poll_flush(cx) {
                        Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                        written => flushed = written.is_ready(),
                    }
                }
                let mut read = ReadBuf::new(&mut self.buf);
                let polled = Pin::new(&mut *io).poll_read(cx, &mut read);
                polled.map(|result| result.map(|()| read.filled().len()))
            });
            match read.await.map_err(|e| broken(&self.response, &e))? {
                0 if self.response.end() => {
                    self.response.close = true;
                    return Ok(());
                }
                0 => {
                    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(broken(&self.response, &end));
                }
                n => match self.response.take(&self.buf[..n]) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(Malformed) => return Err((Failure::Malformed, "no HTTP/1.1".to_owned())),
                },
            }
        }
    }

    async fn judge(&mut self, flight: &Flight, sent: Result<(), Broken>) {
        let now_ns = self.shared.now_ns();
        match sent {
            Ok(()) => {
                let response = &self.response;
                let facts = (response.status, response.length, response.checksum());
                self.shared.load.borrow_mut().finish(flight, now_ns, facts);
                let last = response.close || self.shared.plan().new_connections;
                if last && let Some(mut io) = self.hang_up() {
                    // TLS wants to say goodbye; a peer that is gone does not mind.
                    let _ = monoio::time::timeout(REST, io.shutdown()).await;
                }
                let think_ns = self.shared.load.borrow().request(flight).think_ns;
                if think_ns > 0 {
                    monoio::time::sleep(Duration::from_nanos(think_ns)).await;
                }
            }
            Err((failure, note)) => {
                self.hang_up();
                self.shared.load.borrow_mut().fail(flight, failure, || note);
                monoio::time::sleep(REST).await;
            }
        }
    }
}
