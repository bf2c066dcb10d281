//! Upstreams: endpoints looked up, none named twice, none unused.

use super::{Once, TOP, passthrough, rules::bare, tls};
use crate::{
    config::{
        LookUp, Surroundings,
        decode::{At, Sink, quoted},
        file::{File, ForwardAuth, OpenApi, Route, Upstream, UpstreamHttp2},
        report::{Place, Problem},
        snapshot::{self, Endpoint, EndpointAddress, ProxyHeader},
        values::{EndpointName, EndpointText, Protocol},
    },
    policy::balance::State,
};

/// By position in the file: the ids of the snapshot. An upstream that is wrong keeps its id, so
/// that routes to it are not reported as well.
pub(super) fn upstreams(
    file: &File,
    around: &Surroundings<'_>,
    sink: &mut Sink,
) -> Vec<snapshot::Upstream> {
    let mut checked = Vec::with_capacity(file.upstreams.value.0.len());
    for (name, upstream) in &file.upstreams.value.0 {
        if is_unused(file, &name.value) {
            let title = format!("no route forwards to the upstream `{}`", name.value);
            let fix = format!("add upstream = {} to a route, or remove it", quoted(&name.value));
            sink.push(Problem::warning(name.place().unwrap_or(TOP), title).fix(fix));
        }
        if let Some(upstream) = upstream {
            checked.push(one(name, upstream, around, sink));
        } else {
            checked.push(placeholder(name));
        }
    }
    checked
}

/// Nothing leads there, and nothing was probably meant to: a route whose upstream does not exist
/// (reported with the nearest name) may have meant any.
fn is_unused(file: &File, name: &str) -> bool {
    let asks = |way: &ForwardAuth| way.upstream.value.0 == name;
    if file.forward_auth.value.0.iter().any(|(_, way)| way.as_ref().is_none_or(asks)) {
        return false;
    }
    let leads = |own: &OpenApi| own.upstream.value.0 == name;
    if file.openapi.value.0.iter().any(|(_, own)| own.as_ref().is_none_or(leads)) {
        return false;
    }
    let known = &file.upstreams.value.0;
    let may_mean = |route: &At<Route>| match &route.upstream.value {
        Some(to) => to.0 == name || !known.iter().any(|(upstream, _)| upstream.value == to.0),
        None => route.upstream.is_wrong(),
    };
    !file.routes.is_wrong()
        && !file.routes.iter().any(may_mean)
        && !passthrough::leads_to(file, name)
}

/// Stands for an upstream that was reported as wrong; never leaves the check.
fn placeholder(name: &At<String>) -> snapshot::Upstream {
    snapshot::Upstream {
        name: name.value.clone(),
        endpoints: Vec::new(),
        balance: Default::default(),
        connect_timeout_ms: 0,
        first_byte_timeout_ms: 0,
        idle_timeout_ms: 0,
        pool_idle_max: 0,
        pool_idle_timeout_ms: 0,
        pool_lifetime_ms: 0,
        connect_cooldown_ms: 0,
        tls: None,
        protocol: Default::default(),
        http2: Default::default(),
        proxy_header: ProxyHeader::Off,
    }
}

fn one(
    name: &At<String>,
    upstream: &Upstream,
    around: &Surroundings<'_>,
    sink: &mut Sink,
) -> snapshot::Upstream {
    let place = upstream.endpoints.place().or(name.place()).unwrap_or(TOP);
    let mut once = Once::default();
    let mut endpoints = Vec::with_capacity(upstream.endpoints.len());
    for endpoint in upstream.endpoints.iter() {
        let at = endpoint.address.place().unwrap_or(place);
        let fix = "name it once; `weight` gives an endpoint a larger share";
        once.check(&bare(&endpoint.address.value), at, "the endpoint", fix, sink);
        let mut found = resolved(endpoint, at, around.look_up, sink);
        if let (Some(found), Some(tls)) = (&mut found, &upstream.tls.value) {
            found.server_name = tls::server_name(tls, &endpoint.address.value, at, sink);
        }
        endpoints.extend(found);
    }
    if upstream.endpoints.is_empty() {
        let title = format!("the upstream `{}` has no endpoint", name.value);
        let fix = "write endpoints = [\"127.0.0.1:8000\"], with the address of your server";
        sink.push(Problem::error(place, title).fix(fix));
    }
    let protocol = protocol(upstream, sink);
    check_header(upstream, protocol, sink);
    let tls = upstream.tls.value.as_ref().and_then(|tls| {
        tls::upstream(tls, upstream.tls.place().unwrap_or(place), protocol, around.folder, sink)
    });
    let pool = &upstream.pool;
    snapshot::Upstream {
        endpoints,
        balance: *upstream.balance,
        connect_timeout_ms: upstream.connect_timeout.0,
        first_byte_timeout_ms: upstream.first_byte_timeout.0,
        idle_timeout_ms: upstream.idle_timeout.0,
        pool_idle_max: *pool.idle_max,
        pool_idle_timeout_ms: pool.idle_timeout.0,
        pool_lifetime_ms: pool.lifetime.0,
        connect_cooldown_ms: upstream.connect_cooldown.0,
        tls,
        protocol,
        proxy_header: *upstream.proxy_protocol,
        http2: http2(&upstream.http2),
        ..placeholder(name)
    }
}

