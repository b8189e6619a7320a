//! The service that the switch itself is on every network: DHCP, router solicitations, metadata. Whoever asks is known by the
//! port that it asks at.

use super::frames::*;
use super::ipv4::{checksum, seal};
use super::switch::*;

/// Two networks with the same addresses, a guest in each, behind a router of their own; `b` is on `red` too, a station that
/// nobody knows; `up` is the way out of `out`.
const LAB: &str = r#"
physical_network = [{ name = "up", interface = "eth-up", driver = "packet" }]
network = [
  { name = "red", dns_domain = "red.lab" },
  { name = "blue" },
  { name = "out", network_type = "flat", physical_network = "up", metadata = "off" },
]
subnet = [
  { name = "red-v4", network = "red", cidr = "10.0.0.0/24", dns_nameservers = ["192.0.2.53"] },
  { name = "red-v6", network = "red", cidr = "2001:db8::/64", ipv6_ra_mode = "dhcpv6-stateful", ipv6_address_mode = "dhcpv6-stateful" },
  { name = "blue-v4", network = "blue", cidr = "10.0.0.0/24" },
  { name = "out-v4", network = "out", cidr = "203.0.113.0/24" },
]
router = [
  { name = "r", interfaces = [{ subnet = "red-v4", mac_address = "02:00:00:00:01:01" }, { subnet = "red-v6", mac_address = "02:00:00:00:01:06" }] },
]
port = [
  { name = "a", network = "red", mac_address = "52:54:00:00:00:0a", fixed_ips = ["10.0.0.10", "2001:db8::10"], interface = { kind = "packet", name = "eth-a" } },
  { name = "b", network = "red", interface = { kind = "packet", name = "eth-b" } },
  { name = "c", network = "blue", mac_address = "52:54:00:00:00:0c", fixed_ips = ["10.0.0.10"], interface = { kind = "packet", name = "eth-c" } },
  { name = "d", network = "out", mac_address = "52:54:00:00:00:0d", fixed_ips = ["203.0.113.9"], interface = { kind = "packet", name = "eth-d" } },
]
"#;

const SERVICE: &str = "02:00:a9:fe:a9:fe";
const ROUTER: &str = "02:00:00:00:01:01";

/// A lab whose router has announced itself.
fn lab() -> Switch {
    settled(LAB)
}

fn settled(text: &str) -> Switch {
    let mut sw = Switch::from(text);
    for _ in 0..30 {
        sw.settle();
        sw.advance(secs(1));
    }
    for port in ["a", "b", "c", "d", "up"] {
        sw.take_all(port);
    }
    sw.punts();
    sw.forget();
    sw
}

/// A client's message: its type, its MAC, and options behind the type.
fn dhcp(kind: u8, client: u8, to: &str, addresses: &str, options: &[u8]) -> Wire {
    let mac = format!("52:54:00:00:00:{client:02x}");
    let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef];
    message.resize(28, 0);
    message.extend([0x52, 0x54, 0, 0, 0, client]);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    let text = format!("eth src={mac} dst={to} ip {addresses} udp sport=68 dport=67 len={}", message.len());
    // Without a checksum (RFC 768).
    spec(&text).patch(40, &[0, 0]).patch(42, &message)
}

fn discover(client: u8) -> Wire {
    dhcp(1, client, "ff:ff:ff:ff:ff:ff", "src=0.0.0.0 dst=255.255.255.255", &[])
}

/// Type and address of a reply from the service.
#[track_caller]
fn reply(wire: &Wire) -> (u8, [u8; 4]) {
    let bytes = &wire.bytes;
    assert_eq!(bytes[6..12], [2, 0, 0xa9, 0xfe, 0xa9, 0xfe]);
    assert_eq!(bytes[26..30], [169, 254, 169, 254]);
    assert_eq!((bytes[42], &bytes[46..50]), (2, &[0xde, 0xad, 0xbe, 0xef][..]));
    assert_eq!(bytes[282..284], [53, 1]);
    (bytes[284], bytes[58..62].try_into().unwrap())
}

