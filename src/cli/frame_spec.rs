//! Frames from a line of text, for `nuswitch trace`: hexadecimal, the n-th frame of a capture file (`file.pcap#7`), or
//! layers with fields.
//!
//! ```text
//! eth src=MAC dst=MAC [vlan=ID [pcp=0..7]]… [type=0x88cc] [len=BYTES]
//! arp who-has IP tell IP                 arp reply IP is-at MAC [to=IP]
//! ip  src=IP dst=IP [ttl=64] [proto=N]   (IPv4 or IPv6, as the addresses are)
//! udp [sport=N] [dport=N]                tcp [sport=N] [dport=N] [flags=S] [seq=N] [ack=N]
//! icmp [echo|reply] [id=N] [seq=N]       (ICMP or ICMPv6)
//! vxlan vni=N                            (behind `udp`, whose dport is 4789 then; a whole frame follows)
//! ```
//!
//! Layers stand from the outside in; each may appear once, `vlan=` as often as tags are wanted; behind `vxlan` they begin
//! again, and so nested tunnels can be said too. `len=` is the payload of the innermost layer in bytes. What is left out: source 02:00:00:00:00:01, destination broadcast, TTL 64, ports 0.
//! Checksums are right. Frames need not be sensible: hostile ones are made to be traced too.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpHardware, ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv4Repr, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};
use thiserror::Error;

use crate::control::hex;
use crate::dataplane::tunnel::vxlan;
use crate::frame::MAX_FRAME;
use crate::pcapng::{self, Reader};
use crate::types::{Mac, Vni};

/// Why a text is no frame.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing there.
    #[error(
        "no frame given; try `eth src=52:54:00:00:00:01 dst=ff:ff:ff:ff:ff:ff`, hexadecimal, or `file.pcap#1`"
    )]
    Empty,
    /// Neither of the forms.
    #[error("neither a frame's fields (`eth`, `arp` or `ip` first), nor `FILE#NUMBER`, nor hexadecimal: {0}")]
    Unknown(hex::Error),
    /// A mistake in a layer.
    #[error("{layer}: {what}")]
    Layer {
        /// The layer's word.
        layer: String,
        /// What is wrong with it.
        what: String,
    },
    /// More than the switch could carry.
    #[error("the frame has {0} bytes, the longest has {MAX_FRAME}")]
    TooLong(usize),
    /// The frame in the file is not whole.
    #[error("frame {index} of {file} holds {held} of {len} bytes: it was captured with too small a snaplen")]
    Cut {
        /// The file as it was named.
        file: String,
        /// From 1.
        index: u64,
        /// Bytes in the file.
        held: usize,
        /// Bytes that it had.
        len: usize,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] pcapng::Error),
}

const LAYERS: [&str; 7] = ["eth", "arp", "ip", "udp", "tcp", "icmp", "vxlan"];
const MAX_TAGS: usize = 8;
/// RFC 7348, section 5: the port that IANA has assigned.
const VXLAN_PORT: u16 = 4789;

