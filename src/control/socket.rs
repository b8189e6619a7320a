//! How the control socket's file comes and goes.
//!
//! The file appears at its path complete, with its mode and group, by a rename: nobody can connect before they are set.
//! The file of a dead process is replaced, one that answers is left alone. Two switches that start at once take turns by
//! a lock on the directory, which is held for that moment only and leaves no file behind.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Group;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum Error {
    /// A process answers at the path.
    #[error("another nuswitch is running: {} has {}; stop it, or name another socket as `control`",
        pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}")), path.display())]
    Running {
        /// The socket.
        path: PathBuf,
        /// Who answers, where the kernel says so.
        pid: Option<i32>,
    },
    /// Something that is no socket stands at the path.
    #[error("{} exists and is not a socket: remove it, or name another path as `control`", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The group is not known here.
    #[error("control_group: there is no group `{0}` on this host")]
    NoSuchGroup(String),
    /// Others hold the directory's lock.
    #[error("{}: locked by another program", .0.display())]
    Locked(PathBuf),
    /// The system's refusal.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A listening control socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    /// Accepts connections.
    pub(super) listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Listens at `path`; `mode` are the permission bits of the file, `group` its owning group. Makes the directory if
    /// there is none. Call it inside of the runtime that will serve.
    ///
    /// # Errors
    /// When another switch listens there, or the system refuses.
    pub async fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<ControlSocket, Error> {
        let failed = |action| move |source| Error::Io { path: path.to_owned(), action, source };
        let gid = match group {
            None => None,
            Some(name) => {
                let known =
                    Group::from_name(name).map_err(|errno| failed("look up its group")(errno.into()))?;
                Some(known.ok_or_else(|| Error::NoSuchGroup(name.to_owned()))?.gid.as_raw())
            }
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.exists() {
            // Readable whatever the umask is: the socket's own mode decides who may use it.
            fs::create_dir_all(directory)
                .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o755)))
                .map_err(failed("make its directory"))?;
        }
        let _lock = lock(directory).await?;
        refuse_living(path).await?;

        // A private directory: until the rename, nobody else can reach the socket.
        let private = Private::make(directory).map_err(failed("make a directory beside it"))?;
        let fresh = private.0.join("s");
        let listener = UnixListener::bind(&fresh).map_err(failed("listen"))?;
        chown(&fresh, None, gid).map_err(failed("set its group"))?;
        fs::set_permissions(&fresh, Permissions::from_mode(mode)).map_err(failed("set its mode"))?;
        let file = fs::symlink_metadata(&fresh).map_err(failed("look at it"))?;
        fs::rename(&fresh, path).map_err(failed("put it in place"))?;
        Ok(ControlSocket { listener, path: path.to_owned(), identity: (file.dev(), file.ino()) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Somebody may have put another file there meanwhile; that one is not ours to remove.
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket's file stays behind");
        }
    }
}

struct Private(PathBuf);

impl Private {
    fn make(beside: &Path) -> io::Result<Private> {
        let path = beside.join(format!(".{}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&path) {
            // Left by a process of the same number that was killed between two lines of `bind`.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&path)?;
                builder.create(&path)?;
            }
            other => other?,
        }
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is left in it after an error is our own socket.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits at most two seconds for the directory's lock.
async fn lock(directory: &Path) -> Result<File, Error> {
    let failed = |source| Error::Io { path: directory.to_owned(), action: "lock", source };
    let file = File::open(directory).map_err(failed)?;
    for _ in 0..100 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(Error::Locked(directory.to_owned()))
}

/// An error unless `path` is free, or a socket that nobody listens on.
async fn refuse_living(path: &Path) -> Result<(), Error> {
    let failed = |action| move |source| Error::Io { path: path.to_owned(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(Error::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            Err(Error::Running { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its queue of connections is full: it lives, but does not answer.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::Running { path: path.to_owned(), pid: None })
        }
        Err(error) => Err(failed("see whether it is in use")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bind(path: &Path) -> Result<ControlSocket, Error> {
        ControlSocket::bind(path, 0o640, None).await
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let first = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let refused = bind(&path).await.unwrap_err();
        let expected = format!("another nuswitch is running: pid {} has", std::process::id());
        assert!(refused.to_string().starts_with(&expected), "{refused}");
        drop(first);
        assert!(!path.exists(), "the file goes with the socket");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale file");
        let _second = bind(&path).await.unwrap();
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["control.sock"]);
    }

    #[tokio::test]
    async fn of_two_that_start_at_once_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (a, b) = tokio::join!(bind(&path), bind(&path));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    #[tokio::test]
    async fn other_files_and_unknown_groups_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(Error::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let other = directory.path().join("other.sock");
        let unknown = ControlSocket::bind(&other, 0o660, Some("no-such-group")).await;
        assert!(matches!(unknown, Err(Error::NoSuchGroup(_))));
        assert!(!other.exists());
    }
}
