//! Any frames to the underlay's host, between frames of ours that look for their next hop, and time that passes:
//! - what it sends is a whole message of its own: sound lengths, right checksums, from its MAC, no longer than the MTU;
//! - it sends at most two for one that it heard, besides those that waited;
//! - what it remembers is bounded; no path is lowered but by a quote of our own packets;
//! - every frame that was given to it is released with a MAC or discarded, and every chunk comes back.

use std::cell::RefCell;
use std::net::IpAddr;

use nuswitch::frame::{Frame, Pool};
use nuswitch::services::arp::Arp;
use nuswitch::services::host::{Event, Host, HostConfig, Net};
use nuswitch::services::packet::Packet;
use nuswitch::types::{Instant, Mac};
use nuswitch::wire::protocol;

use super::input::Input;

const OURS: Mac = Mac([2, 0, 0, 0, 0xee, 1]);
const CHUNKS: usize = 512;
const WANTED: usize = 3;
/// Bounds that the services' documentation gives.
const OTHER_NEIGHBOURS: usize = 1024;
const PATHS: usize = 1024;
const WAITING: u64 = 256;

thread_local! {
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// The link, which judges what it is given.
#[derive(Default)]
struct Link {
    sent: usize,
    released: u64,
    discarded: u64,
    paths: usize,
    mtu: u16,
    v4: bool,
}

impl Net for Link {
    fn send(&mut self, frame: &[u8]) {
        self.sent += 1;
        assert!(frame.len() <= 14 + usize::from(self.mtu), "{} bytes", frame.len());
        assert_eq!(frame[6..12], OURS.0, "not from its MAC");
        if frame[12..14] == [8, 6] {
            let arp = Arp::parse(frame).expect("an ARP message");
            assert!(self.v4 && arp.sender_mac == OURS && IpAddr::from(arp.sender) == address(true, 10));
            return;
        }
        let packet = Packet::parse(frame).unwrap_or_else(|reason| panic!("{reason:?}: {frame:02x?}"));
        assert_eq!(packet.source.is_ipv4(), self.v4);
        let number = match packet.protocol {
            protocol::IGMP => protocol::IGMP,
            _ if self.v4 => protocol::ICMP,
            _ => protocol::ICMPV6,
        };
        packet.verified(number).expect("a right checksum");
        // MLD speaks from a link-local address (RFC 3810, 5).
        let own = packet.source == address(self.v4, 10);
        assert!(own || matches!(packet.source, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    }

    fn release(&mut self, frame: Frame) {
        assert_ne!(frame.head()[..6], [0; 6], "without a MAC");
        self.released += 1;
    }

    fn discard(&mut self, _frame: Frame) {
        self.discarded += 1;
    }

    fn event(&mut self, event: Event) {
        if let Event::PathMtu { destination, mtu } = event {
            self.paths += 1;
            assert!(destination.is_ipv4() == self.v4);
            assert!(mtu <= self.mtu && mtu >= if self.v4 { 576 } else { 1280 }, "{mtu}");
        }
    }
}

fn address(v4: bool, n: u8) -> IpAddr {
    if v4 { IpAddr::from([192, 0, 2, n]) } else { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]) }
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the messages that were sent, the frames that were released, and the paths that were heard of.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let v4 = input.flag();
    let mut pool = POOL.take().unwrap_or_else(|| Pool::with_chunks(CHUNKS as u32, 0).expect("memory"));
    let mtu = input.one_of(&[1500u16, 9000, 1400]);
    let mut link = Link { mtu, v4, ..Link::default() };
    let mut now = Instant(1_000_000_000);
    let mut host = Host::new(config(v4, mtu, &mut input), now, &mut link);
    let (mut submitted, mut frames) = (0, 0);
    while !input.is_empty() && frames < 400 {
        frames += 1;
        let (sent, done) = (link.sent, link.released + link.discarded);
        match input.byte() % 8 {
            0 => {
                if let Some(frame) = pool.frame_from(&[0; 60]) {
                    submitted += 1;
                    host.submit(frame, address(v4, input.byte()), now, &mut link);
                }
            }
            1 => {
                now = Instant(now.0 + u64::from(input.word()) * 10_000_000);
                host.poll(now, &mut link);
                assert!(host.deadline() > now, "it is never done");
            }
            2 => host.configure(config(v4, mtu, &mut input), now, &mut link),
            kind => {
                let frame = frame(kind, &mut input, v4);
                host.receive(&frame, now, &mut link);
                assert!(link.sent - sent <= 2, "{} messages for one frame", link.sent - sent);
            }
        }
        assert!(link.released + link.discarded - done <= WAITING + 1);
        assert!(submitted - link.released - link.discarded <= WAITING, "frames wait");
        assert!(host.neighbours().count() <= OTHER_NEIGHBOURS + WANTED + 1);
        assert!(host.paths().count() <= PATHS);
    }
    host.close(now, &mut link);
    assert_eq!(submitted, link.released + link.discarded, "frames that were given to it");
    assert_eq!(pool.free_chunks().0, CHUNKS, "chunks");
    POOL.set(Some(pool));
    [link.sent as u64, link.released, link.paths as u64]
}

fn config(v4: bool, mtu: u16, input: &mut Input<'_>) -> HostConfig {
    let group = if v4 { IpAddr::from([239, 1, 1, 1]) } else { "ff05::1:1".parse().expect("an address") };
    HostConfig {
        mac: OURS,
        local: address(v4, 10),
        prefix_len: if v4 { input.one_of(&[24, 24, 30]) } else { input.one_of(&[64, 64, 126]) },
        gateway: input.one_of(&[None, Some(address(v4, 9))]),
        mtu,
        udp_port: 4789,
        groups: if input.flag() { vec![group] } else { Vec::new() },
        wanted: (11..11 + u8::try_from(WANTED).unwrap_or(0)).map(|n| address(v4, n)).collect(),
    }
}

/// Likely frames: questions and answers of ARP and ND, pings, queries, and ICMP that quotes a packet of ours; each with a
/// few bytes changed; and any bytes.
fn frame(kind: u8, input: &mut Input<'_>, v4: bool) -> Vec<u8> {
    if kind == 7 {
        let len = usize::from(input.byte());
        return input.bytes(len).to_vec();
    }
    let mut bytes = match input.byte() % 16 {
        0 => vec![0xff; 6],
        1 if v4 => vec![1, 0, 0x5e, 1, 1, 1],
        1 => vec![0x33, 0x33, 0, 0, 0, 1],
        _ => OURS.0.to_vec(),
    };
    bytes.extend([2, 0, 0, 0, 0, input.byte() % 4]);
    let sender = address(v4, input.byte() % 16);
    if v4 && kind == 3 {
        let IpAddr::V4(sender) = sender else { unreachable!() };
        bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, input.byte() % 3]);
        bytes.extend_from_within(6..12);
        bytes.extend(sender.octets());
        bytes.extend(OURS.0);
        bytes.extend([192, 0, 2, input.one_of(&[10, 10, 10, 11])]);
    } else {
        ip(&mut bytes, sender, &message(kind, input, v4), input, v4);
    }
    for _ in 0..input.one_of(&[0u8, 0, 0, 1, 2]) {
        let at = usize::from(input.byte());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= input.byte();
        }
    }
    let len = bytes.len() - usize::from(input.one_of(&[0u8, 0, 0, 7])).min(bytes.len());
    bytes.truncate(len);
    bytes
}

