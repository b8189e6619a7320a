//! Frames to send and to expect, said in a line. Sums and headers come from other hands than the switch's own (smoltcp and
//! a naive sum), so that a mistake there is not made twice.

use nuswitch::cli::frame_spec;
use nuswitch::frame::Offload;
use nuswitch::types::Mac;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

/// A guest's address.
pub const fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

pub const A: Mac = mac(0xa);
pub const B: Mac = mac(0xb);
pub const C: Mac = mac(0xc);
pub const BROADCAST: Mac = Mac::BROADCAST;

/// A frame as it stands on the wire, with what is left to do on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Wire {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex: String = self.bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{} bytes, offload {:?}: {hex}", self.bytes.len(), self.offload)
    }
}

impl Wire {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// With other bytes in the place of some.
    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Wire {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn cut(mut self, len: usize) -> Wire {
        self.bytes.truncate(len);
        self
    }
}

/// What is on the wire when this is sent.
pub trait IntoWire {
    fn wire(self) -> Wire;
}

impl IntoWire for Wire {
    fn wire(self) -> Wire {
        self
    }
}

impl IntoWire for Vec<u8> {
    fn wire(self) -> Wire {
        Wire { bytes: self, offload: Offload::NONE }
    }
}

/// An Ethernet frame with 46 bytes of payload, from A to B, unless told otherwise.
#[derive(Clone)]
pub struct Frame {
    to: Mac,
    from: Mac,
    tags: Vec<(u16, u16)>,
    ethertype: u16,
    payload: usize,
}

pub fn frame() -> Frame {
    Frame { to: B, from: A, tags: Vec::new(), ethertype: 0x0800, payload: 46 }
}

impl Frame {
    pub fn from(self, from: Mac) -> Frame {
        Frame { from, ..self }
    }

    pub fn to(self, to: Mac) -> Frame {
        Frame { to, ..self }
    }

    /// A customer's tag behind those before.
    pub fn tag(self, tci: u16) -> Frame {
        self.tpid(0x8100, tci)
    }

    /// A service tag behind those before.
    pub fn service_tag(self, tci: u16) -> Frame {
        self.tpid(0x88a8, tci)
    }

    fn tpid(mut self, tpid: u16, tci: u16) -> Frame {
        self.tags.push((tpid, tci));
        self
    }

    pub fn ethertype(self, ethertype: u16) -> Frame {
        Frame { ethertype, ..self }
    }

    pub fn payload(self, payload: usize) -> Frame {
        Frame { payload, ..self }
    }
}

impl IntoWire for Frame {
    fn wire(self) -> Wire {
        let mut bytes = [self.to.0, self.from.0].concat();
        for (tpid, tci) in &self.tags {
            bytes.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes.extend((0..self.payload).map(|at| (at % 251) as u8));
        Wire { bytes, offload: Offload::NONE }
    }
}

/// A complete packet in a frame, in the words of `nuswitch trace`.
pub fn spec(text: &str) -> Wire {
    frame_spec::parse(text).unwrap().wire()
}

/// Which packet an offload note is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

impl Kind {
    fn is_v4(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Udp4)
    }

    fn is_tcp(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Tcp6)
    }

    pub fn gso_type(self) -> u8 {
        match self {
            Kind::Tcp4 => Offload::GSO_TCPV4,
            Kind::Tcp6 => Offload::GSO_TCPV6,
            Kind::Udp4 | Kind::Udp6 => Offload::GSO_UDP_L4,
        }
    }

    /// Where the transport header begins in an untagged frame.
    pub fn l4(self) -> usize {
        if self.is_v4() { 34 } else { 54 }
    }

