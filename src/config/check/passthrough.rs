//! Listeners that pass TLS through: names that lead to upstreams, and nothing beside them that
//! needs what is inside.

use std::net::IpAddr;

use super::{Once, TOP, routes::upstream_id};
use crate::{
    config::{
        decode::{At, Sink},
        file::{File, Listener, Passthrough},
        report::{Place, Problem},
        snapshot::{HalfClose, Http2Use},
    },
    policy::passthrough::Names,
};

/// The checked names of a listener; `None` when it passes nothing through.
pub(super) fn passthrough(file: &File, listener: &Listener, sink: &mut Sink) -> Option<Names> {
    if listener.passthrough.is_empty() {
        return None;
    }
    refuse_other_keys(listener, sink);
    let (mut once, mut names, mut others) = (Once::default(), Names::default(), None);
    for entry in listener.passthrough.iter() {
        let place = entry.place().or(entry.upstream.place()).unwrap_or(TOP);
        let upstream = upstream_id(file, &entry.upstream, sink);
        refuse_tls_inside(file, entry, sink);
        if entry.sni.is_empty() && !entry.sni.is_wrong() {
            others_once(place, &mut others, sink);
            names.add_others(upstream);
        }
        for name in entry.sni.iter() {
            let at = name.place().unwrap_or(place);
            once.check(&name.0, at, "the name", "name it in one entry", sink);
            if name.0.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
                let title = format!("no client asks for the address `{}` by SNI", name.0);
                let fix = "write a DNS name; an entry without `sni` gets clients that ask for none";
                sink.push(Problem::error(at, title).fix(fix));
            }
            names.add(&name.0, upstream);
        }
    }
    Some(names)
}

/// What concerns requests, or TLS that ends here.
fn refuse_other_keys(listener: &Listener, sink: &mut Sink) {
    let place = listener.passthrough.place().unwrap_or(TOP);
    let half_close =
        listener.half_close.place().filter(|_| *listener.half_close != HalfClose::Answer);
    let http2 = listener.http2.place().filter(|_| *listener.http2 != Http2Use::On);
    let keys = [
        ("http2", http2, "what is spoken inside is not seen here"),
        ("tls", listener.tls.place(), "TLS is either ended here or passed through"),
        ("redirect_https", listener.redirect_https.place(), "no request is seen here"),
        ("half_close", half_close, "the end of one side is always passed on"),
    ];
    for (key, at, why) in keys {
        if let Some(at) = at {
            let title = format!("`{key}` and `passthrough` do not go together: {why}");
            let problem = Problem::error(at, title).related(place, "TLS passes through here");
            sink.push(problem.fix(format!("remove `{key}`, or use another listener for it")));
        }
    }
}

fn refuse_tls_inside(file: &File, entry: &Passthrough, sink: &mut Sink) {
    let named = file.upstreams.value.0.iter().find(|(name, _)| name.value == entry.upstream.0);
    let Some((_, Some(upstream))) = named else { return };
    if let Some(tls) = upstream.tls.place() {
        let title = format!("the upstream `{}` would get TLS inside of TLS", entry.upstream.0);
        let place = entry.upstream.place().unwrap_or(TOP);
        let problem = Problem::error(place, title).related(tls, "the gateway would speak TLS too");
        let fix = "pass through to an upstream without `tls`: the client's own TLS ends there";
        sink.push(problem.fix(fix));
    }
}

fn others_once(place: Place, first: &mut Option<Place>, sink: &mut Sink) {
    match *first {
        Some(first) => sink.push(
            Problem::error(place, "two entries are for clients that ask for any other name")
                .label("again here")
                .related(first, "first here")
                .fix("add sni = [\"app.example.com\"] to one of them"),
        ),
        None => *first = Some(place),
    }
}

/// Whether an entry of any listener leads to the upstream, or may have been meant to.
pub(super) fn leads_to(file: &File, upstream: &str) -> bool {
    let known = |name: &str| file.upstreams.value.0.iter().any(|(other, _)| other.value == name);
    let may_mean = |entry: &At<Passthrough>| {
        entry.upstream.0 == upstream || entry.upstream.is_wrong() || !known(&entry.upstream.0)
    };
    let of_listener = |listener: &At<Listener>| {
        listener.passthrough.is_wrong() || listener.passthrough.iter().any(may_mean)
    };
    file.listeners.iter().any(of_listener)
}
