//! A virtual router between real kernels: guests behind SNAT, a floating IP, a forwarded port, two networks; with ping of every
//! size, fragments, TCP with offloads, and a router that is reloaded under a connection.

use std::process::{Command, Output};

use crate::lab::{Lab, Namespace, add_address, eventually, veth};

/// The world's end: a host at 203.0.113.1 and 2001:db8:a::1, behind a port of this kind.
const WORLD: &str = r#"
[[network]]
name = "public"
external = true
[[subnet]]
name = "public-v4"
network = "public"
cidr = "203.0.113.0/24"
allocation_pools = ["203.0.113.100-203.0.113.199"]
[[subnet]]
name = "public-v6"
network = "public"
cidr = "2001:db8:a::/64"

[[network]]
name = "blue"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
[[subnet]]
name = "blue-v6"
network = "blue"
cidr = "2001:db8:b::/64"

[[network]]
name = "green"
[[subnet]]
name = "green-v4"
network = "green"
cidr = "10.0.1.0/24"

[[security_group]]
name = "open"
rules = [{ direction = "ingress" }, { direction = "egress" }]

[[router]]
name = "edge"
interfaces = ["blue-v4", "blue-v6", "green-v4"]
[router.external_gateway]
network = "public"
external_fixed_ips = ["203.0.113.100", "2001:db8:a::2"]
"#;

pub(crate) const FLOATING: &str =
    "[[floating_ip]]\nfloating_network = \"public\"\nfloating_ip_address = \"203.0.113.150\"\nport = \"web\"";
pub(crate) const FORWARDED: &str = r#"[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.151"
port_forwardings = [{ protocol = "tcp", external_port = 8080, port = "guest", internal_port = 5201 }]"#;

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) world: Namespace,
    pub(crate) guest: Namespace,
    pub(crate) web: Namespace,
    pub(crate) green: Namespace,
}

impl Scene {
    /// `kind` is that of the port to the world: a veth by AF_XDP or AF_PACKET.
    pub(crate) fn new(kind: &str, settings: &str) -> Scene {
        let mut lab = Lab::new();
        lab.settings = settings.to_owned();
        lab.add(WORLD);
        let [world, guest, web, green] = ["world", "guest", "web", "green"].map(Namespace::new);
        for (ns, name, network, ips) in [
            (&guest, "guest", "blue", "\"10.0.0.10\", \"2001:db8:b::10\""),
            (&web, "web", "blue", "\"10.0.0.11\", \"2001:db8:b::11\""),
            (&green, "green", "green", "\"10.0.1.12\""),
        ] {
            let interface =
                format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", ns.name);
            let keys = format!("network = \"{network}\"\nfixed_ips = [{ips}]\nsecurity_groups = [\"open\"]");
            lab.port(name, &keys, &interface);
        }
        veth(&lab.ns, "uplink", &world, "eth0", 1500);
        for address in ["203.0.113.1/24", "2001:db8:a::1/64"] {
            add_address(&world, "eth0", address);
        }
        world.ip("route add 2001:db8:b::/64 via 2001:db8:a::2");
        lab.port(
            "uplink",
            "network = \"public\"\nfixed_ips = []",
            &format!("kind = \"{kind}\", name = \"uplink\""),
        );
        Scene { lab, world, guest, web, green }
    }

    pub(crate) fn start(mut self, more: &str) -> Scene {
        self.lab.add(more);
        self.lab.start();
        for (ns, gateway) in [(&self.guest, "10.0.0.1"), (&self.web, "10.0.0.1"), (&self.green, "10.0.1.1")] {
            ns.ip(&format!("route add default via {gateway}"));
        }
        for ns in [&self.guest, &self.web] {
            ns.ip("route add default via 2001:db8:b::1");
        }
        eventually("the world is reached", || ping(&self.guest, "203.0.113.1", "-c 1 -W 1").status.success());
        self
    }
}

pub(crate) fn ping(ns: &Namespace, address: &str, options: &str) -> Output {
    ns.command("ping").args(["-n", "-q"]).args(options.split_whitespace()).arg(address).output().unwrap()
}