/// The bytes of the frame that `text` describes, without FCS.
///
/// # Errors
/// When it describes none; the message says what was expected.
pub fn parse(text: &str) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    let Some(first) = text.split_whitespace().next() else { return Err(Error::Empty) };
    let bytes = if LAYERS.contains(&first) {
        fields(text)?
    } else if let Some((file, index)) = text.rsplit_once('#').and_then(|(f, i)| Some((f, i.parse().ok()?))) {
        from_file(file, index)?
    } else {
        hex::decode(text).map_err(Error::Unknown)?
    };
    if bytes.len() > MAX_FRAME { Err(Error::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// The same words with `mac` as the source of the outermost frame, if they name none; other forms of a frame as they are.
pub fn with_source(text: &str, mac: Mac) -> String {
    let mut words = text.split_whitespace();
    match words.next() {
        Some("eth") => {
            let mut fields = words.clone().take_while(|word| !LAYERS.contains(word));
            if fields.any(|word| word.starts_with("src=")) {
                return text.to_owned();
            }
            let rest: Vec<_> = words.collect();
            format!("eth src={mac} {}", rest.join(" "))
        }
        Some(first) if LAYERS.contains(&first) => format!("eth src={mac} {text}"),
        _ => text.to_owned(),
    }
}

fn from_file(file: &str, index: u64) -> Result<Vec<u8>, Error> {
    let frame = Reader::open(Path::new(file))?.nth_frame(index)?;
    let (held, len) = (frame.bytes.len(), frame.original_len);
    if held < len {
        return Err(Error::Cut { file: file.to_owned(), index, held, len });
    }
    Ok(frame.bytes)
}

/// One layer: its word and what follows it. Fields are taken out as they are understood; what is left is a mistake.
struct Layer<'a> {
    word: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Layer<'a> {
    fn error(&self, what: impl Display) -> Error {
        Error::Layer { layer: self.word.to_owned(), what: what.to_string() }
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        let value =
            |word: &'a str| word.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value);
        let at = self.rest.iter().position(|word| value(word).is_some())?;
        value(self.rest.remove(at))
    }

    fn parse<T: FromStr>(&self, key: &str, text: &str, expected: &str) -> Result<T, Error> {
        text.parse().map_err(|_| self.error(format!("{key}: `{text}` is not {expected}")))
    }

    fn field<T: FromStr>(&mut self, key: &str, expected: &str) -> Result<Option<T>, Error> {
        self.take(key).map(|text| self.parse(key, text, expected)).transpose()
    }

    fn number(&mut self, key: &str, most: u32) -> Result<Option<u32>, Error> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let number = number.filter(|number| *number <= most);
        number
            .map(Some)
            .ok_or_else(|| self.error(format!("{key}: `{text}` is not a number from 0 to {most}")))
    }

    fn short(&mut self, key: &str) -> Result<Option<u16>, Error> {
        Ok(self.number(key, u16::MAX.into())?.and_then(|number| u16::try_from(number).ok()))
    }

    /// Takes `word` where it comes next.
    fn word(&mut self, word: &str) -> bool {
        let there = self.rest.first() == Some(&word);
        if there {
            self.rest.remove(0);
        }
        there
    }

    fn value<T: FromStr>(&mut self, what: &str, expected: &str) -> Result<T, Error> {
        if self.rest.is_empty() {
            return Err(self.error(format!("{what} is missing")));
        }
        let text = self.rest.remove(0);
        self.parse(what, text, expected)
    }

    fn done(self) -> Result<(), Error> {
        match self.rest.first() {
            None => Ok(()),
            Some(word) => Err(self.error(format!("`{word}` has no meaning here, or is there twice"))),
        }
    }
}

const A_MAC: &str = "a MAC address like 52:54:00:00:00:01";
const AN_IPV4: &str = "an IPv4 address like 10.0.0.1";

/// Splits into layers and builds them from the inside out.
fn fields(text: &str) -> Result<Vec<u8>, Error> {
    let mut layers: Vec<Layer> = Vec::new();
    for word in text.split_whitespace() {
        match layers.last_mut() {
            _ if LAYERS.contains(&word) => layers.push(Layer { word, rest: Vec::new() }),
            Some(layer) => layer.rest.push(word),
            None => return Err(Error::Empty),
        }
    }
    let mut len = None;
    if let Some(layer) = layers.last_mut() {
        len = layer.number("len", u32::try_from(MAX_FRAME).unwrap_or(u32::MAX))?;
    }
    let payload: Vec<u8> = (0..=255).cycle().take(len.unwrap_or(0) as usize).collect();
    let mut content = Content { payload, is_tunnel: false, has_len: len.is_some() };
    while let Some(at) = layers.iter().rposition(|layer| layer.word == "vxlan") {
        let inside = layers.split_off(at + 1);
        let Some(tunnel) = layers.pop() else { break };
        if layers.last().is_none_or(|outside| outside.word != "udp") {
            return Err(tunnel.error("stands behind `udp`"));
        }
        let payload = [vxlan(tunnel)?, frame(inside, content)?].concat();
        content = Content { payload, is_tunnel: true, has_len: false };
    }
    frame(layers, content)
}

