//! VXLAN: what comes out of tunnels, what goes into them, and what neither does. A file for each topic; what they are
//! written with stands here.

use std::net::IpAddr;

use nuswitch::services::arp::{Arp, Operation};
use nuswitch::services::nd;
use nuswitch::types::Mac;
use nuswitch::wire::checksum::Sum;

use super::frames::{A, B, BROADCAST, C, IntoWire, frame, mac};
use super::switch::{Build, Switch, VTEP_MAC};

mod checksum;
mod ecn;
mod entries;
mod flood;
mod golden;
mod hostile;
mod learned;
mod mtu;
mod neighbours;
mod pair;
mod pmtu;
mod reload;
mod stations;
mod vtep;
mod workers;

/// The next hop to all peers, on a link of its own kind: the MAC of whoever answers there.
pub const PEER_MAC: Mac = mac(0x71);
pub const LOCAL: &str = "192.0.2.10";
pub const PEER: &str = "192.0.2.11";
pub const OTHER: &str = "192.0.2.12";
const LOCAL6: &str = "2001:db8::10";
const PEER6: &str = "2001:db8::11";
const OTHER6: &str = "2001:db8::12";

/// One network in tunnels to two peers, and a guest of ours in it.
pub const BLUE: &str = r#"
[overlay]
interface = "under0"
local_ip = "192.0.2.10/24"
peers = ["192.0.2.11", "192.0.2.12"]
[[network]]
name = "blue"
network_type = "vxlan"
segmentation_id = 1001
[[port]]
name = "a"
network = "blue"
port_security_enabled = false
interface = { kind = "tap", name = "a" }
mac_address = "52:54:00:00:00:0a"
"#;

/// A second guest of ours in `blue`, for the end of a configuration.
const SECOND: &str = r#"
[[port]]
name = "b"
network = "blue"
port_security_enabled = false
interface = { kind = "tap", name = "b" }
"#;

/// A network with a guest of ours that only one of the peers has.
const RED: &str = r#"
[[network]]
name = "red"
network_type = "vxlan"
segmentation_id = 2002
peers = ["192.0.2.12"]
[[port]]
name = "r"
network = "red"
port_security_enabled = false
interface = { kind = "tap", name = "r" }
"#;

/// [`BLUE`] over IPv6.
fn blue6() -> String {
    over_ipv6(BLUE)
}

/// A configuration with its underlay over IPv6.
fn over_ipv6(text: &str) -> String {
    text.replace("192.0.2.10/24", "2001:db8::10/64").replace("192.0.2.", "2001:db8::")
}

/// With more keys of the overlay.
fn overlay(text: &str, keys: &str) -> String {
    text.replace("[overlay]\n", &format!("[overlay]\n{keys}\n"))
}

/// With more keys of network `blue`.
fn network(text: &str, keys: &str) -> String {
    let line = "segmentation_id = 1001\n";
    assert!(text.contains(line));
    text.replace(line, &format!("{line}{keys}\n"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A packet of a tunnel, as another VTEP sends it.
#[derive(Clone)]
pub struct Packet {
    /// Destination and source of the outer frame.
    macs: [Mac; 2],
    from: IpAddr,
    to: IpAddr,
    /// ToS or traffic class.
    class: u8,
    ttl: u8,
    /// UDP ports, source and destination.
    ports: [u16; 2],
    flags: u8,
    vni: u32,
    inner: Vec<u8>,
}

/// From the first peer to us, in `blue`.
pub fn packet(inner: Vec<u8>) -> Packet {
    Packet {
        macs: [VTEP_MAC, PEER_MAC],
        from: ip(PEER),
        to: ip(LOCAL),
        class: 0,
        ttl: 64,
        ports: [50_000, 4789],
        flags: 8,
        vni: 1001,
        inner,
    }
}

/// The same over IPv6.
fn packet6(inner: Vec<u8>) -> Packet {
    packet(inner).from(PEER6).to(LOCAL6)
}

impl Packet {
    pub fn from(self, from: &str) -> Packet {
        Packet { from: ip(from), ..self }
    }

    fn to(self, to: &str) -> Packet {
        Packet { to: ip(to), ..self }
    }

    fn class(self, class: u8) -> Packet {
        Packet { class, ..self }
    }

    pub fn vni(self, vni: u32) -> Packet {
        Packet { vni, ..self }
    }

    pub fn flags(self, flags: u8) -> Packet {
        Packet { flags, ..self }
    }

    /// As we send it to `to`: what is wanted of a packet that left.
    fn ours(self, to: &str) -> Packet {
        let local = if self.from.is_ipv4() { LOCAL } else { LOCAL6 };
        Packet { macs: [PEER_MAC, VTEP_MAC], ..self.from(local).to(to) }
    }

    /// RFC 7348, section 5, written by hand.
    pub fn bytes(&self) -> Vec<u8> {
        let mut vxlan = vec![self.flags, 0, 0, 0];
        vxlan.extend((self.vni << 8).to_be_bytes());
        vxlan.extend(&self.inner);
        let len = u16::try_from(8 + vxlan.len()).unwrap();
        let [from, to] = self.ports.map(u16::to_be_bytes);
        let udp = [from, to, len.to_be_bytes(), [0, 0]].concat();
        let mut bytes = [self.macs[0].0, self.macs[1].0].concat();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, self.class];
                ip.extend((20 + len).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, self.ttl, 17, 0, 0]);
                ip.extend(from.octets());
                ip.extend(to.octets());
                let sum = Sum::of(&ip).checksum().to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                bytes.extend([8, 0]);
                bytes.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x86, 0xdd, 0x60 | self.class >> 4, self.class << 4, 0, 0]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([17, self.ttl]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            _ => panic!("two families"),
        }
        bytes.extend(udp);
        bytes.extend(vxlan);
        bytes
    }

    /// Where the UDP header begins.
    fn udp(&self) -> usize {
        if self.from.is_ipv4() { 34 } else { 54 }
    }

    /// With other bytes in the place of some.
    fn patched(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        self.bytes().wire().patch(at, bytes).bytes
    }

    /// The same with the IPv4 header's checksum right.
    fn resummed(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut packet = self.patched(at, bytes);
        packet[24..26].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&packet[14..34]).checksum().to_be_bytes();
        packet[24..26].copy_from_slice(&sum);
        packet
    }

    /// With a UDP checksum, taken over `summed` in the place of what it carries.
    fn with_checksum(&self, summed: Vec<u8>) -> Vec<u8> {
        let bytes = Packet { inner: summed, ..self.clone() }.bytes();
        let udp = self.udp();
        let addresses = if self.from.is_ipv4() { &bytes[26..34] } else { &bytes[22..54] };
        let len = u16::try_from(bytes.len() - udp).unwrap();
        let sum = Sum::of(addresses) + Sum::from(17) + Sum::from(len) + Sum::of(&bytes[udp..]);
        let sum = match sum.checksum() {
            0 => 0xffff, // RFC 768: zero would mean none
            sum => sum,
        };
        self.patched(udp + 6, &sum.to_be_bytes())
    }
}

