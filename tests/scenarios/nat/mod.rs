//! Guests behind a router's SNAT address, floating IPs and forwarded ports: who reaches whom, and as whom.

mod hairpin;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod rfc7857;
mod there_and_back;

use nuswitch::types::Mac;

use super::frames::*;
use super::ipv4::*;
use super::switch::*;

/// A tenant's network with guests `a` (10.0.0.10) and `b` (10.0.0.11) behind router `edge`, whose SNAT address is
/// 203.0.113.100; the world is behind port `w`, where 203.0.113.1 has MAC W.
pub const EDGE: &str = r#"
[[network]]
name = "public"
external = true
[[subnet]]
name = "public-v4"
network = "public"
cidr = "203.0.113.0/24"
allocation_pools = ["203.0.113.100-203.0.113.199"]

[[network]]
name = "blue"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"

[[router]]
name = "edge"
external_gateway = { network = "public", mac_address = "02:00:00:00:00:ee", external_fixed_ips = ["203.0.113.100"] }
interfaces = [{ subnet = "blue-v4", mac_address = "02:00:00:00:00:01" }]

[[port]]
name = "a"
network = "blue"
mac_address = "52:54:00:00:00:0a"
fixed_ips = ["10.0.0.10"]
interface = { kind = "packet", name = "eth-a" }

[[port]]
name = "b"
network = "blue"
mac_address = "52:54:00:00:00:0b"
fixed_ips = ["10.0.0.11"]
interface = { kind = "packet", name = "eth-b" }

[[port]]
name = "w"
network = "public"
fixed_ips = []
interface = { kind = "packet", name = "eth-w" }
"#;

