//! Access logs of one worker: lines are formatted into buffers of its own, which go to the thread
//! that writes the log whole, when full or at the worker's tick.
//!
//! Nothing here waits. When the writer does not keep up, the buffers that may wait
//! ([`Queue::new`]) fill, and then a full buffer's lines are dropped and counted: every line is
//! either handed over or counted as dropped.

use std::{
    cell::{Cell, RefCell, RefMut},
    io::Write,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::Thread,
};

use crossbeam_queue::ArrayQueue;
use rustix::time::{ClockId, clock_gettime};

use super::{
    Worker,
    client::Client,
    clock::now_ns,
    door::Door,
    exchange::Exchange,
    generation::Generation,
    pipeline::{Done, Outcome},
};
use crate::{
    config::snapshot::{Endpoint, Upstream},
    policy::Refusal,
    telemetry::{
        access_log::{Format, Line, Request, Stamp},
        record::Sent,
        trace::parent,
    },
    wire::{FieldId, Version},
};

/// Buffers one worker's log is divided into, and the bounds of one's size in bytes.
const BUFFERS: u64 = 16;
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(64 << 10);
/// Bytes of a refused head's first line that are logged.
const FIRST_LINE_BYTES_MAX: usize = 1024;

/// Whole lines on their way to the log.
#[derive(Debug, Default)]
pub struct Batch {
    /// Longer than what is written: it is used again and again without being cleared.
    memory: Vec<u8>,
    length: usize,
    pub lines: u64,
}

impl Batch {
    pub fn text(&self) -> &[u8] {
        &self.memory[..self.length]
    }

    /// Adds a line; `false` when there is no room for it.
    #[inline]
    fn add(&mut self, format: &Format, line: &Line<'_>) -> bool {
        let written = format.write(line, &mut self.memory[self.length..]);
        if let Some(bytes) = written {
            self.length += bytes;
            self.lines += 1;
        }
        written.is_some()
    }

    /// Adds a line to an empty batch, however long it is: what others may write into one is bounded
    /// ([`crate::telemetry::access_log`]).
    fn add_first(&mut self, format: &Format, line: &Line<'_>, buffer_bytes: usize) {
        let mut bytes = buffer_bytes.max(self.memory.len());
        loop {
            self.memory.resize(bytes, 0);
            if self.add(format, line) {
                return;
            }
            bytes *= 2;
        }
    }

    fn clear(&mut self) {
        (self.length, self.lines) = (0, 0);
    }
}

/// Between one worker and the thread that writes one log; shared by nobody else.
pub struct Queue {
    full: ArrayQueue<Batch>,
    /// Memory on its way back.
    empty: ArrayQueue<Batch>,
    /// Lines the worker found no room for. Only the worker writes it.
    dropped: AtomicU64,
    buffer_bytes: usize,
}

impl Queue {
    /// At most `bytes` wait in it and in the worker, beside one line.
    pub fn new(bytes: u64) -> Queue {
        let buffer_bytes = (bytes / BUFFERS).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        // One more is the one that is being filled.
        let waiting = (bytes / buffer_bytes).saturating_sub(1).max(1) as usize;
        Queue {
            full: ArrayQueue::new(waiting),
            empty: ArrayQueue::new(waiting),
            dropped: AtomicU64::new(0),
            buffer_bytes: buffer_bytes as usize,
        }
    }

    /// The batch that has waited longest.
    pub fn take(&self) -> Option<Batch> {
        self.full.pop()
    }

    /// Gives a batch's memory back.
    pub fn give(&self, mut batch: Batch) {
        batch.clear();
        // One very long line must not be paid for ever after.
        batch.memory.truncate(self.buffer_bytes);
        batch.memory.shrink_to_fit();
        let _ = self.empty.push(batch);
    }

    fn is_half_full(&self) -> bool {
        2 * self.full.len() >= self.full.capacity()
    }

