//! Network namespaces: opening them by name or path, running something inside of one, making and removing them.
//!
//! A namespace is a property of a thread. What is done inside of one is done on a thread of its own that ends with it,
//! so a worker or a server thread never finds itself elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use thiserror::Error;

/// Where named namespaces stand, as ip-netns(8) keeps them.
const DIRECTORY: &str = "/run/netns";

/// Why a namespace could not be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The name is no file name.
    #[error("network namespace `{0}`: neither a name without `/` nor an absolute path")]
    Name(String),
    /// There is none, or we may not open it.
    #[error("network namespace `{name}`: cannot open {path}: {source} (`ip netns add {name}` makes one)")]
    Open {
        /// As it was asked for.
        name: String,
        /// What was opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Entering failed.
    #[error("network namespace `{name}`: cannot enter: {source} (needs CAP_SYS_ADMIN)")]
    Enter {
        /// As it was asked for.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// Making or removing failed.
    #[error("network namespace `{name}`: cannot {what}: {source}")]
    Change {
        /// As it was asked for.
        name: String,
        /// Which step.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    name: String,
}

impl Netns {
    /// Opens a namespace by its name under `/run/netns` or by an absolute path (`/proc/PID/ns/net`).
    ///
    /// # Errors
    /// [`NetnsError::Name`], [`NetnsError::Open`].
    pub fn open(name: &str) -> Result<Netns, NetnsError> {
        let path = if name.starts_with('/') { PathBuf::from(name) } else { named(name)? };
        match File::open(&path) {
            Ok(file) => Ok(Netns { file, name: name.to_owned() }),
            Err(source) => Err(NetnsError::Open { name: name.to_owned(), path, source }),
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::Open`], without `/proc`.
    pub fn current() -> Result<Netns, NetnsError> {
        Netns::open("/proc/thread-self/ns/net")
    }

    /// Makes a namespace that lives as long as this value, or something in it; `name` is for messages only.
    ///
    /// # Errors
    /// [`NetnsError::Change`] without `CAP_SYS_ADMIN`.
    pub fn anonymous(name: &str) -> Result<Netns, NetnsError> {
        let change = |source| NetnsError::Change { name: name.to_owned(), what: "make it", source };
        let file = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .map_err(change)?;
        Ok(Netns { file, name: name.to_owned() })
    }

    /// Makes a namespace that `ip netns` knows by this name, and that stays until [`Netns::delete`].
    ///
    /// # Errors
    /// [`NetnsError::Change`] when the name is taken or without `CAP_SYS_ADMIN`.
    pub fn create(name: &str) -> Result<Netns, NetnsError> {
        let path = named(name)?;
        let change = |what| move |source| NetnsError::Change { name: name.to_owned(), what, source };
        share_directory().map_err(change("prepare /run/netns"))?;
        let netns = Netns::anonymous(name)?;
        let place = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        place.map_err(change("make its file (is the name taken?)"))?;
        let none: Option<&str> = None;
        if let Err(error) = mount(Some(&netns.path()), &path, none, MsFlags::MS_BIND, none) {
            let _ = fs::remove_file(&path);
            return Err(change("mount it")(error.into()));
        }
        Ok(netns)
    }

    /// Takes away the name of a namespace. It ends when no process and no descriptor is left in it.
    ///
    /// # Errors
    /// [`NetnsError::Change`] when there is no such name.
    pub fn delete(name: &str) -> Result<(), NetnsError> {
        let path = named(name)?;
        let change = |what| move |source| NetnsError::Change { name: name.to_owned(), what, source };
        match umount2(&path, MntFlags::MNT_DETACH) {
            // A file without a mount: what is left of a creation that was cut short.
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(change("unmount it")(error.into())),
        }
        fs::remove_file(&path).map_err(change("remove its file"))
    }

    /// Names of the namespaces under `/run/netns`.
    pub fn list() -> Vec<String> {
        let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Runs `work` inside of this namespace, on a thread that ends with it, and gives its result.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] without `CAP_SYS_ADMIN` over it.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|source| NetnsError::Enter { name: self.name.clone(), source })
    }

    /// A path by which every process that may look into ours can open this namespace while this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` in the namespace of this name, or right here where there is none to go to.
///
/// # Errors
/// As [`Netns::open`] and [`Netns::within`].
pub fn within<T: Send>(netns: Option<&str>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    match netns {
        None => Ok(work()),
        Some(name) => Netns::open(name)?.within(work),
    }
}

fn named(name: &str) -> Result<PathBuf, NetnsError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(NetnsError::Name(name.to_owned()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes `/run/netns` a mount point that is shared with other mount namespaces, as ip-netns(8) does, so that a name that
/// is deleted here does not live on there.
fn share_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let none: Option<&str> = None;
    let share = || mount(none, DIRECTORY, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    if share().is_err() {
        mount(Some(DIRECTORY), DIRECTORY, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        share()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name() {
        for bad in ["", ".", "..", "a/b", "../x"] {
            assert!(matches!(Netns::open(bad), Err(NetnsError::Name(_))), "{bad}");
        }
        let missing = Netns::open("nuswitch-no-such-namespace").unwrap_err().to_string();
        assert!(missing.contains("nuswitch-no-such-namespace"), "{missing}");
    }
}
