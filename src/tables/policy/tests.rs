use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use Ethertype::{V4, V6};
use Remote::{Any, Group};

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const ICMP: u8 = protocol::ICMP;
const ICMPV6: u8 = protocol::ICMPV6;
const GRE: u8 = 47;

fn rule(ethertype: Ethertype, protocol: impl Into<Option<u8>>, remote: Remote) -> Rule {
    Rule { ethertype, protocol: protocol.into(), ports: None, icmp: None, remote }
}

fn ports(protocol: u8, first: u16, last: u16, remote: Remote) -> Rule {
    Rule { ports: Some((first, last)), ..rule(V4, protocol, remote) }
}

fn icmp(kind: u8, code: Option<u8>) -> Rule {
    Rule { icmp: Some((kind, code)), ..rule(V4, ICMP, Any) }
}

fn nets(text: &[&str]) -> Remote {
    Remote::Prefixes(text.iter().map(|net| net.parse().unwrap()).collect())
}

fn packet(remote: &str, protocol: u8, port: u16) -> Packet {
    Packet { remote: remote.parse().unwrap(), protocol, port }
}

fn members(given: &[(u32, &str)]) -> Members {
    Members::new(given.iter().map(|(group, net)| (*group, net.parse().unwrap())))
}

/// What becomes of packets of one rule set: remote address, protocol, port, and the rule.
fn table(rules: &[Rule], members: &Members, rows: &[(&str, u8, u16, Option<u32>)]) {
    let compiled = RuleSet::compile(rules);
    for (remote, protocol, port, wanted) in rows {
        let packet = packet(remote, *protocol, *port);
        assert_eq!(compiled.admits(&packet, members), *wanted, "{packet:?}");
        assert_eq!(walk(rules, &packet, |group| members.groups(packet.remote).contains(&group)), *wanted);
    }
}

#[test]
fn without_rules_nothing_passes() {
    table(&[], &Members::default(), &[("10.0.0.1", TCP, 80, None), ("2001:db8::1", GRE, 0, None)]);
    assert_eq!(RuleSet::default().admits(&packet("10.0.0.1", TCP, 80), &Members::default()), None);
}

#[test]
fn a_port_range_holds_its_first_and_its_last_port_of_its_protocol_alone() {
    let rules = [ports(TCP, 80, 443, Any), ports(UDP, 0, 0, Any), ports(UDP, 65535, 65535, Any)];
    table(
        &rules,
        &Members::default(),
        &[
            ("10.0.0.1", TCP, 79, None),
            ("10.0.0.1", TCP, 80, Some(0)),
            ("10.0.0.1", TCP, 200, Some(0)),
            ("10.0.0.1", TCP, 443, Some(0)),
            ("10.0.0.1", TCP, 444, None),
            ("10.0.0.1", UDP, 80, None),
            ("10.0.0.1", UDP, 0, Some(1)),
            ("10.0.0.1", UDP, 1, None),
            ("10.0.0.1", UDP, 65534, None),
            ("10.0.0.1", UDP, 65535, Some(2)),
            ("10.0.0.1", UDP + 1, 0, None),
        ],
    );
}

#[test]
fn an_icmp_type_is_any_code_of_it_and_type_0_is_a_type() {
    let rules = [icmp(0, Some(0)), icmp(8, None), icmp(3, Some(4)), icmp(255, None)];
    table(
        &rules,
        &Members::default(),
        &[
            ("10.0.0.1", ICMP, 0x0000, Some(0)),
            ("10.0.0.1", ICMP, 0x0001, None),
            ("10.0.0.1", ICMP, 0x0800, Some(1)),
            ("10.0.0.1", ICMP, 0x08ff, Some(1)),
            ("10.0.0.1", ICMP, 0x07ff, None),
            ("10.0.0.1", ICMP, 0x0900, None),
            ("10.0.0.1", ICMP, 0x0304, Some(2)),
            ("10.0.0.1", ICMP, 0x0303, None),
            ("10.0.0.1", ICMP, 0x0305, None),
            ("10.0.0.1", ICMP, 0xffff, Some(3)),
            ("10.0.0.1", ICMPV6, 0x0800, None),
            ("10.0.0.1", TCP, 0x0800, None),
        ],
    );
    let all_of_type_0 = Rule { ethertype: V6, ..Rule { protocol: Some(ICMPV6), ..icmp(0, None) } };
    let none = Members::default();
    table(&[all_of_type_0], &none, &[("::1", ICMPV6, 255, Some(0)), ("::1", ICMPV6, 256, None)]);
}