/// What the innermost layer of a frame carries.
struct Content {
    payload: Vec<u8>,
    /// Another frame with a tunnel's header.
    is_tunnel: bool,
    /// Somebody said how long it is.
    has_len: bool,
}

/// The frame of these layers, none of which is a tunnel's.
fn frame(layers: Vec<Layer>, content: Content) -> Result<Vec<u8>, Error> {
    let Content { payload, has_len, .. } = content;
    let dport = if content.is_tunnel { VXLAN_PORT } else { 0 };
    let mut layers = layers.into_iter().peekable();
    let eth = layers.next_if(|layer| layer.word == "eth").unwrap_or(Layer { word: "eth", rest: Vec::new() });
    let (ethertype, content) = match layers.next() {
        None => (None, payload),
        Some(layer) if layer.word == "arp" => {
            if has_len {
                return Err(layer.error("len: ARP has no payload"));
            }
            (Some(0x0806), arp(layer, &eth)?)
        }
        Some(layer) if layer.word == "ip" => ip(layer, layers.next(), payload, dport)?,
        Some(layer) if layer.word == "eth" => return Err(layer.error("stands first, and once")),
        Some(layer) => return Err(layer.error("stands behind `ip src=… dst=…`")),
    };
    if let Some(layer) = layers.next() {
        return Err(layer.error("nothing of this kind can follow here"));
    }
    ethernet(eth, ethertype, &content)
}

fn vxlan(mut layer: Layer) -> Result<Vec<u8>, Error> {
    let vni = layer.number("vni", 0x00ff_ffff)?.and_then(Vni::new);
    let vni = vni.ok_or_else(|| layer.error("vni=N is missing"))?;
    layer.done()?;
    Ok(vxlan::encode(vni).to_vec())
}

fn ethernet(mut eth: Layer, ethertype: Option<u16>, content: &[u8]) -> Result<Vec<u8>, Error> {
    let source = source(&mut eth)?;
    let destination = eth.field("dst", A_MAC)?.unwrap_or(Mac::BROADCAST);
    let mut bytes = [destination.0, source.0].concat();
    let mut tags = 0;
    while let Some(vlan) = eth.number("vlan", 4095)? {
        let priority = eth.number("pcp", 7)?.unwrap_or(0);
        bytes.extend([0x81, 0x00]);
        bytes.extend(&(priority << 13 | vlan).to_be_bytes()[2..]);
        tags += 1;
        if tags > MAX_TAGS {
            return Err(eth.error(format!("more than {MAX_TAGS} VLAN tags")));
        }
    }
    // IEEE 802, local experimental EtherType 1: what a frame without content says.
    let ethertype = eth.short("type")?.or(ethertype).unwrap_or(0x88b5);
    eth.done()?;
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(content);
    Ok(bytes)
}

fn source(eth: &mut Layer) -> Result<Mac, Error> {
    Ok(eth.field("src", A_MAC)?.unwrap_or(Mac([2, 0, 0, 0, 0, 1])))
}

fn arp(mut layer: Layer, eth: &Layer) -> Result<Vec<u8>, Error> {
    let sender = source(&mut Layer { word: "eth", rest: eth.rest.clone() })?;
    let (operation, hardware, source, target) = if layer.word("who-has") {
        let target: Ipv4Addr = layer.value("who-has", AN_IPV4)?;
        if !layer.word("tell") {
            return Err(layer.error("`tell IP` is missing"));
        }
        (ArpOperation::Request, sender, layer.value::<Ipv4Addr>("tell", AN_IPV4)?, target)
    } else if layer.word("reply") {
        let address: Ipv4Addr = layer.value("reply", AN_IPV4)?;
        if !layer.word("is-at") {
            return Err(layer.error("`is-at MAC` is missing"));
        }
        let hardware = layer.value("is-at", A_MAC)?;
        (ArpOperation::Reply, hardware, address, layer.field("to", AN_IPV4)?.unwrap_or(Ipv4Addr::UNSPECIFIED))
    } else {
        return Err(layer.error("`who-has IP tell IP` or `reply IP is-at MAC` is expected"));
    };
    layer.done()?;
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(hardware.0),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = ArpPacket::new_unchecked(&mut bytes);
    repr.emit(&mut packet);
    packet.set_hardware_type(ArpHardware::Ethernet);
    Ok(bytes)
}

