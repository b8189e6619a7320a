//! The security log: what workers hand over, as lines of JSON, in a file and for whoever follows on the control socket.
//!
//! Workers hand lines over by a channel of bounded length and write nothing. One task takes them, writes all that are there with
//! one system call, and gives each to those who follow. What is lost on the way (a channel that was full, a file that could not
//! be written) is told in the next line that gets through. The file is only appended to, and opened anew at each reload, so that
//! it can be moved away before that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant as Clock, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::control::server::Follow;
use crate::control::view::{Problem, SecurityEvent, SecurityLine};
use crate::dataplane::nat::live::protocol_name;
use crate::dataplane::security::Side;
use crate::dataplane::security::logbook::{Action, Line};
use crate::types::Instant;
use crate::worker::inspect::LogSink;

/// Lines that may wait for the control thread, of all workers.
const DEPTH: usize = 4096;
/// Lines that may wait for one who follows.
const FOLLOW_DEPTH: usize = 4096;
/// Lines that are written at once.
const BATCH: usize = 256;
/// Lines that are remembered for who asks later.
const RECENT: usize = 1000;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct SecurityLog {
    sink: LogSink,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    file: Option<File>,
    /// Whether the last write to it failed.
    is_failing: bool,
    /// Whether it ends within a line.
    is_torn: bool,
    recent: VecDeque<SecurityEvent>,
    followers: Vec<(mpsc::Sender<SecurityEvent>, Arc<AtomicU64>)>,
    /// Lines that the file did not take.
    unwritten: u64,
}

/// A file that was opened for lines; none: there is to be none.
pub(super) type Opened = Option<File>;

/// Opens the file that `switch.security_log` names.
///
/// # Errors
/// 409: it cannot be.
pub(super) fn open(path: Option<&Path>) -> Result<Opened, Problem> {
    let Some(path) = path else { return Ok(None) };
    // A pipe that nobody reads must not be waited for.
    let mut options = File::options();
    let file = options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(path);
    file.map(Some).map_err(|error| {
        let message = format!("switch.security_log: {} cannot be opened: {error}", path.display());
        Problem::new(409, "SecurityLogRefused", message)
    })
}

impl SecurityLog {
    /// Takes lines from now on, on the runtime that it is called in; time began at `started`.
    pub(super) fn start(started: Clock) -> SecurityLog {
        let (sender, mut lines) = mpsc::channel(DEPTH);
        let missed = Arc::new(AtomicU64::new(0));
        let shared = Arc::<Mutex<Shared>>::default();
        let (reader, lost) = (shared.clone(), missed.clone());
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while lines.recv_many(&mut batch, BATCH).await > 0 {
                let events = batch.drain(..).map(|line| event(line, started)).collect();
                lock(&reader).take(events, lost.swap(0, Ordering::Relaxed));
            }
        });
        SecurityLog { sink: LogSink { sender, missed }, shared }
    }

    /// Where workers hand lines over.
    pub(super) fn sink(&self) -> LogSink {
        self.sink.clone()
    }

    /// Writes into this file from now on.
    pub(super) fn write_to(&self, file: Opened) {
        let mut shared = lock(&self.shared);
        shared.file = file;
        (shared.is_failing, shared.is_torn) = (false, false);
    }

    /// What comes from now on, or, without `follow`, what came of late.
    pub(super) fn follow(&self, follow: bool) -> Follow<SecurityEvent> {
        let mut shared = lock(&self.shared);
        let missed = Arc::new(AtomicU64::new(0));
        let (sender, events) = mpsc::channel(FOLLOW_DEPTH);
        if follow {
            shared.followers.push((sender, missed.clone()));
        } else {
            // There is room for all.
            shared.recent.iter().cloned().for_each(|event| drop(sender.try_send(event)));
        }
        Follow { events, missed }
    }

    /// Lets go of all who follow.
    pub(super) fn end(&self) {
        lock(&self.shared).followers.clear();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Takes lines, and that so many before them were lost.
    fn take(&mut self, mut events: Vec<SecurityEvent>, lost: u64) {
        if lost > 0 {
            events.insert(0, SecurityEvent::Lost { count: lost });
        }
        self.write(&events);
        self.followers.retain(|(sender, _)| !sender.is_closed());
        for event in events {
            for (sender, missed) in &self.followers {
                if let Err(TrySendError::Full(_)) = sender.try_send(event.clone()) {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
            }
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(event);
        }
    }

    fn write(&mut self, events: &[SecurityEvent]) {
        let Some(file) = &mut self.file else { return };
        let lost = Some(SecurityEvent::Lost { count: self.unwritten }).filter(|_| self.unwritten > 0);
        let mut text = if self.is_torn { b"\n".to_vec() } else { Vec::new() };
        lines(lost.iter().chain(events), &mut text);
        let (done, result) = append(file, &text);
        let (taken, rest) = text.split_at(done);
        if done > 0 {
            self.unwritten = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.is_torn = taken.last() != Some(&b'\n');
        } else {
            self.unwritten += events.len() as u64;
        }
        match result {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the security log cannot be written");
                }
            }
        }
    }
}

