//! Capture files: writes pcapng with direction, loss and drop reason of each frame, reads pcapng and pcap.
//!
//! What is written: a section header, an interface block for each port, enhanced packets with time stamps in
//! nanoseconds, `epb_flags` for the direction, `epb_dropcount` for frames that the capture missed before this one, and a
//! comment `dropped: <reason> - <meaning>`; a frame that was taken out of its tunnel says so in a comment
//! `tunnel from <peer>, VNI <n>` or `tunnel to <peer>, VNI <n>` (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3). Reading
//! gives the frames alone: time stamps of foreign files come in units that differ by file, and nobody here asks for them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::Block;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use thiserror::Error;

use crate::stats::DropReason;
use crate::types::Vni;

/// A capture file that cannot be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// The system's refusal.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither pcap nor pcapng, or damaged.
    #[error("{}: frame {index}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The frame that could not be read, from 1.
        index: u64,
        /// Why.
        what: String,
    },
    /// Of a link that is not Ethernet.
    #[error("{}: its frames are {link:?}, not Ethernet", path.display())]
    NotEthernet {
        /// The file.
        path: PathBuf,
        /// What they are.
        link: DataLink,
    },
    /// Fewer frames than asked for.
    #[error("{}: has {count} frames, there is no frame {index}", path.display())]
    NoSuchFrame {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: u64,
        /// The one asked for, from 1.
        index: u64,
    },
}

/// Which way a frame went, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received from the device.
    Rx,
    /// Sent to the device.
    Tx,
}

/// The tunnel around a captured frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InTunnel {
    /// The other end: who sent a received one, whom or which group a sent one is for.
    pub remote: IpAddr,
    /// Its network.
    pub vni: Vni,
}

/// A frame that a capture saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    /// When: nanoseconds since the Unix epoch.
    pub at: u64,
    /// Which way.
    pub direction: Direction,
    /// Length of the frame in bytes, without FCS.
    pub original_len: usize,
    /// Its first bytes, as many as the capture asked for.
    pub bytes: Vec<u8>,
    /// Why it was dropped, if it was.
    pub dropped: Option<DropReason>,
    /// The tunnel that it was taken out of for the capture.
    pub tunnel: Option<InTunnel>,
    /// Name of the port.
    pub interface: Arc<str>,
}

/// Writes capture records as pcapng.
pub struct Writer<W: Write> {
    inner: PcapNgWriter<W>,
    interfaces: Vec<Arc<str>>,
    snaplen: u32,
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file. `snaplen` is the most bytes of a frame that its records hold; 0: whole frames.
    ///
    /// # Errors
    /// The output's.
    pub fn new(output: W, snaplen: u32) -> io::Result<Writer<W>> {
        let application = concat!("nuswitch ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let inner = PcapNgWriter::with_section_header(output, section).map_err(into_io)?;
        Ok(Writer { inner, interfaces: Vec::new(), snaplen })
    }

    /// The number of a port in this file; writes its interface block the first time.
    ///
    /// # Errors
    /// The output's.
    pub fn interface(&mut self, name: &Arc<str>) -> io::Result<u32> {
        let index = match self.interfaces.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                let nanoseconds = 9;
                let options = vec![
                    InterfaceDescriptionOption::IfName(Cow::Owned(name.to_string())),
                    InterfaceDescriptionOption::IfTsResol(nanoseconds),
                ];
                let block = InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen: self.snaplen,
                    options,
                };
                self.inner.write_pcapng_block(block).map_err(into_io)?;
                self.interfaces.push(name.clone());
                self.interfaces.len() - 1
            }
        };
        u32::try_from(index).map_err(io::Error::other)
    }

    /// Writes a frame. `missed` frames before it could not be recorded.
    ///
    /// # Errors
    /// The output's.
    pub fn write(&mut self, record: &CaptureRecord, missed: u64) -> io::Result<()> {
        let interface_id = self.interface(&record.interface)?;
        // Bits 0 and 1 of epb_flags: 01 inbound, 10 outbound.
        let flags = match record.direction {
            Direction::Rx => 1,
            Direction::Tx => 2,
        };
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        if missed > 0 {
            options.push(EnhancedPacketOption::DropCount(missed));
        }
        if let Some(InTunnel { remote, vni }) = record.tunnel {
            let way = if record.direction == Direction::Rx { "from" } else { "to" };
            options.push(EnhancedPacketOption::Comment(format!("tunnel {way} {remote}, VNI {vni}").into()));
        }
        if let Some(reason) = record.dropped {
            let comment = format!("dropped: {} - {}", reason.name(), reason.meaning());
            options.push(EnhancedPacketOption::Comment(comment.into()));
        }
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(record.at),
            original_len: u32::try_from(record.original_len).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&record.bytes),
            options,
        };
        self.inner.write_pcapng_block(block).map_err(into_io)?;
        Ok(())
    }

    /// The output below, to flush it or to take out what it has gathered.
    pub fn get_mut(&mut self) -> &mut W {
        self.inner.get_mut()
    }
}

