//! What the switch shows of a router with real traffic through it, and what flushing and tracing do: every command against the
//! daemon, with the kernel's own sockets at both ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, Namespace, PATIENCE, eventually, run, text};
use crate::router::{FLOATING, FORWARDED, Scene, reaches};

const WORLD: &str = "203.0.113.1";
const SNAT: &str = "203.0.113.100";

/// What a command prints with `-o json`.
#[track_caller]
fn json_of(lab: &Lab, words: &str) -> Value {
    let words: Vec<&str> = words.split_whitespace().chain(["-o", "json"]).collect();
    let output = lab.nuswitch(&words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", text(&output)))
}

#[track_caller]
fn said(lab: &Lab, words: &str) -> String {
    let output = lab.nuswitch(&words.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "{words}: {}", text(&output));
    text(&output)
}

/// Of the router; what security groups let guests have is told besides.
fn connections(lab: &Lab, filter: &str) -> Vec<Value> {
    json_of(lab, &format!("show conntrack --router edge {filter}")).as_array().unwrap().clone()
}

fn mac(ns: &Namespace, device: &str) -> String {
    run(ns.command("cat").arg(format!("/sys/class/net/{device}/address"))).trim().to_owned()
}

fn udp(ns: &Namespace, address: &str) -> UdpSocket {
    let socket = ns.within(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

/// Sends until it arrives; gives whom the receiver sees.
#[track_caller]
fn delivered(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    let goal = to.local_addr().unwrap();
    let mut bytes = [0; 16];
    for _ in 0..20 {
        from.send_to(b"hello", goal).unwrap();
        if let Ok((_, source)) = to.recv_from(&mut bytes) {
            return source;
        }
    }
    panic!("{goal} hears nothing")
}

/// A TCP connection from `client` to the world, with both its ends.
fn tcp_to_world(scene: &Scene, client: &Namespace) -> (TcpStream, TcpStream) {
    let listener = scene.world.within(|| TcpListener::bind((WORLD, 0)).unwrap());
    let goal = listener.local_addr().unwrap();
    let near = client.within(|| TcpStream::connect_timeout(&goal, PATIENCE).unwrap());
    let far = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (near, far)
}

fn passes(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"still here").unwrap();
    let mut bytes = [0; 10];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
}

#[test]
fn routers_routes_neighbours_and_nat_are_shown_as_they_are() {
    needs_system!();
    for workers in ["", "workers = [0, 1]"] {
        let mut scene = Scene::new("packet", workers).start(&format!("{FLOATING}\n{FORWARDED}"));
        let Scene { lab, world, guest, web, .. } = &mut scene;
        reaches(guest, WORLD, "");
        reaches(world, "203.0.113.150", "");
        shows_routers(lab, guest);
        shows_routes(lab);
        shows_neighbours(lab, world, web);
        shows_connections(lab);
        shows_nat(lab);
        lab.stop();
    }
}

fn shows_routers(lab: &Lab, guest: &Namespace) {
    let routers = json_of(lab, "show routers edge");
    let router = &routers[0];
    assert_eq!(
        (&router["name"], &router["status"], &router["external_gateway_info"]["network"]),
        (&"edge".into(), &"ACTIVE".into(), &"public".into()),
        "{router:#}"
    );
    let names: Vec<&str> =
        router["interfaces"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    for name in ["edge/public-v4", "edge/blue-v4", "edge/blue-v6", "edge/green-v4"] {
        assert!(names.contains(&name), "{name}: {router:#}");
    }
    let blue = router["interfaces"].as_array().unwrap().iter().find(|i| i["name"] == "edge/blue-v4").unwrap();
    let gateway = guest.ip("neigh show 10.0.0.1");
    assert!(gateway.contains(blue["mac_address"].as_str().unwrap()), "{gateway}: {blue:#}");
    assert!(blue["counters"]["tx_frames"].as_u64().unwrap() >= 3, "{blue:#}");
    // Each ping has an identifier of its own.
    assert!(router["connections"].as_u64().unwrap() >= 2, "{router:#}");
    assert!(router["bindings"].as_u64().unwrap() >= 1, "{router:#}");
    let table = said(lab, "show routers");
    assert!(table.contains(SNAT) && table.contains("edge/green-v4"), "{table}");
}

fn shows_routes(lab: &Lab) {
    let routes = json_of(lab, "show routes --router edge");
    let of = |destination: &str| -> Value {
        let found: Vec<&Value> =
            routes.as_array().unwrap().iter().filter(|route| route["destination"] == destination).collect();
        assert_eq!(found.len(), 1, "{destination}: {routes:#}");
        found[0].clone()
    };
    for (destination, kind, origin, interface, subnet) in [
        ("203.0.113.100/32", "translated", "gateway", Value::Null, Value::Null),
        ("203.0.113.150/32", "translated", "floating_ip", Value::Null, Value::Null),
        ("10.0.0.1/32", "local", "subnet", Value::Null, "blue-v4".into()),
        ("10.0.0.255/32", "broadcast", "subnet", Value::Null, "blue-v4".into()),
        ("10.0.1.0/24", "connected", "subnet", "edge/green-v4".into(), "green-v4".into()),
        ("2001:db8:b::/64", "connected", "subnet", "edge/blue-v6".into(), "blue-v6".into()),
        ("0.0.0.0/0", "via", "gateway", "edge/public-v4".into(), Value::Null),
    ] {
        let route = of(destination);
        let found = (&route["kind"], &route["origin"], &route["interface"], &route["subnet"]);
        assert_eq!(found, (&kind.into(), &origin.into(), &interface, &subnet), "{route:#}");
    }
    let hops = &of("0.0.0.0/0")["nexthops"];
    assert_eq!(hops, &json!([{"address": WORLD, "interface": "edge/public-v4"}]));
    assert!(said(lab, "show routes").contains("floating IP"));
}

fn shows_neighbours(lab: &Lab, world: &Namespace, web: &Namespace) {
    let neighbours = json_of(lab, "show neighbours --router edge --network public");
    let next_hop = neighbours.as_array().unwrap().iter().find(|n| n["address"] == WORLD).unwrap();
    assert_eq!((&next_hop["mac"], &next_hop["state"]), (&mac(world, "eth0").into(), &"reachable".into()));
    let all = json_of(lab, "show neighbours");
    let guest = all.as_array().unwrap().iter().find(|n| n["address"] == "10.0.0.11").unwrap();
    let expected = (&mac(web, "eth0").into(), &"known".into(), &"edge/blue-v4".into());
    assert_eq!((&guest["mac"], &guest["state"], &guest["interface"]), expected);
    let public = |n: &Value| n["network"] == "public";
    assert!(neighbours.as_array().unwrap().iter().all(public) && !all.as_array().unwrap().iter().all(public));
    assert!(said(lab, "show neighbours").contains("reachable"));
}

fn shows_connections(lab: &Lab) {
    let out = connections(lab, "--guest guest --protocol icmp");
    let ping = out.first().unwrap();
    assert_eq!(
        (&ping["state"], &ping["inbound"], &ping["router"]),
        (&"replied".into(), &false.into(), &"edge".into()),
        "{ping:#}"
    );
    assert_eq!(
        (&ping["original"]["source"], &ping["translated"]["source"], &ping["reply"]["destination"]),
        (&"10.0.0.10".into(), &SNAT.into(), &SNAT.into()),
        "{ping:#}"
    );
    let left = ping["expires_in"].as_u64().unwrap();
    assert!((1..=60).contains(&left), "{ping:#}");
    assert!(
        ping["packets"][0].as_u64().unwrap() >= 1 && ping["bytes"][1].as_u64().unwrap() >= 84,
        "{ping:#}"
    );
    let into = connections(lab, "--destination 203.0.113.150");
    assert!(!into.is_empty());
    for ping in &into {
        assert_eq!(
            (&ping["inbound"], &ping["guest"], &ping["translated"]["destination"]),
            (&true.into(), &"web".into(), &"10.0.0.11".into()),
            "{ping:#}"
        );
    }
    // One of each kind of filter, and what it leaves.
    let all = connections(lab, "").len();
    assert_eq!(connections(lab, "--source 10.0.0.10 --source 203.0.113.1").len(), all);
    assert_eq!(connections(lab, "--state established").len(), 0);
    assert_eq!(connections(lab, "--protocol udp").len(), 0);
    assert_eq!(connections(lab, "--guest green").len(), 0);
    let id = ping["original"]["icmp_id"].as_u64().unwrap();
    assert!(!connections(lab, &format!("--port {id} --guest guest")).is_empty());
    let unknown = lab.nuswitch(&["show", "conntrack", "--state", "dead"]);
    assert!(!unknown.status.success() && text(&unknown).contains("syn-sent"), "{}", text(&unknown));
    let table = said(lab, "show conntrack --guest guest");
    assert!(table.contains(&format!("{SNAT} > {WORLD} id ")), "{table}");
}

fn shows_nat(lab: &Lab) {
    let nat = json_of(lab, "show nat");
    let pool = nat["pools"].as_array().unwrap().iter().find(|pool| pool["protocol"] == "icmp").unwrap();
    assert_eq!((&pool["address"], &pool["total"]), (&SNAT.into(), &65536.into()), "{nat:#}");
    assert!(pool["used"].as_u64().unwrap() >= 1, "{nat:#}");
    let bindings = nat["bindings"].as_array().unwrap();
    assert!(!bindings.is_empty());
    for binding in bindings {
        assert_eq!(
            (&binding["inside_address"], &binding["outside_address"], &binding["connections"]),
            (&"10.0.0.10".into(), &SNAT.into(), &1.into()),
            "{binding:#}"
        );
    }
    let mappings = &nat["mappings"];
    assert_eq!(mappings[0]["floating_ip_address"], "203.0.113.150", "{mappings:#}");
    assert_eq!(
        (&mappings[1]["external_ports"], &mappings[1]["fixed_ip_address"], &mappings[1]["internal_ports"]),
        (&"8080".into(), &"10.0.0.10".into(), &"5201".into()),
        "{mappings:#}"
    );
    assert!(nat["trackers"][0]["created"].as_u64().unwrap() >= 2, "{nat:#}");
    assert!(json_of(lab, "show nat --outside 203.0.113.99")["bindings"].as_array().unwrap().is_empty());
    let table = said(lab, "show nat");
    assert!(table.contains("8080") && table.contains("65536") && table.contains("current"), "{table}");
}

/// Ports of the SNAT address in use for UDP.
fn udp_ports_used(lab: &Lab) -> u64 {
    let nat = json_of(lab, "show nat");
    let pool = nat["pools"].as_array().unwrap().iter().find(|pool| pool["protocol"] == "udp").unwrap();
    pool["used"].as_u64().unwrap()
}

#[test]
fn a_flush_ends_what_was_asked_for_and_nothing_else() {
    needs_system!();
    let mut scene = Scene::new("packet", "").start("");
    let there = udp(&scene.world, "203.0.113.1:9000");
    let of_guest: Vec<UdpSocket> = (0..3).map(|_| udp(&scene.guest, "10.0.0.10:0")).collect();
    let seen: Vec<SocketAddr> = of_guest.iter().map(|socket| delivered(socket, &there)).collect();
    let of_green = udp(&scene.green, "10.0.1.12:0");
    let green_seen = delivered(&of_green, &there);
    let (guests, greens) = (tcp_to_world(&scene, &scene.guest), tcp_to_world(&scene, &scene.green));
    let lab = &scene.lab;
    assert_eq!((udp_ports_used(lab), connections(lab, "--protocol udp --port 9000").len()), (4, 4));

    let refused = lab.nuswitch(&["flush", "conntrack", "--guest", "nobody"]);
    assert!(!refused.status.success() && text(&refused).contains("nobody"), "{}", text(&refused));
    assert_eq!(
        said(lab, "flush conntrack --router edge --guest guest --protocol udp"),
        "3 connections removed\n"
    );
    assert_eq!(
        (udp_ports_used(lab), connections(lab, "--protocol udp").len()),
        (1, 1),
        "bindings are released"
    );
    assert_eq!(
        said(lab, "flush conntrack --router edge --guest guest --protocol udp"),
        "0 connections removed\n"
    );

    // The world no longer reaches the guest by what it had; the others are as they were.
    let mut bytes = [0; 16];
    there.send_to(b"too late", seen[0]).unwrap();
    assert!(of_guest[0].recv(&mut bytes).is_err(), "a packet came through a mapping that is gone");
    let drops = said(lab, "show drops edge/public-v4");
    assert!(drops.contains("nat_unmatched"), "{drops}");
    there.send_to(b"hello", green_seen).unwrap();
    assert_eq!(of_green.recv(&mut bytes).unwrap(), 5);
    for (near, far) in [&guests, &greens] {
        passes(near, far);
        passes(far, near);
    }
    // And the guest goes on with a connection that is new.
    delivered(&of_guest[0], &there);
    assert_eq!(connections(lab, "--guest guest --protocol udp").len(), 1);

    let left = connections(lab, "").len();
    assert_eq!(said(lab, "flush conntrack --router edge"), format!("{left} connections removed\n"));
    assert!(connections(lab, "").is_empty());
    scene.lab.stop();
}

/// `nuswitch show conntrack --follow`, from when it follows.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(lab: &Lab, filter: &str) -> Following {
        let mut command = lab.nuswitch_command();
        command.args(["show", "conntrack", "--follow"]).args(filter.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut following = Following { child, lines };
        assert!(following.line().starts_with("EVENT"));
        following
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
        line
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_are_followed_as_they_come_and_go() {
    needs_system!();
    let mut scene = Scene::new("packet", "").start("[conntrack]\ntimeouts = { icmp = 2 }");
    let Scene { lab, guest, green, .. } = &mut scene;
    eventually("what came before is over", || connections(lab, "").is_empty());
    let mut following = Following::start(lab, "--router edge --guest guest");
    // Another guest's is not told.
    reaches(green, WORLD, "");
    reaches(guest, WORLD, "");
    for (event, state) in [("new", "unreplied"), ("changed", "replied"), ("ended", "expired")] {
        let line = following.line();
        assert!(
            line.starts_with(&format!("{event:<8} icmp      {state:<12} 10.0.0.10 > {WORLD} id ")),
            "{line}"
        );
        assert!(line.contains(&format!("{SNAT} > {WORLD} id ")) && line.contains("guest edge"), "{line}");
    }
    reaches(guest, WORLD, "");
    assert!(following.line().starts_with("new "));
    assert!(following.line().starts_with("changed "));
    said(lab, "flush conntrack --router edge --guest guest");
    let line = following.line();
    assert!(line.starts_with("ended    icmp      removed "), "{line}");
    // It ends with the switch.
    lab.stop();
    assert!(following.child.wait().unwrap().success());
}

#[test]
fn a_trace_goes_by_the_connections_that_there_are() {
    needs_system!();
    for workers in ["", "workers = [0, 1]"] {
        let mut scene = Scene::new("packet", workers).start(FLOATING);
        traces(&mut scene);
        scene.lab.stop();
    }
}

fn traces(scene: &mut Scene) {
    let Scene { lab, world, guest, green, .. } = scene;
    let there = udp(world, "203.0.113.1:9000");
    let of_guest = udp(guest, "10.0.0.10:40000");
    let outside = delivered(&of_guest, &there);
    assert_eq!(outside.to_string(), format!("{SNAT}:40000"));
    let routers = json_of(lab, "show routers");
    let mac_of = |name: &str| -> String {
        let interfaces = routers[0]["interfaces"].as_array().unwrap();
        let interface = interfaces.iter().find(|interface| interface["name"] == name).unwrap();
        interface["mac_address"].as_str().unwrap().to_owned()
    };
    let (public, blue, green_mac) =
        (mac_of("edge/public-v4"), mac_of("edge/blue-v4"), mac_of("edge/green-v4"));
    let trace = |port: &str, frame: &str| -> (Value, String) {
        let output = lab.nuswitch(&["trace", "--json", "-p", port, frame]);
        assert!(output.status.success(), "{}", text(&output));
        let traced: Value = serde_json::from_slice(&output.stdout).unwrap();
        let steps = traced["steps"].as_array().unwrap().iter();
        let steps = steps
            .map(|step| format!("{}: {}\n", step["stage"].as_str().unwrap(), step["text"].as_str().unwrap()));
        (traced.clone(), steps.collect())
    };
    let answer = |sport: u16, dport: u16| {
        let from = mac(world, "eth0");
        format!("eth src={from} dst={public} ip src={WORLD} dst={SNAT} udp sport={sport} dport={dport} len=8")
    };
    let before = connections(lab, "--protocol udp");

    // An answer of the world goes to the guest, as it would.
    let (traced, steps) = trace("uplink", &answer(9000, 40000));
    assert_eq!(
        (&traced["verdict"], &traced["outputs"][0]["port"]),
        (&"forwarded".into(), &"guest".into()),
        "{traced:#}"
    );
    for expected in [
        "router edge: 203.0.113.100 is an address that NAT gives to others (203.0.113.100/32 by the external gateway)",
        "conntrack: reply of the connection udp 10.0.0.10:40000 > 203.0.113.1:9000, which is ",
        "router edge: 10.0.0.10 is on the network of interface edge/blue-v4 (10.0.0.0/24 by subnet blue-v4)",
        "nat: translated: udp 203.0.113.1:9000 > 10.0.0.10:40000",
        "router: 10.0.0.10 has MAC ",
    ] {
        assert!(steps.contains(expected), "{expected}: {steps}");
    }
    // From another port of the world it is of no connection.
    let (traced, steps) = trace("uplink", &answer(9001, 40000));
    assert_eq!(traced["verdict"], "dropped: nat_unmatched", "{traced:#}");
    assert!(steps.contains("no connection has it"), "{steps}");

    // The guest's next connection from that endpoint has the same one outside, and its way to the world is known.
    let from = mac(guest, "eth0");
    let (traced, steps) = trace(
        "guest",
        &format!("eth src={from} dst={blue} ip src=10.0.0.10 dst={WORLD} udp sport=40000 dport=9001 len=8"),
    );
    assert_eq!(
        (&traced["verdict"], &traced["outputs"][0]["port"]),
        (&"forwarded".into(), &"uplink".into()),
        "{traced:#}"
    );
    assert!(
        steps.contains("(0.0.0.0/0 by the external gateway)") || steps.contains("(203.0.113.0/24 by "),
        "{steps}"
    );
    assert!(steps.contains(&format!("nat: translated: udp {SNAT}:40000 > {WORLD}:9001")), "{steps}");
    assert!(steps.contains(&format!("router: {WORLD} has MAC {}", mac(world, "eth0"))), "{steps}");

    // Another guest's connection from the same port will have another one outside: the one that the trace foresees.
    let from = mac(green, "eth0");
    let (_, steps) = trace(
        "green",
        &format!(
            "eth src={from} dst={green_mac} ip src=10.0.1.12 dst={WORLD} udp sport=40000 dport=9000 len=8"
        ),
    );
    assert_eq!(connections(lab, "--protocol udp").len(), before.len(), "a trace begins no connection");
    assert_eq!(connections(lab, "--protocol udp")[0]["packets"], before[0]["packets"], "nor counts in one");
    let of_green = udp(green, "10.0.1.12:40000");
    let seen = delivered(&of_green, &there);
    assert_ne!(seen, outside);
    assert!(steps.contains(&format!("nat: translated: udp {seen} > {WORLD}:9000")), "{seen}: {steps}");

    // A floating IP needs no connection, but is told of the one that there is.
    reaches(world, "203.0.113.150", "");
    let id = connections(lab, "--destination 203.0.113.150")[0]["original"]["icmp_id"].as_u64().unwrap();
    let from = mac(world, "eth0");
    let (traced, steps) = trace(
        "uplink",
        &format!("eth src={from} dst={public} ip src={WORLD} dst=203.0.113.150 icmp echo id={id} seq=9"),
    );
    assert_eq!(traced["outputs"][0]["port"], "web", "{traced:#}");
    assert!(steps.contains("by a floating IP)") && steps.contains("which is replied"), "{steps}");
}
