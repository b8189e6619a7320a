//! VXLAN: what comes out of tunnels, what goes into them, and what neither does.

use std::net::IpAddr;

use nuswitch::frame::Caps;
use nuswitch::services::arp;
use nuswitch::types::Mac;
use nuswitch::wire::checksum::Sum;

use super::frames::{A, B, BROADCAST, C, frame, mac};
use super::switch::{ABLE, Build, PLAIN, Switch, VTEP_MAC};

pub const PEER_MAC: Mac = mac(0x71);
pub const LOCAL: &str = "192.0.2.10";
pub const PEER: &str = "192.0.2.11";
pub const OTHER: &str = "192.0.2.12";

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
interface = { kind = "tap", name = "a" }
mac_address = "52:54:00:00:00:0a"
"#;

/// A packet of a tunnel, as another VTEP sends it.
#[derive(Clone)]
pub struct Packet {
    from: IpAddr,
    to: IpAddr,
    vni: u32,
    flags: u8,
    inner: Vec<u8>,
}

pub fn packet(inner: Vec<u8>) -> Packet {
    Packet { from: PEER.parse().unwrap(), to: LOCAL.parse().unwrap(), vni: 1001, flags: 8, inner }
}

impl Packet {
    pub fn from(mut self, from: &str) -> Packet {
        self.from = from.parse().unwrap();
        self
    }

    pub fn vni(mut self, vni: u32) -> Packet {
        self.vni = vni;
        self
    }

    pub fn flags(mut self, flags: u8) -> Packet {
        self.flags = flags;
        self
    }

