//! A virtual router in front of real clients and servers: curl and an HTTP server, coturn's classification of the NAT, a hundred
//! thousand connections at once, and a floating IP that moves under load.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::{Lab, Namespace, Watch, eventually, noise, require, run, text};
use crate::router::{FLOATING, FORWARDED, Scene};

/// Python's HTTP server with one file, in a namespace.
struct Web {
    child: Child,
    directory: tempfile::TempDir,
}

impl Web {
    fn start(ns: &Namespace, port: u16, bytes: &[u8]) -> Web {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("body"), bytes).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = ns.command("python3");
        command.args(["-u", "-m", "http.server", "--directory"]).arg(directory.path()).arg(port.to_string());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        eventually("the web server listens", || is_bound(ns, "-Htln", port));
        Web { child, directory }
    }

    /// Who asked last, as the server saw it.
    fn client(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let line = log.lines().rfind(|line| line.contains("\"GET ")).unwrap_or_default();
        line.split(' ').next().unwrap_or_default().to_owned()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a socket of this port is there; `which` are options of ss.
fn is_bound(ns: &Namespace, which: &str, port: u16) -> bool {
    let sockets = ns.command("ss").arg(which).output().unwrap();
    String::from_utf8_lossy(&sockets.stdout).contains(&format!(":{port} "))
}

/// What curl gets.
#[track_caller]
fn fetch(from: &Namespace, address: &str, port: u16) -> Vec<u8> {
    let url = format!("http://{address}:{port}/body");
    let output = from.command("curl").args(["-sS", "--max-time", "30", &url]).output().unwrap();
    assert!(output.status.success(), "{} fetches {url}: {}", from.name, text(&output));
    output.stdout
}

#[test]
fn curl_fetches_a_file_by_snat_a_floating_ip_and_a_forwarded_port() {
    needs_system!();
    require("curl");
    let mut scene = Scene::new("xdp", "").start(&format!("{FLOATING}\n{FORWARDED}"));
    let Scene { lab, world, guest, web, green } = &mut scene;
    // A megabyte, another one at each server.
    let bodies = [0, 1, 2].map(|n: usize| noise((1 << 20) + n)[n..].to_vec());
    let outside = Web::start(world, 8000, &bodies[0]);
    let floating = Web::start(web, 8000, &bodies[1]);
    let forwarded = Web::start(guest, 5201, &bodies[2]);
    for (from, address, port, server, body, seen) in [
        // By SNAT; a guest with a floating IP leaves from that.
        (&*guest, "203.0.113.1", 8000, &outside, &bodies[0], "203.0.113.100"),
        (&*web, "203.0.113.1", 8000, &outside, &bodies[0], "203.0.113.150"),
        // From the world.
        (&*world, "203.0.113.150", 8000, &floating, &bodies[1], "203.0.113.1"),
        (&*world, "203.0.113.151", 8080, &forwarded, &bodies[2], "203.0.113.1"),
        // From inside to an address outside: whoever does so comes from outside, too (RFC 5382, REQ-8).
        (&*guest, "203.0.113.150", 8000, &floating, &bodies[1], "203.0.113.100"),
        (&*green, "203.0.113.151", 8080, &forwarded, &bodies[2], "203.0.113.100"),
        (&*web, "203.0.113.150", 8000, &floating, &bodies[1], "203.0.113.150"),
        // Between two networks of the router nothing is translated.
        (&*green, "10.0.0.11", 8000, &floating, &bodies[1], "10.0.1.12"),
    ] {
        assert!(fetch(from, address, port) == *body, "{}: {address}: another body", from.name);
        assert_eq!(server.client(), seen, "{} to {address}:{port}", from.name);
    }
    // The other ports of that address are nobody's.
    let mut closed = world.command("curl");
    closed.args(["-sS", "--max-time", "2", "http://203.0.113.151:5201/body"]);
    assert!(!closed.output().unwrap().status.success(), "a port that is not forwarded is open");
    drop((outside, floating, forwarded));
    lab.stop();
}

/// coturn as a STUN server at two addresses, as RFC 5780, section 3 asks.
struct Stun {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Stun {
    fn start(ns: &Namespace) -> Stun {
        let directory = tempfile::tempdir().unwrap();
        let mut command = ns.command("turnserver");
        command.args(["-n", "-S", "-z", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--simple-log"]);
        command.args(["-L", "203.0.113.1", "-L", "203.0.113.2", "--log-file", "stdout"]);
        command.arg("--db").arg(directory.path().join("db"));
        command.arg("--pidfile").arg(directory.path().join("pid"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the STUN server is there", || is_bound(ns, "-Huln", 3478) && is_bound(ns, "-Huln", 3479));
        Stun { child, _directory: directory }
    }
}

impl Drop for Stun {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What coturn's client finds out with these options.
fn discovers(ns: &Namespace, options: &[&str]) -> String {
    let mut command = ns.command("timeout");
    command.args(["60", "turnutils_natdiscovery"]).args(options).arg("203.0.113.1");
    text(&command.output().unwrap())
}

#[test]
fn stun_classifies_the_nat_as_it_is_configured() {
    needs_system!();
    require("turnserver");
    for (choice, filtering, hairpin) in [
        ("address-and-port-dependent", "Address and Port Dependent", false),
        ("address-dependent", "Address Dependent", false),
        ("endpoint-independent", "Endpoint Independent", true),
    ] {
        let mut scene = Scene::new("packet", "");
        scene.lab.config = scene.lab.config.replace(
            "[router.external_gateway]",
            &format!("nat_filtering = \"{choice}\"\n[router.external_gateway]"),
        );
        let mut scene = scene.start("");
        scene.world.ip("addr add 203.0.113.2/24 dev eth0");
        let server = Stun::start(&scene.world);
        // Its sockets are there before it listens.
        eventually("the STUN server tells the address outside", || {
            let mut command = scene.guest.command("timeout");
            let said = text(&command.args(["2", "turnutils_stunclient", "203.0.113.1"]).output().unwrap());
            said.contains("UDP reflexive addr: 203.0.113.100:")
        });
        let said = discovers(&scene.guest, &["-m", "-f"]);
        assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{choice}: {said}");
        assert!(said.contains(&format!("NAT with {filtering} Filtering!")), "{choice}: {said}");
        // Hairpin (RFC 4787, REQ-9): who comes from inside is filtered as everybody.
        let said = discovers(&scene.guest, &["-H"]);
        assert_eq!(said.contains("successful hairpinning"), hairpin, "{choice}: {said}");
        drop(server);
        scene.lab.stop();
    }
}

const GOALS: u8 = 50;
const SOCKETS: u16 = 1000;

/// Sockets of a namespace, one for each port.
fn sockets(ns: &Namespace, addresses: impl Iterator<Item = SocketAddrV4> + Send) -> Vec<UdpSocket> {
    ns.within(|| {
        let bind = |address| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket
        };
        addresses.map(bind).collect()
    })
}

/// Sends a datagram until it arrives, and gives from where; what else arrives was sent before.
fn deliver(from: &UdpSocket, goal: SocketAddr, to: &UdpSocket, message: &[u8]) -> SocketAddr {
    let mut bytes = [0; 64];
    for _ in 0..20 {
        from.send_to(message, goal).unwrap();
        while let Ok((len, sender)) = to.recv_from(&mut bytes) {
            if bytes[..len] == *message {
                return sender;
            }
        }
    }
    panic!("nothing arrives from {from:?} at {to:?} by {goal}");
}

#[test]
fn a_hundred_thousand_connections_at_once_are_all_alive() {
    needs_system!();
    a_hundred_thousand_connections("packet", "");
}

#[test]
fn a_hundred_thousand_connections_at_once_with_two_workers() {
    needs_system!();
    a_hundred_thousand_connections("xdp", "workers = [0, 1]");
}

fn a_hundred_thousand_connections(kind: &str, settings: &str) {
    run(Command::new("prlimit").args(["--nofile=16384:16384", "--pid", &std::process::id().to_string()]));
    let mut scene = Scene::new(kind, settings);
    let bounds = format!("max_entries = 131072\nmax_entries_per_guest = {}", 2 * u32::from(SOCKETS) * 30);
    scene.lab.add(&format!("[conntrack]\n{bounds}"));
    let mut scene = scene.start("");
    let Scene { lab, world, guest, web, .. } = &mut scene;
    let goals: Vec<_> =
        (1..=GOALS).map(|n| SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, n), 7000)).collect();
    for goal in &goals {
        world.ip(&format!("addr add {}/32 dev lo", goal.ip()));
    }
    guest.ip("route replace default via 10.0.0.1");
    let servers = sockets(world, goals.iter().copied());
    // Both guests use the same ports, so that the router has to find others for one of them.
    let clients: Vec<_> = [(&*guest, 10), (&*web, 11)]
        .into_iter()
        .flat_map(|(ns, last)| {
            sockets(ns, (0..SOCKETS).map(|n| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 20_000 + n)))
        })
        .collect();

    // All of them open, one guest's and the other's in turn.
    let message = |client: usize, goal: usize| format!("connection {client} {goal}").into_bytes();
    let mut outside: HashMap<usize, SocketAddr> = HashMap::new();
    let order = || (0..usize::from(SOCKETS)).flat_map(|n| [n, n + usize::from(SOCKETS)]);
    for client in order() {
        for (n, goal) in goals.iter().enumerate() {
            let seen = deliver(&clients[client], (*goal).into(), &servers[n], &message(client, n));
            assert_eq!(seen.ip(), Ipv4Addr::new(203, 0, 113, 100));
            assert_eq!(*outside.entry(client).or_insert(seen), seen, "one endpoint towards everybody");
        }
    }
    assert_eq!(outside.values().collect::<HashSet<_>>().len(), clients.len(), "one endpoint for each");

    // A change that is none of theirs has each looked at again.
    lab.add(FLOATING.replace("\"web\"", "\"green\"").as_str());
    lab.write();
    lab.reload();
    // All of them are answered, the oldest first.
    for client in order() {
        for (n, server) in servers.iter().enumerate() {
            let seen = deliver(server, outside[&client], &clients[client], &message(client, n));
            assert_eq!(seen, SocketAddr::from(goals[n]));
        }
    }
    // And the first one can still send.
    deliver(&clients[0], goals[0].into(), &servers[0], b"once more");
    lab.stop();
}

#[test]
fn a_switch_starts_with_a_tracker_of_another_size() {
    needs_system!();
    let mut lab = Lab::new();
    lab.add("[conntrack]\nmax_entries = 2048\n[[network]]\nname = \"blue\"");
    lab.start();
    // It takes a restart to change that.
    lab.config = lab.config.replace("2048", "4096");
    lab.write();
    let said = text(&lab.nuswitch(&["reload"]));
    assert!(said.contains("max_entries: 2048 stays until a restart"), "{said}");
    lab.stop();
}

/// A second router with a guest of its own, and a floating IP that stays where it is.
const OTHER: &str = r#"
[[network]]
name = "red"
[[subnet]]
name = "red-v4"
network = "red"
cidr = "10.0.2.0/24"
[[router]]
name = "other"
interfaces = ["red-v4"]
[router.external_gateway]
network = "public"
external_fixed_ips = ["203.0.113.101"]
[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.152"
port = "green"
"#;

#[test]
fn a_floating_ip_moves_under_load() {
    needs_system!();
    require("curl");
    let red = Namespace::new("red");
    let mut scene = Scene::new("xdp", "");
    let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", red.name);
    let keys = "network = \"red\"\nfixed_ips = [\"10.0.2.13\"]\nsecurity_groups = [\"open\"]";
    scene.lab.port("red", keys, &interface);
    let mut scene = scene.start(&format!("{FLOATING}\n{OTHER}"));
    red.ip("route add default via 10.0.2.1");
    let Scene { lab, world, guest, web, green } = &mut scene;
    let servers = [(&*web, "web"), (&*guest, "guest"), (&red, "red")];
    let servers = servers.map(|(ns, name)| Web::start(ns, 8000, name.as_bytes()));
    assert_eq!(fetch(world, "203.0.113.150", 8000), b"web");

    // Another floating IP, and SNAT of a third guest, go on over both moves.
    let streams = [(&*world, "203.0.113.152"), (&*green, "203.0.113.1")].map(|(ns, to)| {
        let mut command = ns.command("ping");
        command.args(["-n", "-q", "-i", "0.01", "-c", "600", to]).stdout(Stdio::piped()).spawn().unwrap()
    });
    let mut busy = green.command("iperf3");
    let mut busy = busy.args(["-s", "-1"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("iperf3 listens", || is_bound(green, "-Htln", 5201));
    // Not as much as goes: queues that are full would lose pings, too.
    let mut load = world.command("timeout");
    load.args(["30", "iperf3", "-J", "-t", "5", "-i", "0.5", "-b", "10M", "-c", "203.0.113.152"])
        .stdout(Stdio::piped());
    let load = load.spawn().unwrap();
    // And the one that moves is pinged all the while.
    let mut moved = world.command("ping");
    let mut moved = moved
        .args(["-n", "-q", "-i", "0.01", "-w", "60", "203.0.113.150"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();

    // To another guest of the same router, then to one behind another router, which has another MAC. Its own neighbours hear
    // that from an announcement alone (RFC 5227, section 3).
    let mac = || world.ip("neigh show 203.0.113.150");
    let before = mac();
    for (from, to) in [("web", "guest"), ("guest", "red")] {
        let heard = Watch::start(world, "eth0", "arp and host 203.0.113.150");
        let key = |port: &str| format!("floating_ip_address = \"203.0.113.150\"\nport = \"{port}\"");
        assert!(lab.config.contains(&key(from)));
        lab.config = lab.config.replace(&key(from), &key(to));
        lab.write();
        lab.reload();
        eventually("the new guest answers", || fetch(world, "203.0.113.150", 8000) == to.as_bytes());
        let said = heard.lines();
        let announced = said.iter().any(|line| line.contains("tell 203.0.113.150") || line.contains("is-at"));
        assert!(announced || to == "guest", "no announcement: {said:?}");
    }
    assert_ne!(mac(), before, "the world has the MAC of the other router");
    // Whom the address has left, leaves with the router's.
    assert_eq!(
        [fetch(web, "203.0.113.150", 8000), fetch(&red, "203.0.113.150", 8000)],
        [b"red".to_vec(), b"red".to_vec()]
    );
    assert_eq!(servers[2].client(), "203.0.113.150", "its own guest");

    let report = load.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["error"].is_null(), "{}", report["error"]);
    let stalled = report["intervals"].as_array().unwrap().iter().filter(|part| part["sum"]["bytes"] == 0);
    assert_eq!(stalled.count(), 0, "the connection stood still: {}", report["intervals"]);
    for stream in streams {
        let said = stream.wait_with_output().unwrap();
        assert!(text(&said).contains(" 0% packet loss"), "{}", text(&said));
    }
    let _ = moved.kill();
    let _ = (moved.wait(), busy.kill(), busy.wait());
    lab.stop();
}
