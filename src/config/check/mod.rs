//! From the file as written to the snapshot: everything that concerns more than one key.
//!
//! Runs to the end whatever it finds, so that all problems of a file are reported together. The
//! snapshot it makes counts only when no error was reported.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Surroundings,
    decode::{At, Sink},
    file::{Admin, File, Http2, Limits, Listener, Runtime, Shutdown, Timeouts, UNIX_MODE_DEFAULT},
    report::{Place, Problem},
    snapshot::{self, AdminBind, Ahead, Bind, ListenerRule, ProxyProtocol, Snapshot},
    units::{Millis, Size},
    values::{BindAddress, EncodedSlash},
};
use crate::{
    policy::frames::FrameRates,
    wire::{HeadLimits, emit::Via, path::PathRules},
};

mod access_logs;
mod acme;
mod addresses;
mod auth;
mod authorize;
mod basic;
mod certificates;
mod concurrency;
mod consumers;
mod crls;
mod forward_auth;
mod introspection;
mod jwt;
mod key_file;
mod nobody;
mod oidc;
mod openapi;
mod passthrough;
mod plans;
mod policies;
mod quotas;
mod rate_limits;
mod redis;
mod routes;
mod rules;
mod schemas;
mod secrets;
mod signatures;
mod staples;
mod tickets;
mod tls;
mod trace;
mod transform;
mod upstreams;
mod validate;
mod web;

/// The top of the file, for problems that have no better place.
const TOP: Place = Place { start: 0, end: 0 };

/// Checks a decoded file; `None` only when no snapshot can be made at all.
pub(super) fn check(file: &File, around: &Surroundings<'_>, sink: &mut Sink) -> Option<Snapshot> {
    let paths = PathRules { encoded_slash_keep: *file.paths.encoded_slash == EncodedSlash::Keep };
    let mut listeners = listeners(file, around.folder, sink);
    let acme = acme::names(file, &mut listeners, sink);
    check_limits(&file.limits, sink);
    check_timeouts(&file.timeouts, sink);
    check_ring(&file.runtime, sink);
    check_proxy_protocol(file, sink);
    check_admin(file, sink);
    let upstreams = upstreams::upstreams(file, around, sink);
    let tracing = trace::tracing(file, sink);
    let access_logs = access_logs::access_logs(file, around.look_up, sink);
    let shared = policies::Shared::of(file, around.folder, sink);
    let (routes, router) = routes::routes(file, &shared, sink);
    sink.tell_once();
    Some(Snapshot {
        generation: 1,
        runtime: runtime(&file.runtime, &file.shutdown),
        listeners,
        access_logs,
        router: router?,
        routes,
        aside: Box::new(policies::aside()),
        upstreams,
        rate_limits: shared.rate_limits,
        redis: shared.redis,
        concurrency: shared.concurrency,
        quota_store: quotas::store(file, around.folder),
        ways: shared.ways,
        consumers: shared.consumers,
        limits: limits(&file.limits),
        timeouts: timeouts(&file.timeouts),
        errors: file.errors.some().and_then(|written| policies::errors(&written, sink)),
        http2: http2(&file.http2, sink),
        forwarding: snapshot::Forwarding {
            trusted_proxies: file
                .forwarding
                .trusted_proxies
                .iter()
                .map(|net| net.value.0)
                .collect(),
            fields: *file.forwarding.fields,
            via: Via::new(&file.forwarding.via.0),
            request_id: *file.forwarding.request_id,
        },
        paths,
        metrics: snapshot::Metrics {
            enabled: *file.metrics.enabled,
            series_max: *file.metrics.series,
        },
        tracing,
        server_timing: *file.tracing.server_timing,
        admin: admin(&file.admin),
        acme,
        reload_watch: *file.reload.watch,
        files: files(file, around.folder, &shared.schema_files),
        // Whoever has the text puts it in.
        text: Arc::from(""),
    })
}

/// Files whose content is a part of the configuration.
fn files(file: &File, folder: &Path, schemas: &schemas::Files) -> Vec<PathBuf> {
    let keys = jwt::files(file).into_iter().map(|name| folder.join(name));
    let mut files = tls::files(file, folder);
    files.extend(consumers::files(file, folder));
    files.extend(keys);
    files.extend(redis::files(file).into_iter().map(|name| folder.join(name)));
    files.extend(signatures::files(file).into_iter().map(|name| folder.join(name)));
    files.extend(introspection::files(file).into_iter().map(|name| folder.join(name)));
    files.extend(oidc::files(file).into_iter().map(|name| folder.join(name)));
    files.extend(schemas.paths());
    files
}