    /// RFC 7348, section 5, written by hand.
    pub fn bytes(&self) -> Vec<u8> {
        let mut vxlan = vec![self.flags, 0, 0, 0];
        vxlan.extend((self.vni << 8).to_be_bytes());
        vxlan.extend(&self.inner);
        let len = u16::try_from(8 + vxlan.len()).unwrap();
        let mut udp = [50_000u16.to_be_bytes(), 4789u16.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
        udp.extend(vxlan);
        let mut bytes = [VTEP_MAC.0, PEER_MAC.0].concat();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, 0];
                ip.extend((20 + len).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
                ip.extend(from.octets());
                ip.extend(to.octets());
                let sum = Sum::of(&ip).checksum().to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                bytes.extend([8, 0]);
                bytes.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([17, 64]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            _ => panic!("two families"),
        }
        bytes.extend(udp);
        bytes
    }
}

/// The underlay's neighbours answer: what their ARP replies look like.
pub fn resolve(switch: &mut Switch, peers: &[&str]) {
    for peer in peers {
        let reply = arp::Arp {
            operation: arp::Operation::Reply,
            sender_mac: PEER_MAC,
            sender: peer.parse().unwrap(),
            target_mac: VTEP_MAC,
            target: LOCAL.parse().unwrap(),
        };
        switch.send("overlay", reply.message(VTEP_MAC).to_vec());
    }
    switch.forget();
}

pub fn blue() -> Switch {
    let mut switch = Switch::from(BLUE);
    resolve(&mut switch, &[PEER, OTHER]);
    switch
}

pub fn inner(to: Mac, from: Mac) -> Vec<u8> {
    use super::frames::IntoWire;
    frame().to(to).from(from).wire().bytes
}

#[test]
fn a_frame_comes_out_of_a_tunnel_and_its_answer_goes_back_into_it() {
    let mut switch = blue();
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect("a", inner(A, B));
    assert_eq!(switch.knows("blue", B).as_deref(), Some(PEER));

    switch.send("a", inner(B, A));
    let sent = switch.take("overlay").bytes;
    let source_port = sent[34..36].to_vec();
    assert!(u16::from_be_bytes([source_port[0], source_port[1]]) >= 49152, "RFC 6335, section 6");
    let expected = Packet { from: LOCAL.parse().unwrap(), to: PEER.parse().unwrap(), ..packet(inner(B, A)) };
    let mut expected = expected.bytes();
    expected[..12].copy_from_slice(&[PEER_MAC.0, VTEP_MAC.0].concat());
    expected[34..36].copy_from_slice(&source_port);
    assert_eq!(sent, expected);
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1, tx_frames 1, tx_bytes 110; \
         192.0.2.11: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60; \
         a: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn what_is_flooded_goes_to_each_peer_and_never_from_one_to_another() {
    let mut switch = blue();
    switch.send("a", inner(BROADCAST, A));
    let to: Vec<Vec<u8>> = (0..2).map(|_| switch.take("overlay").bytes[30..34].to_vec()).collect();
    assert_eq!(to, [[192, 0, 2, 11], [192, 0, 2, 12]]);
    switch.expect_nothing("overlay");

    switch.send("overlay", packet(inner(BROADCAST, B)).bytes());
    switch.expect("a", inner(BROADCAST, B));
    switch.expect_nothing("overlay");
    switch.forget();

    switch.send("overlay", packet(inner(B, C)).from(OTHER).bytes());
    switch.expect_nothing("overlay");
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.12: rx_frames 1, rx_bytes 60, split_horizon 1",
    );
}

#[test]
fn hostile_packets_end_in_a_counter_of_their_own() {
    let good = packet(inner(A, B));
    let patched = |at: usize, bytes: &[u8]| {
        let mut packet = good.bytes();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let resummed = |at: usize, bytes: &[u8]| {
        let mut packet = patched(at, bytes);
        packet[24..26].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&packet[14..34]).checksum().to_be_bytes();
        packet[24..26].copy_from_slice(&sum);
        packet
    };
    let tagged = {
        let mut inner = inner(A, B);
        inner.splice(12..12, [0x81, 0, 0, 5]);
        inner
    };
    let cases = [
        (good.clone().flags(0xf7).bytes(), "tunnel_header"),
        (good.clone().vni(1002).bytes(), "unknown_vni"),
        (good.clone().from("192.0.2.99").bytes(), "unknown_peer"),
        (patched(22, &[63]), "outer_checksum"),
        (resummed(16, &[0, 200]), "outer_length"),
        (patched(38, &[0, 20]), "outer_length"),
        (patched(40, &[1, 2]), "outer_checksum"),
        (resummed(20, &[0x20, 0]), "outer_fragment"),
        (resummed(20, &[0, 9]), "outer_fragment"),
        (good.bytes()[..40].to_vec(), "outer_length"),
    ];
    let mut switch = blue();
    for (bytes, reason) in cases {
        let len = bytes.len();
        switch.send("overlay", bytes);
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, {reason} 1"));
    }
    let inner_cases = [
        (vec![1; 9], "inner_runt"),
        (tagged, "inner_tag"),
        (inner(A, VTEP_MAC), "nested_tunnel"),
        (inner(VTEP_MAC, B), "nested_tunnel"),
        (inner(A, BROADCAST), "source_multicast"),
    ];
    for (inner, reason) in inner_cases {
        let len = inner.len();
        switch.send("overlay", packet(inner).bytes());
        switch.expect_counters(&format!(
            "overlay: rx_frames 1, rx_bytes {}, consumed 1; 192.0.2.11: rx_frames 1, rx_bytes {len}, {reason} 1",
            len + 50
        ));
    }
    switch.expect_nothing("a");
}

#[test]
fn a_reserved_bit_changes_nothing() {
    let mut switch = blue();
    let mut bytes = packet(inner(A, B)).flags(0xff).bytes();
    bytes[43..46].copy_from_slice(&[0xff; 3]);
    bytes[49] = 0xff;
    switch.send("overlay", bytes);
    switch.expect("a", inner(A, B));
    switch.forget();
}

#[test]
fn frames_wait_for_the_next_hop_and_no_longer_than_it_takes() {
    let mut switch = Switch::from(BLUE);
    switch.forget();
    switch.send("a", inner(BROADCAST, A));
    let asked = switch.take_all("overlay");
    assert!(
        !asked.is_empty() && asked.iter().all(|frame| frame.bytes[12..14] == [8, 6]),
        "ARP only: {asked:?}"
    );
    let reply = arp::Arp {
        operation: arp::Operation::Reply,
        sender_mac: PEER_MAC,
        sender: PEER.parse().unwrap(),
        target_mac: VTEP_MAC,
        target: LOCAL.parse().unwrap(),
    };
    switch.send("overlay", reply.message(VTEP_MAC).to_vec());
    let sent = switch.take_all("overlay").remove(0).bytes;
    assert_eq!((&sent[..6], &sent[30..34]), (&PEER_MAC.0[..], &[192, 0, 2, 11][..]));
    assert_eq!(sent[50..], inner(BROADCAST, A));
    switch.forget();
}

#[test]
fn a_packet_that_does_not_fit_is_answered_and_not_lost_in_silence() {
    let caps = Caps { mtu: 1500, ..PLAIN };
    let mut switch = Build::from(BLUE).caps("a", ABLE).caps("overlay", caps).start();
    resolve(&mut switch, &[PEER, OTHER]);
    let mut long = vec![0; 14 + 1500];
    long[..14].copy_from_slice(&[&B.0[..], &A.0, &[8, 0]].concat());
    long[14..34]
        .copy_from_slice(&[0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = Sum::of(&long[14..34]).checksum().to_be_bytes();
    long[24..26].copy_from_slice(&sum);
    switch.send("a", long);
    let message = switch.take("a").bytes;
    assert_eq!((&message[..12], message[23], &message[34..36]), (&[A.0, B.0].concat()[..], 1, &[3, 4][..]));
    assert_eq!(
        u16::from_be_bytes([message[40], message[41]]),
        1450,
        "RFC 1191, section 4: the next hop's MTU"
    );
    switch.expect_nothing("overlay");
    switch.expect_counters("a: rx_frames 1, rx_bytes 1514, answered 1, tx_frames 1, tx_bytes 590");
}

#[test]
fn an_address_on_another_host_is_answered_for_and_nothing_is_flooded() {
    let text = BLUE.replace(
        "segmentation_id = 1001",
        "segmentation_id = 1001\nl2population = true\nremote_ports = [{ mac_address = \"52:54:00:00:00:0b\", \
         fixed_ips = [\"10.0.0.2\"], vtep = \"192.0.2.11\" }]",
    );
    let mut switch = Switch::from(&text);
    resolve(&mut switch, &[PEER]);
    let request = arp::request(A, "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), None);
    switch.send("a", request.to_vec());
    let reply = arp::Arp::parse(&switch.take("a").bytes).unwrap();
    assert_eq!((reply.sender_mac, reply.sender), (B, "10.0.0.2".parse().unwrap()));
    switch.send("a", inner(C, A));
    switch.expect_nothing("overlay");
    switch.send("a", inner(B, A));
    assert_eq!(switch.take("overlay").bytes[30..34], [192, 0, 2, 11]);
    switch.expect_counters(
        "a: rx_frames 3, rx_bytes 162, answered 1, no_receiver 1, forwarded 1, tx_frames 1, tx_bytes 42; \
         192.0.2.11: tx_frames 1, tx_bytes 60; overlay: tx_frames 1, tx_bytes 110",
    );
}

/// An inner TCP segment; its checksum is finished or, as a veth's peer leaves it, the pseudo-header's sum.
fn segment(finished: bool) -> Vec<u8> {
    let mut tcp = [&[0x30, 0x39, 0, 80][..], &[0; 8], &[0x50, 0x10, 1, 0, 0, 0, 0, 0], b"payload!"].concat();
    let len = u16::try_from(tcp.len()).unwrap();
    let pseudo = Sum::of(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6]) + Sum::from(len);
    let sum = if finished { (pseudo + Sum::of(&tcp)).checksum() } else { pseudo.fold() };
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    let sum = Sum::of(&ip).checksum().to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&A.0[..], &B.0, &[8, 0], &ip, &tcp].concat()
}

/// A packet with a UDP checksum, taken over `summed` in the place of what it carries.
fn with_checksum(packet: &Packet, summed: Vec<u8>) -> Vec<u8> {
    let bytes = Packet { inner: summed, ..packet.clone() }.bytes();
    let len = u16::try_from(bytes.len() - 34).unwrap();
    let sum = Sum::of(&bytes[26..34]) + Sum::from(17) + Sum::from(len) + Sum::of(&bytes[34..]);
    let mut sent = packet.bytes();
    sent[40..42].copy_from_slice(&sum.checksum().to_be_bytes());
    sent
}

#[test]
fn an_outer_checksum_that_is_there_must_be_right() {
    let mut switch = blue();
    let whole = packet(segment(true));
    switch.send("overlay", with_checksum(&whole, segment(true)));
    switch.expect("a", segment(true));

    let mut broken = with_checksum(&whole, segment(true));
    *broken.last_mut().unwrap() ^= 1;
    switch.forget();
    switch.send("overlay", broken);
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 112, outer_checksum 1");
}

#[test]
fn an_outer_checksum_may_stand_for_an_inner_one_that_is_still_unfinished() {
    let mut switch = Build::from(BLUE).caps("a", PLAIN).start();
    resolve(&mut switch, &[PEER, OTHER]);
    let unfinished = packet(segment(false));
    switch.send("overlay", with_checksum(&unfinished, segment(true)));
    switch.expect("a", segment(true));

    let mut broken = with_checksum(&unfinished, segment(true));
    broken[41] ^= 1;
    switch.forget();
    switch.send("overlay", broken);
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 112, outer_checksum 1");
}
