//! The list of devices that outlive the process: persistent TAPs of guests. It is written before such a device is made, so
//! that a start after a crash or a kill can remove what no longer is in the configuration. The file stands beside the
//! control socket and goes with a clean exit.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ports::{at_once, guest};

pub(super) struct Journal {
    path: PathBuf,
    guests: BTreeSet<String>,
}

impl Journal {
    /// Reads what an earlier process left, for a switch with this control socket.
    pub(super) fn open(control: &Path) -> io::Result<Journal> {
        let mut path = control.as_os_str().to_owned();
        path.push(".devices");
        let path = PathBuf::from(path);
        let guests = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Journal { path, guests })
    }

    /// Notes that this TAP is about to be made.
    pub(super) fn add(&mut self, name: &str) -> io::Result<()> {
        if self.guests.insert(name.to_owned()) { self.write() } else { Ok(()) }
    }

    /// Removes every noted TAP for which `keep` is false.
    pub(super) fn remove_unless(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.guests.iter().filter(|name| !keep(name)).cloned().collect();
        let removed = at_once(gone, |name| {
            let result = guest::remove(&name);
            (name, result)
        });
        for (name, result) in removed {
            match result {
                Ok(()) => {
                    self.guests.remove(&name);
                }
                Err(error) => tracing::warn!(device = name, %error, "cannot remove a guest's TAP"),
            }
        }
        if let Err(error) = self.write() {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the list of devices");
        }
    }

    fn write(&self) -> io::Result<()> {
        if self.guests.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut draft = self.path.as_os_str().to_owned();
        draft.push(".new");
        fs::write(&draft, serde_json::to_vec(&self.guests)?)?;
        fs::rename(&draft, &self.path)
    }
}