/// Never a listener's address: there the world could read what is the operator's.
fn check_admin(file: &File, sink: &mut Sink) {
    let (bind, status) = (&file.admin.bind, &file.admin.status_bind);
    for listener in file.listeners.iter() {
        let problem = match &listener.bind.value {
            BindAddress::Tcp(at) if at.port() != 0 && status.value.is_some_and(|s| s.0 == *at) => {
                status.place().map(|place| (place, "status_bind", "127.0.0.1:9180"))
            }
            BindAddress::Unix(path) if bind.value == AdminBind::Unix(path.clone()) => {
                bind.place().map(|place| (place, "bind", "auto"))
            }
            _ => None,
        };
        if let Some((place, key, instead)) = problem {
            let title = format!("`admin.{key}` is the address of a listener");
            let problem = Problem::error(place, title).fix(format!("write \"{instead}\""));
            let listener_place = listener.bind.place().unwrap_or(TOP);
            sink.push(problem.related(listener_place, "clients connect here"));
        }
    }
}

pub(super) fn admin(admin: &Admin) -> snapshot::Admin {
    snapshot::Admin {
        bind: admin.bind.value.clone(),
        mode: admin.mode.0,
        status_bind: admin.status_bind.value.map(|address| address.0),
        status_hosts: admin.status_hosts.iter().map(|host| host.value.0.clone()).collect(),
    }
}

/// Reports names, addresses or other things that may be there only once.
#[derive(Default)]
struct Once {
    seen: HashMap<String, Place>,
}

impl Once {
    /// Reports `text` when it was there before, pointing at both.
    fn check(&mut self, text: &str, place: Place, what: &str, fix: &str, sink: &mut Sink) {
        match self.seen.get(text) {
            Some(first) => sink.push(
                Problem::error(place, format!("{what} `{text}` is there twice"))
                    .label("again here")
                    .related(*first, "first here")
                    .fix(fix),
            ),
            None => {
                self.seen.insert(text.to_owned(), place);
            }
        }
    }
}

fn listeners(file: &File, folder: &Path, sink: &mut Sink) -> Vec<ListenerRule> {
    if file.listeners.is_empty() && !file.listeners.is_wrong() && sink.problems.is_empty() {
        let fix = "add [[listeners]] and below it bind = \"0.0.0.0:8080\"";
        sink.push(Problem::whole("no listener: nothing would be served").fix(fix));
    }
    let (mut binds, mut names) = (Once::default(), Once::default());
    let mut rules = Vec::with_capacity(file.listeners.len());
    for listener in file.listeners.iter() {
        let place = listener.bind.place().unwrap_or(TOP);
        let text = rules::bare(&listener.bind.value);
        let is_any_port = matches!(&listener.bind.value, BindAddress::Tcp(to) if to.port() == 0);
        if !is_any_port {
            let fix = "give each listener an address of its own";
            binds.check(&text, place, "the address", fix, sink);
        }
        let name = match listener.name.some() {
            Some(name) => {
                let fix = "give each listener a name of its own, or leave `name` out";
                names.check(&name.0, name.place().unwrap_or(TOP), "the listener name", fix, sink);
                name.value.0
            }
            None => text,
        };
        rules.push(listener_rule(file, listener, name, folder, sink));
    }
    rules
}

fn listener_rule(
    file: &File,
    listener: &Listener,
    name: String,
    folder: &Path,
    sink: &mut Sink,
) -> ListenerRule {
    let bind = match &listener.bind.value {
        BindAddress::Tcp(address) => {
            if let Some(place) = listener.mode.place() {
                let title = "`mode` is for Unix sockets, and this listener has an IP address";
                sink.push(Problem::error(place, title).fix("remove `mode`"));
            }
            Bind::Tcp(*address)
        }
        BindAddress::Unix(path) => {
            tls::refuse_kernel(listener, sink);
            let mode = listener.mode.value.map_or(UNIX_MODE_DEFAULT, |mode| mode.0);
            Bind::Unix { path: path.clone(), mode }
        }
    };
    ListenerRule {
        name,
        bind,
        backlog: *listener.backlog,
        half_close: *listener.half_close,
        balance: *listener.balance,
        access_log: *listener.access_log,
        proxy_protocol: *listener.proxy_protocol,
        http2: *listener.http2,
        ahead: https_port(listener, sink)
            .map(|port| Arc::new(Ahead { https_port: Some(port), challenges: Vec::new() })),
        tls: listener
            .tls
            .value
            .as_ref()
            .and_then(|tls| tls::tls(tls, *listener.http2, folder, sink)),
        passthrough: passthrough::passthrough(file, listener, sink),
    }
}