/// A frame read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The bytes that the file holds.
    pub bytes: Vec<u8>,
    /// Length of the frame when it was captured; more than `bytes` when that was cut off.
    pub original_len: usize,
}

enum Format {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

/// Reads the frames of a pcap or pcapng file in order. Ends after the first error.
pub struct Reader {
    path: PathBuf,
    format: Format,
    index: u64,
    ended: bool,
}

impl Reader {
    /// Opens a file and looks which of the formats it is.
    ///
    /// # Errors
    /// When it cannot be read, is neither, or holds no Ethernet.
    pub fn open(path: &Path) -> Result<Reader, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut magic = [0; 4];
        let got = file.read(&mut magic).map_err(io)?;
        file.rewind().map_err(io)?;
        let bad = |error: PcapError| Error::Format {
            path: path.to_owned(),
            index: 0,
            what: format!("no pcap or pcapng file: {error}"),
        };
        let buffered = BufReader::new(file);
        // The block type of a section header reads alike in both byte orders (pcapng, section 4.1).
        let format = if got == 4 && magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            Format::PcapNg(PcapNgReader::new(buffered).map_err(bad)?)
        } else {
            let reader = PcapReader::new(buffered).map_err(bad)?;
            let link = reader.header().datalink;
            if link != DataLink::ETHERNET {
                return Err(Error::NotEthernet { path: path.to_owned(), link });
            }
            Format::Pcap(reader)
        };
        Ok(Reader { path: path.to_owned(), format, index: 0, ended: false })
    }

    /// The frame of this number, from 1.
    ///
    /// # Errors
    /// When the file has fewer, or cannot be read up to there.
    pub fn nth_frame(self, index: u64) -> Result<Recorded, Error> {
        let path = self.path.clone();
        let mut count = 0;
        for frame in self {
            let frame = frame?;
            count += 1;
            if count == index {
                return Ok(frame);
            }
        }
        Err(Error::NoSuchFrame { path, count, index })
    }

    fn next_frame(&mut self) -> Result<Option<Recorded>, Error> {
        let path = &self.path;
        let index = self.index + 1;
        let bad = |error: PcapError| Error::Format { path: path.clone(), index, what: error.to_string() };
        match &mut self.format {
            Format::Pcap(reader) => {
                let Some(packet) = reader.next_packet() else { return Ok(None) };
                let packet = packet.map_err(bad)?;
                Ok(Some(Recorded { original_len: packet.orig_len as usize, bytes: packet.data.into_owned() }))
            }
            Format::PcapNg(reader) => loop {
                let Some(block) = reader.next_block() else { return Ok(None) };
                let (interface, frame) = match block.map_err(bad)? {
                    Block::EnhancedPacket(packet) => {
                        let bytes = packet.data.into_owned();
                        (packet.interface_id, Recorded { original_len: packet.original_len as usize, bytes })
                    }
                    Block::SimplePacket(packet) => {
                        let original_len = packet.original_len as usize;
                        let mut bytes = packet.data.into_owned();
                        bytes.truncate(original_len); // the block is padded to four bytes
                        (0, Recorded { original_len, bytes })
                    }
                    _ => continue,
                };
                let link = reader.interfaces().get(interface as usize).map(|interface| interface.linktype);
                return match link {
                    Some(DataLink::ETHERNET) => Ok(Some(frame)),
                    Some(link) => Err(Error::NotEthernet { path: path.clone(), link }),
                    None => Err(bad(PcapError::InvalidInterfaceId(interface))),
                };
            },
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Result<Recorded, Error>> {
        if self.ended {
            return None;
        }
        let frame = self.next_frame().transpose();
        self.ended = !matches!(frame, Some(Ok(_)));
        self.index += 1;
        frame
    }
}

/// Cuts a stream of pcapng in this machine's byte order into whole blocks, so that a capture can be ended between two
/// of them, and counts what passes.
#[derive(Default)]
pub struct Blocks {
    pending: Vec<u8>,
    /// Frames passed on so far.
    pub frames: u64,
    /// Frames that the capture missed so far, as `epb_dropcount` says.
    pub missed: u64,
}

impl Blocks {
    const MAX_BLOCK: usize = 1 << 20;
    const ENHANCED_PACKET: u32 = 6;

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Passes whole blocks to `output`, at most until `limit` frames have passed in all. True when they have.
    ///
    /// # Errors
    /// The output's, and `InvalidData` when the stream is not pcapng.
    pub fn pass(&mut self, output: &mut impl Write, limit: Option<u64>) -> io::Result<bool> {
        let mut start = 0;
        let result = loop {
            if limit.is_some_and(|limit| self.frames >= limit) {
                break Ok(true);
            }
            let rest = self.pending.get(start..).unwrap_or_default();
            let (Some(kind), Some(len)) = (word(rest, 0), word(rest, 4)) else { break Ok(false) };
            let len = len as usize;
            if !(12..=Self::MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
                break Err(io::Error::new(io::ErrorKind::InvalidData, "the stream is not pcapng"));
            }
            let Some(block) = rest.get(..len) else { break Ok(false) };
            if let Err(error) = output.write_all(block) {
                break Err(error);
            }
            if kind == Self::ENHANCED_PACKET {
                self.frames += 1;
                self.missed += drop_count(block).unwrap_or(0);
            }
            start += len;
        };
        self.pending.drain(..start);
        result
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// `epb_dropcount` (option 4) of an enhanced packet block; its options begin behind 28 bytes and the padded frame.
fn drop_count(block: &[u8]) -> Option<u64> {
    let captured = word(block, 20)? as usize;
    let mut options = block.get(28 + captured.next_multiple_of(4)..block.len() - 4)?;
    loop {
        let code = u16::from_ne_bytes(*options.first_chunk()?);
        let len = usize::from(u16::from_ne_bytes(*options.get(2..)?.first_chunk()?));
        match code {
            0 => return None,
            4 => return Some(u64::from_ne_bytes(*options.get(4..)?.first_chunk()?)),
            _ => options = options.get(4 + len.next_multiple_of(4)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(direction: Direction, dropped: Option<DropReason>, port: &str) -> CaptureRecord {
        let bytes = vec![0xab; 61];
        CaptureRecord {
            at: 1_700_000_000_123_456_789,
            direction,
            original_len: 99,
            bytes,
            dropped,
            tunnel: None,
            interface: port.into(),
        }
    }

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), 61).unwrap();
        writer.write(&record(Direction::Rx, Some(DropReason::VlanNotAllowed), "web1"), 0).unwrap();
        writer.write(&record(Direction::Tx, None, "web1"), 3).unwrap();
        let remote = "2001:db8::11".parse().unwrap();
        let tunnel = Some(InTunnel { remote, vni: Vni::new(1001).unwrap() });
        writer.write(&CaptureRecord { tunnel, ..record(Direction::Tx, None, "core") }, 0).unwrap();
        std::mem::take(writer.get_mut())
    }

    #[test]
    fn direction_reason_loss_and_names_are_in_the_file() {
        let bytes = sample();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let user =
            SectionHeaderOption::UserApplication(concat!("nuswitch ", env!("CARGO_PKG_VERSION")).into());
        assert_eq!(reader.section().options, [user]);
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap().into_owned() {
                packets.push(packet);
            }
        }
        let names: Vec<_> = reader.interfaces().iter().map(|interface| &interface.options[0]).collect();
        let name = |name: &'static str| InterfaceDescriptionOption::IfName(name.into());
        assert_eq!(names, [&name("web1"), &name("core")]);
        assert_eq!(reader.interfaces()[0].options[1], InterfaceDescriptionOption::IfTsResol(9));
        let comment = "dropped: vlan_not_allowed - its VLAN is not one of this port's";
        use EnhancedPacketOption::{Comment, DropCount, Flags};
        assert_eq!(packets[0].options, [Flags(1), Comment(comment.into())]);
        assert_eq!(packets[1].options, [Flags(2), DropCount(3)]);
        assert_eq!(packets[2].options, [Flags(2), Comment("tunnel to 2001:db8::11, VNI 1001".into())]);
        assert_eq!(packets.iter().map(|packet| packet.interface_id).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(packets[0].timestamp, Duration::from_nanos(1_700_000_000_123_456_789));
        assert_eq!(packets[0].original_len, 99);
    }

    #[test]
    fn a_file_reads_back_frame_by_frame() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sample()).unwrap();
        let frames: Vec<_> = Reader::open(file.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2], Recorded { bytes: vec![0xab; 61], original_len: 99 });
        assert!(Reader::open(file.path()).unwrap().nth_frame(3).is_ok());
        let missing = Reader::open(file.path()).unwrap().nth_frame(4).unwrap_err();
        assert!(missing.to_string().ends_with("has 3 frames, there is no frame 4"), "{missing}");
    }

    #[test]
    fn classic_pcap_is_read_too_and_other_links_are_refused() {
        use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
        let write = |datalink| {
            let header = PcapHeader { datalink, ..PcapHeader::default() };
            let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
            writer.write_packet(&PcapPacket::new(Duration::from_secs(1), 70, &[7; 60])).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), writer.into_writer()).unwrap();
            file
        };
        let file = write(DataLink::ETHERNET);
        let frame = Reader::open(file.path()).unwrap().nth_frame(1).unwrap();
        assert_eq!(frame, Recorded { bytes: vec![7; 60], original_len: 70 });
        assert!(matches!(Reader::open(write(DataLink::RAW).path()), Err(Error::NotEthernet { .. })));
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "no capture, only some text that is long enough").unwrap();
        assert!(matches!(Reader::open(text.path()), Err(Error::Format { .. })));
    }

    #[test]
    fn a_stream_is_cut_between_blocks_however_it_arrives() {
        let bytes = sample();
        for step in [1, 7, 64, bytes.len()] {
            let (mut blocks, mut whole) = (Blocks::default(), Vec::new());
            for part in bytes.chunks(step) {
                blocks.push(part);
                assert!(!blocks.pass(&mut whole, None).unwrap());
            }
            assert_eq!(whole, bytes);
            assert_eq!((blocks.frames, blocks.missed), (3, 3));
        }
        let (mut blocks, mut two) = (Blocks::default(), Vec::new());
        blocks.push(&bytes);
        assert!(blocks.pass(&mut two, Some(2)).unwrap());
        assert_eq!(blocks.frames, 2);
        assert_eq!(two, bytes[..two.len()]);
        let mut junk = Blocks::default();
        junk.push(b"HTTP/1.1 200 OK and more");
        assert!(junk.pass(&mut Vec::new(), None).is_err());
    }

    /// What the tool `program` prints, or nothing where it is not installed (an error where `CI` is set).
    fn tool(program: &str, arguments: &[&str]) -> Option<String> {
        match std::process::Command::new(program).args(arguments).output() {
            Ok(output) => {
                assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
                Some(String::from_utf8(output.stdout).unwrap())
            }
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{program}: {error}");
                println!("skipped: {program}: {error}");
                None
            }
        }
    }

    #[test]
    fn tcpdump_and_tshark_read_what_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sample()).unwrap();
        let name = file.path().to_str().unwrap();
        if let Some(text) = tool("tcpdump", &["-n", "-tt", "-r", name, "--nano"]) {
            assert_eq!(
                text.lines().filter(|line| line.starts_with("1700000000.123456789 ")).count(),
                3,
                "{text}"
            );
        }
        let fields = ["frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.comment"];
        let mut arguments = vec!["-r", name, "-T", "fields"];
        arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
        if let Some(text) = tool("tshark", &arguments) {
            let comment = "dropped: vlan_not_allowed - its VLAN is not one of this port's";
            let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
            let ends: Vec<&str> = lines.iter().map(|line| line[3]).collect();
            assert_eq!(ends, [comment, "", "tunnel to 2001:db8::11, VNI 1001"]);
            let names: Vec<&str> = lines.iter().map(|line| line[0]).collect();
            assert_eq!(names, ["web1", "web1", "core"]);
            let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            assert_eq!(lines.iter().map(|line| number(line[1])).collect::<Vec<_>>(), [1, 2, 2]);
            assert_eq!(lines[0][2], "99");
        }
    }
}
