//! Guests behind a router's SNAT address, floating IPs and forwarded ports: who reaches whom, and as whom.

use super::frames::*;
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
fn rfc_4787_req_1_an_inside_port_is_the_same_outside_towards_everybody() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4000 dport=1"));
    let first = sw.take("w");
    assert_eq!(first.bytes[34..36], 4000u16.to_be_bytes(), "kept where it is free");
    let second = sw.take("w");
    let port = u16::from_be_bytes([second.bytes[34], second.bytes[35]]);
    assert_ne!(port, 4000);
    assert_eq!(port % 2, 0, "REQ-4: parity is kept");
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=192.0.2.77 udp sport=4000 dport=9"));
    let third = sw.take("w");
    assert_eq!(third.bytes[34..36], port.to_be_bytes());
    sw.forget();
}

#[test]
fn rfc_4787_req_8_only_those_who_were_sent_to_are_let_in() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.forget();
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect_nothing("a");
    sw.expect_nothing("w");
    sw.advance(secs(0));
    sw.expect_counters(
        "w: rx_frames 1, rx_bytes 42, forwarded 1; edge/public-v4: tx_frames 1, tx_bytes 42, nat_unmatched 1",
    );
}

#[test]
fn filtering_may_be_independent_of_the_endpoint() {
    let open =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"endpoint-independent\"\n");
    let mut sw = settled(&open);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=192.0.2.77 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect("a", into(A, "ip src=192.0.2.77 dst=10.0.0.10 ttl=63 udp sport=54 dport=4000"));
    sw.forget();
}

#[test]
fn rfc_5382_req_4_an_unasked_syn_is_dropped_in_silence() {
    let mut sw = settled(EDGE);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=54 dport=4000 flags=S"));
    sw.expect_nothing("w");
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn a_tcp_connection_opens_and_closes_through_snat() {
    let mut sw = settled(EDGE);
    let steps = [
        ("a", "sport=4000 dport=80 flags=S seq=100"),
        ("w", "sport=80 dport=4000 flags=SA seq=500 ack=101"),
        ("a", "sport=4000 dport=80 flags=A seq=101 ack=501 len=10"),
        ("w", "sport=80 dport=4000 flags=FA seq=501 ack=111"),
        ("a", "sport=4000 dport=80 flags=FA seq=111 ack=502"),
        ("w", "sport=80 dport=4000 flags=A seq=502 ack=112"),
    ];
    for (from, tcp) in steps {
        if from == "a" {
            sw.send("a", out_of(A, &format!("ip src=10.0.0.10 dst=198.51.100.9 tcp {tcp}")));
            sw.expect("w", to_world(&format!("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 tcp {tcp}")));
        } else {
            sw.send("w", from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 tcp {tcp}")));
            sw.expect("a", into(A, &format!("ip src=198.51.100.9 dst=10.0.0.10 ttl=63 tcp {tcp}")));
        }
    }
    sw.forget();
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
fn rfc_4787_req_9_a_guest_reaches_floating_ips_its_own_too() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.150 udp sport=5 dport=6"));
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=5 dport=6"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 udp sport=6 dport=5"));
    sw.expect("a", into(A, "ip src=203.0.113.150 dst=10.0.0.10 ttl=63 udp sport=6 dport=5"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.150 udp sport=7 dport=8"));
    sw.expect("b", into(B, "ip src=203.0.113.150 dst=10.0.0.11 ttl=63 udp sport=7 dport=8"));
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
fn rfc_5508_req_4_an_error_from_the_world_finds_the_guest() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=20"));
    let sent = sw.take("w");
    // A router on the way says that the TTL has ended: it quotes what it got.
    let quote: Vec<u8> = sent.bytes[14..14 + 28].to_vec();
    let mut error =
        spec(&format!("eth src={W} dst={EDGE_MAC} ip src=192.0.2.254 dst=203.0.113.100 icmp echo len=28"))
            .bytes;
    error[34..42].copy_from_slice(&[11, 0, 0, 0, 0, 0, 0, 0]);
    error[42..70].copy_from_slice(&quote);
    let sum = naive_checksum(&error[34..70]);
    error[36..38].copy_from_slice(&sum.to_be_bytes());
    sw.send("w", error);
    let told = sw.take("a").bytes;
    assert_eq!(told[26..34], [192, 0, 2, 254, 10, 0, 0, 10]);
    assert_eq!(told[42 + 12..42 + 20], [10, 0, 0, 10, 198, 51, 100, 9], "what the guest has sent");
    assert_eq!(told[42 + 20..42 + 22], 4000u16.to_be_bytes());
    assert_eq!(naive_checksum(&told[34..70]), 0);
    assert_eq!(naive_checksum(&told[14..34]), 0);
    assert_eq!(naive_checksum(&told[42..62]), 0, "the quoted header's too");
    sw.forget();
}

fn naive_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
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

/// An IPv4 packet in pieces of so many bytes, each a frame.
fn pieces(whole: &Wire, size: usize) -> Vec<Wire> {
    let (head, data) = (&whole.bytes[..34], &whole.bytes[34..]);
    let count = data.len().div_ceil(size);
    (0..count)
        .map(|n| {
            let part = &data[n * size..data.len().min((n + 1) * size)];
            let mut bytes = head.to_vec();
            bytes[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            let more = if n + 1 < count { 0x2000 } else { 0 };
            bytes[18..20].copy_from_slice(&77u16.to_be_bytes());
            bytes[20..22].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
            bytes[24..26].copy_from_slice(&[0, 0]);
            let sum = naive_checksum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(part);
            bytes.wire()
        })
        .collect()
}

#[test]
fn fragments_follow_their_flow_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut sw = settled(EDGE);
        let sent = pieces(&out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=60"), 24);
        let wanted = pieces(
            &to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53 len=60"),
            24,
        );
        for n in order {
            sw.send("a", sent[n].clone());
        }
        let mut got = sw.take_all("w");
        got.sort_by_key(|piece| piece.bytes[20..22].to_vec().iter().map(|b| b & 0x1f).collect::<Vec<_>>());
        assert_eq!(got.len(), 3, "{order:?}");
        for piece in &wanted {
            assert!(got.contains(piece), "{order:?}: {piece:?} is not among {got:?}");
        }
        sw.forget();
    }
}

#[test]
fn a_fragment_whose_first_never_comes_is_dropped() {
    let mut sw = settled(EDGE);
    let sent = pieces(&out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=60"), 24);
    sw.send("a", sent[1].clone());
    for _ in 0..20 {
        sw.advance(secs(1));
        sw.settle();
    }
    sw.expect_nothing("w");
    sw.expect_counters(&format!(
        "a: rx_frames 1, rx_bytes {0}, forwarded 1; edge/blue-v4: tx_frames 1, tx_bytes {0}, fragment_expired 1",
        sent[1].len()
    ));
}

#[test]
fn filtering_may_depend_on_the_address_alone() {
    let by_address =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"address-dependent\"\n");
    let mut sw = settled(&by_address);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 udp sport=54 dport=4000"));
    sw.send("w", from_world("ip src=192.0.2.77 dst=203.0.113.100 udp sport=53 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
}