fn https_port(listener: &Listener, sink: &mut Sink) -> Option<u16> {
    if let (Some(place), Some(tls)) = (listener.redirect_https.place(), listener.tls.place()) {
        let title = "a listener with `tls` has nowhere to redirect to";
        let problem = Problem::error(place, title).related(tls, "it speaks TLS itself");
        sink.push(problem.fix("give `redirect_https` to the listener without TLS"));
    }
    *listener.redirect_https
}

fn check_proxy_protocol(file: &File, sink: &mut Sink) {
    let is_nobody_trusted =
        file.forwarding.trusted_proxies.is_empty() && !file.forwarding.trusted_proxies.is_wrong();
    for listener in file.listeners.iter() {
        let is_tcp = matches!(&listener.bind.value, BindAddress::Tcp(_));
        if let Some(place) = listener.proxy_protocol.place()
            && *listener.proxy_protocol != ProxyProtocol::Off
            && is_tcp
            && is_nobody_trusted
        {
            let title = "`proxy_protocol` has no effect: no proxy is trusted";
            let fix = "add trusted_proxies = [\"10.0.0.0/8\"] to [forwarding], with the networks of \
                       the proxies in front";
            sink.push(Problem::error(place, title).fix(fix));
        }
    }
}

fn check_ring(runtime: &Runtime, sink: &mut Sink) {
    let entries = &runtime.ring_entries;
    if let Some(place) = entries.place().filter(|_| !entries.value.is_power_of_two()) {
        let title = "`runtime.ring_entries` must be a power of two";
        let next = entries.value.next_power_of_two().clamp(256, 32768);
        sink.push(Problem::error(place, title).fix(format!("write {next}")));
    }
}

/// `small` may not be over `large`; reported at the one the file has.
fn ordered<T: PartialOrd + std::fmt::Display>(
    (small, small_name): (&At<T>, &str),
    (large, large_name): (&At<T>, &str),
    sink: &mut Sink,
) {
    if small.value <= large.value || small.is_wrong() || large.is_wrong() {
        return;
    }
    let title =
        format!("`{small_name}` ({}) is over `{large_name}` ({})", small.value, large.value);
    let problem = |place| Problem::error(place, &*title);
    let problem = match (small.place(), large.place()) {
        (Some(at), Some(other)) => problem(at)
            .related(other, "the larger should be this")
            .fix(format!("write at most {}, or raise `{large_name}`", large.value)),
        (Some(at), None) => problem(at)
            .label(format!("`{large_name}` is {} by default", large.value))
            .fix(format!("write at most {}, or set `{large_name}` too", large.value)),
        (None, Some(at)) => problem(at)
            .label(format!("`{small_name}` is {} by default", small.value))
            .fix(format!("write at least {}, or set `{small_name}` too", small.value)),
        (None, None) => return,
    };
    sink.push(problem);
}

fn check_limits(limits: &Limits, sink: &mut Sink) {
    ordered((&limits.target, "limits.target"), (&limits.head, "limits.head"), sink);
    ordered(
        (&limits.relay_buffer, "limits.relay_buffer"),
        (&limits.relay_buffer_large, "limits.relay_buffer_large"),
        sink,
    );
    let (one, all) = (&limits.connections_per_worker, &limits.connections);
    if one.value > all.value
        && let Some(place) = one.place().filter(|_| !all.is_wrong() && !one.is_wrong())
    {
        let title = format!(
            "`limits.connections_per_worker` ({}) is over `limits.connections` ({}), so it has no effect",
            one.value, all.value
        );
        sink.push(Problem::warning(place, title).fix(format!("write at most {}", all.value)));
    }
}

