//! What an honest guest sends passes, and each trick that is known is refused by its name.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::cli::frame_spec;
use crate::dataplane::segment;
use crate::frame::{Offload, Pool};
use crate::tables::security::Station;
use DropReason as Drop;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::with_chunks(4, 1).unwrap());
}

const OWN: &str = "52:54:00:00:00:0a";
const PAIR: &str = "00:00:5e:00:01:07";
const OTHER: &str = "52:54:00:00:00:0b";
const OWN_LL: &str = "fe80::5054:ff:fe00:a";

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn station(of: &str, v4: &[&str], v6: &[&str]) -> Station {
    let v4 = v4.iter().map(|net| net.parse().unwrap()).collect();
    Station { mac: mac(of), v4, v6: v6.iter().map(|net| net.parse().unwrap()).collect() }
}

/// A guest with an address, a prefix that is routed to it, and a virtual router's MAC and address.
fn claims() -> Claims {
    let stations = vec![
        station(
            OWN,
            &["10.0.0.5/32", "10.0.9.0/24"],
            &["2001:db8::5/128", "2001:db8:9::/64", "fe80::5054:ff:fe00:a/128"],
        ),
        station(PAIR, &["10.0.0.100/32"], &["2001:db8::100/128", "fe80::200:5eff:fe00:107/128"]),
    ];
    Claims { stations, any_address: false }
}

/// One on a network without subnets.
fn stranger() -> Claims {
    Claims { stations: vec![station(OWN, &[], &[OWN_LL_NET])], any_address: true }
}

const OWN_LL_NET: &str = "fe80::5054:ff:fe00:a/128";

fn spec(text: &str) -> Vec<u8> {
    frame_spec::parse(text).unwrap()
}

fn own(rest: &str) -> Vec<u8> {
    spec(&format!("eth src={OWN} dst={OTHER} {rest}"))
}

fn with_note(claims: &Claims, bytes: &[u8], offload: Offload) -> Result<(), Drop> {
    POOL.with_borrow_mut(|pool| {
        let mut frame = pool.frame_from(bytes).unwrap();
        frame.offload = offload;
        // As ingress does.
        segment::check(&mut frame)?;
        Checker::new(claims).check(&frame)
    })
}

fn check(bytes: &[u8]) -> Result<(), Drop> {
    with_note(&claims(), bytes, Offload::NONE)
}

/// What becomes of it where nothing is known of addresses.
fn check_stranger(bytes: &[u8]) -> Result<(), Drop> {
    with_note(&stranger(), bytes, Offload::NONE)
}

fn patch(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// An IPv4 packet with `options` behind its header.
fn with_options(bytes: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.splice(34..34, options.iter().copied());
    bytes[14] += u8::try_from(options.len() / 4).unwrap();
    let total = u16::try_from(bytes.len() - 14).unwrap().to_be_bytes();
    patch(bytes, 16, &total)
}

fn udp4(source: &str, ports: (u16, u16)) -> Vec<u8> {
    own(&format!("ip src={source} dst=10.0.0.9 udp sport={} dport={} len=40", ports.0, ports.1))
}

fn udp6(source: &str, ports: (u16, u16)) -> Vec<u8> {
    own(&format!("ip src={source} dst=2001:db8::9 udp sport={} dport={} len=40", ports.0, ports.1))
}

/// From the guest's own MAC: an IPv6 packet.
fn v6(from: &str, to: &str, next: u8, rest: &[u8]) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let ip = [&[0x60, 0, 0, 0, len[0], len[1], next, 255][..], &octets(from), &octets(to), rest].concat();
    [&mac("33:33:00:00:00:01").0[..], &mac(OWN).0, &[0x86, 0xdd], &ip].concat()
}

/// With `headers` between the IPv6 header and what it carries: their kinds, and their bytes but for the first.
fn extended(bytes: &[u8], headers: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (kind, header) in headers.iter().rev() {
        let next = std::mem::replace(&mut bytes[20], *kind);
        bytes.splice(54..54, [&[next][..], header].concat());
    }
    let len = u16::try_from(bytes.len() - 54).unwrap().to_be_bytes();
    patch(bytes, 18, &len)
}