#[test]
fn a_protocol_without_ports_is_all_of_it_and_any_protocol_is_everything_of_its_version() {
    let rules = [rule(V4, GRE, Any), rule(V4, TCP, Any), rule(V6, None, Any)];
    table(
        &rules,
        &Members::default(),
        &[
            ("10.0.0.1", GRE, 0, Some(0)),
            ("10.0.0.1", TCP, 0, Some(1)),
            ("10.0.0.1", TCP, 65535, Some(1)),
            ("10.0.0.1", UDP, 53, None),
            ("10.0.0.1", 0, 0, None),
            ("::1", 0, 0, Some(2)),
            ("::1", 255, 65535, Some(2)),
            ("::ffff:10.0.0.1", TCP, 80, Some(2)),
        ],
    );
}

#[test]
fn a_remote_prefix_is_its_first_to_its_last_address_of_its_version() {
    let rules = [
        ports(TCP, 22, 22, nets(&["192.0.2.0/24"])),
        ports(TCP, 22, 22, nets(&["198.51.100.7/32", "198.51.100.128/25", "2001:db8::/32"])),
        rule(V6, TCP, nets(&["2001:db8::/32", "192.0.2.0/24"])),
        rule(V4, UDP, nets(&["0.0.0.0/0"])),
        rule(V6, UDP, nets(&["::/0", "2001:db8::/32"])),
        rule(V4, GRE, nets(&["192.0.2.77/24"])),
    ];
    table(
        &rules,
        &Members::default(),
        &[
            ("192.0.1.255", TCP, 22, None),
            ("192.0.2.0", TCP, 22, Some(0)),
            ("192.0.2.255", TCP, 22, Some(0)),
            ("192.0.3.0", TCP, 22, None),
            ("192.0.2.1", TCP, 23, None),
            ("198.51.100.7", TCP, 22, Some(1)),
            ("198.51.100.8", TCP, 22, None),
            ("198.51.100.128", TCP, 22, Some(1)),
            ("2001:db8::", TCP, 9, Some(2)),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", TCP, 9, Some(2)),
            ("2001:db9::", TCP, 9, None),
            ("255.255.255.255", UDP, 9, Some(3)),
            ("0.0.0.0", UDP, 9, Some(3)),
            ("::", UDP, 9, Some(4)),
            ("192.0.2.200", GRE, 0, Some(5)),
        ],
    );
}

#[test]
fn a_remote_group_is_its_members_as_they_come_and_go() {
    let rules = [ports(TCP, 3306, 3306, Group(7)), rule(V4, None, Group(2)), rule(V6, None, Group(u32::MAX))];
    let of = |given: &[(u32, &str)], rows: &[(&str, u8, u16, Option<u32>)]| {
        table(&rules, &members(given), rows);
    };
    of(&[], &[("10.0.0.1", TCP, 3306, None), ("10.0.0.1", UDP, 1, None)]);
    of(
        &[(7, "10.0.0.1/32"), (2, "10.0.0.2/32"), (9, "10.0.0.3/32"), (u32::MAX, "2001:db8::1/128")],
        &[
            ("10.0.0.1", TCP, 3306, Some(0)),
            ("10.0.0.1", TCP, 3307, None),
            ("10.0.0.2", TCP, 3306, Some(1)),
            ("10.0.0.3", TCP, 3306, None),
            ("2001:db8::1", UDP, 1, Some(2)),
            ("2001:db8::2", UDP, 1, None),
        ],
    );
    // An address pair with a prefix, around another member.
    of(
        &[(2, "10.0.0.0/24"), (7, "10.0.0.1/32"), (7, "10.0.0.128/25")],
        &[
            ("10.0.0.1", TCP, 3306, Some(0)),
            ("10.0.0.1", TCP, 3307, Some(1)),
            ("10.0.0.127", TCP, 3306, Some(1)),
            ("10.0.0.128", TCP, 3306, Some(0)),
            ("10.0.1.0", TCP, 3306, None),
        ],
    );
}