    /// Lines dropped so far for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Where a worker leaves the lines of one log.
#[derive(Clone)]
pub struct Outlet {
    pub queue: Arc<Queue>,
    /// Wakes the thread that writes the log.
    pub writer: Thread,
}

/// One access log in one worker.
pub struct Log {
    outlet: Outlet,
    /// The one that is being filled.
    batch: RefCell<Batch>,
    /// No longer configured: what long exchanges still have to say goes out line by line.
    is_retired: Cell<bool>,
}

impl Log {
    fn new(outlet: Outlet) -> Log {
        Log { outlet, batch: RefCell::default(), is_retired: Cell::new(false) }
    }

    fn add(&self, format: &Format, line: &Line<'_>) {
        if !self.batch.borrow_mut().add(format, line) {
            self.add_to_next(format, line);
        }
        if self.is_retired.get() {
            self.hand_over();
        }
    }

    /// The batch that is being filled has no room left.
    #[cold]
    fn add_to_next(&self, format: &Format, line: &Line<'_>) {
        self.push();
        let queue = &*self.outlet.queue;
        self.batch.borrow_mut().add_first(format, line, queue.buffer_bytes);
        // Otherwise the writer is woken at the tick: waking it for each batch costs as much as what
        // it does.
        if queue.is_half_full() {
            self.outlet.writer.unpark();
        }
    }

    /// What is there goes to the writer now.
    fn hand_over(&self) {
        self.push();
        self.outlet.writer.unpark();
    }

    /// The batch goes into the queue, or is dropped and counted when too much waits already.
    fn push(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.lines == 0 {
            return;
        }
        let queue = &*self.outlet.queue;
        match queue.full.push(std::mem::take(&mut *batch)) {
            Ok(()) => *batch = queue.empty.pop().unwrap_or_default(),
            Err(mut full) => {
                // A store, not an atomic addition: nobody else writes it.
                queue.dropped.store(queue.dropped() + full.lines, Ordering::Relaxed);
                full.clear();
                *batch = full;
            }
        }
    }

    /// Called at every tick. While an earlier buffer waits the lines wait here: many small buffers
    /// would take the place of few full ones.
    fn tick(&self) {
        let has_waiting = !self.outlet.queue.full.is_empty();
        if has_waiting || self.batch.borrow().lines > 0 {
            if !has_waiting {
                self.push();
            }
            self.outlet.writer.unpark();
        }
    }
}

/// The access logs of a generation, in the order of its snapshot.
#[derive(Default)]
pub struct Logs(Vec<Rc<Log>>);

impl Logs {
    /// The logs of the first generation.
    pub fn first(outlets: Vec<Outlet>) -> Logs {
        Logs(outlets.into_iter().map(|outlet| Rc::new(Log::new(outlet))).collect())
    }

