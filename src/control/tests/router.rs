//! What the API tells of routers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

pub(crate) fn fake_router() -> Router {
    let counters = PortCounters::default();
    counters.rx_frames.add(5);
    counters.count_drop(DropReason::NatUnmatched, 3);
    let fixed = |ip: &str, subnet: &str| FixedIp {
        subnet_id: Uuid::from_u128(31),
        subnet: subnet.into(),
        ip_address: ip.parse().unwrap(),
    };
    let ips = vec![fixed("203.0.113.100", "public-v4"), fixed("2001:db8:a::2", "public-v6")];
    Router {
        id: Uuid::from_u128(30),
        name: "edge".into(),
        status: State::Active,
        admin_state_up: true,
        external_gateway_info: Some(GatewayInfo {
            network_id: Uuid::from_u128(32),
            network: "public".into(),
            enable_snat: true,
            external_fixed_ips: ips.clone(),
        }),
        routes: vec![ExtraRoute {
            destination: "198.51.100.0/24".into(),
            nexthop: "203.0.113.7".parse().unwrap(),
        }],
        interfaces: vec![RouterInterface {
            name: "edge/public-v4".into(),
            network: "public".into(),
            mac_address: "02:00:00:00:00:ee".parse().unwrap(),
            fixed_ips: ips,
            is_gateway: true,
            mtu: 1500,
            counters: counters.snapshot(),
        }],
        worker: Some(0),
        connections: 1234,
        bindings: 7,
        exhausted: 0,
    }
}

pub(crate) fn fake_subnet() -> Subnet {
    Subnet {
        id: Uuid::from_u128(31),
        name: "public-v4".into(),
        network_id: Uuid::from_u128(32),
        network: "public".into(),
        ip_version: 4,
        cidr: "203.0.113.0/24".into(),
        gateway_ip: Some("203.0.113.1".parse().unwrap()),
        allocation_pools: vec![AllocationPool {
            start: "203.0.113.100".parse().unwrap(),
            end: "203.0.113.199".parse().unwrap(),
        }],
        enable_dhcp: true,
        dns_nameservers: vec!["203.0.113.53".parse().unwrap()],
        ntp_servers: Vec::new(),
        host_routes: vec![ExtraRoute {
            destination: "198.51.100.0/24".into(),
            nexthop: "203.0.113.9".parse().unwrap(),
        }],
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
    }
}

fn fake_forwarding() -> PortForwarding {
    PortForwarding {
        id: Uuid::from_u128(41),
        protocol: "udp".into(),
        external_port: None,
        external_port_range: "6000:6009".into(),
        internal_port_id: Uuid::from_u128(2),
        internal_ip_address: "10.0.0.12".parse().unwrap(),
        internal_port: None,
        internal_port_range: "7000:7009".into(),
    }
}

pub(crate) fn fake_floating_ip() -> FloatingIp {
    FloatingIp {
        id: Uuid::from_u128(40),
        floating_ip_address: "203.0.113.151".parse().unwrap(),
        floating_network_id: Uuid::from_u128(32),
        floating_network: "public".into(),
        router_id: Some(Uuid::from_u128(30)),
        router: Some("edge".into()),
        port_id: None,
        port: None,
        fixed_ip_address: None,
        status: State::Active,
        port_forwardings: vec![fake_forwarding()],
    }
}

pub(crate) fn fake_routes() -> Vec<Route> {
    let route = |destination: &str, kind, interface: Option<&str>, origin: &str| Route {
        router: "edge".into(),
        destination: destination.into(),
        kind,
        interface: interface.map(str::to_owned),
        nexthops: Vec::new(),
        origin: origin.into(),
        subnet: None,
    };
    let hop =
        |address: &str| NextHop { address: address.parse().unwrap(), interface: "edge/public-v4".into() };
    vec![
        route("203.0.113.100/32", RouteKind::Translated, None, "gateway"),
        Route {
            subnet: Some("blue-v4".into()),
            ..route("10.0.0.0/24", RouteKind::Connected, Some("edge/blue-v4"), "subnet")
        },
        Route {
            nexthops: vec![hop("203.0.113.7"), hop("203.0.113.8")],
            ..route("198.51.100.0/24", RouteKind::Via, Some("edge/public-v4"), "extra")
        },
    ]
}

pub(crate) fn fake_neighbour() -> Neighbour {
    Neighbour {
        router: "edge".into(),
        network: "public".into(),
        interface: "edge/public-v4".into(),
        address: "203.0.113.9".parse().unwrap(),
        mac: None,
        state: "incomplete".into(),
    }
}