/// Writes as much as the file takes; gives how much that was.
fn append(file: &mut File, text: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

fn lines<'e>(events: impl Iterator<Item = &'e SecurityEvent>, text: &mut Vec<u8>) {
    for event in events {
        let written = serde_json::to_writer(&mut *text, event);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        text.push(b'\n');
    }
}

/// A worker's line, as it is told.
fn event(line: Line, started: Clock) -> SecurityEvent {
    let passed = Instant::since(started).0.saturating_sub(line.at.0);
    let at = SystemTime::now().checked_sub(std::time::Duration::from_nanos(passed)).unwrap_or(UNIX_EPOCH);
    told(line, &rfc3339(at))
}

fn told(line: Line, time: &str) -> SecurityEvent {
    let Line { port, network, side, action, packet, suppressed, .. } = line;
    let (rule, reason, groups) = match &action {
        Action::Accepted(rule) => (Some(rule.text.to_string()), None, vec![rule.group.to_string()]),
        Action::Dropped(reason, groups) => {
            (None, Some(reason.name().to_owned()), groups.iter().map(|name| name.to_string()).collect())
        }
    };
    let ports = packet.and_then(|packet| packet.ports);
    let icmp = packet.and_then(|packet| packet.icmp);
    let ethertype = packet.map(|packet| if packet.source.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned());
    let line = SecurityLine {
        time: time.to_owned(),
        port: port.to_string(),
        network: network.to_string(),
        direction: match side {
            Side::Egress => "egress",
            Side::Ingress => "ingress",
        }
        .to_owned(),
        security_groups: groups,
        rule,
        reason,
        ethertype,
        protocol: packet.map(|packet| protocol_name(packet.protocol)),
        source: packet.map(|packet| packet.source),
        destination: packet.map(|packet| packet.destination),
        source_port: ports.map(|ports| ports.0),
        destination_port: ports.map(|ports| ports.1),
        icmp_type: icmp.map(|icmp| icmp.0),
        icmp_code: icmp.map(|icmp| icmp.1),
        suppressed,
    };
    match action {
        Action::Accepted(_) => SecurityEvent::Accepted(line),
        Action::Dropped(..) => SecurityEvent::Dropped(line),
    }
}

/// A time in UTC with milliseconds (RFC 3339, 5.6).
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, days) = (since.as_secs() % 86_400, since.as_secs() / 86_400);
    let (year, month, day) = date(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}.{:03}Z",
        seconds % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Counted from a 1 March, so that leap days end a year;
