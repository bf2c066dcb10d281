//! Servers that limits are shared in, and which limit is.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use super::{TOP, rules::no_such, secrets, tls};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, File, RedisTls},
        report::{Place, Problem},
        snapshot::{
            Redis, SharedLimit,
            redis::{self, RedisAddress},
        },
        values::{EndpointName, SecretSource},
    },
    policy::limit::{
        Window,
        fleet::{self, Fallback},
    },
};

/// A bucket that is smaller than what comes in so much time loses tokens between two questions.
const QUESTION_NS: u128 = 10_000_000;

/// Smallest share of a limit that a process may have alone.
const SHARE_MIN: f64 = 0.01;

/// All servers, in the order of the file; a wrong one is not there.
pub(super) fn servers(file: &File, folder: &Path, sink: &mut Sink) -> Vec<Redis> {
    let all = file.redis.value.0.iter();
    all.filter_map(|(name, written)| server(name, written.as_ref()?, folder, sink)).collect()
}

fn server(
    name: &At<String>,
    written: &file::Redis,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Redis> {
    let address = match &written.address.0 {
        EndpointName::Tcp(at) => RedisAddress::Tcp(at.ip().to_string(), at.port()),
        EndpointName::Named { host, port } => RedisAddress::Tcp(host.clone(), *port),
        EndpointName::Unix(path) => RedisAddress::Unix(folder.join(path)),
    };
    let what = ("the password", "use the Redis server as the gateway does");
    let password = match written.password.some() {
        Some(source) => Some(secrets::read(&source, what, folder, sink)?),
        None => None,
    };
    if let Some(place) = written.user.place().filter(|_| password.is_none())
        && written.user.value.is_some()
        && !written.password.is_wrong()
    {
        let title = "a `user` without `password` is not used";
        let fix = "write password = \"file:redis.password\", or remove `user`";
        sink.push(Problem::error(place, title).fix(fix));
    }
    let speaks_tls = match written.tls.some() {
        Some(tls) => {
            let at = written.address.place().unwrap_or(TOP);
            Some(client(&tls, (&address, at), folder, sink)?)
        }
        None => None,
    };
    // Whatever a connection depends on; its text is never shown.
    let settings = format!(
        "{}\n{address:?}\n{:?}\n{:?}\n{:?}\n{}\n{} {} {}",
        name.value,
        written.tls.value.as_ref().map(|tls| (tls.ca.value.as_ref(), tls.name.value.as_ref())),
        written.user.value,
        password.as_ref().map(|password| &password.0),
        *written.database,
        written.timeout.0,
        written.connect_timeout.0,
        written.retry.0,
    );
    Some(Redis {
        name: name.value.clone(),
        address,
        tls: speaks_tls,
        user: written.user.value.clone(),
        password,
        database: *written.database,
        wait_ms: written.wait.0,
        timeout_ms: written.timeout.0,
        connect_timeout_ms: written.connect_timeout.0,
        retry_ms: written.retry.0,
        link: redis::link(&settings),
    })
}

fn client(
    written: &At<RedisTls>,
    (address, at): (&RedisAddress, Place),
    folder: &Path,
    sink: &mut Sink,
) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
    let place = written.place().unwrap_or(TOP);
    let host = match (written.name.value.as_ref(), address) {
        (Some(name), _) => name.0.clone(),
        (None, RedisAddress::Tcp(host, _)) => host.clone(),
        (None, RedisAddress::Unix(_)) => {
            let title = "a server on a Unix socket needs a `name` that its certificate has";
            sink.push(Problem::error(place, title).fix("add name = \"redis.internal\" to `tls`"));
            return None;
        }
    };
    let name = tls::certificate_name(&host, written.name.place().unwrap_or(at), sink)?;
    let roots = match written.ca.some() {
        Some(ca) => tls::roots_of(&ca, folder, sink),
        None => tls::system_roots(place, sink),
    }?;
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the provider has cipher suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some((Arc::new(client), name))
}