    /// The logs of the next generation. One that leads to the same place stays as it is; the lines
    /// of one that ends are handed over.
    pub fn next(&self, outlets: Vec<Outlet>) -> Logs {
        let kept = |outlet: &Outlet| {
            let is_same = |log: &&Rc<Log>| Arc::ptr_eq(&log.outlet.queue, &outlet.queue);
            self.0.iter().find(is_same).cloned()
        };
        let logs = outlets.into_iter().map(|outlet| match kept(&outlet) {
            Some(log) => log,
            None => Rc::new(Log::new(outlet)),
        });
        let next = Logs(logs.collect());
        for log in &self.0 {
            if !next.0.iter().any(|other| Rc::ptr_eq(other, log)) {
                log.is_retired.set(true);
                log.hand_over();
            }
        }
        next
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands over what waits, where the writer has nothing else to do.
    pub fn tick(&self) {
        self.0.iter().for_each(|log| log.tick());
    }

    /// The worker ends: hands over or counts all that waits.
    pub fn finish(&self) {
        self.0.iter().for_each(|log| log.hand_over());
    }
}

/// Logs an exchange that is over, where its listener, its route and the logs' filters say so.
pub fn exchange(worker: &Worker, snapshot: &Generation, exchange: &Exchange, done: &Done) {
    let route = exchange.route.map(|id| snapshot.route(id));
    if !exchange.door.rule.borrow().access_log || route.is_some_and(|route| !route.access_log) {
        return;
    }
    let (record, sent) = (&exchange.record, &done.sent);
    let refused = done.refused.or(match done.outcome {
        Outcome::Broken(refusal) => Some(refusal),
        Outcome::Done => None,
    });
    let ended_ns = now_ns();
    let duration_ns = ended_ns.saturating_sub(record.started_ns);
    let status = status_of(sent, refused);
    let wanted = wanted(worker, snapshot, status, duration_ns);
    if wanted == 0 {
        return;
    }
    let upstream = record.upstream.get().map(|id| snapshot.upstream(id));
    let endpoint = record.endpoint.get().map(usize::from);
    let endpoint = upstream.and_then(|upstream| upstream.endpoints.get(endpoint?));
    let mut address = [0; ADDRESS_BYTES_MAX];
    let traced = exchange.trace.as_ref().map(|trace| trace.own().text());
    let (trace_id, span_id) = traced.as_ref().map_or((&[][..], &[][..]), parent::ids);
    let certificate = exchange.client_cert.as_deref();
    let identity = exchange.identity.as_deref();
    let consumer = identity.and_then(|identity| identity.consumer);
    let (received_bytes, tunnelled_bytes) = record.tunnelled.get();
    // Every field is named, so that a line is made where it stays.
    let line = Line {
        time: &stamp(worker),
        worker: worker.index,
        generation: snapshot.generation,
        listener: &exchange.door.rule.borrow().name,
        client: client(exchange, &mut address),
        peer: &exchange.peer_text,
        request_id: exchange.id.text(exchange.bytes()),
        trace_id,
        span_id,
        client_cert_subject: certificate.map_or("", |certificate| &certificate.subject),
        client_cert_fingerprint: certificate.map_or("", |certificate| &certificate.sha256),
        auth_by: identity.map_or("", |identity| &identity.by),
        subject: identity.map_or("", |identity| &identity.subject),
        consumer: consumer.map_or("", |consumer| snapshot.consumers.all.name(consumer)),
        request: Some(request(exchange)),
        first_line: b"",
        status,
        route: route.map_or("", |route| &route.name),
        upstream: upstream.map_or("", |upstream| &upstream.name),
        endpoint: endpoint.map_or("", |endpoint| &endpoint.name),
        tries: record.tries.get(),
        reused: record.reused.get(),
        duration_ns,
        overhead_ns: record.overhead_ns(sent),
        connect_ns: record.connect_ns.get(),
        first_byte_ns: record.first_byte_ns(),
        transfer_ns: (sent.first_ns > 0).then(|| ended_ns.saturating_sub(sent.first_ns)),
        request_bytes: done.received_bytes + received_bytes,
        response_bytes: sent.body_bytes + tunnelled_bytes,
        sent_bytes: sent.bytes + tunnelled_bytes,
        reason: refused.map(|refusal| refusal.reason),
        shadow: record.shadowed(),
    };
    write(snapshot, wanted, &line);
}

/// Something that was refused before it could become an exchange.
pub struct Malformed<'a> {
    pub door: &'a Door,
    pub peer: &'a [u8],
    pub request_id: &'a [u8],
    /// What was received.
    pub bytes: &'a [u8],
    pub refusal: Refusal,
    pub sent: Sent,
    /// When it was found to be wrong.
    pub started_ns: u64,
}

/// Logs a refused head with what is known of it.
pub fn malformed(worker: &Worker, snapshot: &Generation, what: &Malformed<'_>) {
    if !what.door.rule.borrow().access_log {
        return;
    }
    let duration_ns = now_ns().saturating_sub(what.started_ns);
    let refused = Some(what.refusal);
    let status = status_of(&what.sent, refused);
    let wanted = wanted(worker, snapshot, status, duration_ns);
    if wanted == 0 {
        return;
    }
    let end = what.bytes.iter().position(|b| matches!(b, b'\r' | b'\n'));
    let end = end.unwrap_or(what.bytes.len()).min(FIRST_LINE_BYTES_MAX);
    let line = Line {
        time: &stamp(worker),
        worker: worker.index,
        generation: snapshot.generation,
        listener: &what.door.rule.borrow().name,
        client: what.peer,
        peer: what.peer,
        request_id: what.request_id,
        first_line: &what.bytes[..end],
        status,
        duration_ns,
        response_bytes: what.sent.body_bytes,
        sent_bytes: what.sent.bytes,
        reason: Some(what.refusal.reason),
        ..Line::default()
    };
    write(snapshot, wanted, &line);
}

/// A connection whose TLS was passed through, when it is over.
#[derive(Default)]
pub struct Passed<'a> {
    pub started_ns: u64,
    pub upstream: Option<&'a Upstream>,
    /// The last one that was tried.
    pub endpoint: Option<&'a Endpoint>,
    /// Connections that were made to endpoints.
    pub tries: u8,
    pub connect_ns: u64,
    /// From the client and to it.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub refused: Option<Refusal>,
}