/// Source and destination, of one version.
#[derive(Clone, Copy)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    fn pair(self) -> (IpAddress, IpAddress) {
        match self {
            Addresses::V4(source, destination) => (source.into(), destination.into()),
            Addresses::V6(source, destination) => (source.into(), destination.into()),
        }
    }
}

/// An IP packet with what `inner` says in it: its EtherType and bytes.
/// `dport` is the destination port where none is given.
fn ip(
    mut layer: Layer,
    inner: Option<Layer>,
    payload: Vec<u8>,
    dport: u16,
) -> Result<(Option<u16>, Vec<u8>), Error> {
    const AN_IP: &str = "an IP address";
    let mut address = |key: &str| {
        let address: Option<IpAddr> = layer.field(key, AN_IP)?;
        address.ok_or_else(|| layer.error(format!("{key}=IP is missing")))
    };
    let (source, destination) = (address("src")?, address("dst")?);
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6(source, destination),
        _ => return Err(layer.error("src and dst are of different IP versions")),
    };
    let ttl = layer.number("ttl", 255)?.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(64);
    let given = layer.number("proto", 255)?.and_then(|number| u8::try_from(number).ok());
    let (protocol, content) = match inner {
        // RFC 3692: 253 is for experimentation.
        None => (IpProtocol::from(given.unwrap_or(253)), payload),
        Some(_) if given.is_some() => return Err(layer.error("proto: the next layer says that")),
        Some(inner) => transport(inner, addresses, &payload, dport)?,
    };
    let total = content.len() + if source.is_ipv4() { 20 } else { 0 };
    if total > usize::from(u16::MAX) {
        return Err(layer.error(format!("{total} bytes do not fit into the length of a packet")));
    }
    let (next_header, payload_len, hop_limit) = (protocol, content.len(), ttl);
    let (ethertype, repr) = match addresses {
        Addresses::V4(src_addr, dst_addr) => {
            (0x0800, IpRepr::Ipv4(Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }))
        }
        Addresses::V6(src_addr, dst_addr) => {
            (0x86dd, IpRepr::Ipv6(Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }))
        }
    };
    layer.done()?;
    let mut bytes = vec![0; repr.header_len()];
    repr.emit(&mut bytes[..], &ChecksumCapabilities::default());
    bytes.extend(content);
    Ok((Some(ethertype), bytes))
}

fn transport(
    mut layer: Layer,
    addresses: Addresses,
    payload: &[u8],
    dport: u16,
) -> Result<(IpProtocol, Vec<u8>), Error> {
    if payload.len() > usize::from(u16::MAX) {
        return Err(layer.error(format!("len: {} bytes do not fit into a packet", payload.len())));
    }
    let (from, to) = addresses.pair();
    let sums = ChecksumCapabilities::default();
    let result = match layer.word {
        "udp" => {
            let repr = UdpRepr {
                src_port: layer.short("sport")?.unwrap_or(0),
                dst_port: layer.short("dport")?.unwrap_or(dport),
            };
            let total = repr.header_len() + payload.len();
            if total > usize::from(u16::MAX) {
                return Err(layer.error("len: does not fit into the length of a datagram"));
            }
            let mut bytes = vec![0; total];
            let mut packet = UdpPacket::new_unchecked(&mut bytes);
            repr.emit(&mut packet, &from, &to, payload.len(), |room| room.copy_from_slice(payload), &sums);
            (IpProtocol::Udp, bytes)
        }
        "tcp" => (IpProtocol::Tcp, tcp(&mut layer, &from, &to, payload)?),
        "icmp" => icmp(&mut layer, addresses, payload)?,
        _ => return Err(layer.error("cannot stand behind `ip`")),
    };
    layer.done()?;
    Ok(result)
}