/// An option's value in a reply.
fn option(wire: &Wire, code: u8) -> Option<Vec<u8>> {
    let mut options = &wire.bytes[282..];
    while let [found, len, rest @ ..] = options {
        let (value, rest) = rest.split_at(usize::from(*len));
        if *found == code {
            return Some(value.to_vec());
        }
        options = rest;
    }
    None
}

#[test]
fn a_guest_gets_its_address_and_nobody_else_hears_it_ask() {
    let mut sw = lab();
    sw.send("a", discover(0xa));
    let offer = sw.take("a");
    assert_eq!(reply(&offer), (2, [10, 0, 0, 10]));
    assert_eq!(option(&offer, 1), Some(vec![255, 255, 255, 0]));
    assert_eq!(option(&offer, 54), Some(vec![169, 254, 169, 254]));
    assert_eq!(option(&offer, 6), Some(vec![192, 0, 2, 53]));
    assert_eq!(option(&offer, 15), Some(b"red.lab".to_vec()));
    assert_eq!(option(&offer, 12), Some(b"a".to_vec()));
    // Metadata by the router, which is ours, and all else too.
    assert_eq!(option(&offer, 121), Some(vec![32, 169, 254, 169, 254, 10, 0, 0, 1, 0, 10, 0, 0, 1]));
    sw.expect_nothing("b");
    sw.expect_counters("a: rx_frames 1, rx_bytes 286, answered 1, tx_frames 1, tx_bytes 377");
}

#[test]
fn where_no_router_is_ours_metadata_is_on_the_link() {
    let mut sw = lab();
    sw.send("c", discover(0xc));
    let offer = sw.take("c");
    assert_eq!(reply(&offer), (2, [10, 0, 0, 10]));
    assert_eq!(option(&offer, 121), Some(vec![32, 169, 254, 169, 254, 0, 0, 0, 0, 0, 10, 0, 0, 1]));
    sw.forget();
}

/// By the router: a guest without the route to the service has no nearer way (RFC 2131, 4.3.2: RENEWING).
#[test]
fn a_lease_is_renewed_on_the_link_and_by_the_router() {
    for to in [SERVICE, ROUTER] {
        let mut sw = lab();
        let request = dhcp(3, 0xa, to, "src=10.0.0.10 dst=169.254.169.254", &[]).patch(54, &[10, 0, 0, 10]);
        sw.send("a", request);
        assert_eq!(reply(&sw.take("a")), (5, [10, 0, 0, 10]), "to {to}");
        sw.forget();
    }
}

#[test]
fn a_client_that_is_not_the_port_s_is_not_served() {
    let mut sw = lab();
    sw.send("a", discover(0xc));
    sw.expect_nothing("a");
    sw.expect_nothing("b");
    sw.expect_counters("a: rx_frames 1, rx_bytes 286, dhcp_other_client 1");
}

#[test]
fn who_is_behind_a_port_that_nobody_knows_may_have_a_server_of_its_own() {
    let mut sw = lab();
    let ask = discover(0xb);
    sw.send("b", ask.clone());
    sw.expect("a", ask);
    // And so may those outside.
    let ask = discover(0xe);
    sw.send("up", ask.clone());
    sw.expect("d", ask);
    sw.forget();
}