const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const AUTHENTICATION: &[u8] = &[4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FIRST: &[u8] = &[0, 0, 1, 0, 0, 0, 7];
const LATER: &[u8] = &[0, 0, 9, 0, 0, 0, 7];
const ATOMIC: &[u8] = &[0, 0, 0, 0, 0, 0, 7];

/// ICMPv6: a type, and what follows the checksum.
fn icmp6(from: &str, to: &str, kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    v6(from, to, 58, &[&[kind, 0, 0, 0][..], &rest.concat()].concat())
}

fn option(kind: u8, of: &str) -> Vec<u8> {
    [&[kind, 1][..], &mac(of).0].concat()
}

fn nd(from: &str, to: &str, kind: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let target = target.parse::<std::net::Ipv6Addr>().unwrap().octets();
    icmp6(from, to, kind, &[&[0; 4], &target, options])
}

fn arp(source: &str, operation: u8, sender: (&str, &str), target: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let head = [&Mac::BROADCAST.0[..], &mac(source).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head[..], &mac(sender.0).0, &octets(sender.1), &[0; 6], &octets(target)].concat()
}

#[test]
fn what_honest_guests_send_passes() {
    let pair = |rest: &str| spec(&format!("eth src={PAIR} dst={OTHER} {rest}"));
    let query = "ip src=0.0.0.0 dst=255.255.255.255 udp sport=68 dport=67 len=300";
    let igmp = "ip src=0.0.0.0 dst=224.0.0.22 proto=2 len=16";
    for (what, frame) in [
        ("TCP", own("ip src=10.0.0.5 dst=10.0.0.9 tcp sport=4000 dport=80")),
        ("UDP", udp4("10.0.0.5", (4000, 53))),
        ("ping", own("ip src=10.0.0.5 dst=10.0.0.9 icmp echo")),
        ("TCP to port 68", own("ip src=10.0.0.5 dst=10.0.0.9 tcp sport=4000 dport=68")),
        ("a routed prefix", udp4("10.0.9.77", (4000, 53))),
        ("an address pair", pair("ip src=10.0.0.100 dst=10.0.0.9 udp sport=1 dport=2 len=40")),
        ("options", with_options(&udp4("10.0.0.5", (4000, 53)), &[0x94, 4, 0, 0])),
        ("a first fragment", patch(udp4("10.0.0.5", (4000, 53)), 20, &[0x20, 0])),
        ("a later fragment", patch(udp4("10.0.0.5", (4000, 68)), 20, &[0, 9])),
        ("a protocol without ports", own("ip src=10.0.0.5 dst=10.0.0.9 proto=47")),
        ("DHCP before it has an address", own(query)),
        ("DHCP that renews", udp4("10.0.0.5", (68, 67))),
        (
            "DHCP that would keep an address which is no longer its own",
            own("ip src=10.0.0.99 dst=169.254.169.254 udp sport=68 dport=67 len=300"),
        ),
        ("IGMP before it has an address", own(igmp)),
        ("ARP request", arp(OWN, 1, (OWN, "10.0.0.5"), "10.0.0.9")),
        ("ARP reply", arp(OWN, 2, (OWN, "10.0.9.3"), "10.0.0.9")),
        ("ARP probe", arp(OWN, 1, (OWN, "0.0.0.0"), "10.0.0.5")),
        ("ARP announcement", arp(OWN, 1, (OWN, "10.0.0.5"), "10.0.0.5")),
        ("ARP announcement of a pair", arp(PAIR, 2, (PAIR, "10.0.0.100"), "10.0.0.100")),
        ("UDP over IPv6", udp6("2001:db8::5", (4000, 53))),
        ("UDP from its own link-local address", udp6(OWN_LL, (546, 547))),
        ("ping over IPv6", icmp6("2001:db8:9::1", "2001:db8::9", 128, &[&[0; 8]])),
        ("an empty packet of IPv6", v6("2001:db8::5", "2001:db8::9", 59, &[])),
        ("ESP", v6("2001:db8::5", "2001:db8::9", 50, &[0; 16])),
        ("AH", extended(&udp6("2001:db8::5", (1, 2)), &[(51, AUTHENTICATION)])),
        ("a first fragment of IPv6", extended(&udp6("2001:db8::5", (1, 2)), &[(44, FIRST)])),
        ("a later fragment of IPv6", extended(&udp6("2001:db8::5", (1, 546)), &[(44, LATER)])),
        ("DAD", nd("::", "ff02::1:ff00:5", 135, "2001:db8::5", &[])),
        (
            "DAD of its link-local address",
            nd("::", "ff02::1:ff00:a", 135, OWN_LL, &[14, 1, 1, 2, 3, 4, 5, 6]),
        ),
        ("NS", nd(OWN_LL, "ff02::1:ff00:9", 135, "2001:db8::9", &option(1, OWN))),
        ("NS that confirms", nd("2001:db8::5", "2001:db8::9", 135, "2001:db8::9", &[])),
        ("NA", nd("2001:db8::5", "ff02::1", 136, "2001:db8::5", &option(2, OWN))),
        ("NA without a MAC", nd("2001:db8::5", "2001:db8::9", 136, "2001:db8::5", &[])),
        ("NA for a pair", nd("2001:db8::5", "ff02::1", 136, "2001:db8::100", &option(2, PAIR))),
        ("RS", icmp6(OWN_LL, "ff02::2", 133, &[&[0; 4], &option(1, OWN)])),
        ("RS before it has an address", icmp6("::", "ff02::2", 133, &[&[0; 4]])),
        ("MLD", icmp6(OWN_LL, "ff02::16", 143, &[&[0; 24]])),
        (
            "MLD before it has an address",
            extended(&icmp6("::", "ff02::16", 143, &[&[0; 24]]), &[(0, &[0, 5, 2, 0, 0, 1, 0])]),
        ),
    ] {
        assert_eq!(check(&frame), Ok(()), "{what}");
    }
}

#[test]
fn spoofed_sources() {
    let from =
        |mac: &str, ip: &str| spec(&format!("eth src={mac} dst={OTHER} ip src={ip} dst=10.0.0.9 udp len=40"));
    let from6 =
        |mac: &str, ip: &str| spec(&format!("eth src={mac} dst={OTHER} ip src={ip} dst=2001:db8::9 udp"));
    for (what, frame, reason) in [
        ("another's MAC", from(OTHER, "10.0.0.5"), Drop::SpoofedMac),
        (
            "another's MAC in any frame",
            spec(&format!("eth src={OTHER} type=0x88cc len=50")),
            Drop::SpoofedMac,
        ),
        ("another's address", from(OWN, "10.0.0.9"), Drop::SpoofedIp),
        ("an address of its other MAC", from(OWN, "10.0.0.100"), Drop::SpoofedIp),
        ("its address with its other MAC", from(PAIR, "10.0.0.5"), Drop::SpoofedIp),
        ("beside its prefix", from(OWN, "10.0.10.1"), Drop::SpoofedIp),
        ("the broadcast address", from(OWN, "255.255.255.255"), Drop::SpoofedIp),
        ("a link-local address", from(OWN, "169.254.1.1"), Drop::SpoofedIp),
        ("another's with options", with_options(&from(OWN, "10.0.0.9"), &[1, 1, 1, 0]), Drop::SpoofedIp),
        ("another's in a later fragment", patch(from(OWN, "10.0.0.9"), 20, &[0, 9]), Drop::SpoofedIp),
        ("another's in a first fragment", patch(from(OWN, "10.0.0.9"), 20, &[0x20, 0]), Drop::SpoofedIp),
        ("another's address of IPv6", from6(OWN, "2001:db8::9"), Drop::SpoofedIp),
        ("another's link-local address", from6(OWN, "fe80::5054:ff:fe00:b"), Drop::SpoofedIp),
        ("a link-local address of its other MAC", from6(PAIR, OWN_LL), Drop::SpoofedIp),
        (
            "another's behind options",
            extended(&from6(OWN, "2001:db8::9"), &[(0, OPTIONS), (60, OPTIONS)]),
            Drop::SpoofedIp,
        ),
        (
            "another's in a later fragment",
            extended(&from6(OWN, "2001:db8::9"), &[(44, LATER)]),
            Drop::SpoofedIp,
        ),
    ] {
        assert_eq!(check(&frame), Err(reason), "{what}");
    }
}

#[test]
fn the_unspecified_address_is_for_those_who_have_none() {
    let frames = [
        ("UDP", udp4("0.0.0.0", (4000, 53))),
        ("UDP to a DHCP server from another port", udp4("0.0.0.0", (4000, 67))),
        ("UDP from a client's port", udp4("0.0.0.0", (68, 53))),
        ("TCP", own("ip src=0.0.0.0 dst=10.0.0.9 tcp sport=68 dport=67")),
        ("ping", own("ip src=0.0.0.0 dst=10.0.0.9 icmp echo")),
        ("a fragment of DHCP", patch(udp4("0.0.0.0", (68, 67)), 20, &[0x20, 0])),
        ("a later fragment", patch(udp4("0.0.0.0", (68, 67)), 20, &[0, 9])),
        ("UDP of IPv6", udp6("::", (546, 547))),
        ("TCP of IPv6", own("ip src=:: dst=2001:db8::9 tcp sport=1 dport=2")),
        ("ping of IPv6", icmp6("::", "2001:db8::9", 128, &[&[0; 8]])),
        ("an MLD query", icmp6("::", "ff02::1", 130, &[&[0; 24]])),
        ("NA", nd("::", "ff02::1", 136, "2001:db8::5", &option(2, OWN))),
        ("MLD in a fragment", extended(&icmp6("::", "ff02::16", 143, &[&[0; 24]]), &[(44, FIRST)])),
        ("MLD in a later fragment", extended(&icmp6("::", "ff02::16", 143, &[&[0; 24]]), &[(44, LATER)])),
        ("DAD in a fragment of its own", {
            extended(&nd("::", "ff02::1:ff00:5", 135, "2001:db8::5", &[]), &[(44, ATOMIC)])
        }),
        ("an empty packet", v6("::", "ff02::1", 59, &[])),
    ];
    for (what, frame) in frames {
        assert_eq!(check(&frame), Err(Drop::SpoofedIp), "{what}");
    }
}

#[test]
fn arp_claims() {
    let other_type = |at: usize, with: &[u8]| patch(arp(OWN, 1, (OWN, "10.0.0.5"), "10.0.0.9"), at, with);
    for (what, frame, reason) in [
        ("another's address", arp(OWN, 2, (OWN, "10.0.0.1"), "10.0.0.9"), Drop::SpoofedArp),
        ("another's address, asked", arp(OWN, 1, (OWN, "10.0.0.1"), "10.0.0.9"), Drop::SpoofedArp),
        ("another's, announced", arp(OWN, 1, (OWN, "10.0.0.1"), "10.0.0.1"), Drop::SpoofedArp),
        ("another's MAC", arp(OWN, 2, (OTHER, "10.0.0.5"), "10.0.0.9"), Drop::SpoofedArp),
        ("its other MAC", arp(OWN, 2, (PAIR, "10.0.0.100"), "10.0.0.9"), Drop::SpoofedArp),
        ("an address of its other MAC", arp(OWN, 2, (OWN, "10.0.0.100"), "10.0.0.9"), Drop::SpoofedArp),
        ("another's MAC in the frame", arp(OTHER, 2, (OWN, "10.0.0.5"), "10.0.0.9"), Drop::SpoofedMac),
        ("a probe for another's", arp(OWN, 1, (OWN, "0.0.0.0"), "10.0.0.1"), Drop::SpoofedArp),
        ("a probe with another's MAC", arp(OWN, 1, (OTHER, "0.0.0.0"), "10.0.0.5"), Drop::SpoofedArp),
        ("a reply from nowhere", arp(OWN, 2, (OWN, "0.0.0.0"), "10.0.0.5"), Drop::SpoofedArp),
        ("other hardware", other_type(15, &[6]), Drop::ArpMalformed),
        ("another protocol", other_type(16, &[0x86, 0xdd]), Drop::ArpMalformed),
        ("longer hardware addresses", other_type(18, &[8]), Drop::ArpMalformed),
        ("longer protocol addresses", other_type(19, &[16]), Drop::ArpMalformed),
        ("inverse ARP", other_type(21, &[8]), Drop::ArpMalformed),
        ("no operation", other_type(21, &[0]), Drop::ArpMalformed),
    ] {
        assert_eq!(check(&frame), Err(reason), "{what}");
    }
    let whole = arp(OWN, 1, (OWN, "10.0.0.5"), "10.0.0.9");
    for len in 14..whole.len() {
        assert_eq!(check(&whole[..len]), Err(Drop::ArpMalformed), "{len}");
    }
}

#[test]
fn neighbour_discovery_claims() {
    let na = |target: &str, options: &[u8]| nd("2001:db8::5", "ff02::1", 136, target, options);
    let ns = |options: &[u8]| nd("2001:db8::5", "ff02::1:ff00:9", 135, "2001:db8::9", options);
    let dad = |to: &str, target: &str, options: &[u8]| nd("::", to, 135, target, options);
    let two = [option(2, OWN), option(2, OTHER)].concat();
    for (what, frame, reason) in [
        ("another's address", na("2001:db8::1", &option(2, OWN)), Drop::SpoofedNd),
        ("another's address without a MAC", na("2001:db8::1", &[]), Drop::SpoofedNd),
        ("another's MAC", na("2001:db8::5", &option(2, OTHER)), Drop::SpoofedNd),
        ("its other MAC", na("2001:db8::5", &option(2, PAIR)), Drop::SpoofedNd),
        ("an address of its other MAC", na("2001:db8::100", &option(2, OWN)), Drop::SpoofedNd),
        ("another's MAC behind its own", na("2001:db8::5", &two), Drop::SpoofedNd),
        ("another's MAC as the source's", na("2001:db8::5", &option(1, OTHER)), Drop::SpoofedNd),
        ("NS with another's MAC", ns(&option(1, OTHER)), Drop::SpoofedNd),
        (
            "NS with another's MAC behind a nonce",
            { ns(&[&[14, 1, 1, 2, 3, 4, 5, 6][..], &option(1, OTHER)].concat()) },
            Drop::SpoofedNd,
        ),
        (
            "RS with another's MAC",
            icmp6(OWN_LL, "ff02::2", 133, &[&[0; 4], &option(1, OTHER)]),
            Drop::SpoofedNd,
        ),
        (
            "RS from nowhere with a MAC",
            icmp6("::", "ff02::2", 133, &[&[0; 4], &option(1, OWN)]),
            Drop::SpoofedNd,
        ),
        ("DAD for another's", dad("ff02::1:ff00:1", "2001:db8::1", &[]), Drop::SpoofedNd),
        ("DAD for its other MAC's", dad("ff02::1:ff00:100", "2001:db8::100", &[]), Drop::SpoofedNd),
        ("DAD with a MAC", dad("ff02::1:ff00:5", "2001:db8::5", &option(1, OWN)), Drop::SpoofedNd),
        ("DAD to one host", dad("2001:db8::9", "2001:db8::5", &[]), Drop::SpoofedNd),
        ("an option without a length", na("2001:db8::5", &[14, 0, 0, 0, 0, 0, 0, 0]), Drop::NdMalformed),
        ("an option that is cut off", na("2001:db8::5", &[14, 2, 0, 0, 0, 0, 0, 0]), Drop::NdMalformed),
        ("less than an option", na("2001:db8::5", &[2, 1, 0x52, 0x54]), Drop::NdMalformed),
        ("a longer MAC", na("2001:db8::5", &[&[2, 2][..], &[0; 14]].concat()), Drop::NdMalformed),
        ("NA without a target", icmp6("2001:db8::5", "ff02::1", 136, &[&[0; 12]]), Drop::NdMalformed),
        ("NS without a target", icmp6("2001:db8::5", "ff02::1", 135, &[&[0; 4]]), Drop::NdMalformed),
        ("RS without its header", icmp6(OWN_LL, "ff02::2", 133, &[]), Drop::NdMalformed),
        (
            "NA in a fragment",
            extended(&na("2001:db8::5", &option(2, OWN)), &[(44, FIRST)]),
            Drop::NdMalformed,
        ),
        ("NA in its only fragment", extended(&na("2001:db8::5", &[]), &[(44, ATOMIC)]), Drop::NdMalformed),
        (
            "another's address behind options",
            extended(
                &na("2001:db8::1", &[]),
                &[(0, OPTIONS), (60, OPTIONS), (51, AUTHENTICATION), (43, &[0, 4, 0, 0, 0, 0, 0])],
            ),
            Drop::SpoofedNd,
        ),
    ] {
        assert_eq!(check(&frame), Err(reason), "{what}");
    }
}

#[test]
fn guests_are_neither_servers_nor_routers() {
    let offer = udp4("10.0.0.5", (67, 68));
    let reply = udp6("2001:db8::5", (547, 546));
    let ra = icmp6(OWN_LL, "ff02::1", 134, &[&[0; 12]]);
    let redirect = icmp6(OWN_LL, "2001:db8::9", 137, &[&[0; 36]]);
    let irdp = patch(own("ip src=10.0.0.5 dst=10.0.0.9 icmp echo"), 34, &[9]);
    let pair =
        spec(&format!("eth src={PAIR} ip src=10.0.0.100 dst=255.255.255.255 udp sport=67 dport=68 len=300"));
    let long: &[(u8, &[u8])] = &[(0, OPTIONS), (60, OPTIONS), (51, AUTHENTICATION), (60, OPTIONS)];
    for (what, frame, reason) in [
        ("a DHCP server", offer.clone(), Drop::GuestDhcpServer),
        ("one at a pair's address", pair, Drop::GuestDhcpServer),
        ("one that sends from another port", udp4("10.0.0.5", (4000, 68)), Drop::GuestDhcpServer),
        ("one with options", with_options(&offer, &[1; 40]), Drop::GuestDhcpServer),
        ("one in fragments", patch(offer.clone(), 20, &[0x20, 0]), Drop::GuestDhcpServer),
        (
            "one with options in fragments",
            { patch(with_options(&offer, &[1; 4]), 20, &[0x20, 0]) },
            Drop::GuestDhcpServer,
        ),
        ("a DHCPv6 server", reply.clone(), Drop::GuestDhcpServer),
        ("one that sends from another port", udp6(OWN_LL, (4000, 546)), Drop::GuestDhcpServer),
        ("one behind options", extended(&reply, long), Drop::GuestDhcpServer),
        ("one in fragments", extended(&reply, &[(60, OPTIONS), (44, FIRST)]), Drop::GuestDhcpServer),
        ("one in its only fragment", extended(&reply, &[(44, ATOMIC)]), Drop::GuestDhcpServer),
        ("an RA", ra.clone(), Drop::GuestRouterAdvertiser),
        ("an RA behind options", extended(&ra, long), Drop::GuestRouterAdvertiser),
        ("an RA in fragments", extended(&ra, &[(44, FIRST)]), Drop::GuestRouterAdvertiser),
        (
            "an RA behind a fragment header",
            extended(&ra, &[(44, FIRST), (60, OPTIONS)]),
            Drop::GuestRouterAdvertiser,
        ),
        ("a redirect", redirect, Drop::GuestRouterAdvertiser),
        ("an advertisement of RFC 1256", irdp, Drop::GuestRouterAdvertiser),
    ] {
        assert_eq!(check(&frame), Err(reason), "{what}");
        if frame[6..12] == mac(OWN).0 {
            assert_eq!(check_stranger(&frame), Err(reason), "{what}, where addresses are not known");
        }
    }
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let offer = udp4("10.0.0.5", (67, 68));
    let reply = udp6("2001:db8::5", (547, 546));
    let total = |bytes: Vec<u8>, len: u8| patch(bytes, 16, &[0, len]);
    let many: Vec<(u8, &[u8])> = [(60, OPTIONS); 9].to_vec();
    let cut = |bytes: Vec<u8>, len: usize| {
        let payload = u16::try_from(len - 54).unwrap().to_be_bytes();
        patch(bytes[..len].to_vec(), 18, &payload)
    };
    let tiny = extended(&reply, &[(44, FIRST), (60, OPTIONS)]);
    for (what, frame, reason) in [
        (
            "a first fragment without ports",
            total(patch(offer.clone(), 20, &[0x20, 0]), 24),
            Drop::FragmentTiny,
        ),
        (
            "one with half of a UDP header",
            total(patch(offer.clone(), 20, &[0x20, 0]), 27),
            Drop::FragmentTiny,
        ),
        (
            "a fragment over a TCP header",
            { patch(own("ip src=10.0.0.5 dst=10.0.0.9 tcp len=20"), 20, &[0, 1]) },
            Drop::FragmentTiny,
        ),
        ("UDP without ports", total(offer.clone(), 22), Drop::TransportTruncated),
        (
            "ICMP without a type",
            total(own("ip src=10.0.0.5 dst=10.0.0.9 icmp echo"), 20),
            Drop::TransportTruncated,
        ),
        ("a packet that is longer than its frame", total(offer.clone(), 69), Drop::IpLength),
        ("less than a header", offer[..33].to_vec(), Drop::IpLength),
        ("a header that is too short", patch(offer.clone(), 14, &[0x44]), Drop::IpLength),
        ("a header that is too long", patch(total(offer.clone(), 40), 14, &[0x4f]), Drop::IpLength),
        ("IPv6 as IPv4", patch(offer, 14, &[0x65]), Drop::IpVersion),
        ("IPv4 as IPv6", patch(reply.clone(), 14, &[0x45]), Drop::IpVersion),
        ("less than a header of IPv6", reply[..53].to_vec(), Drop::IpLength),
        ("a packet of IPv6 that is longer than its frame", patch(reply.clone(), 18, &[1]), Drop::IpLength),
        ("an extension header that is cut off", cut(extended(&reply, &[(60, OPTIONS)]), 60), Drop::IpLength),
        ("a first fragment without its chain", cut(tiny.clone(), 62), Drop::FragmentTiny),
        ("a first fragment without its ports", cut(tiny, 72), Drop::FragmentTiny),
        ("too many extension headers", extended(&reply, &many), Drop::ExtensionCount),
        ("two fragment headers", extended(&reply, &[(44, ATOMIC), (44, FIRST)]), Drop::ExtensionOrder),
        ("UDP of IPv6 without ports", cut(reply, 57), Drop::TransportTruncated),
        ("ICMPv6 without a type", v6("2001:db8::5", "ff02::1", 58, &[]), Drop::TransportTruncated),
    ] {
        assert_eq!(check(&frame), Err(reason), "{what}");
        if frame.len() >= 14 + 20 {
            assert_eq!(check_stranger(&frame), Err(reason), "{what}, where addresses are not known");
        }
    }
}

#[test]
fn other_ethertypes_pass_where_nothing_is_known_of_addresses() {
    for kind in ["0x88cc", "0x8847", "0x22f0", "0x0040"] {
        let frame = own(&format!("type={kind} len=64"));
        assert_eq!(check(&frame), Err(Drop::EthertypeNotAllowed), "{kind}");
        assert_eq!(check_stranger(&frame), Ok(()), "{kind}");
    }
    let tagged = |bytes: Vec<u8>, tpid: [u8; 2]| {
        let mut bytes = bytes;
        bytes.splice(12..12, [tpid[0], tpid[1], 0, 0]);
        bytes
    };
    for tpid in [[0x81, 0], [0x88, 0xa8]] {
        let plain = tagged(udp4("10.0.0.5", (1, 2)), tpid);
        assert_eq!(check(&plain), Err(Drop::EthertypeNotAllowed), "a tag behind the port's own");
        assert_eq!(check_stranger(&plain), Ok(()));
        let offer = tagged(udp4("10.0.0.5", (67, 68)), tpid);
        assert_eq!(
            check_stranger(&offer),
            Err(Drop::GuestDhcpServer),
            "a priority tag is not seen by many hosts"
        );
        let claim = tagged(arp(OWN, 2, (OTHER, "10.0.0.5"), "10.0.0.9"), tpid);
        assert_eq!(check_stranger(&claim), Err(Drop::SpoofedArp));
    }
}

#[test]
fn macs_alone_are_checked_where_nothing_is_known_of_addresses() {
    for (what, frame) in [
        ("any address", udp4("198.51.100.7", (1, 2))),
        ("none", udp4("0.0.0.0", (1, 2))),
        ("any address of IPv6", udp6("2001:db8:77::1", (1, 2))),
        ("ARP for any", arp(OWN, 2, (OWN, "198.51.100.7"), "10.0.0.9")),
        ("a probe for any", arp(OWN, 1, (OWN, "0.0.0.0"), "10.0.0.9")),
        ("NA for any", nd("2001:db8::7", "ff02::1", 136, "2001:db8::7", &option(2, OWN))),
        ("DAD for any", nd("::", "ff02::1:ff00:7", 135, "2001:db8::7", &[])),
    ] {
        assert_eq!(check_stranger(&frame), Ok(()), "{what}");
    }
    for (what, frame, reason) in [
        (
            "another's MAC",
            spec(&format!("eth src={PAIR} ip src=10.0.0.5 dst=10.0.0.9 udp")),
            Drop::SpoofedMac,
        ),
        ("ARP with another's MAC", arp(OWN, 2, (OTHER, "10.0.0.5"), "10.0.0.9"), Drop::SpoofedArp),
        (
            "NA with another's MAC",
            nd("2001:db8::5", "ff02::1", 136, "2001:db8::5", &option(2, OTHER)),
            Drop::SpoofedNd,
        ),
        (
            "NS with another's MAC",
            nd("2001:db8::5", "ff02::1:ff00:9", 135, "2001:db8::9", &option(1, OTHER)),
            Drop::SpoofedNd,
        ),
    ] {
        assert_eq!(check_stranger(&frame), Err(reason), "{what}");
    }
}

/// Whoever writes the checksum later would write over what was checked: two bytes that the sender chose, as it may make the
/// sum come out as it likes.
#[test]
fn unfinished_checksums_go_where_checksums_are() {
    let sum = |csum_start: u16, csum_offset: u16| Offload {
        flags: Offload::NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..Offload::NONE
    };
    let noted =
        |bytes: &[u8], csum_start, csum_offset| with_note(&claims(), bytes, sum(csum_start, csum_offset));
    let tcp = own("ip src=10.0.0.5 dst=10.0.0.9 tcp len=60");
    let udp = udp4("10.0.0.5", (4000, 4789));
    let tcp6 = own("ip src=2001:db8::5 dst=2001:db8::9 tcp len=60");
    for (what, frame, start, offset) in [
        ("TCP's", &tcp, 34, 16),
        ("UDP's", &udp, 34, 6),
        ("a packet's inside of UDP", &udp, 64, 6),
        ("with options", &with_options(&tcp, &[1; 8]), 42, 16),
        ("over IPv6", &tcp6, 54, 16),
        ("behind extension headers", &extended(&tcp6, &[(60, OPTIONS)]), 62, 16),
        ("a packet's inside of GRE", &own("ip src=10.0.0.5 dst=10.0.0.9 proto=47 len=60"), 58, 16),
        ("NA's own", &nd("2001:db8::5", "ff02::1", 136, "2001:db8::5", &option(2, OWN)), 54, 2),
    ] {
        assert_eq!(noted(frame, start, offset), Ok(()), "{what}");
    }
    let second = spec(&format!("eth src={OWN} ip src=10.0.9.1 dst=10.0.0.9 udp sport=1 dport=2 len=40"));
    let na = nd("2001:db8::5", "ff02::1", 136, "2001:db8::5", &option(2, OWN));
    for (what, frame, start, offset) in [
        ("over the source", &tcp, 14, 12),
        ("over the rest of the source", &tcp, 28, 0),
        ("over ports", &udp, 34, 2),
        ("over the length", &udp, 34, 4),
        ("over TCP's flags", &tcp, 34, 12),
        ("over the source, from another address", &second, 14, 12),
        ("over the port, from another address", &second, 34, 2),
        ("over IPv6's source", &tcp6, 14, 8),
        ("over IPv6's next header", &tcp6, 14, 6),
        ("over an extension header", &extended(&tcp6, &[(60, OPTIONS)]), 54, 0),
        ("over a type of ICMPv6", &icmp6("2001:db8::5", "ff02::1", 128, &[&[0; 8]]), 54, 0),
    ] {
        assert_eq!(noted(frame, start, offset), Err(Drop::BadOffload), "{what}");
    }
    // Finished before they are looked at, so they claim what the sum makes of them.
    assert_eq!(noted(&na, 54, 22), Err(Drop::SpoofedNd), "over NA's target");
    assert_eq!(noted(&na, 54, 30), Err(Drop::SpoofedNd), "over NA's MAC");
    let says = arp(OWN, 2, (OWN, "10.0.0.5"), "10.0.0.9");
    assert_eq!(noted(&says, 14, 16), Err(Drop::SpoofedArp), "over ARP's sender");
}

#[test]
fn a_port_without_stations_or_addresses_sends_nothing_in_their_name() {
    let nobody = Claims::default();
    let frame = udp4("10.0.0.5", (1, 2));
    assert_eq!(with_note(&nobody, &frame, Offload::NONE), Err(Drop::SpoofedMac));
    let bare = Claims { stations: vec![station(OWN, &[], &[OWN_LL_NET])], any_address: false };
    for source in ["10.0.0.5", "0.0.0.1", "0.0.0.0"] {
        assert_eq!(with_note(&bare, &udp4(source, (1, 2)), Offload::NONE), Err(Drop::SpoofedIp), "{source}");
    }
    assert_eq!(with_note(&bare, &udp6(OWN_LL, (1, 2)), Offload::NONE), Ok(()));
    let wide = Claims { stations: vec![station(OWN, &["0.0.0.0/0"], &["::/0"])], any_address: false };
    assert_eq!(
        with_note(&wide, &udp4("203.0.113.9", (1, 2)), Offload::NONE),
        Ok(()),
        "a router's or firewall's"
    );
    assert_eq!(with_note(&wide, &udp6("2001:db8:7::7", (1, 2)), Offload::NONE), Ok(()));
    assert_eq!(with_note(&wide, &udp4("203.0.113.9", (67, 68)), Offload::NONE), Err(Drop::GuestDhcpServer));
}

#[test]
fn refusals_say_what_would_have_been_right() {
    let said = |bytes: &[u8], reason| {
        let frame = Pool::with_chunks(4, 1).unwrap().frame_from(bytes).unwrap();
        explain(&frame, &claims(), reason)
    };
    let spoofed = spec(&format!("eth src={OTHER} ip src=10.0.0.5 dst=10.0.0.9 udp"));
    assert_eq!(
        said(&spoofed, Drop::SpoofedMac),
        format!("comes from {OTHER}; its port may send from {OWN}, {PAIR}")
    );
    let pair = spec(&format!("eth src={PAIR} ip src=10.0.0.5 dst=10.0.0.9 udp"));
    assert_eq!(
        said(&pair, Drop::SpoofedIp),
        format!(
            "claims what is not its own; {PAIR} may claim 10.0.0.100/32, 2001:db8::100/128, fe80::200:5eff:fe00:107/128"
        )
    );
}

fn honest() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        own("ip src=10.0.0.5 dst=10.0.0.9 tcp sport=4000 dport=80 len=20"),
        udp4("10.0.9.5", (4000, 53)),
        udp6("2001:db8::5", (4000, 53)),
        arp(OWN, 2, (OWN, "10.0.0.5"), "10.0.0.9"),
    ])
}

proptest! {
    #[test]
    fn whatever_passes_is_from_a_source_that_is_claimed(
        bytes in honest(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut changed = bytes.clone();
        for (at, byte) in &changes {
            let at = at.index(changed.len());
            changed[at] = *byte;
        }
        let passes = check(&changed).is_ok();
        prop_assert!(passes || changed != bytes, "honest");
        if passes {
            let from = Mac(*changed[6..].first_chunk().unwrap());
            let v4 = |at: usize| IpAddr::from(*changed[at..].first_chunk::<4>().unwrap());
            let v6 = || IpAddr::from(*changed[22..].first_chunk::<16>().unwrap());
            match (changed[12], changed[13]) {
                (8, 0) => prop_assert!(claims().allows(from, v4(26))),
                (8, 6) => prop_assert!(claims().allows(from, v4(28)) && changed[22..28] == from.0),
                (0x86, 0xdd) => prop_assert!(claims().allows(from, v6())),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_judged(
        bytes in prop::collection::vec(any::<u8>(), 14..200),
        kind in prop::sample::select(vec![[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]),
    ) {
        let bytes = patch(patch(bytes, 6, &mac(OWN).0), 12, &kind);
        let _ = (check(&bytes), check_stranger(&bytes));
    }
}
