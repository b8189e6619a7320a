//! A port on files: plays a capture once, as fast as the switch takes it, and writes what the switch sends as pcapng.
//!
//! Frames that the file holds in part only, and frames longer than the switch carries, are counted and dropped. A file
//! that turns out damaged ends there, with a warning in the log. Frames are written with finished checksums and unsegmented
//! ([`Caps`] says so), so that readers do not complain.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::{Caps, Details, PortIo, Remains, Rx};
use crate::frame::{Burst, Frame, MAX_FRAME, Pool};
use crate::pcapng::{self, CaptureRecord, Direction, Reader, Recorded, Writer};
use crate::stats::{DropReason, PortCounters};

/// Why a port on files cannot be opened.
#[derive(Debug, Error)]
pub enum Error {
    /// The file to play.
    #[error("port {port}: cannot play {source}")]
    Read {
        /// The port.
        port: String,
        /// Which file and why.
        source: pcapng::Error,
    },
    /// The file to write.
    #[error("port {port}: cannot write {}: {source}", path.display())]
    Write {
        /// The port.
        port: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A port on files.
pub struct PcapPort {
    name: Arc<str>,
    reader: Option<Reader>,
    /// Read, but not yet received: the pool was empty.
    pending: Option<Recorded>,
    writer: Option<Writer<BufWriter<File>>>,
    unflushed: bool,
    mtu: u16,
    counters: Arc<PortCounters>,
    device: String,
}

impl PcapPort {
    /// Opens the file to play and makes the file to write; either may be left out. `mtu` is what `caps` will say, in bytes.
    ///
    /// # Errors
    /// When either cannot be opened, or the first is no capture of Ethernet.
    pub fn open(
        port: &str,
        read: Option<&Path>,
        write: Option<&Path>,
        mtu: u16,
        counters: Arc<PortCounters>,
    ) -> Result<PcapPort, Error> {
        let reader = read
            .map(Reader::open)
            .transpose()
            .map_err(|source| Error::Read { port: port.to_owned(), source })?;
        let name = Arc::from(port);
        let writer = match write {
            None => None,
            Some(path) => {
                let failed = |source| Error::Write { port: port.to_owned(), path: path.to_owned(), source };
                let file = File::create(path).map_err(failed)?;
                let mut writer = Writer::new(BufWriter::new(file), 0).map_err(failed)?;
                writer.interface(&name).map_err(failed)?;
                writer.get_mut().flush().map_err(failed)?;
                Some(writer)
            }
        };
        let shown =
            |path: Option<&Path>| path.map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        let device = format!("{} > {}", shown(read), shown(write));
        Ok(PcapPort { name, reader, pending: None, writer, unflushed: false, mtu, counters, device })
    }

    fn next(&mut self) -> Option<Recorded> {
        if self.pending.is_some() {
            return self.pending.take();
        }
        match self.reader.as_mut()?.next() {
            Some(Ok(recorded)) => Some(recorded),
            Some(Err(error)) => {
                tracing::warn!(port = %self.name, %error, "playing ends here");
                self.reader = None;
                None
            }
            None => {
                self.reader = None;
                None
            }
        }
    }

    /// Counts a frame that cannot be taken. The worker does not see it, so it is counted as received here.
    fn refuse(&self, recorded: &Recorded, reason: DropReason) {
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(recorded.bytes.len() as u64);
        self.counters.count_drop(reason, 1);
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = CaptureRecord {
            at: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            direction: Direction::Tx,
            original_len: frame.len(),
            bytes: frame.segments().collect::<Vec<_>>().concat(),
            dropped: None,
            tunnel: None,
            interface: self.name.clone(),
        };
        self.unflushed = true;
        writer.write(&record, 0)
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed)
            && let Some(writer) = &mut self.writer
            && let Err(error) = writer.get_mut().flush()
        {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(port = %self.name, %error, "writing ends here");
        self.writer = None;
    }
}

impl PortIo for PcapPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) -> Rx {
        while !burst.is_full() {
            let Some(recorded) = self.next() else { return Rx::Drained };
            if recorded.bytes.len() < recorded.original_len {
                self.refuse(&recorded, DropReason::RxTruncated);
            } else if recorded.bytes.len() > MAX_FRAME {
                self.refuse(&recorded, DropReason::Giant);
            } else if let Some(frame) = pool.frame_from(&recorded.bytes) {
                burst.push(frame);
            } else {
                self.pending = Some(recorded);
                break; // a file can wait for buffers
            }
        }
        Rx::More
    }