fn check_timeouts(timeouts: &Timeouts, sink: &mut Sink) {
    let (park, keep) = (&timeouts.park, &timeouts.keep_alive);
    if let Some(place) = park.place().filter(|_| park.value > keep.value && !keep.is_wrong()) {
        let title = format!(
            "`timeouts.park` ({}) is over `timeouts.keep_alive` ({}), so no buffer is ever given back",
            park.value, keep.value
        );
        sink.push(Problem::warning(place, title).fix(format!("write less than {}", keep.value)));
    }
    let ping = &timeouts.websocket_ping;
    check_ping("timeouts.websocket_ping", ping.place(), ping.value.0, timeouts, sink);
}

/// Says when a tunnel ends before anybody in it is asked.
fn check_ping(
    key: &str,
    place: Option<Place>,
    silence: Option<Millis>,
    timeouts: &Timeouts,
    sink: &mut Sink,
) {
    let idle = &timeouts.tunnel_idle;
    let silence = silence.filter(|silence| *silence >= idle.value && !idle.is_wrong());
    if let (Some(place), Some(silence)) = (place, silence) {
        let title = format!(
            "`{key}` ({silence}) is not under `timeouts.tunnel_idle` ({}), so tunnels end before \
             anybody is asked",
            idle.value
        );
        sink.push(Problem::warning(place, title).fix(format!("write less than {}", idle.value)));
    }
}

fn runtime(runtime: &Runtime, shutdown: &Shutdown) -> snapshot::Runtime {
    snapshot::Runtime {
        workers: runtime.workers.value.clone(),
        io: *runtime.io,
        ring_entries: *runtime.ring_entries,
        spin: Duration::from_micros(runtime.spin.0),
        drain_timeout_ms: shutdown.drain_timeout.0,
        drain_idle_ms: shutdown.drain_idle.0,
        ready_delay_ms: shutdown.ready_delay.0,
        upgrade_timeout_ms: shutdown.upgrade_timeout.0,
        stuck_after_ms: runtime.stuck_after.0,
    }
}

/// A size whose maximum in [`super::file`] is below 4 GiB.
fn size_u32(size: &At<Size>) -> u32 {
    u32::try_from(size.value.0).unwrap_or(u32::MAX)
}

fn limits(limits: &Limits) -> snapshot::Limits {
    snapshot::Limits {
        head: HeadLimits {
            head_bytes_max: size_u32(&limits.head),
            target_bytes_max: size_u32(&limits.target),
            fields_max: *limits.fields,
        },
        connections_per_worker_max: *limits.connections_per_worker,
        connections_max: *limits.connections,
        requests_per_connection_max: *limits.requests_per_connection,
        interim_responses_max: *limits.interim_responses,
        relay_buffer_bytes: size_u32(&limits.relay_buffer),
        relay_buffer_large_bytes: size_u32(&limits.relay_buffer_large),
        splice_bytes: size_u32(&limits.splice),
        unsent_bytes: size_u32(&limits.unsent),
        client_rate_min: size_u32(&limits.client_rate_min),
    }
}

fn http2(rule: &Http2, sink: &mut Sink) -> snapshot::Http2 {
    ordered(
        (&rule.stream_window, "http2.stream_window"),
        (&rule.connection_window, "http2.connection_window"),
        sink,
    );
    snapshot::Http2 {
        streams_max: *rule.streams,
        stream_window_bytes: size_u32(&rule.stream_window),
        connection_window_bytes: size_u32(&rule.connection_window),
        stalled_bytes: rule.stalled.value.0,
        rates: FrameRates {
            resets_per_second: *rule.resets_per_second,
            control_per_second: *rule.control_frames_per_second,
        },
    }
}

fn timeouts(timeouts: &Timeouts) -> snapshot::Timeouts {
    let ms = |value: &At<Millis>| value.value.0;
    snapshot::Timeouts {
        head_ms: ms(&timeouts.head),
        body_ms: ms(&timeouts.body),
        write_ms: ms(&timeouts.write),
        keep_alive_ms: ms(&timeouts.keep_alive),
        park_ms: ms(&timeouts.park),
        linger_ms: ms(&timeouts.linger),
        tunnel_idle_ms: ms(&timeouts.tunnel_idle),
        tunnel_lifetime_ms: timeouts.tunnel_lifetime.0.map(|lifetime| lifetime.0),
    }
}
