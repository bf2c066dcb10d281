//! Where the admin interface is: its Unix socket, found by the gateway that binds it and by the
//! commands that connect to it with the same rules.
//!
//! A socket that nobody answers on was left behind and is replaced; one that somebody answers on
//! belongs to another gateway and is left alone. The socket gets its permissions before it gets its
//! name, so that at no moment more may connect than should.

use std::{
    env, fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use crate::config::snapshot::AdminBind;

/// The socket's name in folders of the gateway's choice.
const NAME: &str = "admin.sock";
/// Where services keep their sockets.
const SYSTEM_FOLDER: &str = "/run/ringway";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A bound admin socket. Dropping it does not remove its file: see [`SocketFile::remove`].
pub struct Bound {
    pub listener: UnixListener,
    pub file: SocketFile,
}

/// The file of a bound socket, and which file it is.
#[derive(Clone, Debug)]
pub struct SocketFile {
    pub path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    /// Removes the socket's file, unless another process has put its own there.
    pub fn remove(&self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }

    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// A folder where the socket may be, and whether it is ours to make.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    /// Permissions of a folder that has to be made.
    mode: u32,
    /// Anybody may make folders beside it, so it must be this user's and closed to others.
    is_exposed: bool,
}

/// The folders of `admin.bind = "auto"`, first choice first. `var` looks up the environment.
fn folders(var: impl Fn(&str) -> Option<PathBuf>, uid: u32) -> Vec<Folder> {
    let folder = |path: PathBuf, mode| Folder { path, mode, is_exposed: false };
    // systemd writes several separated by colons; the first is the service's own.
    let own = var("RUNTIME_DIRECTORY").map(|list| {
        let list = list.to_string_lossy().into_owned();
        folder(PathBuf::from(list.split(':').next().unwrap_or_default()), 0o755)
    });
    let user = var("XDG_RUNTIME_DIR").map(|path| folder(path.join("ringway"), 0o700));
    let temporary = Folder {
        path: PathBuf::from(format!("/tmp/ringway-{uid}")),
        mode: 0o700,
        is_exposed: true,
    };
    let all = own.into_iter().chain([folder(SYSTEM_FOLDER.into(), 0o755)]).chain(user);
    all.filter(|folder| folder.path.is_absolute()).chain([temporary]).collect()
}

fn usual_folders() -> Vec<Folder> {
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    folders(var, rustix::process::geteuid().as_raw())
}

impl Folder {
    /// Makes sure that a socket can be put here.
    fn prepare(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(self.mode).create(&self.path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        self.is_trusted()?;
        rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK)?;
        Ok(())
    }

    /// A folder that anybody could have made must be this user's, and closed to others.
    fn is_trusted(&self) -> io::Result<()> {
        if !self.is_exposed {
            return Ok(());
        }
        let meta = fs::symlink_metadata(&self.path)?;
        let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
        if meta.is_dir() && is_ours && meta.mode() & 0o077 == 0 {
            return Ok(());
        }
        let text = "the folder belongs to somebody else, or is open to others";
        Err(io::Error::new(ErrorKind::PermissionDenied, text))
    }
}

/// Binds the socket that `bind` asks for; `None` for `off`. The error says what to do about it.
pub fn bind(bind: &AdminBind, mode: u32) -> Result<Option<Bound>, String> {
    match bind {
        AdminBind::Off => Ok(None),
        AdminBind::Unix(path) => {
            let hint = |e: io::Error| {
                let hint = match e.kind() {
                    ErrorKind::AddrInUse => "",
                    ErrorKind::NotFound => " (make its folder first)",
                    ErrorKind::PermissionDenied => " (this process may not write to its folder)",
                    _ => "",
                };
                format!("admin.bind: cannot listen on unix:{}: {e}{hint}", path.display())
            };
            bind_at(path, mode).map(Some).map_err(hint)
        }
        AdminBind::Auto => {
            let mut tried = String::new();
            for folder in usual_folders() {
                let path = folder.path.join(NAME);
                match folder.prepare().and_then(|()| bind_at(&path, mode)) {
                    Ok(bound) => return Ok(Some(bound)),
                    Err(e) if e.kind() == ErrorKind::AddrInUse => {
                        let path = path.display();
                        return Err(format!(
                            "another gateway answers on unix:{path}; give this one an \
                             `admin.bind` of its own"
                        ));
                    }
                    Err(e) => tried.push_str(&format!("; {}: {e}", path.display())),
                }
            }
            Err(format!("no place for the admin socket, set `admin.bind`{tried}"))
        }
    }
}

/// Goes on with the socket of the process before this one.
pub fn take_over(path: &Path, listener: UnixListener, mode: u32) -> Result<Option<Bound>, String> {
    let taken = id_of(path).and_then(|id| {
        let file = SocketFile { path: path.to_owned(), id };
        file.set_mode(mode)?;
        listener.set_nonblocking(true)?;
        Ok(Bound { listener, file })
    });
    taken.map(Some).map_err(|e| format!("cannot take over unix:{}: {e}", path.display()))
}

/// Binds the socket under another name, and gives it its own when all is set.
fn bind_at(path: &Path, mode: u32) -> io::Result<Bound> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt;
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file of that name"));
        }
        match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            // Full, or forbidden to us: somebody has it.
            _ => return Err(io::Error::new(ErrorKind::AddrInUse, "another gateway answers there")),
        }
    }
    // Short, because a socket's path may have only 107 bytes.
    let making = path.with_file_name(format!(".{}", std::process::id() % 10_000));
    let _ = fs::remove_file(&making);
    let made = (|| {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(&making)?)?;
        fs::set_permissions(&making, fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let file = SocketFile { path: path.to_owned(), id: id_of(&making)? };
        fs::rename(&making, path)?;
        Ok(Bound { listener: std::os::fd::OwnedFd::from(socket).into(), file })
    })();
    if made.is_err() {
        let _ = fs::remove_file(&making);
    }
    made
}