    fn tx(&mut self, _pool: &mut Pool, frames: &mut Vec<Frame>) {
        let mut sent = 0;
        for frame in frames.iter() {
            if let Err(error) = self.write(frame) {
                self.give_up(&error);
                break;
            }
            sent += 1;
        }
        frames.drain(..sent);
    }

    fn turn(&mut self, _pool: &mut Pool) {
        self.flush();
    }

    fn is_ring(&self) -> bool {
        true
    }

    fn fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn caps(&self) -> Caps {
        Caps { checksum: false, tso: false, uso: false, mtu: self.mtu }
    }

    fn details(&self) -> Details {
        let notes = if self.reader.is_some() { vec!["playing".to_owned()] } else { Vec::new() };
        Details { device: self.device.clone(), driver: "pcap", notes }
    }

    fn close(mut self: Box<Self>, _pool: &mut Pool) -> Remains {
        self.flush();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(frames: &[(usize, usize)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap(), 0).unwrap();
        for &(held, original_len) in frames {
            let (direction, interface) = (Direction::Rx, Arc::from("x"));
            let bytes = vec![7; held];
            writer
                .write(
                    &CaptureRecord {
                        at: 0,
                        direction,
                        original_len,
                        bytes,
                        dropped: None,
                        tunnel: None,
                        interface,
                    },
                    0,
                )
                .unwrap();
        }
        file
    }

    #[test]
    fn what_is_played_can_be_recorded_again() {
        let directory = tempfile::tempdir().unwrap();
        let (read, write) =
            (file_of(&[(60, 60), (61, 99), (1514, 1514)]), directory.path().join("out.pcapng"));
        let counters = Arc::new(PortCounters::default());
        let mut pool = Pool::with_chunks(1, 2).unwrap();
        let mut port = PcapPort::open("p", Some(read.path()), Some(&write), 1500, counters.clone()).unwrap();
        let mut sent = Vec::new();
        let mut burst = Burst::new();
        assert_eq!((port.rx(&mut pool, &mut burst), burst.len()), (Rx::More, 1), "one buffer, one frame");
        sent.extend(burst.drain(..));
        port.tx(&mut pool, &mut sent);
        assert!(sent.is_empty());
        assert_eq!((port.rx(&mut pool, &mut burst), burst.len()), (Rx::Drained, 1), "none was lost");
        sent.extend(burst.drain(..));
        port.tx(&mut pool, &mut sent);
        port.turn(&mut pool);
        let written: Vec<_> = Reader::open(&write).unwrap().map(|frame| frame.unwrap().bytes.len()).collect();
        assert_eq!(written, [60, 1514]);
        assert_eq!(counters.dropped(DropReason::RxTruncated), 1);
        assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (1, 61));
        Box::new(port).close(&mut pool);
        assert_eq!(pool.free_chunks(), (1, 2));
    }

    #[test]
    fn errors_name_port_and_file() {
        let open = |read: Option<&str>, write: Option<&str>| {
            let counters = Arc::new(PortCounters::default());
            match PcapPort::open("p", read.map(Path::new), write.map(Path::new), 1500, counters) {
                Ok(_) => panic!("opened"),
                Err(error) => error.to_string(),
            }
        };
        assert!(
            open(Some("/nonexistent/a.pcap"), None).starts_with("port p: cannot play /nonexistent/a.pcap: ")
        );
        assert!(
            open(None, Some("/nonexistent/b.pcap")).starts_with("port p: cannot write /nonexistent/b.pcap: ")
        );
    }
}