/// A connection from port 40000 and so many.
pub(crate) fn fake_connection(number: u32) -> Connection {
    let port = Some(40_000 + u16::try_from(number).unwrap());
    let ends = |source: &str, source_port, destination: &str, destination_port| Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port,
        destination_port,
        icmp_id: None,
    };
    Connection {
        router: Some("edge".into()),
        network: None,
        worker: 0,
        protocol: "tcp".into(),
        state: "established".into(),
        inbound: false,
        original: ends("10.0.0.10", port, "203.0.113.1", Some(80)),
        translated: ends("203.0.113.100", port, "203.0.113.1", Some(80)),
        reply: ends("203.0.113.1", Some(80), "203.0.113.100", port),
        expires_in: 7440,
        guest: Some("web1".into()),
        egress_rule: None,
        ingress_rule: None,
        packets: [3, 2],
        bytes: [180, 120],
    }
}

pub(crate) fn fake_binding() -> Binding {
    Binding {
        router: "edge".into(),
        protocol: "udp".into(),
        inside_address: "10.0.0.10".parse().unwrap(),
        inside_port: Some(40_000),
        outside_address: "203.0.113.100".parse().unwrap(),
        outside_port: Some(40_000),
        connections: 2,
        current: true,
    }
}

pub(crate) fn fake_nat() -> Nat {
    let mapping = Mapping {
        router: "edge".into(),
        floating_ip_address: "203.0.113.150".parse().unwrap(),
        protocol: None,
        external_ports: None,
        port: "web1".into(),
        fixed_ip_address: "10.0.0.11".parse().unwrap(),
        internal_ports: None,
    };
    let forwarded = Mapping {
        floating_ip_address: "203.0.113.151".parse().unwrap(),
        protocol: Some("udp".into()),
        external_ports: Some("6000:6009".into()),
        port: "web2".into(),
        fixed_ip_address: "10.0.0.12".parse().unwrap(),
        internal_ports: Some("7000:7009".into()),
        ..mapping.clone()
    };
    Nat {
        pools: vec![Pool {
            router: "edge".into(),
            address: "203.0.113.100".parse().unwrap(),
            protocol: "tcp".into(),
            used: 64_511,
            total: 65_535,
            exhausted: 1000,
        }],
        mappings: vec![mapping, forwarded],
        trackers: vec![TrackerStats {
            worker: 1,
            connections: 12,
            max_connections: 262_144,
            bindings: 7,
            created: 1000,
            expired: 9,
            guest_limit: 0,
            full: 0,
            removed: 0,
            refused: 0,
            invalid: 0,
        }],
    }
}

#[test]
fn neutrons_objects_are_listed_and_shown() {
    let switch = Running::start();
    let client = switch.client();
    let routers: Vec<Router> = client.get_key("/v2.0/routers?name=edge", "routers").unwrap();
    assert_eq!(routers, [fake_router()]);
    let by_id: Router = client.get_key(&format!("/v2.0/routers/{}", fake_router().id), "router").unwrap();
    assert_eq!(by_id, fake_router());
    let subnets: Vec<Subnet> = client.get_key("/v2.0/subnets?ip_version=4", "subnets").unwrap();
    assert_eq!(subnets, [fake_subnet()]);
    assert_eq!(client.get_key::<Vec<Subnet>>("/v2.0/subnets?ip_version=6", "subnets").unwrap(), []);
    let path = "/v2.0/floatingips?floating_ip_address=203.0.113.151";
    let floating: Vec<FloatingIp> = client.get_key(path, "floatingips").unwrap();
    assert_eq!(floating, [fake_floating_ip()]);
    for name in ["203.0.113.151".to_owned(), fake_floating_ip().id.to_string()] {
        let path = format!("/v2.0/floatingips/{name}/port_forwardings");
        let list: Vec<PortForwarding> = client.get_key(&path, "port_forwardings").unwrap();
        assert_eq!(list, [fake_forwarding()]);
        let path = format!("{path}/{}", fake_forwarding().id);
        let one: PortForwarding = client.get_key(&path, "port_forwarding").unwrap();
        assert_eq!(one, fake_forwarding());
    }
    let routes: Vec<Route> = client.get_key("/v1/routes?kind=via", "routes").unwrap();
    assert_eq!(routes, fake_routes()[2..]);
    let neighbours: Vec<Neighbour> = client.get_key("/v1/neighbours?mac=", "neighbours").unwrap();
    assert_eq!(neighbours, [fake_neighbour()]);
    assert_eq!(client.get::<Nat>("/v1/nat").unwrap(), fake_nat());
    let drops: Vec<Drop> = client.get_key("/v1/drops?port=edge/public-v4", "drops").unwrap();
    assert_eq!((drops.len(), drops[0].count, drops[0].reason.as_str()), (1, 3, "nat_unmatched"));
}

#[test]
fn every_field_of_routers_is_known_to_the_filters() {
    check_fields(&fake_router());
    check_fields(&fake_subnet());
    check_fields(&fake_floating_ip());
    check_fields(&fake_forwarding());
    fake_routes().iter().for_each(check_fields);
    check_fields(&fake_neighbour());
    check_fields(&fake_connection(1));
    check_fields(&fake_binding());
}

