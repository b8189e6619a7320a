//! A switch under demonstration: this same program as a child process, with a configuration file, as anyone runs it.

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stop::Stop;
use crate::control::client::Client;
use crate::control::view::{Port, State};
use crate::ports::netns::Netns;
use crate::sys::child::{begins_in, ends_with_us};

/// How long the switch may take to have all ports, and to end. Far more than it needs, against waiting for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Directories of demos are called this, and the number of the process.
const PREFIX: &str = "nuswitch-demo-";
/// The file in it that is locked; the switch itself locks the directory, where its control socket is.
const LOCK: &str = "lock";

/// A directory of our own that goes with this value. A file in it is locked while we live, so that the next demo can tell what
/// one that was killed has left behind.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it.
    pub(super) fn new() -> anyhow::Result<Directory> {
        let mut parent = std::env::temp_dir();
        // A socket's path has at most 107 bytes (unix(7)).
        if parent.as_os_str().len() > 60 || !parent.is_absolute() {
            parent = PathBuf::from("/tmp");
        }
        sweep(&parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        let failed = || format!("cannot make the directory {}", path.display());
        DirBuilder::new().mode(0o700).create(&path).with_context(failed)?;
        let lock = File::create(path.join(LOCK)).with_context(failed)?;
        lock.lock().with_context(failed)?;
        Ok(Directory { path, _lock: lock })
    }

    /// Itself, for the switch here.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// A directory in it, for another switch: one locks that of its control socket.
    pub(super) fn inner(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what demos that were killed have left: directories of ours of which nobody holds the lock. One that is just being made
/// is spared, too: it is empty.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && is_directory && entry.path().join("lab.toml").exists() {
            let unlocked = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
            if unlocked {
                // Another user's stays.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A running switch. Dropping it ends it.
pub(super) struct Switch {
    child: Child,
    directory: PathBuf,
    /// To ask it.
    pub(super) client: Client,
    ended: bool,
}

impl Switch {
    /// Starts it with this configuration and all its files in `directory`; in another namespace than ours, if one is given.
    pub(super) fn start(
        directory: PathBuf,
        netns: Option<&Netns>,
        config: impl Fn(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Switch> {
        let (control, file) = (directory.join("control.sock"), directory.join("lab.toml"));
        fs::write(&file, config(&control.display().to_string())?)?;
        let log = File::create(directory.join("log"))?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["run", "--config"]).arg(&file).env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a group of its own: Ctrl-C comes to us, and we end it in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        if let Some(netns) = netns {
            begins_in(&mut command, netns.as_fd().try_clone_to_owned()?);
        }
        let child = ends_with_us(&mut command).spawn().context("cannot start the switch")?;
        let client = Client::new(&control)?;
        Ok(Switch { child, directory, client, ended: false })
    }

    /// Waits until every port is active, and gives them.
    pub(super) fn wait(&mut self, stop: &Stop) -> anyhow::Result<Vec<Port>> {
        let begin = Instant::now();
        loop {
            stop.check()?;
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                bail!("the switch ended at once ({status}); its log:\n{}", self.log());
            }
            let ports = self.ports();
            match ports {
                Ok(ports) if ports.iter().all(|port| port.status == State::Active) => return Ok(ports),
                Ok(ports) if begin.elapsed() > PATIENCE => {
                    let down = ports.iter().find(|port| port.status != State::Active);
                    let reason = down.and_then(|port| port.status_reason.clone()).unwrap_or_default();
                    bail!("port {} stays down: {reason}", down.map_or("", |port| &port.name));
                }
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                _ => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Its ports with their counters now.
    pub(super) fn ports(&self) -> anyhow::Result<Vec<Port>> {
        Ok(self.client.get_key("/v2.0/ports", "ports")?)
    }

    /// A file of the directory, as `lab.toml`.
    pub(super) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The last lines that it logged.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        !self.ended && matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end and waits; tells how it ended when that was not in order.
    pub(super) fn end(&mut self) -> Result<(), String> {
        if self.ended {
            return Err("the switch had ended before".to_owned());
        }
        self.ended = true;
        match self.terminate() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the switch ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let begin = Instant::now();
        // Not waited for yet, so the number is still the child's.
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        if self.child.try_wait()?.is_none() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("the switch did not end on SIGTERM and was killed")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}