#[test]
fn an_address_tells_its_groups() {
    let members = members(&[
        (3, "10.0.0.1/32"),
        (1, "10.0.0.1/32"),
        (3, "10.0.0.1/32"),
        (2, "10.0.0.0/8"),
        (3, "10.0.0.0/16"),
        (4, "2001:db8::/64"),
    ]);
    for (address, groups) in [
        ("10.0.0.1", &[1, 2, 3][..]),
        ("10.0.0.2", &[2, 3]),
        ("10.1.0.1", &[2]),
        ("11.0.0.0", &[]),
        ("2001:db8::9", &[4]),
        ("2001:db8:0:1::", &[]),
    ] {
        assert_eq!(members.groups(address.parse().unwrap()), groups, "{address}");
    }
}

#[test]
fn the_lowest_number_wins_whatever_is_narrower() {
    let rules = [
        ports(TCP, 80, 80, nets(&["10.0.0.0/8"])),
        ports(TCP, 1, 1000, nets(&["10.0.0.0/24"])),
        rule(V4, TCP, Group(1)),
        rule(V4, None, Any),
        ports(TCP, 443, 443, Any),
        ports(TCP, 80, 80, nets(&["10.0.0.0/8"])),
    ];
    table(
        &rules,
        &members(&[(1, "10.0.0.1/32"), (1, "11.0.0.1/32")]),
        &[
            ("10.0.0.1", TCP, 80, Some(0)),
            ("10.0.0.1", TCP, 81, Some(1)),
            ("10.0.1.1", TCP, 81, Some(3)),
            ("11.0.0.1", TCP, 443, Some(2)),
            ("11.0.0.2", TCP, 443, Some(3)),
            ("11.0.0.1", UDP, 443, Some(3)),
        ],
    );
}

#[test]
fn what_contradicts_itself_admits_nothing() {
    let rules = [
        Rule { ports: Some((80, 80)), ..rule(V4, None, Any) },
        Rule { icmp: Some((8, None)), ..rule(V4, None, Any) },
        Rule { icmp: Some((8, None)), ..rule(V4, TCP, Any) },
        ports(ICMP, 0, 65535, Any),
        ports(GRE, 0, 65535, Any),
        ports(TCP, 81, 80, Any),
        Rule { ports: Some((0, 65535)), ..icmp(8, None) },
        rule(V4, None, nets(&["2001:db8::/32", "::/0"])),
        rule(V4, None, nets(&[])),
    ];
    let compiled = RuleSet::compile(&rules);
    for protocol in 0..=255 {
        for port in [0, 80, 81, 0x0800, 65535] {
            assert_eq!(compiled.admits(&packet("10.0.0.1", protocol, port), &Members::default()), None);
        }
    }
}

/// Ports that rules are about are cut into as few blocks as can be.
#[test]
fn blocks_cover_a_range_exactly() {
    for range in
        [(0, 0), (1, 1), (0, 0xff_ffff), (0xff_ffff, 0xff_ffff), (1, 0xff_fffe), (0x06_0050, 0x06_1f90)]
    {
        let mut next = range.0;
        for (first, last) in blocks(range) {
            let size = last - first + 1;
            assert!(
                first == next && size.is_power_of_two() && first % size == 0,
                "{range:?}: {first} {last}"
            );
            next = last + 1;
        }
        assert_eq!(next, range.1 + 1);
    }
    assert_eq!(blocks(service_range(TCP, 0, 65535)).count(), 1);
    assert_eq!(blocks(service_range(TCP, 1, 65534)).count(), 30);
}

fn service_range(protocol: u8, first: u16, last: u16) -> (u32, u32) {
    (service(protocol, first), service(protocol, last))
}