fn tcp(layer: &mut Layer, from: &IpAddress, to: &IpAddress, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let sequence = |number: u32| TcpSeqNumber(number.cast_signed());
    let repr = TcpRepr {
        src_port: layer.short("sport")?.unwrap_or(0),
        dst_port: layer.short("dport")?.unwrap_or(0),
        control: TcpControl::None,
        seq_number: sequence(layer.number("seq", u32::MAX)?.unwrap_or(0)),
        ack_number: layer.number("ack", u32::MAX)?.map(sequence),
        window_len: 0xffff,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let flags = layer.take("flags").unwrap_or("S");
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut bytes);
    repr.emit(&mut packet, from, to, &ChecksumCapabilities::ignored());
    for flag in flags.chars() {
        match flag {
            'S' => packet.set_syn(true),
            'A' => packet.set_ack(true),
            'F' => packet.set_fin(true),
            'R' => packet.set_rst(true),
            'P' => packet.set_psh(true),
            'U' => packet.set_urg(true),
            _ => return Err(layer.error(format!("flags: `{flag}` is none of S, A, F, R, P, U"))),
        }
    }
    packet.fill_checksum(from, to);
    Ok(bytes)
}

fn icmp(layer: &mut Layer, addresses: Addresses, data: &[u8]) -> Result<(IpProtocol, Vec<u8>), Error> {
    let is_reply = !layer.word("echo") && layer.word("reply");
    let (ident, seq_no) = (layer.short("id")?.unwrap_or(1), layer.short("seq")?.unwrap_or(1));
    let sums = ChecksumCapabilities::default();
    match addresses {
        Addresses::V6(from, to) => {
            let repr = match is_reply {
                false => Icmpv6Repr::EchoRequest { ident, seq_no, data },
                true => Icmpv6Repr::EchoReply { ident, seq_no, data },
            };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(&mut bytes), &sums);
            Ok((IpProtocol::Icmpv6, bytes))
        }
        Addresses::V4(..) => {
            let repr = match is_reply {
                false => Icmpv4Repr::EchoRequest { ident, seq_no, data },
                true => Icmpv4Repr::EchoReply { ident, seq_no, data },
            };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &sums);
            Ok((IpProtocol::Icmp, bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet};

    use super::*;

    #[test]
    fn the_source_is_filled_in_where_it_is_not_said() {
        let with = |text| with_source(text, Mac([2, 0, 0, 0, 0, 9]));
        assert_eq!(
            with("arp who-has 10.0.0.2 tell 10.0.0.1"),
            "eth src=02:00:00:00:00:09 arp who-has 10.0.0.2 tell 10.0.0.1"
        );
        assert_eq!(
            with("eth vlan=7 ip src=10.0.0.1 dst=10.0.0.2"),
            "eth src=02:00:00:00:00:09 vlan=7 ip src=10.0.0.1 dst=10.0.0.2"
        );
        for said in ["eth dst=02:00:00:00:00:01 src=02:00:00:00:00:02 len=46", "dump.pcap#7", "ffffffffffff"]
        {
            assert_eq!(with(said), said);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(words in proptest::collection::vec(0usize..WORDS.len(), 0..12)) {
            let text: Vec<&str> = words.into_iter().map(|word| WORDS[word]).collect();
            if let Ok(bytes) = parse(&text.join(" ")) {
                proptest::prop_assert!(bytes.len() <= MAX_FRAME);
            }
        }
    }

    const WORDS: [&str; 26] = [
        "vxlan",
        "vni=5",
        "eth",
        "arp",
        "ip",
        "udp",
        "tcp",
        "icmp",
        "src=10.0.0.1",
        "dst=10.0.0.2",
        "src=::1",
        "dst=::2",
        "echo",
        "reply",
        "who-has",
        "tell",
        "10.0.0.9",
        "is-at",
        "52:54:00:00:00:01",
        "vlan=7",
        "len=65507",
        "len=65515",
        "len=70000",
        "src=52:54:00:00:00:01",
        "flags=SA",
        "proto=6",
    ];

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn udp_in_a_vlan_decodes_to_what_was_asked_for() {
        let bytes = parse(
            "eth src=52:54:00:00:00:01 dst=52:54:00:00:00:02 vlan=120 pcp=5 ip src=10.0.0.1 dst=10.0.0.2 ttl=7 \
             udp sport=1 dport=0x35 len=100",
        )
        .unwrap();
        assert_eq!(bytes.len(), 14 + 4 + 20 + 8 + 100);
        assert_eq!(bytes[12..18], [0x81, 0, 0xa0, 120, 0x08, 0]);
        assert_eq!(bytes[..12], [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1]);
        let ip = Ipv4Packet::new_checked(&bytes[18..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.hop_limit(), ip.total_len(), ip.next_header()), (7, 128, IpProtocol::Udp));
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.verify_checksum(&from, &to));
        assert_eq!((udp.src_port(), udp.dst_port(), udp.payload().len()), (1, 53, 100));
    }

    #[test]
    fn a_tunnel_packet_is_said_from_the_outside_in() {
        for (outer, at) in [("src=192.0.2.1 dst=192.0.2.2", 34), ("src=2001:db8::1 dst=2001:db8::2", 54)] {
            let text = "eth src=52:54:00:00:00:01 ip src=10.0.0.1 dst=10.0.0.2 udp sport=1 dport=2 len=9";
            let bytes =
                parse(&format!("eth dst=52:54:00:00:00:02 ip {outer} udp sport=50000 vxlan vni=1001 {text}"));
            let (bytes, inner) = (bytes.unwrap(), parse(text).unwrap());
            let udp = UdpPacket::new_checked(&bytes[at..]).unwrap();
            assert_eq!((udp.src_port(), udp.dst_port()), (50000, 4789));
            assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x03, 0xe9, 0]);
            assert_eq!(udp.payload()[8..], inner);
        }
        let nested = "ip src=192.0.2.1 dst=192.0.2.2 udp dport=8472 vxlan vni=1 \
                      ip src=192.0.2.3 dst=192.0.2.4 udp vxlan vni=2 arp who-has 10.0.0.2 tell 10.0.0.1";
        let bytes = parse(nested).unwrap();
        assert_eq!((bytes.len(), &bytes[36..38]), (50 + 50 + 42, &8472u16.to_be_bytes()[..]));
        assert_eq!((&bytes[46..49], &bytes[96..99]), (&[0, 0, 1][..], &[0, 0, 2][..]));
        assert_eq!(error("vxlan vni=1"), "vxlan: stands behind `udp`");
        assert_eq!(error("ip src=192.0.2.1 dst=192.0.2.2 udp vxlan"), "vxlan: vni=N is missing");
        let arp = "ip src=192.0.2.1 dst=192.0.2.2 udp vxlan vni=1 arp who-has 10.0.0.2 tell 10.0.0.1 len=5";
        assert_eq!(error(arp), "arp: len: ARP has no payload");
    }

    #[test]
    fn arp_request_and_reply() {
        let bytes = parse("eth src=52:54:00:00:00:01 arp who-has 10.0.0.2 tell 10.0.0.1").unwrap();
        let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
        assert_eq!(
            (frame.dst_addr(), frame.ethertype()),
            (EthernetAddress::BROADCAST, EthernetProtocol::Arp)
        );
        let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
        let expected = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress([0x52, 0x54, 0, 0, 0, 1]),
            source_protocol_addr: "10.0.0.1".parse().unwrap(),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: "10.0.0.2".parse().unwrap(),
        };
        assert_eq!(arp, expected);
        let reply = parse("arp reply 10.0.0.2 is-at 52:54:00:00:00:02 to=10.0.0.1").unwrap();
        let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(&reply[14..]).unwrap()).unwrap()
        else {
            panic!("not Ethernet and IPv4")
        };
        assert_eq!((operation, source_hardware_addr.0[5]), (ArpOperation::Reply, 2));
    }

    #[test]
    fn tcp_and_icmp_over_both_ips_have_right_checksums() {
        let bytes = parse(
            "ip src=2001:db8::1 dst=2001:db8::2 tcp sport=7 dport=80 flags=PA seq=4000000000 ack=9 len=3",
        );
        let bytes = bytes.unwrap();
        let ip = Ipv6Packet::new_checked(&bytes[14..]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        assert!(tcp.psh() && tcp.ack() && !tcp.syn());
        assert_eq!((tcp.dst_port(), tcp.payload(), tcp.ack_number()), (80, &[0, 1, 2][..], TcpSeqNumber(9)));
        assert_eq!(tcp.seq_number(), TcpSeqNumber(4_000_000_000u32.cast_signed()));

        let bytes = parse("ip src=2001:db8::1 dst=2001:db8::2 icmp").unwrap();
        let ip = Ipv6Packet::new_checked(&bytes[14..]).unwrap();
        assert_eq!(ip.next_header(), IpProtocol::Icmpv6);
        assert!(
            Icmpv6Packet::new_checked(ip.payload()).unwrap().verify_checksum(&ip.src_addr(), &ip.dst_addr())
        );

        let bytes = parse("ip src=10.0.0.1 dst=10.0.0.2 icmp reply id=3 seq=4 len=56").unwrap();
        let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum());
        let repr = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
        assert!(matches!(repr, Icmpv4Repr::EchoReply { ident: 3, seq_no: 4, data } if data.len() == 56));
    }

    #[test]
    fn hostile_frames_can_be_said() {
        let bytes = parse("eth src=01:00:00:00:00:01 vlan=1 vlan=0 vlan=4095 type=0x88cc len=2").unwrap();
        assert_eq!(bytes[12..], [0x81, 0, 0, 1, 0x81, 0, 0, 0, 0x81, 0, 0x0f, 0xff, 0x88, 0xcc, 0, 1]);
        assert_eq!(parse("ff ff").unwrap(), [0xff, 0xff]);
        assert_eq!(parse("eth").unwrap().len(), 14);
    }

    #[test]
    fn frames_of_a_file_by_number() {
        let mut writer = pcapng::Writer::new(Vec::new(), 0).unwrap();
        for (number, original_len) in [(1u8, 20), (2, 20), (3, 99)] {
            let bytes = vec![number; 20];
            let direction = pcapng::Direction::Rx;
            let interface = "p".into();
            let record = pcapng::CaptureRecord {
                at: 0,
                direction,
                original_len,
                bytes,
                dropped: None,
                tunnel: None,
                interface,
            };
            writer.write(&record, 0).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), writer.get_mut()).unwrap();
        let name = file.path().display().to_string();
        assert_eq!(parse(&format!("{name}#2")).unwrap(), [2; 20]);
        assert!(error(&format!("{name}#3")).contains("holds 20 of 99 bytes"));
        assert!(error(&format!("{name}#4")).contains("has 3 frames"));
    }

    #[test]
    fn mistakes_name_the_layer_and_what_is_expected() {
        let long = "ip src=10.0.0.1 dst=10.0.0.2 udp len=65530";
        for (text, expected) in [
            ("  ", "no frame given"),
            ("eth src=5", "eth: src: `5` is not a MAC address"),
            ("eth vlan=4096", "eth: vlan: `4096` is not a number from 0 to 4095"),
            ("eth flavour=3", "eth: `flavour=3` has no meaning here"),
            ("eth eth", "eth: stands first, and once"),
            ("udp sport=1", "udp: stands behind `ip src=… dst=…`"),
            ("ip src=10.0.0.1 udp", "ip: dst=IP is missing"),
            ("ip src=10.0.0.1 dst=::1 udp", "ip: src and dst are of different IP versions"),
            ("ip src=10.0.0.1 dst=10.0.0.2 udp udp", "udp: nothing of this kind can follow here"),
            ("ip src=10.0.0.1 dst=10.0.0.2 tcp flags=SX", "tcp: flags: `X` is none of"),
            ("ip src=10.0.0.1 dst=10.0.0.2 proto=6 tcp", "ip: proto: the next layer says that"),
            (long, "udp: len: does not fit"),
            ("arp who-has 10.0.0.1", "arp: `tell IP` is missing"),
            ("arp who-has 10.0.0.1 tell me", "arp: tell: `me` is not an IPv4 address"),
            ("arp who-has 10.0.0.1 tell 10.0.0.2 len=4", "arp: len: ARP has no payload"),
            ("zz", "neither a frame's fields"),
            ("abc", "an odd number of hexadecimal digits (3)"),
        ] {
            let message = error(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