    pub fn headers(self) -> usize {
        self.l4() + if self.is_tcp() { 20 } else { 8 }
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

/// The folded sum of the pseudo-header of an untagged packet (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo(kind: Kind, bytes: &[u8]) -> u16 {
    let addresses = if kind.is_v4() { &bytes[26..34] } else { &bytes[22..54] };
    let protocol = if kind.is_tcp() { 6 } else { 17 };
    fold(words(addresses) + protocol + (bytes.len() - kind.l4()) as u64)
}

/// From A to B: a packet of `kind` with `payload` bytes and a finished checksum.
pub fn packet(kind: Kind, payload: usize) -> Wire {
    let addresses = match kind.is_v4() {
        true => "src=10.0.0.1 dst=10.0.0.2",
        false => "src=2001:db8::1 dst=2001:db8::2",
    };
    let transport = if kind.is_tcp() { "tcp flags=PA seq=1000 ack=7" } else { "udp" };
    spec(&format!("eth src={A} dst={B} ip {addresses} {transport} sport=4000 dport=5000 len={payload}"))
}

/// As [`packet`], with the checksum left to whoever sends it.
pub fn partial(kind: Kind, payload: usize) -> Wire {
    let mut wire = packet(kind, payload);
    let csum_offset = if kind.is_tcp() { 16 } else { 6 };
    let at = kind.l4() + csum_offset;
    let seed = pseudo(kind, &wire.bytes);
    wire.bytes[at..at + 2].copy_from_slice(&seed.to_be_bytes());
    let (csum_start, csum_offset) = (kind.l4() as u16, csum_offset as u16);
    wire.offload = Offload { flags: Offload::NEEDS_CSUM, csum_start, csum_offset, ..Offload::NONE };
    wire
}

/// As [`partial`], to be cut into segments of `size` bytes of payload.
pub fn gso(kind: Kind, payload: usize, size: u16) -> Wire {
    let mut wire = partial(kind, payload);
    wire.offload.gso_type = kind.gso_type();
    wire.offload.gso_size = size;
    wire.offload.hdr_len = kind.headers() as u16;
    wire
}

/// With a VLAN tag, as a trunk has it; the note moves with the headers.
pub fn tagged(mut wire: Wire, id: u16) -> Wire {
    let tag = [0x81, 0, (id >> 8) as u8, id as u8];
    wire.bytes.splice(12..12, tag);
    if wire.offload != Offload::NONE {
        wire.offload.csum_start += 4;
        wire.offload.hdr_len += 4;
    }
    wire
}

pub fn untagged(mut wire: Wire) -> (Wire, u16) {
    assert_eq!(wire.bytes[12..14], [0x81, 0], "a tag is expected");
    let id = u16::from_be_bytes([wire.bytes[14], wire.bytes[15]]);
    wire.bytes.drain(12..16);
    if !wire.offload.is_done() {
        wire.offload.csum_start -= 4;
    }
    (wire, id)
}

/// The payload of an untagged packet whose lengths and checksums are all right; says what is wrong else.
pub fn verified(kind: Kind, bytes: &[u8]) -> (Vec<u8>, u32) {
    let l3 = &bytes[14..];
    let (from, to, inner): (IpAddress, IpAddress, &[u8]) = if kind.is_v4() {
        let ip = Ipv4Packet::new_checked(l3).unwrap();
        assert!(ip.verify_checksum(), "IPv4 header checksum");
        assert_eq!(usize::from(ip.total_len()), l3.len());
        (ip.src_addr().into(), ip.dst_addr().into(), &l3[20..])
    } else {
        let ip = Ipv6Packet::new_checked(l3).unwrap();
        assert_eq!(usize::from(ip.payload_len()) + 40, l3.len());
        (ip.src_addr().into(), ip.dst_addr().into(), &l3[40..])
    };
    if kind.is_tcp() {
        let tcp = TcpPacket::new_checked(inner).unwrap();
        assert!(tcp.verify_checksum(&from, &to), "TCP checksum");
        (tcp.payload().to_vec(), tcp.seq_number().0.cast_unsigned())
    } else {
        let udp = UdpPacket::new_checked(inner).unwrap();
        assert!(udp.verify_checksum(&from, &to), "UDP checksum");
        assert_eq!(usize::from(udp.len()), inner.len());
        (udp.payload().to_vec(), 0)
    }
}
