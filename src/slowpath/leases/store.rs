//! Where leases outlive the process: a SQLite database.
//!
//! Invariants: what [`Store::write`] has written survives a crash and a loss of power (a write-ahead log, flushed with each
//! commit), and either all of it or nothing is there. The file is this process's alone while it is open, and readable by its
//! owner only. A file that is of something else, of a later version, or damaged is refused and left as it is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, named_params, params};
use thiserror::Error;

use crate::services::dhcp4::pool::{Entry, State};
use crate::types::Mac;

/// `application_id` of our databases: "nusw".
const APPLICATION: i64 = 0x6e75_7377;
/// Each brings the schema from the version of its place to the next. A released one is never changed.
const MIGRATIONS: &[&str] = &["CREATE TABLE leases (
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    client BLOB NOT NULL CHECK (length(client) > 0),
    mac BLOB NOT NULL CHECK (length(mac) = 6),
    until INTEGER NOT NULL, -- seconds since 1970
    PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_until ON leases (until);"];
/// How long another process that is about to end may keep the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no store.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum OpenError {
    #[error("the directory of the state file {path} cannot be made: {error}")]
    Directory { path: PathBuf, error: std::io::Error },
    #[error("the state file {path} cannot be opened: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the state file {path} is in use by another process: give each switch its own `state`")]
    InUse { path: PathBuf },
    #[error("{path} is no state file of this program: name another `state`, or move the file away")]
    Foreign { path: PathBuf },
    #[error(
        "the state file {path} is of a later version of this program ({found}; known are versions up to {known}): run \
         that, or move the file away and lose its leases"
    )]
    Newer { path: PathBuf, found: i64, known: usize },
    #[error("the state file {path} is damaged ({what}): restore it, or move it away and lose its leases")]
    Damaged { path: PathBuf, what: String },
    #[error("the state file {path} cannot be used: {error}")]
    Database { path: PathBuf, error: rusqlite::Error },
}

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) network: String,
    pub(super) entry: Entry,
}