/// What could multiply, ports by prefixes or rules by rules, adds up: counted, not timed.
#[test]
fn memory_is_linear_in_rules_and_prefixes() {
    let net = |n: u32| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)).into(), 24).unwrap();
    let kept = |rules: &[Rule]| {
        let side = RuleSet::compile(rules).v4;
        (side.blocks.len(), side.accepts.len(), side.lists.len())
    };
    let distinct_ports: Vec<Rule> = (0..1000).map(|n| ports(TCP, n, n, Any)).collect();
    assert_eq!(kept(&distinct_ports), (1000, 0, 0));
    let prefixes: Vec<Rule> = (0..1000).map(|n| ports(TCP, 22, 22, Remote::Prefixes(vec![net(n)]))).collect();
    assert_eq!(kept(&prefixes), (1, 1000, 1000));
    // Nested ranges, each for a list of its own.
    let nested: Vec<Rule> = (0..500)
        .map(|n: u16| {
            ports(
                TCP,
                500 - n,
                60_000 + n,
                Remote::Prefixes((0..500).map(|at| net(at + u32::from(n))).collect()),
            )
        })
        .collect();
    let (blocks, accepts, lists) = kept(&nested);
    assert!(blocks <= 500 * 30 && accepts <= 500 * 30 && lists <= 500 * 500, "{blocks} {accepts} {lists}");
    // The same list everywhere, in any order, is kept once.
    let shared: Vec<Rule> = (0..500u16)
        .map(|n| {
            let mut list: Vec<IpNet> = (0..500).map(net).collect();
            list.rotate_left(n.into());
            ports(TCP, 500 - n, 60_000 + n, Remote::Prefixes(list))
        })
        .collect();
    assert_eq!(kept(&shared).2, 500);
}

/// A list that several rules share is known by the first of them, and found for the others too.
#[test]
fn an_address_in_many_lists_is_admitted_by_the_lowest_rule_of_its_port() {
    let list = |n: usize| nets(&["192.0.2.1/32", ["198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8"][n]]);
    let rules = [
        ports(TCP, 1, 1, list(0)),
        ports(TCP, 2, 2, list(1)),
        ports(TCP, 3, 3, list(2)),
        ports(TCP, 1, 3, list(2)),
        ports(TCP, 1, 3, list(1)),
        ports(TCP, 1, 3, list(0)),
    ];
    table(
        &rules,
        &Members::default(),
        &[
            ("192.0.2.1", TCP, 1, Some(0)),
            ("192.0.2.1", TCP, 2, Some(1)),
            ("192.0.2.1", TCP, 3, Some(2)),
            ("198.51.100.9", TCP, 2, Some(5)),
            ("203.0.113.9", TCP, 2, Some(1)),
            ("203.0.113.9", TCP, 3, Some(4)),
            ("10.9.9.9", TCP, 1, Some(3)),
        ],
    );
}

/// A rule for anybody makes what it covers needless.
#[test]
fn what_a_lower_rule_covers_is_not_kept() {
    let mut rules = vec![rule(V4, None, Any)];
    rules.extend((0..100).map(|n| ports(TCP, n, n + 5, Group(n.into()))));
    let side = RuleSet::compile(&rules).v4;
    assert_eq!((side.blocks.len(), side.accepts.len()), (1, 0));
}

/// The plainest way there is.
fn walk(rules: &[Rule], packet: &Packet, is_member: impl Fn(u32) -> bool) -> Option<u32> {
    let matches = |rule: &Rule| {
        let version = matches!((rule.ethertype, packet.remote), (V4, IpAddr::V4(_)) | (V6, IpAddr::V6(_)));
        let [kind, code] = packet.port.to_be_bytes();
        version
            && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && rule.ports.is_none_or(|(first, last)| (first..=last).contains(&packet.port))
            && rule.icmp.is_none_or(|(k, c)| k == kind && c.is_none_or(|c| c == code))
            && match &rule.remote {
                Any => true,
                Remote::Prefixes(nets) => nets.iter().any(|net| net.contains(&packet.remote)),
                Group(group) => is_member(*group),
            }
    };
    (0..).zip(rules).find(|(_, rule)| matches(rule)).map(|(number, _)| number)
}

/// An address near others: of a few networks, with few hosts, at their edges.
fn address() -> impl Strategy<Value = IpAddr> {
    let low = prop_oneof![0u8..6, 250u8..=255, Just(127), Just(128)];
    (any::<bool>(), select(vec![0u8, 9, 10, 255]), low.clone(), low).prop_map(|(v4, net, subnet, host)| {
        if v4 {
            Ipv4Addr::new(net, net, subnet, host).into()
        } else {
            let bits = u128::from(net) << 120 | u128::from(subnet) << 64 | u128::from(host);
            // All ones up to the end, now and then.
            Ipv6Addr::from_bits(if net == 255 { bits | !0xff_u128 } else { bits }).into()
        }
    })
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), select(vec![0u8, 1, 8, 16, 23, 24, 25, 31, 32, 64, 120, 127, 128])).prop_map(
        |(address, len)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            // The longest lengths are the ones that rules mostly have.
            IpNet::new(address, if len > most { most } else { len }).unwrap()
        },
    )
}