/// What a limit has that a fleet shares; `None`: it is this process's own.
pub(super) fn shared(
    file: &File,
    servers: &[Redis],
    (limit, written): (&str, &file::RateLimit),
    windows: &[Window],
    sink: &mut Sink,
) -> Option<Arc<SharedLimit>> {
    let Some(to) = written.shared.some() else {
        refuse_unused(written, sink);
        return None;
    };
    let place = to.place().unwrap_or(TOP);
    let sections = &file.redis.value.0;
    let Some((_, section)) = sections.iter().find(|(name, _)| name.value == to.value.0) else {
        let all: Vec<&str> = sections.iter().map(|(name, _)| name.value.as_str()).collect();
        if !file.redis.is_wrong() {
            sink.push(no_such("Redis server", "redis", &to.value.0, place, &all));
        }
        return None;
    };
    check_share(written, sink);
    check_bursts(place, windows, sink);
    // One that is wrong was reported.
    let server = servers.iter().find(|server| server.name == to.value.0)?;
    let prefix = section.as_ref().map_or("", |section| &section.prefix.0);
    Some(Arc::new(SharedLimit {
        link: server.link.clone(),
        wait_ms: server.wait_ms,
        prefix: fleet::prefix(prefix, limit),
        windows: windows.to_vec(),
        fallback: *written.fallback,
        alone: fleet::windows(windows, written.fallback_share.0.max(SHARE_MIN), *written.cost),
    }))
}

fn refuse_unused(written: &file::RateLimit, sink: &mut Sink) {
    let keys = [
        ("fallback", written.fallback.place(), *written.fallback != Fallback::Local),
        ("fallback_share", written.fallback_share.place(), written.fallback_share.0 != 1.0),
    ];
    for (key, place, is_set) in keys {
        if let Some(place) = place.filter(|_| is_set && !written.shared.is_wrong()) {
            let title = format!("`{key}` has no effect: the limit is not shared");
            sink.push(Problem::error(place, title).fix("remove it, or add shared = \"NAME\""));
        }
    }
}

fn check_share(written: &file::RateLimit, sink: &mut Sink) {
    let Some(place) = written.fallback_share.place() else { return };
    if written.fallback_share.is_wrong() {
        return;
    }
    if written.fallback_share.0 < SHARE_MIN {
        let title = "a share this small lets nothing pass";
        let fix = "write 0.01 or more, or fallback = \"refuse\"";
        sink.push(Problem::error(place, title).fix(fix));
    } else if *written.fallback != Fallback::Local && written.fallback_share.0 != 1.0 {
        let title = "`fallback_share` has no effect with this `fallback`";
        sink.push(Problem::error(place, title).fix("remove it, or write fallback = \"local\""));
    }
}

fn check_bursts(place: Place, windows: &[Window], sink: &mut Sink) {
    for window in windows {
        let comes = u128::from(window.count) * QUESTION_NS / u128::from(window.period_ns);
        if comes > u128::from(window.burst) {
            let title = format!(
                "a burst of {} is less than what comes in 10 ms, and tokens are lost between two \
                 questions to the server",
                window.burst
            );
            let fix = format!("write burst = {comes} or more");
            sink.push(Problem::warning(place, title).fix(fix));
        }
    }
}

/// Files of all sections, which are read again when they change.
pub(super) fn files(file: &File) -> Vec<String> {
    let sections = file.redis.value.0.iter().filter_map(|(_, section)| section.as_ref());
    let of = |section: &file::Redis| {
        let password = section.password.value.as_ref().and_then(|source| match source {
            SecretSource::File(name) => Some(name.clone()),
            SecretSource::Env(_) => None,
        });
        let ca = section.tls.value.as_ref().and_then(|tls| tls.ca.value.clone());
        password.into_iter().chain(ca).collect::<Vec<_>>()
    };
    sections.flat_map(of).collect()
}
