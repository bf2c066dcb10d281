//! The admin interface: what operators and their tools ask of a running gateway.
//!
//! One thread of its own with a tokio runtime; it reads the [`View`](super::view::View) that the
//! main thread publishes, asks workers by their mailboxes, and has everything that changes
//! something done by the main thread ([`Ask`]). Nothing here is on the data path, and no wait is
//! without bound.
//!
//! Two doors: a Unix socket, where everything is served and whose permissions say to whom, and,
//! where `admin.status_bind` is given, a TCP address where only that is served which changes
//! nothing and says nothing of single clients, and only under names that are its own ([`host`]).

mod config;
mod connections;
mod drain;
mod endpoints;
mod health;
mod host;
mod keys;
mod log;
mod metrics;
mod page;
mod problem;
mod quotas;
mod recent;
mod reload;
mod seconds;
mod slowest;
pub mod socket;
pub mod status;
mod upgrade;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    ops::Deref,
    os::{fd::OwnedFd, unix::net::UnixListener as StdUnixListener},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{get, post, put},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    endpoints::{NotGranted, Obeyed, Wish},
    handover::{ADMIN, About, STATUS},
    reload as reloads,
    run::Event,
    view::Shared,
};
use crate::{
    config::snapshot::{Admin, AdminBind},
    worker::rate_limits::quota,
};
use problem::Problem;
use recent::Recent;
use seconds::Seconds;
use socket::SocketFile;

/// What the main thread is asked to do. Each answer goes to whoever asked; a dropped one means that
/// the gateway ends.
pub enum Ask {
    /// Read the configuration again.
    Reload(reloads::Reply),
    /// Set an endpoint's state and weight.
    Endpoint(Wish, oneshot::Sender<Result<oneshot::Receiver<Obeyed>, NotGranted>>),
    /// Change what a key has used of a quota. Answers where the count of changes comes.
    Quota(quota::Wish, oneshot::Sender<Result<oneshot::Receiver<usize>, String>>),
    /// Give way to a new process. Answers its id, or why there is none.
    Upgrade(oneshot::Sender<Result<u32, String>>),
    /// Drain the whole gateway, then end. Answers whether that is new.
    Drain(oneshot::Sender<bool>),
}

/// Connections of one door at one time. The operator's and those of tools that only read do not
/// take each other's.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head, and of its body.
const HEAD_BYTES_MAX: usize = 32 << 10;
const BODY_BYTES_MAX: usize = 64 << 10;
/// For a request's head to come, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// After this long a connection is cut, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the main thread may take to take up what is asked of it.
const MAIN_MAX: Duration = Duration::from_secs(5);
/// How long accepting rests when there are no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

type State = axum::extract::State<Arc<Desk>>;

/// What answers are made from.
pub struct Desk {
    shared: Arc<Shared>,
    recent: Recent,
    seconds: Seconds,
}

impl Deref for Desk {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The admin interface as the main thread holds it.
pub struct Server {
    settings: Admin,
    file: Option<SocketFile>,
    doors: mpsc::UnboundedSender<Door>,
    /// Copies of what it listens on, to be handed over to a new process.
    unix: Option<StdUnixListener>,
    status: Option<StdTcpListener>,
    /// What this process was given by its predecessor, until it is used.
    offered: Offered,
}

/// Sockets of the process before this one.
#[derive(Default)]
struct Offered {
    unix: Option<(PathBuf, StdUnixListener)>,
    status: Option<StdTcpListener>,
}

impl Offered {
    fn serves_unix(&self, bind: &AdminBind) -> bool {
        self.unix.as_ref().is_some_and(|(path, _)| match bind {
            AdminBind::Off => false,
            AdminBind::Auto => true,
            AdminBind::Unix(wanted) => wanted == path,
        })
    }

    fn serves_status(&self, bind: Option<SocketAddr>) -> bool {
        let at = self.status.as_ref().and_then(|status| status.local_addr().ok());
        at.zip(bind)
            .is_some_and(|(at, bind)| at == bind || bind.port() == 0 && at.ip() == bind.ip())
    }
}

/// A listening socket that takes the place of the one before; `None` closes it.
enum Door {
    Unix(Option<StdUnixListener>),
    Status(Option<StdTcpListener>),
}

/// Sockets that are bound and not yet in use.
struct Prepared {
    unix: Option<Option<socket::Bound>>,
    status: Option<Option<StdTcpListener>>,
}

impl Server {
    /// Serves nowhere yet.
    pub fn idle(shared: Arc<Shared>) -> Result<Server, String> {
        let (bind, status_hosts) = (AdminBind::Off, Vec::new());
        let settings = Admin { bind, mode: 0, status_bind: None, status_hosts };
        let (doors, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("admin: cannot make a runtime: {e}"))?;
        let body = move || runtime.block_on(serve(shared, inbox));
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(body)
            .map_err(|e| format!("admin: cannot start a thread: {e}"))?;
        let offered = Offered::default();
        Ok(Server { settings, file: None, doors, unix: None, status: None, offered })
    }