fn port() -> impl Strategy<Value = u16> {
    let edge =
        select(vec![0u16, 1, 22, 79, 80, 81, 255, 256, 1023, 1024, 0x0800, 0x08ff, 0x8000, 65534, 65535]);
    prop_oneof![3 => edge, 1 => any::<u16>()]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let about = prop_oneof![
        1 => Just((None, None, None)),
        1 => select(vec![TCP, UDP, ICMP, ICMPV6, GRE, 0, 255]).prop_map(|protocol| (Some(protocol), None, None)),
        6 => (select(vec![TCP, UDP, 33, 132, 136]), port(), port())
            .prop_map(|(protocol, a, b)| (Some(protocol), Some((a.min(b), a.max(b))), None)),
        2 => (select(vec![TCP, UDP]), port()).prop_map(|(protocol, a)| (Some(protocol), Some((a, a)), None)),
        2 => (select(vec![ICMP, ICMPV6]), select(vec![0u8, 3, 8, 255]), prop::option::of(select(vec![0u8, 1, 255])))
            .prop_map(|(protocol, kind, code)| (Some(protocol), None, Some((kind, code)))),
    ];
    let remote = prop_oneof![
        1 => Just(Any),
        3 => prop::collection::vec(net(), 1..2).prop_map(Remote::Prefixes),
        2 => prop::collection::vec(net(), 0..6).prop_map(Remote::Prefixes),
        3 => (0u32..5).prop_map(Group),
    ];
    (select(vec![V4, V6]), about, remote).prop_map(|(ethertype, (protocol, ports, icmp), remote)| Rule {
        ethertype,
        protocol,
        ports,
        icmp,
        remote,
    })
}

/// At the edge of a rule, one beside it, or anywhere.
fn near(rules: &[Rule], (at, remote, protocol, port): (usize, IpAddr, u8, u16), edge: u8) -> Packet {
    let mut packet = Packet { remote, protocol, port };
    let Some(rule) = rules.get(at % rules.len().max(1)) else { return packet };
    packet.protocol = rule.protocol.unwrap_or(protocol);
    let ports = rule.ports.or(rule.icmp.map(|(kind, code)| {
        let of = |code| u16::from_be_bytes([kind, code]);
        (of(code.unwrap_or(0)), of(code.unwrap_or(255)))
    }));
    if let Some((first, last)) = ports {
        packet.port = match edge & 3 {
            0 => first,
            1 => last,
            2 => first.wrapping_sub(1),
            _ => last.wrapping_add(1),
        };
    }
    if let Remote::Prefixes(nets) = &rule.remote
        && let Some(net) = nets.last()
    {
        packet.remote = match (edge >> 2 & 7, net.network(), net.broadcast()) {
            (0 | 4, first, _) => first,
            (1, _, last) => last,
            (2, IpAddr::V4(first), _) => first.to_bits().wrapping_sub(1).to_be_bytes().into(),
            (2, IpAddr::V6(first), _) => first.to_bits().wrapping_sub(1).to_be_bytes().into(),
            (3, _, IpAddr::V4(last)) => last.to_bits().wrapping_add(1).to_be_bytes().into(),
            (3, _, IpAddr::V6(last)) => last.to_bits().wrapping_add(1).to_be_bytes().into(),
            _ => remote,
        };
    }
    packet
}

proptest! {
    /// Rules at random, and packets at their edges; members come and go while the rules stay compiled.
    #[test]
    fn equals_a_walk_over_all_rules(
        rules in prop::collection::vec(any_rule(), 0..60),
        members in prop::collection::vec(prop::collection::vec((0u32..5, net()), 0..30), 2),
        asked in prop::collection::vec(
            ((any::<usize>(), address(), select(vec![TCP, UDP, ICMP, ICMPV6, GRE, 0, 255]), port()), any::<u8>()),
            200,
        ),
    ) {
        let compiled = RuleSet::compile(&rules);
        for given in members {
            let members = Members::new(given.iter().copied());
            for (seed, edge) in &asked {
                let packet = near(&rules, *seed, *edge);
                let is_member =
                    |group| given.iter().any(|(of, net)| *of == group && net.contains(&packet.remote));
                prop_assert_eq!(
                    compiled.admits(&packet, &members),
                    walk(&rules, &packet, is_member),
                    "{:?}", packet
                );
            }
        }
    }
}