#[test]
fn errors_about_routers_have_neutrons_form() {
    let switch = Running::start();
    for (path, status, kind, message) in [
        ("/v2.0/routers/nope", 404, "RouterNotFound", "Router nope could not be found."),
        ("/v2.0/subnets/nope", 404, "SubnetNotFound", "Subnet nope could not be found."),
        ("/v2.0/floatingips/nope", 404, "FloatingIPNotFound", "FloatingIP nope could not be found."),
        ("/v2.0/routers?interfaces=1", 400, "InvalidInput", "routers cannot be filtered by interfaces."),
        ("/v1/conntrack?prot=6", 400, "InvalidInput", "They cannot be picked by prot."),
        ("/v1/conntrack?fields=nope", 400, "InvalidInput", "conntrack have no field nope."),
        ("/v1/conntrack?router=nope", 404, "RouterNotFound", "Router nope could not be found."),
        ("/v1/conntrack/events?limit=3", 400, "InvalidInput", "They cannot be picked by limit."),
        ("/v1/bindings?port=1", 400, "InvalidInput", "They cannot be picked by port."),
        ("/v1/nat?router=edge", 400, "InvalidInput", "This is one thing, which has no parameter router."),
    ] {
        let problem = switch.problem(path);
        let said = (problem.status, problem.body.kind.as_str(), problem.body.message.as_str());
        assert_eq!(said, (status, kind, message), "{path}");
    }
}

#[test]
fn connections_come_in_pages() {
    let switch = Running::start();
    let client = switch.client();
    let mut next = Some("/v1/conntrack?router=edge&fields=original".to_owned());
    let (mut ports, mut pages) = (Vec::new(), 0);
    while let Some(path) = next {
        let page: Value = client.get(&path).unwrap();
        for connection in page["conntrack"].as_array().unwrap() {
            assert_eq!(connection.as_object().unwrap().len(), 1, "{connection}");
            ports.push(connection["original"]["source_port"].as_u64().unwrap());
        }
        pages += 1;
        let href = page["conntrack_links"][0]["href"].as_str();
        next = href.map(|href| href.strip_prefix("http://localhost").unwrap().to_owned());
    }
    assert_eq!((pages, ports), (3, (40_000..40_012).collect::<Vec<u64>>()));
    let two: Value = client.get("/v1/conntrack?limit=2&marker=0.3").unwrap();
    let href = "http://localhost/v1/conntrack?limit=2&marker=0.5";
    assert_eq!(two["conntrack_links"], json!([{"rel": "next", "href": href}]));
    let none: Value = client.get("/v1/bindings?inside_address=10.9.0.0/16").unwrap();
    assert_eq!(none, json!({"bindings": []}));
}

#[test]
fn a_flush_says_how_many_and_which() {
    let switch = Running::start();
    let path = "/v1/conntrack?guest=web1&protocol=udp&port=53";
    assert_eq!(switch.client().delete::<Flushed>(path).unwrap(), Flushed { removed: 3 });
    let asked = switch.switch.flushed.lock().unwrap().pop().unwrap();
    let text = |text: &str| vec![text.to_owned()];
    let expected = ConnectionFilter {
        guests: text("web1"),
        protocols: text("udp"),
        ports: vec![53],
        ..ConnectionFilter::default()
    };
    assert_eq!(asked, expected);
    let Err(Error::Refused(problem)) = switch.client().delete::<Flushed>("/v1/conntrack?gest=web1") else {
        panic!("a misspelt filter flushed everything")
    };
    assert_eq!(problem.status, 400);
    assert!(switch.switch.flushed.lock().unwrap().is_empty());
}

#[test]
fn connections_are_followed_until_the_client_hangs_up() {
    let switch = Running::start();
    let fake = switch.switch.clone();
    let told = Arc::new(AtomicBool::new(false));
    let was_told = told.clone();
    let feeder = std::thread::spawn(move || {
        let (sender, missed) = loop {
            if let Some(follower) = fake.followers.lock().unwrap().first() {
                break follower.clone();
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        sender.blocking_send(ConnectionEvent::New { connection: fake_connection(1) }).unwrap();
        while !was_told.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        missed.fetch_add(5, Ordering::Relaxed);
        let ended = ConnectionEvent::Ended { connection: fake_connection(1), why: "expired".into() };
        sender.blocking_send(ended).unwrap();
        let start = Instant::now();
        while !sender.is_closed() {
            assert!(start.elapsed() < Duration::from_secs(5), "the switch does not see that nobody listens");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut lines = Vec::new();
    let take = |piece: &[u8]| {
        lines.extend_from_slice(piece);
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        told.store(count >= 2, Ordering::Release);
        Ok(if count == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    switch.client().stream("/v1/conntrack/events", std::future::pending(), take).unwrap();
    let events: Vec<ConnectionEvent> =
        String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let connection = fake_connection(1);
    assert_eq!(
        events,
        [
            ConnectionEvent::Following,
            ConnectionEvent::New { connection: connection.clone() },
            ConnectionEvent::Lost { count: 5 },
            ConnectionEvent::Ended { connection, why: "expired".into() },
        ]
    );
    feeder.join().unwrap();
}