    /// Takes the sockets of the process before this one that fit `settings`, for the next
    /// [`Server::rebind`]. Answers their kinds.
    pub fn offer(&mut self, sockets: Vec<(About, OwnedFd)>, settings: &Admin) -> Vec<String> {
        for (about, socket) in sockets {
            match about.bind.strip_prefix("unix:") {
                Some(path) if about.kind == ADMIN => {
                    self.offered.unix = Some((PathBuf::from(path), socket.into()));
                }
                None if about.kind == STATUS => self.offered.status = Some(socket.into()),
                _ => {}
            }
        }
        let fits = [
            (ADMIN, self.offered.serves_unix(&settings.bind)),
            (STATUS, self.offered.serves_status(settings.status_bind)),
        ];
        fits.iter().filter(|(_, fits)| *fits).map(|(kind, _)| (*kind).to_owned()).collect()
    }

    /// Copies of the sockets, for a new process. One that cannot be copied is left out.
    pub fn sockets(&self) -> Vec<(About, OwnedFd)> {
        let about = |kind: &str, bind: String| About {
            kind: kind.to_owned(),
            name: kind.to_owned(),
            bind,
            worker: None,
            lasting: false,
        };
        let mut sockets = Vec::new();
        if let (Some(unix), Some(file)) = (&self.unix, &self.file)
            && let Ok(copy) = unix.try_clone()
        {
            sockets.push((about(ADMIN, format!("unix:{}", file.path.display())), copy.into()));
        }
        if let Some(status) = &self.status
            && let (Ok(at), Ok(copy)) = (status.local_addr(), status.try_clone())
        {
            sockets.push((about(STATUS, at.to_string()), copy.into()));
        }
        sockets
    }

    /// Another process answers from now on. What it has not `taken` ends; requests that this
    /// process has accepted are still answered.
    pub fn hand_over(&mut self, taken: &[String]) {
        let _ = self.doors.send(Door::Status(None));
        let _ = self.doors.send(Door::Unix(None));
        (self.unix, self.status) = (None, None);
        if taken.iter().any(|kind| kind == ADMIN) {
            // The same socket, and its file, is now the other process's.
            self.file = None;
        }
        self.remove_file();
    }

    /// Serves where `settings` ask for from now on. What did not change stays; on an error nothing
    /// changes.
    pub fn rebind(&mut self, settings: &Admin) -> Result<(), String> {
        let Prepared { unix, status } = self.prepare(settings)?;
        if let Some(status) = status {
            if let Some(Ok(at)) = status.as_ref().map(StdTcpListener::local_addr) {
                tracing::info!("status on http://{at}");
            }
            self.status = status.as_ref().and_then(|status| status.try_clone().ok());
            let _ = self.doors.send(Door::Status(status));
        }
        match unix {
            Some(bound) => {
                self.remove_file();
                let (listener, file) = bound.map(|b| (b.listener, b.file)).unzip();
                if let Some(file) = &file {
                    tracing::info!("admin interface on unix:{}", file.path.display());
                }
                self.file = file;
                self.unix = listener.as_ref().and_then(|listener| listener.try_clone().ok());
                let _ = self.doors.send(Door::Unix(listener));
            }
            None if settings.mode != self.settings.mode => {
                if let Some(Err(e)) = self.file.as_ref().map(|file| file.set_mode(settings.mode)) {
                    tracing::warn!(error = %e, "cannot set the admin socket's mode");
                }
            }
            None => {}
        }
        self.settings = settings.clone();
        Ok(())
    }