#[test]
fn the_address_of_the_service_is_answered_for_to_guests_alone() {
    let mut sw = lab();
    let ask = |mac: &str| spec(&format!("eth src={mac} arp who-has 169.254.169.254 tell 10.0.0.10"));
    sw.send("a", ask("52:54:00:00:00:0a"));
    assert_eq!(sw.take("a").bytes[22..28], [2, 0, 0xa9, 0xfe, 0xa9, 0xfe]);
    sw.send("b", ask("52:54:00:00:00:0b"));
    sw.expect_nothing("b");
    assert_eq!(sw.take_all("a").len(), 1);
    // Nor where there is no metadata, and DHCP alone is answered.
    let ping =
        "eth src=52:54:00:00:00:0a dst=02:00:a9:fe:a9:fe ip src=10.0.0.10 dst=169.254.169.254 icmp echo";
    sw.send("a", spec(ping));
    assert_eq!(sw.take("a").bytes[26..30], [169, 254, 169, 254]);
    sw.send("a", spec(&ping.replace(SERVICE, ROUTER)));
    assert_eq!(sw.take("a").bytes[34], 0);
    sw.forget();
}

#[test]
fn metadata_goes_to_the_slow_path_with_the_guest_s_port() {
    let mut sw = lab();
    let syn = |mac: u8, to: &str| {
        spec(&format!(
            "eth src=52:54:00:00:00:{mac:02x} dst={to} ip src=10.0.0.10 dst=169.254.169.254 tcp sport=4000 dport=80 flags=S"
        ))
    };
    // Both guests have the same address.
    for (port, mac) in [("a", 0xa), ("c", 0xc)] {
        let frame = syn(mac, SERVICE);
        sw.send(port, frame.clone());
        assert_eq!(sw.punts(), [(port.to_owned(), frame.bytes)]);
    }
    let frame = syn(0xa, ROUTER);
    sw.send("a", frame.clone());
    assert_eq!(sw.punts(), [("a".to_owned(), frame.bytes)]);
    sw.forget();
    sw.send("b", syn(0xb, SERVICE));
    sw.expect_counters("b: rx_frames 1, rx_bytes 54, no_service 1");
    assert!(sw.punts().is_empty());
    sw.forget();
}

/// A stack that ends TCP in software can tell a broken frame from one whose checksum was left to a device.
#[test]
fn the_slow_path_gets_finished_segments() {
    let mut sw = lab();
    let mut whole = gso(Kind::Tcp4, 3000, 1400);
    whole = whole.patch(0, &[2, 0, 0xa9, 0xfe, 0xa9, 0xfe, 0x52, 0x54, 0, 0, 0, 0xa]);
    whole = whole.patch(30, &[169, 254, 169, 254]).patch(36, &[0, 80]);
    seal(&mut whole.bytes[14..]);
    sw.send("a", whole);
    let punts = sw.punts();
    assert_eq!(punts.len(), 3);
    for (port, frame) in &punts {
        assert_eq!(port, "a");
        assert!(frame.len() <= 14 + 20 + 60 + 1400);
    }
    sw.forget();
}

#[test]
fn a_guest_that_floods_the_slow_path_costs_no_other_guest_its_place() {
    let mut sw = lab();
    let syn = spec(
        "eth src=52:54:00:00:00:0a dst=02:00:a9:fe:a9:fe ip src=10.0.0.10 dst=169.254.169.254 tcp sport=1 dport=80 flags=S",
    );
    for _ in 0..2000 {
        sw.send("a", syn.clone());
    }
    assert_eq!(sw.punts().len(), 1000);
    assert_eq!(sw.counters("a").snapshot().drops["slow_path_full"], 1000);
    let other = syn.patch(11, &[0xc]);
    sw.send("c", other.clone());
    assert_eq!(sw.punts(), [("c".to_owned(), other.bytes)]);
    sw.advance(secs(1));
    sw.send("a", spec("eth src=52:54:00:00:00:0a dst=02:00:a9:fe:a9:fe ip src=10.0.0.10 dst=169.254.169.254 tcp dport=80 flags=S"));
    assert_eq!(sw.punts().len(), 1);
    sw.forget();
}

#[test]
fn the_slow_path_answers_by_the_port_s_own_worker() {
    let mut sw = lab();
    let answer = spec(
        "eth src=02:00:a9:fe:a9:fe dst=52:54:00:00:00:0a ip src=169.254.169.254 dst=10.0.0.10 tcp sport=80 dport=4000 flags=SA",
    );
    sw.answer("a", "red", &answer.bytes);
    sw.expect("a", answer);
    sw.expect_nothing("b");
    sw.forget();
}