/// A connection that begins with one client's address cannot carry other clients' requests, which
/// is what HTTP/2 has connections for.
fn check_header(upstream: &Upstream, protocol: snapshot::Protocol, sink: &mut Sink) {
    let place = upstream.proxy_protocol.place();
    if let Some(place) = place
        && *upstream.proxy_protocol != ProxyHeader::Off
        && protocol != snapshot::Protocol::Http1
    {
        let title = "connections of HTTP/2 serve many clients, and this one is to name one";
        let problem = Problem::error(place, title)
            .fix("remove `proxy_protocol`, or write protocol = \"http1\"");
        let other = upstream.protocol.place();
        sink.push(match other {
            Some(other) => problem.related(other, "HTTP/2 is spoken here"),
            None => problem,
        });
    }
}

fn http2(rule: &UpstreamHttp2) -> snapshot::UpstreamHttp2 {
    snapshot::UpstreamHttp2 {
        streams_max: *rule.streams,
        connections_max: *rule.connections,
        window_bytes: rule.stream_window.0 as u32,
        ping_interval_ms: rule.ping_interval.0,
        ping_timeout_ms: rule.ping_timeout.0,
    }
}

/// What is spoken, given whether it is over TLS.
fn protocol(upstream: &Upstream, sink: &mut Sink) -> snapshot::Protocol {
    let has_tls = upstream.tls.value.is_some() || upstream.tls.is_wrong();
    let place = upstream.protocol.place().unwrap_or(TOP);
    let protocol = match (*upstream.protocol, has_tls) {
        (Protocol::H2, false) => {
            let title = "HTTP/2 by ALPN needs TLS";
            let fix = "add tls = {}, or write protocol = \"h2c\" for HTTP/2 without TLS";
            sink.push(Problem::error(place, title).fix(fix));
            snapshot::Protocol::Http2
        }
        (Protocol::H2c, true) => {
            let title = "`h2c` is HTTP/2 without TLS, and this upstream has `tls`";
            let fix = "write protocol = \"h2\", or remove `tls`";
            sink.push(Problem::error(place, title).fix(fix));
            snapshot::Protocol::Http2
        }
        (Protocol::H2, true) | (Protocol::H2c, false) => snapshot::Protocol::Http2,
        (Protocol::Auto, true) => snapshot::Protocol::Either,
        (Protocol::Http1, _) | (Protocol::Auto, false) => snapshot::Protocol::Http1,
    };
    if protocol == snapshot::Protocol::Http1
        && !upstream.protocol.is_wrong()
        && http2(&upstream.http2) != http2(&UpstreamHttp2::default())
        && let Some(place) = upstream.http2.place()
    {
        let title = "HTTP/2 is not spoken to this upstream";
        let fix =
            "add protocol = \"h2\" (with `tls`) or \"h2c\" to the upstream, or remove `http2`";
        sink.push(Problem::error(place, title).fix(fix));
    }
    protocol
}

fn resolved(
    endpoint: &EndpointText,
    place: Place,
    look_up: &LookUp<'_>,
    sink: &mut Sink,
) -> Option<Endpoint> {
    let name = bare(&endpoint.address.value);
    let address = match &endpoint.address.value {
        EndpointName::Tcp(address) => EndpointAddress::Tcp(vec![*address]),
        EndpointName::Unix(path) => EndpointAddress::Unix(path.clone()),
        EndpointName::Named { host, port } => match look_up(host, *port) {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.dedup();
                EndpointAddress::Tcp(addresses)
            }
            _ => {
                let title = format!("the name `{host}` cannot be resolved");
                let fix = format!(
                    "check the spelling and this machine's resolver (`getent hosts {host}`), or \
                     write an IP address"
                );
                sink.push(Problem::error(place, title).fix(fix));
                return None;
            }
        },
    };
    let weight = endpoint.weight;
    let server_name = None;
    Some(Endpoint {
        name,
        address,
        server_name,
        weight,
        weight_configured: weight,
        state: State::Up,
    })
}