/// The UDP source port of a tunnel packet that left.
fn source_port(packet: &[u8]) -> u16 {
    let udp = if packet[12..14] == [8, 0] { 34 } else { 54 };
    u16::from_be_bytes([packet[udp], packet[udp + 1]])
}

/// The next frame that the underlay's device sent is this packet, but for its source port, which is one of RFC 6335's
/// dynamic ones.
#[track_caller]
fn expect_packet(switch: &mut Switch, wanted: &Packet) {
    let sent = switch.take("overlay").bytes;
    assert_ports_apart(&sent, wanted);
}

#[track_caller]
fn assert_ports_apart(sent: &[u8], wanted: &Packet) {
    let port = source_port(sent);
    assert!(port >= 49152, "RFC 6335, section 6: {port}");
    let wanted = Packet { ports: [port, wanted.ports[1]], ..wanted.clone() }.bytes();
    assert!(sent == wanted, "there left\n  {}\nand this was expected\n  {}", hex(sent), hex(&wanted));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a neighbour of the underlay answers when we ask who has `ip`.
fn answer(address: &str, mac: Mac) -> Vec<u8> {
    match ip(address) {
        IpAddr::V4(sender) => {
            let target = LOCAL.parse().unwrap();
            let reply =
                Arp { operation: Operation::Reply, sender_mac: mac, sender, target_mac: VTEP_MAC, target };
            reply.message(VTEP_MAC).to_vec()
        }
        IpAddr::V6(target) => {
            nd::advertisement(mac, target, Some((LOCAL6.parse().unwrap(), VTEP_MAC)), false).to_vec()
        }
    }
}

/// The underlay's neighbours answer.
pub fn resolve(switch: &mut Switch, peers: &[&str]) {
    for peer in peers {
        switch.send("overlay", answer(peer, PEER_MAC));
    }
    switch.forget();
}

pub fn blue() -> Switch {
    started(BLUE)
}

/// A switch whose peers are resolved.
fn started(text: &str) -> Switch {
    resolved(Build::from(text))
}

/// One that asks for its peers, whom nobody has answered yet.
fn unresolved(build: Build) -> Switch {
    let mut switch = build.start();
    switch.settle();
    switch.forget();
    switch
}

fn resolved(build: Build) -> Switch {
    let mut switch = build.start();
    resolve(&mut switch, &[PEER, OTHER, PEER6, OTHER6]);
    switch
}

/// An inner frame of 60 bytes.
pub fn inner(to: Mac, from: Mac) -> Vec<u8> {
    frame().to(to).from(from).ethertype(0x88b5).wire().bytes
}

/// An IP packet of `len` bytes from A to B in a frame, with a header alone that is right. IPv4 says not to fragment it.
fn long(v4: bool, len: u16) -> Vec<u8> {
    let mut packet = [B.0, A.0].concat();
    if v4 {
        let mut ip = vec![0x45, 0];
        ip.extend(len.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = Sum::of(&ip).checksum().to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        packet.extend([8, 0]);
        packet.extend(ip);
    } else {
        packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        packet.extend((len - 40).to_be_bytes());
        packet.extend([17, 64]);
        packet.extend("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    packet.resize(14 + usize::from(len), 0x5a);
    packet
}