pub const FLOATING: &str = r#"
[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.150"
port = "b"
"#;

const FORWARDED: &str = r#"
[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.151"
port_forwardings = [{ protocol = "tcp", external_port = 8080, port = "b", internal_port = 80 }]
"#;

const GATEWAY: &str = "02:00:00:00:00:01";
const EDGE_MAC: &str = "02:00:00:00:00:ee";
const W: &str = "02:00:00:00:00:77";

/// The switch after it has found the world's router.
pub fn settled(text: &str) -> Switch {
    let mut sw = Switch::from(text);
    sw.settle();
    sw.send(
        "w",
        spec(&format!("eth src={W} dst={EDGE_MAC} arp reply 203.0.113.1 is-at {W} to=203.0.113.100")),
    );
    sw.advance(secs(3));
    sw.settle();
    sw.forget();
    sw
}

/// Lets seconds pass; the world's router has answered for itself meanwhile.
fn wait(sw: &mut Switch, seconds: u64) {
    sw.advance(secs(seconds));
    sw.settle();
    sw.send(
        "w",
        spec(&format!("eth src={W} dst={EDGE_MAC} arp reply 203.0.113.1 is-at {W} to=203.0.113.100")),
    );
    sw.forget();
}

/// One segment of guest `a`'s connection to 198.51.100.9, from port 4000 to port 80; it passes.
fn step(sw: &mut Switch, from_a: bool, tcp: &str) {
    let (there, back) = (format!("tcp sport=4000 dport=80 {tcp}"), format!("tcp sport=80 dport=4000 {tcp}"));
    if from_a {
        sw.send("a", out_of(A, &format!("ip src=10.0.0.10 dst=198.51.100.9 {there}")));
        sw.expect("w", to_world(&format!("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 {there}")));
    } else {
        sw.send("w", from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 {back}")));
        sw.expect("a", into(A, &format!("ip src=198.51.100.9 dst=10.0.0.10 ttl=63 {back}")));
    }
    sw.forget();
}

/// That connection is open: the guest goes on at 101, the other end at 501.
fn open_connection(sw: &mut Switch) {
    for (from_a, tcp) in
        [(true, "flags=S seq=100"), (false, "flags=SA seq=500 ack=101"), (true, "flags=A seq=101 ack=501")]
    {
        step(sw, from_a, tcp);
    }
}

/// A packet of a frame in parts of so many bytes of data, each a frame.
fn pieces(whole: &Wire, size: usize) -> Vec<Wire> {
    let mut packet = whole.bytes[14..].to_vec();
    packet[4..6].copy_from_slice(&77u16.to_be_bytes());
    let frame = |part: &Vec<u8>| [&whole.bytes[..14], part].concat().wire();
    in_parts(&packet, size).iter().map(frame).collect()
}

/// A frame whose packet, without options, carries these bytes behind its transport header.
fn carrying(frame: Wire, payload: &[u8]) -> Wire {
    let mut bytes = frame.bytes;
    let header = 34 + if bytes[23] == 6 { 20 } else { 8 };
    bytes.truncate(header);
    bytes.extend(payload);
    let len = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    if bytes[23] == 17 {
        bytes[38..40].copy_from_slice(&(len - 20).to_be_bytes());
    }
    seal(&mut bytes[14..]);
    seal_transport(&mut bytes[14..]);
    bytes.wire()
}

/// An ICMP error as it comes from the world's router about what left by `w`.
fn told(from: [u8; 4], kind: (u8, u8), about: &Wire) -> Vec<u8> {
    let quote = &about.bytes[14..about.bytes.len().min(14 + 40)];
    let source = *about.bytes[26..].first_chunk().unwrap();
    icmp_error((from, source), kind, [0; 4], quote)
}

/// The packet in a frame of the world's router, to ours.
fn world_frame(packet: &[u8]) -> Wire {
    framed(W.parse().unwrap(), EDGE_MAC.parse().unwrap(), packet)
}

pub fn out_of(guest: nuswitch::types::Mac, packet: &str) -> Wire {
    spec(&format!("eth src={guest} dst={GATEWAY} {packet}"))
}

fn into(guest: nuswitch::types::Mac, packet: &str) -> Wire {
    spec(&format!("eth src={GATEWAY} dst={guest} {packet}"))
}

fn to_world(packet: &str) -> Wire {
    spec(&format!("eth src={EDGE_MAC} dst={W} {packet}"))
}

pub fn from_world(packet: &str) -> Wire {
    spec(&format!("eth src={W} dst={EDGE_MAC} {packet}"))
}

#[test]
fn a_guest_leaves_with_the_routers_address_and_answers_find_it() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=9"));
    sw.expect("w", to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53 len=9"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 ttl=50 udp sport=53 dport=4000 len=9"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=49 udp sport=53 dport=4000 len=9"));
    sw.advance(secs(0));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 51, forwarded 1, tx_frames 1, tx_bytes 51; \
         w: rx_frames 1, rx_bytes 51, forwarded 1, tx_frames 1, tx_bytes 51; \
         edge/blue-v4: tx_frames 1, tx_bytes 51, rx_frames 1, rx_bytes 51, forwarded 1; \
         edge/public-v4: tx_frames 1, tx_bytes 51, rx_frames 1, rx_bytes 51, forwarded 1",
    );
}

#[test]
fn ping_goes_out_and_comes_back() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 icmp echo id=7 seq=1 len=8"));
    sw.expect("w", to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 icmp echo id=7 seq=1 len=8"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 icmp echo id=7 seq=1 len=8"));
    let second = sw.take("w");
    let id = u16::from_be_bytes([second.bytes[38], second.bytes[39]]);
    assert_ne!(id, 7, "another guest's query");
    sw.send(
        "w",
        from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 icmp reply id={id} seq=1 len=8")),
    );
    sw.expect("b", into(B, "ip src=198.51.100.9 dst=10.0.0.11 ttl=63 icmp reply id=7 seq=1 len=8"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 icmp reply id=7 seq=1 len=8"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 icmp reply id=7 seq=1 len=8"));
    sw.forget();
}

#[test]
fn the_snat_address_itself_answers_ping() {
    let mut sw = settled(EDGE);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 icmp echo id=9 seq=1 len=8"));
    let reply = sw.take("w");
    assert_eq!((reply.bytes[34], &reply.bytes[26..30]), (0, &[203, 0, 113, 100][..]));
    sw.forget();
}

