//! Subnets, routers and floating IPs that are right: what is left out, and who gets which address.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::types::Mac;

fn model(text: &str) -> Model {
    load(text, "f.toml").unwrap_or_else(|found| panic!("{} in\n{text}", found[0]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(fixed_ips: &[FixedIp]) -> Vec<String> {
    fixed_ips.iter().map(|fixed| format!("{}/{} {}", fixed.ip, fixed.prefix_len, fixed.subnet)).collect()
}

#[test]
fn what_a_subnet_leaves_out_follows_from_its_prefix() {
    type Row<'t> = (&'t str, Option<&'t str>, &'t [(&'t str, &'t str)]);
    let rows: &[Row<'_>] = &[
        ("cidr = '10.0.0.0/24'", Some("10.0.0.1"), &[("10.0.0.2", "10.0.0.254")]),
        ("cidr = '10.0.0.0/24'\ngateway_ip = false", None, &[("10.0.0.1", "10.0.0.254")]),
        (
            "cidr = '10.0.0.0/24'\ngateway_ip = '10.0.0.9'",
            Some("10.0.0.9"),
            &[("10.0.0.1", "10.0.0.8"), ("10.0.0.10", "10.0.0.254")],
        ),
        (
            "cidr = '10.0.0.0/24'\ngateway_ip = '10.0.0.254'",
            Some("10.0.0.254"),
            &[("10.0.0.1", "10.0.0.253")],
        ),
        ("cidr = '10.0.0.0/30'", Some("10.0.0.1"), &[("10.0.0.2", "10.0.0.2")]),
        ("cidr = '10.0.0.0/31'", Some("10.0.0.0"), &[("10.0.0.1", "10.0.0.1")]),
        ("cidr = '10.0.0.7/32'", None, &[("10.0.0.7", "10.0.0.7")]),
        ("cidr = '10.0.0.7/32'\ngateway_ip = '10.0.0.7'", Some("10.0.0.7"), &[]),
        ("cidr = '2001:db8::/64'", Some("2001:db8::1"), &[("2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff")]),
        ("cidr = '2001:db8::/127'", Some("2001:db8::"), &[("2001:db8::1", "2001:db8::1")]),
        ("cidr = '2001:db8::/128'", None, &[("2001:db8::", "2001:db8::")]),
        (
            "cidr = '10.0.0.0/24'\nallocation_pools = ['10.0.0.20-10.0.0.29', '10.0.0.5 - 10.0.0.5']",
            Some("10.0.0.1"),
            &[("10.0.0.5", "10.0.0.5"), ("10.0.0.20", "10.0.0.29")],
        ),
    ];
    for (text, gateway, pools) in rows {
        let model = model(&format!("[[network]]\nname = 'n'\n[[subnet]]\nname = 's'\nnetwork = 'n'\n{text}"));
        let subnet = &model.subnets[0];
        assert_eq!(subnet.gateway_ip, gateway.map(ip), "{text}");
        let pools: Vec<_> = pools.iter().map(|(from, to)| (ip(from), ip(to))).collect();
        assert_eq!(subnet.allocation_pools, pools, "{text}");
        assert_eq!((subnet.id, subnet.origin.line, subnet.network.as_str()), (id("subnet", "s"), 3, "n"));
    }
}

/// The example of a tenant behind a router; its values were computed by hand, MACs and identifiers by another
/// implementation of UUID version 5.
#[test]
fn the_example_of_a_router_is_what_it_says() {
    let model = model(include_str!("../../../config/router.toml"));
    assert!(model.networks[0].external && !model.networks[1].external);
    let router = &model.routers[0];
    let gateway = router.external_gateway.as_ref().unwrap();
    assert_eq!((gateway.network.as_str(), gateway.enable_snat), ("public", true));
    assert_eq!(ips(&gateway.fixed_ips), ["203.0.113.100/24 public-v4", "2001:db8:a::2/64 public-v6"]);
    assert_eq!(gateway.gateway_ips, [ip("203.0.113.1"), ip("2001:db8:a::1")]);
    assert_eq!(gateway.mac_address.to_string(), "fa:16:3e:04:f1:f5");
    let interfaces: Vec<_> =
        router.interfaces.iter().map(|i| (i.mac_address.to_string(), ips(&i.fixed_ips))).collect();
    assert_eq!(
        interfaces,
        [
            ("fa:16:3e:97:e1:c9".to_owned(), vec!["10.0.0.1/24 blue-v4".to_owned()]),
            ("fa:16:3e:18:c3:45".to_owned(), vec!["2001:db8:b::1/64 blue-v6".to_owned()]),
        ]
    );
    assert_eq!(router.id.to_string(), "0e4f52a1-c0a7-5d82-9dfd-fe05f6b2de54");
    assert_eq!(
        (router.nat_filtering, router.mss_clamping, router.admin_state_up),
        (NatFiltering::AddressAndPortDependent, false, true)
    );
    let probe = &model.ports[2];
    assert_eq!(ips(&probe.fixed_ips), ["10.0.0.2/24 blue-v4", "2001:db8:b::2/64 blue-v6"]);
    let address = vec![(ip("10.0.0.2"), 24), (ip("2001:db8:b::2"), 64)];
    let tap = Interface::Tap { name: "eth0".into(), netns: Some("probe".into()), address };
    assert_eq!(probe.interface, tap);

    let [whole, forwarded] = &model.floating_ips[..] else { panic!("two floating IPs") };
    assert_eq!(whole.id.to_string(), "1b141e7e-dd6b-5a52-952d-b679ece831f2");
    assert_eq!((whole.router.as_deref(), forwarded.router.as_deref()), (Some("edge"), Some("edge")));
    let target = FloatingTarget { port: "web1".into(), fixed_ip_address: [10, 0, 0, 11].into() };
    assert_eq!((&whole.target, whole.port_forwardings.len()), (&Some(target), 0));
    let forwarding = |protocol, external_ports, port: &str, last, internal_ports| PortForwarding {
        protocol,
        external_ports,
        internal_port: port.to_owned(),
        internal_ip_address: [10, 0, 0, last].into(),
        internal_ports,
    };
    assert_eq!(
        (&forwarded.target, &forwarded.port_forwardings[..]),
        (
            &None,
            &[
                forwarding(6, (8080, 8080), "web2", 12, (80, 80)),
                forwarding(17, (6000, 6009), "probe", 2, (6000, 6009)),
            ][..]
        )
    );
}

const TWO: &str = r#"network = [{ name = "n" }, { name = "out", external = true }, { name = "out2", external = true }]
subnet = [
  { name = "n4", network = "n", cidr = "10.0.0.0/24" },
  { name = "n4b", network = "n", cidr = "10.0.1.0/24" },
  { name = "n6", network = "n", cidr = "2001:db8::/64" },
  { name = "n6b", network = "n", cidr = "2001:db8:1::/64" },
  { name = "out4", network = "out", cidr = "203.0.113.0/24" },
  { name = "out6", network = "out", cidr = "2001:db8:a::/64" },
  { name = "out24", network = "out2", cidr = "203.0.113.0/24" },
]
"#;

#[test]
fn interfaces_are_grouped_as_neutron_does() {
    let router = "[[router]]\nname = 'r'\ninterfaces = ['n4', 'n6', 'n4b', { subnet = 'n6b', mac_address = '02:00:00:00:00:01' }]";
    let model = model(&format!("{TWO}{router}"));
    let interfaces: Vec<_> =
        model.routers[0].interfaces.iter().map(|i| ips(&i.fixed_ips).join(", ")).collect();
    assert_eq!(interfaces, ["10.0.0.1/24 n4", "2001:db8::1/64 n6, 2001:db8:1::1/64 n6b", "10.0.1.1/24 n4b"]);
    let macs: HashSet<Mac> = model.routers[0].interfaces.iter().map(|i| i.mac_address).collect();
    assert_eq!(macs.len(), 3);
    assert_eq!(model.routers[0].interfaces[1].mac_address.to_string(), "02:00:00:00:00:01");
}

#[test]
fn a_default_route_replaces_the_gateways() {
    let text = format!(
        "{TWO}[[router]]\nname = 'r'\nexternal_gateway = {{ network = 'out', enable_snat = false }}\n\
         routes = [{{ destination = '0.0.0.0/0', nexthop = '203.0.113.250' }}, {{ destination = '0.0.0.0/0', nexthop = '203.0.113.251' }}]\n\
         nat_filtering = 'endpoint-independent'\nmss_clamping = true\nadmin_state_up = false"
    );
    let router = &model(&text).routers[0];
    let gateway = router.external_gateway.as_ref().unwrap();
    assert_eq!(gateway.gateway_ips, [ip("2001:db8:a::1")]);
    assert_eq!(ips(&gateway.fixed_ips), ["203.0.113.2/24 out4", "2001:db8:a::2/64 out6"]);
    assert!(!gateway.enable_snat && router.mss_clamping && !router.admin_state_up);
    let route = |last| Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        nexthop: IpAddr::from([203, 0, 113, last]),
    };
    assert_eq!(router.routes, [route(250), route(251)]);
    assert_eq!(router.nat_filtering, NatFiltering::EndpointIndependent);
}

/// A floating IP takes the router that is the guest's gateway, and each external network may have one for a fixed IP.
#[test]
fn a_floating_ip_finds_its_router() {
    let model = model(&format!(
        "{TWO}[[router]]\nname = 'a'\nexternal_gateway.network = 'out'\ninterfaces = [{{ subnet = 'n4', ip = '10.0.0.2' }}]\n\
         [[router]]\nname = 'b'\nexternal_gateway.network = 'out'\ninterfaces = ['n4']\n\
         [[router]]\nname = 'c'\nexternal_gateway.network = 'out2'\ninterfaces = [{{ subnet = 'n4', ip = '10.0.0.3' }}]\n\
         [[port]]\nname = 'p'\nnetwork = 'n'\ninterface = {{ kind = 'guest', name = 'g' }}\n\
         [[floating_ip]]\nfloating_network = 'out'\nport = 'p'\n\
         [[floating_ip]]\nfloating_network = 'out2'\nport = 'p'\n\
         [[floating_ip]]\nfloating_network = 'out'\n"
    ));
    let found: Vec<_> =
        model.floating_ips.iter().map(|f| (f.floating_ip_address.to_string(), f.router.as_deref())).collect();
    let expected = [("203.0.113.4", Some("b")), ("203.0.113.3", Some("c")), ("203.0.113.5", None)];
    assert_eq!(found, expected.map(|(ip, router)| (ip.to_owned(), router)));
    // 10.0.0.1 to 3 are the routers'.
    assert_eq!(ips(&model.ports[0].fixed_ips), ["10.0.0.4/24 n4", "2001:db8::2/64 n6"]);
}

#[test]
fn only_who_is_one_station_gets_an_address_unasked() {
    let port = |name: &str, more: &str| format!("[[port]]\nname = '{name}'\nnetwork = 'n'\n{more}\n");
    let model = model(&format!(
        "{TWO}{}{}{}{}{}",
        port("tap", "interface = { kind = 'tap', name = 't1' }"),
        port("xdp", "interface = { kind = 'xdp', name = 'x1' }"),
        port("known", "interface = { kind = 'xdp', name = 'x2' }\nmac_address = '02:00:00:00:00:01'"),
        port("asking", "interface = { kind = 'packet', name = 'x3' }\nfixed_ips = [{ subnet = 'n4b' }]"),
        // What a tap has by hand is nobody else's, though it is no fixed IP.
        port("none", "interface = { kind = 'tap', name = 't2', address = '10.0.0.3/24' }\nfixed_ips = []"),
    ));
    let found: Vec<String> = model.ports.iter().map(|port| ips(&port.fixed_ips).join(", ")).collect();
    assert_eq!(
        found,
        ["10.0.0.2/24 n4, 2001:db8::2/64 n6", "", "10.0.0.4/24 n4, 2001:db8::3/64 n6", "10.0.1.2/24 n4b", ""]
    );
}

#[test]
fn connection_tracking_has_bounds_and_timeouts() {
    assert_eq!(model("").conntrack, Conntrack::default());
    let found = model("[conntrack]\nmax_entries = 2048\ntimeouts = { udp = 1, icmp = 2 }").conntrack;
    let timeouts = Timeouts { udp: 1, icmp: 2, ..Timeouts::default() };
    let default = Conntrack::default();
    assert_eq!(found, Conntrack { max_entries: 2048, max_entries_per_guest: 2048, timeouts, ..default });
    assert_eq!(model("[conntrack]\nmax_new_per_guest = 7").conntrack.max_new_per_guest, 7);
}

#[test]
fn each_difference_of_routing_has_its_line() {
    let base = include_str!("../../../config/router.toml");
    let lines = |from: &str, to: &str| {
        assert!(base.contains(from), "{from}");
        diff(&model(base), &model(&base.replacen(from, to, 1))).to_string()
    };
    assert_eq!(lines("[[network]]", "# moved\n[[network]]"), "");
    assert_eq!(lines("203.0.113.199\"]", "203.0.113.198\"]"), "");
    assert_eq!(lines("name = \"edge\"", "name = \"edge\"\nmss_clamping = true"), "~ router \"edge\"");
    assert_eq!(lines("port = \"web1\"", ""), "~ floating IP \"203.0.113.101\"");
    assert_eq!(
        lines("203.0.113.101", "203.0.113.103"),
        "- floating IP \"203.0.113.101\"\n+ floating IP \"203.0.113.103\""
    );
    assert_eq!(
        lines("gateway_ip = \"203.0.113.1\" ", "gateway_ip = \"203.0.113.9\" "),
        "~ subnet \"public-v4\"\n~ router \"edge\""
    );
    assert_eq!(
        lines("fixed_ips = [\"10.0.0.11\", ", "fixed_ips = [\"10.0.0.13\", "),
        "~ floating IP \"203.0.113.101\"\n~ port \"web1\""
    );
    // A tap's own address is its device's business.
    assert_eq!(
        lines("address = true }", "address = true }\nfixed_ips = ['10.0.0.99']"),
        "~ floating IP \"203.0.113.102\"\n~ port \"probe\", its device is opened anew"
    );
    let end = "address = true }";
    assert_eq!(
        lines(
            end,
            &format!(
                "{end}\n[[network]]\nname = 'x'\n[[subnet]]\nname = 'x'\nnetwork = 'x'\ncidr = '10.9.0.0/24'\n[[router]]\nname = 'x'"
            )
        ),
        "+ network \"x\"\n+ subnet \"x\"\n+ router \"x\""
    );
    assert_eq!(
        lines(
            end,
            &format!("{end}\n[conntrack]\nmax_entries = 1024\nmax_new_per_guest = 5\ntimeouts.udp = 9")
        ),
        "~ conntrack.max_entries_per_guest: 65536 becomes 1024\n~ conntrack.max_new_per_guest: 100000 becomes 5\n\
         ~ conntrack.timeouts.udp: 300 becomes 9\n\
         ! conntrack.max_entries: 262144 stays until a restart, which makes it 1024"
    );
}

/// A port of one of two networks, with a given address or not.
type Drawn = (bool, Option<u8>);

/// A file of networks with 14 addresses each; the third is external.
fn file(ports: &[(usize, Drawn)], routers: usize, floating: &[Option<u8>]) -> String {
    let mut text = String::new();
    for n in 0..3 {
        text += &format!("[[network]]\nname = 'n{n}'\nexternal = {}\n", n == 2);
        text += &format!("[[subnet]]\nname = 's{n}'\nnetwork = 'n{n}'\ncidr = '10.0.{n}.0/27'\n");
    }
    for r in 0..routers {
        text += &format!("[[router]]\nname = 'r{r}'\nexternal_gateway.network = 'n2'\n");
    }
    for given in floating {
        text += "[[floating_ip]]\nfloating_network = 'n2'\n";
        text += &given.map(|last| format!("floating_ip_address = '10.0.2.{last}'\n")).unwrap_or_default();
    }
    for (name, (second, given)) in ports {
        let n = usize::from(*second);
        text += &format!(
            "[[port]]\nname = 'p{name}'\nnetwork = 'n{n}'\ninterface = {{ kind = 'guest', name = 'g{name}' }}\n"
        );
        text += &given.map(|last| format!("fixed_ips = ['10.0.{n}.{last}']\n")).unwrap_or_default();
    }
    text
}

/// Given addresses only once on a network.
fn once<T: Copy + Ord>(given: impl Iterator<Item = (T, Option<u8>)>) -> Vec<(T, Option<u8>)> {
    let mut seen = BTreeSet::new();
    given.map(|(key, last)| (key, last.filter(|last| seen.insert((key, *last))))).collect()
}

fn by_port(model: &Model) -> BTreeMap<String, Vec<FixedIp>> {
    model.ports.iter().map(|port| (port.name.clone(), port.fixed_ips.clone())).collect()
}

proptest! {
    #[test]
    fn every_address_has_one_owner_and_a_reason(
        ports in prop::collection::vec((any::<bool>(), prop::option::of(2..31_u8)), 0..14),
        routers in 0..4_usize,
        floating in prop::collection::vec(prop::option::of(2..31_u8), 0..8),
    ) {
        let ports: Vec<(usize, Drawn)> = once(ports.into_iter()).into_iter().enumerate().collect();
        let floating: Vec<Option<u8>> = once(floating.into_iter().map(|given| ((), given))).into_iter().map(|f| f.1).collect();
        let whole = model(&file(&ports, routers, &floating));
        let mut owned = HashSet::new();
        let of_ports = whole.ports.iter().flat_map(|port| &port.fixed_ips);
        let of_routers = whole.routers.iter().flat_map(|r| &r.external_gateway.as_ref().unwrap().fixed_ips);
        for fixed in of_ports.chain(of_routers) {
            prop_assert!(owned.insert((fixed.subnet.clone(), fixed.ip)), "{:?} twice", fixed);
            let subnet = whole.subnets.iter().find(|s| s.name == fixed.subnet).unwrap();
            prop_assert!(subnet.cidr.contains(&fixed.ip) && subnet.gateway_ip != Some(fixed.ip));
        }
        for floating in &whole.floating_ips {
            prop_assert!(owned.insert(("s2".to_owned(), floating.floating_ip_address.into())));
        }
        // The given ones are as given.
        for ((name, (second, given)), port) in ports.iter().zip(&whole.ports) {
            if let Some(last) = given {
                prop_assert_eq!(port.fixed_ips[0].ip, IpAddr::from([10, 0, u8::from(*second), *last]), "p{}", name);
            }
        }
        // Ports of one network do not depend on those of another, nor on routers and floating IPs elsewhere.
        for second in [false, true] {
            let alone: Vec<_> = ports.iter().filter(|(_, port)| port.0 == second).copied().collect();
            let all = by_port(&whole);
            for (name, fixed_ips) in by_port(&model(&file(&alone, 0, &[]))) {
                prop_assert_eq!(&fixed_ips, &all[&name]);
            }
        }
        // A further port at the end moves nobody.
        let mut more = ports.clone();
        more.push((99, (true, None)));
        let more = model(&file(&more, routers, &floating));
        for (name, fixed_ips) in by_port(&whole) {
            prop_assert_eq!(&fixed_ips, &by_port(&more)[&name]);
        }
        prop_assert_eq!(&whole.routers.iter().map(|r| &r.external_gateway).collect::<Vec<_>>(),
            &more.routers.iter().map(|r| &r.external_gateway).collect::<Vec<_>>());
    }

    /// Default pools are what hosts can have, without the gateway.
    #[test]
    fn default_pools_are_all_but_the_gateway(length in 20..=32_u8, offset: u32, explicit: Option<bool>) {
        let net = IpNet::new([10, 0, 0, 0].into(), length).unwrap();
        let hosts: Vec<IpAddr> = net.hosts().collect();
        let gateway = hosts[usize::try_from(offset).unwrap() % hosts.len()];
        let key = match explicit {
            Some(true) => format!("gateway_ip = '{gateway}'"),
            Some(false) => "gateway_ip = false".to_owned(),
            None => String::new(),
        };
        let text = format!("[[network]]\nname = 'n'\n[[subnet]]\nname = 's'\nnetwork = 'n'\ncidr = '{net}'\n{key}");
        let subnet = model(&text).subnets.remove(0);
        let pooled = |ip: &IpAddr| subnet.allocation_pools.iter().filter(|(from, to)| from <= ip && ip <= to).count();
        for host in &hosts {
            prop_assert_eq!(pooled(host), usize::from(subnet.gateway_ip != Some(*host)), "{}", host);
        }
        prop_assert!(length > 30 || pooled(&net.network()) + pooled(&net.broadcast()) == 0);
    }
}