/// Where a command looks for the gateway, first choice first. Places that cannot be trusted are
/// left out.
pub fn candidates(bind: &AdminBind) -> Vec<PathBuf> {
    match bind {
        AdminBind::Off => Vec::new(),
        AdminBind::Unix(path) => vec![path.clone()],
        AdminBind::Auto => {
            let trusted = usual_folders().into_iter().filter(|folder| folder.is_trusted().is_ok());
            trusted.map(|folder| folder.path.join(NAME)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_environment() {
        let list = |vars: &[(&str, &str)]| -> Vec<String> {
            let var = |name: &str| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| PathBuf::from(value))
            };
            folders(var, 7).into_iter().map(|f| f.path.display().to_string()).collect()
        };
        assert_eq!(list(&[]), ["/run/ringway", "/tmp/ringway-7"]);
        assert_eq!(
            list(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/7")]),
            ["/run/a", "/run/ringway", "/run/user/7/ringway", "/tmp/ringway-7"]
        );
        assert_eq!(list(&[("XDG_RUNTIME_DIR", "x")]), ["/run/ringway", "/tmp/ringway-7"]);
    }

    #[test]
    fn a_live_socket_is_left_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = bind_at(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = bind_at(&path, 0o600).err().expect("the first one answers");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        drop(first.listener);
        let second = bind_at(&path, 0o660).unwrap();
        first.file.remove();
        assert!(path.exists(), "the first must not remove the second's");
        assert!(UnixStream::connect(&path).is_ok());
        second.file.remove();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_file_is_not_taken_for_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind_at(&path, 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn an_exposed_folder_must_be_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let folder = Folder { path: path.clone(), mode: 0o700, is_exposed: true };
        folder.prepare().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(folder.prepare().is_err());
    }
}