fn message(kind: u8, input: &mut Input<'_>, v4: bool) -> Vec<u8> {
    let IpAddr::V6(target) = address(false, input.one_of(&[10, 10, 11, 12])) else { unreachable!() };
    match kind {
        3 | 4 if !v4 => {
            let kind = 135 + input.byte() % 2;
            let mut message = vec![kind, 0, 0, 0, input.byte(), 0, 0, 0];
            message.extend(target.octets());
            message.extend([kind - 134, 1, 2, 0, 0, 0, 0, input.byte() % 4]);
            message
        }
        5 => {
            let query = if v4 { [0x11, input.byte(), 0, 0] } else { [130, 0, 0, 0] };
            let mut message = query.to_vec();
            message.extend(input.bytes(24));
            message
        }
        6 => {
            let mut message = if v4 { vec![3, 4, 0, 0] } else { vec![2, 0, 0, 0] };
            message.extend(u32::from(input.one_of(&[1400u16, 1280, 0, 576, 100, 1500])).to_be_bytes());
            message.extend(quote(input, v4));
            message
        }
        _ => {
            let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 2];
            message.resize(8 + usize::from(input.one_of(&[56u16, 0, 1, 1400, 1472, 1473])), 0x77);
            message
        }
    }
}

/// The beginning of a tunnel packet that we sent to some peer.
fn quote(input: &mut Input<'_>, v4: bool) -> Vec<u8> {
    let mut bytes = match (address(v4, 10), address(v4, input.byte())) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 17, 0, 0];
            ip.extend([from.octets(), to.octets()].concat());
            ip
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut ip = vec![0x60, 0, 0, 0, 5, 0xb4, 17, 64];
            ip.extend([from.octets(), to.octets()].concat());
            ip
        }
        _ => unreachable!("one version"),
    };
    bytes.extend([0xc3, 0x50, 0x12, 0xb5, 5, 0xc8, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0]);
    bytes
}

/// An IP packet for us around a message, with right checksums.
fn ip(bytes: &mut Vec<u8>, sender: IpAddr, message: &[u8], input: &mut Input<'_>, v4: bool) {
    let hops = input.one_of(&[255u8, 64, 1]);
    let at = bytes.len() + 2;
    let len = u16::try_from(message.len()).unwrap_or(0);
    let number = match (v4, message.first()) {
        (true, Some(0x11)) => protocol::IGMP,
        (true, _) => protocol::ICMP,
        (false, _) => protocol::ICMPV6,
    };
    match (sender, address(v4, 10)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + len).to_be_bytes());
            bytes.extend([0, 0, 0, 0, hops, number, 0, 0]);
            bytes.extend([from.octets(), to.octets()].concat());
            let sum = fold(words(&bytes[at..]));
            bytes[at + 10..at + 12].copy_from_slice(&sum);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([number, hops]);
            bytes.extend([from.octets(), to.octets()].concat());
        }
        _ => unreachable!("one version"),
    }
    let start = bytes.len();
    bytes.extend(message);
    let pseudo = if v4 { 0 } else { words(&bytes[at + 8..at + 40]) + u32::from(len) + u32::from(number) };
    let sum = fold(pseudo + words(&bytes[start..]));
    if let Some(field) = bytes.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&sum);
    }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}