#[track_caller]
pub(crate) fn reaches(ns: &Namespace, address: &str, options: &str) {
    let output = ping(ns, address, &format!("-c 3 -i 0.05 -w 20 {options}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(" 0% packet loss"), "{} to {address} {options}: {said}", ns.name);
}

/// A second of TCP, in megabits a second.
#[track_caller]
pub(crate) fn tcp(server: &Namespace, client: &Namespace, address: &str, port: &str) -> f64 {
    let mut listening =
        server.command("iperf3").args(["-s", "-1"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("iperf3 listens", || {
        let sockets = server.command("ss").args(["-Htln"]).output().unwrap();
        String::from_utf8_lossy(&sockets.stdout).contains(":5201")
    });
    let mut command = client.command("timeout");
    command.args(["30", "iperf3", "-J", "-t", "1", "-c", address, "-p", port]);
    let output = command.output().unwrap();
    let _ = listening.kill();
    let _ = listening.wait();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["error"].is_null(), "{} to {address}: {}", client.name, said["error"]);
    said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

fn whole_scene(kind: &str, settings: &str) {
    let mut scene = Scene::new(kind, settings).start(&format!("{FLOATING}\n{FORWARDED}"));
    let Scene { lab, world, guest, web, green } = &mut scene;
    // Gateways, networks of one router, the world by SNAT, sizes around the MTU and far beyond it.
    for options in ["-s 56", "-s 1472 -M do", "-s 1473", "-s 4000"] {
        reaches(guest, "10.0.0.1", "-s 56");
        reaches(guest, "10.0.1.12", options);
        reaches(green, "10.0.0.10", options);
        reaches(guest, "203.0.113.1", options);
        reaches(web, "203.0.113.1", options);
        reaches(world, "203.0.113.150", options);
    }
    reaches(guest, "2001:db8:a::1", "-s 1400");
    reaches(world, "2001:db8:b::10", "-s 56");
    // A floating IP from everywhere, its own guest too.
    for from in [&*guest, &*green, &*web] {
        reaches(from, "203.0.113.150", "");
    }
    assert!(!ping(world, "10.0.0.10", "-c 1 -W 1").status.success(), "nobody reaches a guest behind SNAT");
    for (server, client, address, port) in [
        (&*world, &*guest, "203.0.113.1", "5201"),
        (&*web, &*world, "203.0.113.150", "5201"),
        (&*guest, &*world, "203.0.113.151", "8080"),
        (&*web, &*green, "203.0.113.150", "5201"),
        (&*web, &*green, "10.0.0.11", "5201"),
    ] {
        assert!(tcp(server, client, address, port) > 1.0);
    }
    lab.stop();
}

#[test]
fn a_router_to_the_world_by_packet() {
    needs_system!();
    whole_scene("packet", "");
}

#[test]
fn a_router_to_the_world_by_xdp() {
    needs_system!();
    whole_scene("xdp", "");
}

#[test]
fn a_router_of_two_workers() {
    needs_system!();
    whole_scene("packet", "workers = [0, 1]");
}

#[test]
fn a_traceroute_names_the_router() {
    needs_system!();
    let mut scene = Scene::new("packet", "").start("");
    let said = |output: Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let mut command: Command = scene.guest.command("ping");
    let told = said(command.args(["-n", "-c", "1", "-t", "1", "203.0.113.1"]).output().unwrap());
    assert!(told.contains("From 10.0.0.1") && told.contains("Time to live exceeded"), "{told}");
    let mut command: Command = scene.guest.command("ping");
    let told = said(command.args(["-n", "-c", "1", "-t", "1", "2001:db8:a::1"]).output().unwrap());
    assert!(told.contains("From 2001:db8:b::1") && told.contains("Hop limit"), "{told}");
    let mut command: Command = scene.guest.command("ping");
    let told = said(command.args(["-n", "-c", "1", "-W", "5", "203.0.113.77"]).output().unwrap());
    assert!(told.contains("Destination Host Unreachable"), "{told}");
    scene.lab.stop();
}

#[test]
fn a_floating_ip_moves_under_a_connection_of_another() {
    needs_system!();
    let mut scene = Scene::new("packet", "").start(FLOATING);
    reaches(&scene.world, "203.0.113.150", "");
    // The guest's pings go on over the reload.
    let mut command = scene.guest.command("ping");
    command.args(["-n", "-q", "-i", "0.02", "-c", "100", "203.0.113.1"]).stdout(std::process::Stdio::piped());
    let going = command.spawn().unwrap();
    scene.lab.config = scene.lab.config.replace("port = \"web\"", "port = \"green\"");
    scene.lab.write();
    scene.lab.reload();
    reaches(&scene.world, "203.0.113.150", "");
    reaches(&scene.green, "203.0.113.1", "");
    let output = going.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(" 0% packet loss"), "{said}");
    scene.lab.stop();
}