/// Logs a connection whose TLS was passed through; `name` is the one that it asked for.
pub fn passed(
    worker: &Worker,
    snapshot: &Generation,
    client: &Client,
    name: &[u8],
    what: &Passed<'_>,
) {
    let rule = client.door.rule.borrow();
    if snapshot.logs.is_empty() || !rule.access_log {
        return;
    }
    let duration_ns = now_ns().saturating_sub(what.started_ns);
    let status = what.refused.map_or(200, |refusal| refusal.reason.status);
    let wanted = wanted(worker, snapshot, status, duration_ns);
    if wanted == 0 {
        return;
    }
    let request = Request { host: name, protocol: "TLS", ..Request::default() };
    let line = Line {
        time: &stamp(worker),
        worker: worker.index,
        generation: snapshot.generation,
        listener: &rule.name,
        client: &client.peer_text,
        peer: &client.peer_text,
        request: Some(request),
        status,
        upstream: what.upstream.map_or("", |upstream| &upstream.name),
        endpoint: what.endpoint.map_or("", |endpoint| &endpoint.name),
        tries: what.tries,
        duration_ns,
        connect_ns: what.connect_ns,
        request_bytes: what.received_bytes,
        response_bytes: what.sent_bytes,
        sent_bytes: what.sent_bytes,
        reason: what.refused.map(|refusal| refusal.reason),
        ..Line::default()
    };
    write(snapshot, wanted, &line);
}

fn status_of(sent: &Sent, refused: Option<Refusal>) -> u16 {
    match (sent.status, refused) {
        (0, Some(refusal)) => refusal.reason.status,
        (status, _) => status,
    }
}

/// The logs that want a line, as bits; there are no more than eight.
fn wanted(worker: &Worker, snapshot: &Generation, status: u16, duration_ns: u64) -> u32 {
    let mut wanted = 0;
    for (at, rule) in snapshot.access_logs.iter().enumerate() {
        if rule.wants(status, duration_ns, || worker.random.next()) {
            wanted |= 1 << at;
        }
    }
    wanted
}

/// The time, as text.
fn stamp(worker: &Worker) -> RefMut<'_, Stamp> {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let mut stamp = worker.stamp.borrow_mut();
    stamp.set(now.tv_sec.max(0) as u64 * 1000 + now.tv_nsec as u64 / 1_000_000);
    stamp
}

fn write(snapshot: &Generation, wanted: u32, line: &Line<'_>) {
    for (at, (rule, log)) in snapshot.access_logs.iter().zip(&snapshot.logs.0).enumerate() {
        if wanted >> at & 1 == 1 {
            log.add(&rule.format, line);
        }
    }
}

/// An IPv6 address that ends in an IPv4 address is the longest.
const ADDRESS_BYTES_MAX: usize = 45;

/// The client's address as text: mostly the peer's, which is there already.
fn client<'a>(exchange: &'a Exchange, room: &'a mut [u8; ADDRESS_BYTES_MAX]) -> &'a [u8] {
    match exchange.client.ip {
        ip if ip == exchange.peer => &exchange.peer_text,
        None => b"",
        Some(ip) => address(ip, room),
    }
}

fn address(ip: IpAddr, room: &mut [u8; ADDRESS_BYTES_MAX]) -> &[u8] {
    let mut rest = &mut room[..];
    // Every address fits.
    let _ = write!(rest, "{ip}");
    let length = ADDRESS_BYTES_MAX - rest.len();
    &room[..length]
}