#[test]
fn a_floating_ip_is_its_guests_both_ways() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.150 tcp sport=999 dport=22 flags=S seq=5"));
    sw.expect("b", into(B, "ip src=198.51.100.9 dst=10.0.0.11 ttl=63 tcp sport=999 dport=22 flags=S seq=5"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 tcp sport=22 dport=999 flags=SA seq=8 ack=6"));
    sw.expect(
        "w",
        to_world("ip src=203.0.113.150 dst=198.51.100.9 ttl=63 tcp sport=22 dport=999 flags=SA seq=8 ack=6"),
    );
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=192.0.2.5 udp sport=5 dport=6"));
    sw.expect("w", to_world("ip src=203.0.113.150 dst=192.0.2.5 ttl=63 udp sport=5 dport=6"));
    sw.forget();
}

#[test]
fn a_floating_ip_answers_arp() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("w", spec(&format!("eth src={W} dst={BROADCAST} arp who-has 203.0.113.150 tell 203.0.113.1")));
    let answer = sw.take("w");
    assert_eq!(answer.bytes[22..28], EDGE_MAC.parse::<nuswitch::types::Mac>().unwrap().0);
    sw.forget();
}

#[test]
fn a_guest_pings_its_own_floating_ip() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.150 icmp echo id=7 seq=1"));
    sw.expect("b", into(B, "ip src=203.0.113.150 dst=10.0.0.11 ttl=63 icmp echo id=7 seq=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.150 icmp reply id=7 seq=1"));
    sw.expect("b", into(B, "ip src=203.0.113.150 dst=10.0.0.11 ttl=63 icmp reply id=7 seq=1"));
    sw.forget();
}

#[test]
fn a_guest_is_told_that_a_host_outside_does_not_answer() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.77 udp sport=4000 dport=53"));
    for _ in 0..4 {
        sw.advance(secs(1));
        sw.settle();
    }
    let told = sw.take("a").bytes;
    assert_eq!(told[26..34], [10, 0, 0, 1, 10, 0, 0, 10]);
    assert_eq!((told[34], told[35]), (3, 1), "host unreachable");
    assert_eq!(told[54..62], [10, 0, 0, 10, 203, 0, 113, 77], "about what the guest has sent");
    sw.forget();
}

#[test]
fn a_forwarded_port_leads_to_another() {
    let mut sw = settled(&format!("{EDGE}{FORWARDED}"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.151 tcp sport=999 dport=8080 flags=S seq=5"));
    sw.expect("b", into(B, "ip src=198.51.100.9 dst=10.0.0.11 ttl=63 tcp sport=999 dport=80 flags=S seq=5"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 tcp sport=80 dport=999 flags=SA seq=8 ack=6"));
    sw.expect(
        "w",
        to_world(
            "ip src=203.0.113.151 dst=198.51.100.9 ttl=63 tcp sport=8080 dport=999 flags=SA seq=8 ack=6",
        ),
    );
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.151 tcp sport=999 dport=81 flags=S seq=5"));
    sw.expect_nothing("b");
    sw.forget();
}

#[test]
fn a_floating_ip_moves_and_other_connections_stay() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.150 udp sport=999 dport=22"));
    sw.expect("b", into(B, "ip src=198.51.100.9 dst=10.0.0.11 ttl=63 udp sport=999 dport=22"));
    sw.reload(&format!("{EDGE}{}", FLOATING.replace("port = \"b\"", "port = \"a\"")));
    sw.forget();
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.150 udp sport=999 dport=22"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 udp sport=999 dport=22"));
    // What `a` had begun with the router's address goes on with it.
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.expect("w", to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53"));
    sw.forget();
}

#[test]
fn a_binding_ends_with_its_last_connection() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=6000 dport=53"));
    sw.forget();
    for _ in 0..320 {
        sw.advance(secs(1));
        sw.settle();
    }
    sw.forget();
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
}

/// It would hold a port for ever: what need not be translated has no connection that could let go of it.
#[test]
fn a_guest_cannot_send_as_the_address_that_all_share() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=203.0.113.100 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.expect_nothing("w");
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 42, forwarded 1; edge/blue-v4: tx_frames 1, tx_bytes 42, martian_source 1",
    );
    // The port is free.
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.expect("w", to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53"));
    sw.forget();
}