/// 400 years have 146097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is 719468 days after 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;
    use crate::dataplane::security::logbook::Summary;
    use crate::stats::DropReason;
    use crate::tables::security::RuleEntry;

    fn line(action: Action, suppressed: u64) -> Line {
        Line {
            at: Instant::default(),
            port: "web1".into(),
            network: "blue".into(),
            side: Side::Ingress,
            action,
            packet: Some(Summary {
                source: "192.0.2.7".parse().unwrap(),
                destination: "10.0.0.10".parse().unwrap(),
                protocol: 6,
                ports: Some((40_000, 80)),
                icmp: None,
            }),
            suppressed,
        }
    }

    fn accepted() -> Line {
        let rule =
            RuleEntry { group: "web".into(), text: "ingress IPv4 tcp 80".into(), id: 7, is_logged: true };
        line(Action::Accepted(rule), 0)
    }

    fn dropped(suppressed: u64) -> Line {
        let groups = ["default".into(), "web".into()].into();
        line(Action::Dropped(DropReason::SecurityIngress, groups), suppressed)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at =
            |seconds: u64, millis: u64| rfc3339(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_709_251_199, 5), "2024-02-29T23:59:59.005Z");
        assert_eq!(at(1_735_689_599, 0), "2024-12-31T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_line_says_who_what_and_why() {
        let json = |line| serde_json::to_value(told(line, "T")).unwrap();
        let yes = json(accepted());
        let no = json(dropped(12));
        for (key, value) in [
            ("action", "accepted"),
            ("time", "T"),
            ("port", "web1"),
            ("network", "blue"),
            ("direction", "ingress"),
            ("rule", "ingress IPv4 tcp 80"),
            ("ethertype", "IPv4"),
            ("protocol", "tcp"),
            ("source", "192.0.2.7"),
            ("destination", "10.0.0.10"),
        ] {
            assert_eq!(yes[key], value, "{yes}");
        }
        assert_eq!((&yes["security_groups"][0], &yes["reason"]), (&"web".into(), &serde_json::Value::Null));
        assert_eq!((&yes["source_port"], &yes["destination_port"]), (&40_000.into(), &80.into()));
        assert_eq!((&no["action"], &no["reason"]), (&"dropped".into(), &"security_ingress".into()));
        assert_eq!(no["security_groups"], serde_json::json!(["default", "web"]));
        assert_eq!((&no["rule"], &no["suppressed"]), (&serde_json::Value::Null, &12.into()));
    }

    fn read(path: &Path) -> Vec<SecurityEvent> {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_file_is_appended_to_and_can_be_moved_away() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        std::fs::write(&path, "{\"action\":\"lost\",\"count\":1}\n").unwrap();
        let mut shared = Shared { file: open(Some(&path)).unwrap(), ..Shared::default() };
        let event = |line| told(line, "T");
        shared.take(vec![event(accepted())], 0);
        std::fs::rename(&path, &moved).unwrap();
        shared.take(vec![event(dropped(0))], 3);
        let lost = |count| SecurityEvent::Lost { count };
        assert_eq!(read(&moved), [lost(1), event(accepted()), lost(3), event(dropped(0))]);
        shared.file = open(Some(&path)).unwrap();
        shared.take(vec![event(dropped(1))], 0);
        assert_eq!(read(&path), [event(dropped(1))]);
    }

    #[test]
    fn a_file_that_cannot_be_is_named_and_one_that_fails_is_made_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/such/log");
        let problem = open(Some(&path)).unwrap_err();
        assert_eq!((problem.status, problem.body.kind.as_str()), (409, "SecurityLogRefused"));
        assert!(problem.body.message.contains(path.to_str().unwrap()), "{problem}");
        assert!(open(None).unwrap().is_none());
        let event = |line| told(line, "T");
        let mut shared = Shared { file: Some(File::create("/dev/full").unwrap()), ..Shared::default() };
        shared.take(vec![event(accepted()), event(accepted())], 0);
        let path = directory.path().join("log");
        shared.file = open(Some(&path)).unwrap();
        shared.take(vec![event(dropped(0))], 0);
        assert_eq!(read(&path), [SecurityEvent::Lost { count: 2 }, event(dropped(0))]);
    }

    #[tokio::test]
    async fn who_follows_hears_what_comes_and_others_what_came() {
        let log = SecurityLog::start(Clock::now());
        let mut follower = log.follow(true);
        log.sink().missed.fetch_add(4, Ordering::Relaxed);
        log.sink().sender.send(accepted()).await.unwrap();
        assert_eq!(follower.events.recv().await, Some(SecurityEvent::Lost { count: 4 }));
        let Some(SecurityEvent::Accepted(heard)) = follower.events.recv().await else { panic!("not told") };
        assert!(heard.time.ends_with('Z') && heard.time.len() == 24, "{}", heard.time);
        let mut late = log.follow(false);
        assert_eq!(late.events.recv().await, Some(SecurityEvent::Lost { count: 4 }));
        assert_eq!(late.events.recv().await, Some(SecurityEvent::Accepted(heard)));
        assert_eq!(late.events.recv().await, None);
        log.end();
        assert_eq!(follower.events.recv().await, None);
    }
}