/// The database, open.
pub(super) struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the file, made where there is none; without a path, what is stored is gone with the process.
    pub(super) fn open(path: Option<&Path>) -> Result<Store, OpenError> {
        let shown = path.unwrap_or(Path::new("(memory)"));
        let connection = match path {
            Some(path) => {
                make_file(path)?;
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(path, flags)
            }
            None => Connection::open_in_memory(),
        };
        let open = |connection: Connection| {
            let mut store = Store { connection };
            store.prepare(shown, path.is_some())?;
            Ok(store)
        };
        connection.map_err(|error| refused(shown, error)).and_then(open)
    }

    fn prepare(&mut self, path: &Path, is_file: bool) -> Result<(), OpenError> {
        let on = |error: rusqlite::Error| refused(path, error);
        let connection = &mut self.connection;
        connection.busy_timeout(PATIENCE).map_err(on)?;
        // Before the first access: then the log needs no shared memory.
        connection.pragma_update(None, "locking_mode", "exclusive").map_err(on)?;
        let number = |connection: &Connection, name: &str| -> Result<i64, OpenError> {
            connection.pragma_query_value(None, name, |row| row.get(0)).map_err(on)
        };
        let (application, found) =
            (number(connection, "application_id")?, number(connection, "user_version")?);
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(on)?;
        let is_new = tables == 0 && application == 0 && found == 0;
        if application != APPLICATION && !is_new {
            return Err(OpenError::Foreign { path: path.to_owned() });
        }
        let known = MIGRATIONS.len();
        let version = usize::try_from(found).ok().filter(|version| *version <= known);
        let version = version.ok_or_else(|| OpenError::Newer { path: path.to_owned(), found, known })?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(on)?;
        if is_file && mode != "wal" {
            let what = format!("its journal stays in mode `{mode}`");
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
        connection.pragma_update(None, "synchronous", "full").map_err(on)?;
        let sound: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(on)?;
        if sound != "ok" {
            return Err(OpenError::Damaged { path: path.to_owned(), what: sound });
        }
        migrate(connection, version).map_err(on)
    }

    /// All that is stored.
    pub(super) fn rows(&self, path: Option<&Path>) -> Result<Vec<Row>, OpenError> {
        let path = path.unwrap_or(Path::new("(memory)"));
        let read = || -> rusqlite::Result<Vec<Option<Row>>> {
            let mut query =
                self.connection.prepare("SELECT network, address, client, mac, until FROM leases")?;
            let rows = query.query_map([], |row| {
                let address: String = row.get(1)?;
                Ok(parse(row.get(0)?, &address, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
            rows.collect()
        };
        let rows: Option<Vec<Row>> = read().map_err(|error| refused(path, error))?.into_iter().collect();
        let what = "a lease's address or time is none".to_owned();
        rows.ok_or_else(|| OpenError::Damaged { path: path.to_owned(), what })
    }

    /// Writes leases, and removes those that are none any more: all, and durable, or nothing.
    pub(super) fn write<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a str, Ipv4Addr, Option<&'a Entry>)>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO leases (network, address, client, mac, until)
                 VALUES (:network, :address, :client, :mac, :until)",
            )?;
            let mut remove =
                transaction.prepare_cached("DELETE FROM leases WHERE network = ?1 AND address = ?2")?;
            for (network, address, entry) in changes {
                let address = address.to_string();
                match entry {
                    Some(entry) => put.execute(named_params! {
                        ":network": network,
                        ":address": address,
                        ":client": &entry.client[..],
                        ":mac": &entry.mac.0[..],
                        ":until": i64::try_from(entry.until).unwrap_or(i64::MAX),
                    })?,
                    None => remove.execute(params![network, address])?,
                };
            }
        }
        transaction.commit()
    }

    /// Removes leases whose time was over at `now`, at most `most`. Says how many.
    pub(super) fn remove_over(&mut self, now: u64, most: usize) -> rusqlite::Result<usize> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        // A lease for ever stands as the highest number.
        self.connection
            .prepare_cached(
                "DELETE FROM leases WHERE (network, address) IN (SELECT network, address FROM leases
             WHERE until <= ?1 AND until < 9223372036854775807 ORDER BY until LIMIT ?2)",
            )?
            .execute(params![now, i64::try_from(most).unwrap_or(i64::MAX)])
    }

    /// For tests: makes the database fail, or not any more.
    #[cfg(test)]
    pub(super) fn fail(&self, fails: bool) {
        self.connection.pragma_update(None, "query_only", fails).unwrap();
    }

    /// For tests: the most pages that the file may have, as on a disk that is full.
    #[cfg(test)]
    pub(super) fn limit(&self, pages: u32) {
        self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }
}

fn parse(network: String, address: &str, client: Vec<u8>, mac: Vec<u8>, until: i64) -> Option<Row> {
    let until = if until == i64::MAX { u64::MAX } else { u64::try_from(until).ok()? };
    let entry = Entry {
        address: address.parse().ok()?,
        client: client.into(),
        mac: Mac(mac.try_into().ok()?),
        ingress: None,
        state: State::Bound,
        until,
    };
    Some(Row { network, entry })
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    if version == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    transaction.commit()
}

/// Sees to it that there is a file, which only its owner may read; SQLite gives its log the same permissions.
fn make_file(path: &Path) -> Result<(), OpenError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made =
        if parent.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(parent) };
    made.map_err(|error| OpenError::Directory { path: path.to_owned(), error })?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    // The name must be as durable as what is written under it.
    file.and_then(|_| File::open(parent)?.sync_all())
        .map_err(|error| OpenError::File { path: path.to_owned(), error })
}

fn refused(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, what: error.to_string() },
        _ => OpenError::Database { path, error },
    }
}