/// RFC 4861, 4.1; its source, fe80::5054:ff:fe00:a, and the message's checksum.
fn solicitation() -> Wire {
    let mut bytes = vec![0x33, 0x33, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 0x0a, 0x86, 0xdd];
    bytes.extend([0x60, 0, 0, 0, 0, 8, 58, 255]);
    bytes.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 0, 0x0a]);
    bytes.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend([133, 0, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(&[&bytes[22..54], &bytes[18..20], &[0, 58], &bytes[54..]]);
    bytes.wire().patch(56, &sum.to_be_bytes())
}

#[test]
fn a_guest_hears_of_the_router_and_asks_by_dhcpv6() {
    let mut sw = lab();
    sw.send("a", solicitation());
    let told = sw.take("a").bytes;
    assert_eq!(told[54], 134);
    // Managed: addresses come by DHCPv6.
    assert_eq!(told[59] & 0xc0, 0x80);
    sw.forget();
}

/// A client without a port goes to the pools; one with a port is answered as ever.
#[test]
fn strangers_get_addresses_only_where_the_network_says_so() {
    let text = LAB.replace(r#"{ name = "red","#, r#"{ name = "red", dynamic_leases = true,"#);
    let mut sw = settled(&format!("switch.state = \"unused\"\n{text}"));
    for port in ["a", "b"] {
        let ask = discover(0x77);
        sw.send(port, ask.clone());
        assert_eq!(sw.punts(), [(port.to_owned(), ask.bytes)]);
    }
    sw.expect_nothing("a");
    // They renew at the server's own address (RFC 2131, 4.4.5), for which it answers.
    sw.send("b", spec("eth src=52:54:00:00:00:77 arp who-has 169.254.169.254 tell 10.0.0.77"));
    assert_eq!(sw.take("b").bytes[22..28], [2, 0, 0xa9, 0xfe, 0xa9, 0xfe]);
    sw.send("a", discover(0xa));
    assert_eq!(reply(&sw.take("a")), (2, [10, 0, 0, 10]));
    assert!(sw.punts().is_empty());
    sw.forget();
}

/// Port security would not let it use what it was given.
#[test]
fn a_port_with_port_security_gets_no_address_out_of_a_pool() {
    let text = LAB.replace(r#"{ name = "red","#, r#"{ name = "red", dynamic_leases = true,"#).replace(
        r#"fixed_ips = ["10.0.0.10", "2001:db8::10"],"#,
        r#"fixed_ips = ["2001:db8::10"], port_security_enabled = true,"#,
    );
    let text = format!("switch.state = \"unused\"\n{text}");
    let mut sw = settled(&text);
    let ask = discover(0xa);
    sw.send("a", ask.clone());
    assert!(sw.punts().is_empty());
    sw.expect_counters(&format!("a: rx_frames 1, rx_bytes {}, dhcp_no_lease 1", ask.len()));
    // Where it may send from the pool's addresses, it is given one.
    let wide = r#"port_security_enabled = true, allowed_address_pairs = [{ ip_address = "10.0.0.0/24" }]"#;
    let mut sw = settled(&text.replace("port_security_enabled = true", wide));
    sw.send("a", ask.clone());
    assert_eq!(sw.punts(), [("a".to_owned(), ask.bytes)]);
    sw.forget();
}

#[test]
fn a_trace_says_what_the_service_does() {
    let mut sw = lab();
    let traced = sw.explain("a", discover(0xa));
    assert_eq!(traced.verdict, "answered");
    let said: Vec<&str> = traced.steps.iter().map(|step| step.text.as_str()).collect();
    assert!(said.contains(&"DHCP: DHCPDISCOVER, offered 10.0.0.10"), "{said:?}");
}