    fn prepare(&mut self, settings: &Admin) -> Result<Prepared, String> {
        let mut prepared = Prepared { unix: None, status: None };
        let offered = std::mem::take(&mut self.offered);
        if settings.status_bind != self.settings.status_bind {
            let fits = offered.serves_status(settings.status_bind);
            let given = offered.status.as_ref().filter(|_| fits);
            let bound = settings.status_bind.map(|at| {
                let bound = match given {
                    Some(given) => given.try_clone(),
                    None => StdTcpListener::bind(at),
                };
                let bound = bound.and_then(|tcp| tcp.set_nonblocking(true).map(|()| tcp));
                bound.map_err(|e| format!("admin.status_bind: cannot listen on {at}: {e}"))
            });
            prepared.status = Some(bound.transpose()?);
        }
        if settings.bind != self.settings.bind {
            let fits = offered.serves_unix(&settings.bind);
            let bound = match offered.unix.filter(|_| fits) {
                Some((path, listener)) => socket::take_over(&path, listener, settings.mode),
                None => socket::bind(&settings.bind, settings.mode),
            };
            prepared.unix = Some(match bound {
                Err(e) if settings.bind == AdminBind::Auto => {
                    tracing::warn!("no admin interface: {e}");
                    None
                }
                bound => bound?,
            });
        }
        Ok(prepared)
    }

    fn remove_file(&mut self) {
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove_file();
    }
}

/// Everything, for the operator.
fn all(desk: Arc<Desk>) -> Router {
    let endpoint = put(endpoints::put).delete(endpoints::delete);
    finished(
        reading()
            .route("/config", get(config::get))
            .route("/connections", get(connections::get))
            .route("/requests/slowest", get(slowest::get))
            .route("/reload", post(reload::post))
            .route("/drain", post(drain::post))
            .route("/jwt/{name}/keys", post(keys::post))
            .route("/upgrade", post(upgrade::post))
            .route("/log", get(log::get).put(log::put))
            .route("/quotas", get(quotas::list))
            .route("/quotas/{quota}", get(quotas::get).put(quotas::put).delete(quotas::delete))
            .route("/upstreams/{upstream}/endpoints/{endpoint}", endpoint),
        desk,
    )
}

/// What changes nothing and may be read by monitoring.
fn reading() -> Router<Arc<Desk>> {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::get))
        .route("/", get(page::get))
        .route("/status", get(status::get))
        .route("/status/history", get(seconds::get))
}

fn finished(router: Router<Arc<Desk>>, desk: Arc<Desk>) -> Router {
    router
        .fallback(Problem::no_resource)
        .method_not_allowed_fallback(Problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}

/// Serves at the doors it is given, for as long as the main thread holds the [`Server`].
async fn serve(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Door>) {
    let desk = Arc::new(Desk { shared, recent: Recent::default(), seconds: Seconds::default() });
    drop(tokio::spawn(recent::sample(desk.clone())));
    drop(tokio::spawn(seconds::sample(desk.clone())));
    let (mut unix, mut status) = (Accepting::default(), Accepting::default());
    while let Some(door) = inbox.recv().await {
        let begun = match door {
            Door::Unix(socket) => {
                let listener = socket.map(UnixListener::from_std).transpose();
                let router = all(desk.clone());
                listener.map(|listener| unix.go_on_with(listener.map(Listener::Unix), router))
            }
            Door::Status(socket) => {
                let listener = socket.map(TcpListener::from_std).transpose();
                let known_host = from_fn_with_state(desk.clone(), host::check);
                let router = finished(reading(), desk.clone()).layer(known_host);
                listener.map(|listener| status.go_on_with(listener.map(Listener::Tcp), router))
            }
        };
        if let Err(e) = begun {
            tracing::error!(error = %e, "admin interface: cannot listen");
        }
    }
}

/// The task that accepts at one door, if it is open.
#[derive(Default)]
struct Accepting(Option<AbortHandle>);

impl Accepting {
    /// Connections of the listener before live on.
    fn go_on_with(&mut self, listener: Option<Listener>, router: Router) {
        if let Some(before) = self.0.take() {
            before.abort();
        }
        self.0 = listener.map(|listener| tokio::spawn(accept(listener, router)).abort_handle());
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Unix(listener) => Box::new(listener.accept().await?.0),
            Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Accepts for ever. With as many connections as there may be, further ones wait to be accepted.
async fn accept(listener: Listener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed, so acquiring only ends with a place.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                let served = connection(stream, router.clone());
                drop(tokio::spawn(async move {
                    served.await;
                    drop(place);
                }));
            }
            Err(e) => {
                tracing::warn!(error = %e, "admin interface: cannot accept, resting");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(stream: Box<dyn Stream>, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // However it ends, there is nobody to tell.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
}

/// Has the main thread take something up; waits for its answer at most `max`.
async fn ask<T>(
    shared: &Shared,
    max: Duration,
    question: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    if !shared.tell(Event::Ask(question(reply))) {
        return Err(Problem::ending());
    }
    match tokio::time::timeout(max, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(Problem::ending()),
        Err(_) => Err(Problem::late(max)),
    }
}