fn request(exchange: &Exchange) -> Request<'_> {
    let (head, buf) = (exchange.head(), exchange.bytes());
    let (mut referer, mut user_agent): (&[u8], &[u8]) = (b"", b"");
    for field in head.fields.iter().filter(|field| field.id == FieldId::Other) {
        match field.name.len() {
            7 if is(field.name.of(buf), b"referer") => referer = field.value.of(buf),
            10 if is(field.name.of(buf), b"user-agent") => user_agent = field.value.of(buf),
            _ => {}
        }
    }
    Request {
        method: head.method_text.of(buf),
        host: head.authority.of(buf),
        target: head.target.of(buf),
        protocol: match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        },
        referer,
        user_agent,
    }
}

fn is(name: &[u8], known: &[u8]) -> bool {
    name.eq_ignore_ascii_case(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::Escape;

    fn log(bytes: u64) -> (Log, Arc<Queue>) {
        let queue = Arc::new(Queue::new(bytes));
        let outlet = Outlet { queue: queue.clone(), writer: std::thread::current() };
        (Log::new(outlet), queue)
    }

    fn format() -> Format {
        Format::template("${status}", Escape::Text).expect("a template")
    }

    #[test]
    fn a_queue_holds_what_it_is_allowed() {
        for (bytes, buffer_bytes, waiting) in
            [(64 << 10, 4 << 10, 15), (1 << 20, 64 << 10, 15), (1 << 30, 64 << 10, 16383)]
        {
            let queue = Queue::new(bytes);
            assert_eq!((queue.buffer_bytes, queue.full.capacity()), (buffer_bytes, waiting));
        }
    }

    #[test]
    fn every_line_is_handed_over_or_counted() {
        let (log, queue) = log(64 << 10);
        let (format, line) = (format(), Line { status: 200, ..Line::default() });
        // `200` and LF: 1024 lines fill a buffer; 15 buffers may wait.
        (0..1024 * 17 + 10).for_each(|_| log.add(&format, &line));
        assert_eq!(queue.dropped(), 2 * 1024);
        log.hand_over();
        assert_eq!(queue.dropped(), 2 * 1024 + 10);
        let mut handed_over = 0;
        while let Some(batch) = queue.take() {
            assert_eq!(batch.text(), b"200\n".repeat(batch.lines as usize));
            handed_over += batch.lines;
            queue.give(batch);
        }
        assert_eq!(handed_over, 15 * 1024);
        log.add(&format, &line);
        log.hand_over();
        assert_eq!(queue.take().expect("room again").lines, 1);
    }

    #[test]
    fn small_buffers_do_not_take_the_place_of_full_ones() {
        let (log, queue) = log(64 << 10);
        let (format, line) = (format(), Line { status: 200, ..Line::default() });
        for _ in 0..100 {
            log.add(&format, &line);
            log.tick();
        }
        assert_eq!(queue.full.len(), 1);
        assert_eq!(queue.take().expect("the first").lines, 1);
        log.tick();
        assert_eq!(queue.take().expect("all others").lines, 99);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_reload_keeps_what_leads_to_the_same_place() {
        let outlets: Vec<Outlet> = (0..3)
            .map(|_| Outlet {
                queue: Arc::new(Queue::new(1 << 20)),
                writer: std::thread::current(),
            })
            .collect();
        let (format, line) = (format(), Line::default());
        let first = Logs::first(outlets[..2].to_vec());
        first.0.iter().for_each(|log| log.add(&format, &line));
        let next = first.next(vec![outlets[2].clone(), outlets[0].clone()]);
        assert!(Rc::ptr_eq(&next.0[1], &first.0[0]));
        assert!(outlets[0].queue.take().is_none(), "it goes on");
        assert_eq!(outlets[1].queue.take().expect("its last lines").lines, 1);
        // An exchange of the generation before ends late.
        first.0[1].add(&format, &line);
        assert_eq!(outlets[1].queue.take().expect("a late line").lines, 1);
    }

    #[test]
    fn addresses() {
        for text in ["192.0.2.7", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let mut room = [0; ADDRESS_BYTES_MAX];
            let ip = text.parse().expect("an address");
            assert_eq!(address(ip, &mut room), text.as_bytes());
        }
    }
}
