//! What hosts find out about the path through a virtual router: its hops, by traceroute and mtr in all their ways, and its MTU, where
//! networks inside or outside carry less than others.

use std::process::Output;

use crate::lab::{Namespace, add_address, eventually, require, text, veth};
use crate::router::{FLOATING, Scene, ping, reaches, tcp};

/// A host behind the world: the world is a router to it.
struct Far {
    ns: Namespace,
}

impl Far {
    /// At 198.51.100.2 and 2001:db8:f::2, on a link of this MTU.
    fn new(world: &Namespace, mtu: u16) -> Far {
        let ns = Namespace::new("far");
        veth(world, "far", &ns, "eth0", mtu);
        for (end, device, last) in [(world, "far", 1), (&ns, "eth0", 2)] {
            add_address(end, device, &format!("198.51.100.{last}/24"));
            add_address(end, device, &format!("2001:db8:f::{last}/64"));
        }
        ns.ip("route add default via 198.51.100.1");
        ns.ip("route add default via 2001:db8:f::1");
        let mut command = world.command("sysctl");
        command.args(["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
        // As many errors as are due: traceroute is not to miss one of the kernel's.
        command.args(["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"]);
        assert!(command.status().unwrap().success());
        Far { ns }
    }
}

/// The hops that traceroute names.
fn traceroute(from: &Namespace, to: &str, options: &str) -> Vec<String> {
    let mut command = from.command("timeout");
    // Waits long, and asks one at a time: the switch limits its errors.
    command.args(["60", "traceroute", "-n", "-q", "1", "-N", "1", "-w", "5", "-m", "8"]);
    let output = command.args(options.split_whitespace()).arg(to).output().unwrap();
    let said = text(&output);
    let hop = |line: &str| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u8>().ok()?;
        // The address, and what is behind the time: `!H` and the like.
        Some([words.next()?, words.nth(2).unwrap_or_default()].concat())
    };
    said.lines().filter_map(hop).collect()
}

/// The hops that mtr names, each of which must have lost nothing.
fn mtr(from: &Namespace, to: &str, options: &str) -> Vec<String> {
    let mut command = from.command("timeout");
    command.args(["60", "mtr", "-n", "-j", "-c", "3", "-i", "0.3", "-G", "3", "-m", "8"]);
    let output = command.args(options.split_whitespace()).arg(to).output().unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("mtr {to}: {}", text(&output)));
    let hubs = said["report"]["hubs"].as_array().unwrap();
    let named = hubs.iter().map(|hub| {
        assert_eq!(hub["Loss%"], 0.0, "mtr {options} {to}: {said:#}");
        hub["host"].as_str().unwrap().to_owned()
    });
    named.collect()
}

#[test]
fn traceroute_and_mtr_name_every_hop() {
    needs_system!();
    require("traceroute");
    require("mtr");
    let mut scene = Scene::new("packet", "");
    // IPv6 in the other network, too, with plain addresses.
    let config = &mut scene.lab.config;
    *config = config.replace("\"green-v4\"]", "\"green-v4\", \"green-v6\"]");
    *config = config.replace("\"10.0.1.12\"", "\"10.0.1.12\", \"2001:db8:c::12\"");
    scene.lab.add("[[subnet]]\nname = \"green-v6\"\nnetwork = \"green\"\ncidr = \"2001:db8:c::/64\"");
    let mut scene = scene.start(FLOATING);
    let Scene { lab, world, guest, green, .. } = &mut scene;
    let far = Far::new(world, 1500);
    green.ip("route add default via 2001:db8:c::1");
    world.ip("route add 2001:db8:c::/64 via 2001:db8:a::2");
    guest.ip("route replace default via 2001:db8:b::1");
    eventually("the far host is reached", || ping(guest, "198.51.100.2", "-c 1 -W 1").status.success());

    let out = ["10.0.0.1", "203.0.113.1", "198.51.100.2"];
    // Its address outside is all that the world sees of the guest and of the network before it.
    let back = ["198.51.100.1", "203.0.113.100", "203.0.113.150"];
    for options in ["", "-I", "-T -p 80", "-U -p 53"] {
        assert_eq!(traceroute(guest, "198.51.100.2", options), out, "{options}");
        assert_eq!(traceroute(&far.ns, "203.0.113.150", options), back, "{options}");
    }
    for options in ["", "-u", "-T"] {
        assert_eq!(mtr(guest, "198.51.100.2", options), out, "{options}");
        assert_eq!(mtr(&far.ns, "203.0.113.150", options), back, "{options}");
    }
    // East-west, and IPv6.
    assert_eq!(traceroute(guest, "10.0.1.12", ""), ["10.0.0.1", "10.0.1.12"]);
    let to_green = ["2001:db8:b::1", "2001:db8:c::12"];
    let to_far = ["2001:db8:b::1", "2001:db8:a::1", "2001:db8:f::2"];
    let from_far = ["2001:db8:f::1", "2001:db8:a::2", "2001:db8:b::10"];
    for options in ["-6", "-6 -I", "-6 -T -p 80"] {
        assert_eq!(traceroute(guest, "2001:db8:c::12", options), to_green, "{options}");
        assert_eq!(traceroute(guest, "2001:db8:f::2", options), to_far, "{options}");
        assert_eq!(traceroute(&far.ns, "2001:db8:b::10", options), from_far, "{options}");
    }
    assert_eq!(mtr(guest, "2001:db8:f::2", "-6"), to_far);
    // An address that nobody has: the last router says so (RFC 1812, 5.2.7.1).
    assert_eq!(traceroute(guest, "10.0.1.99", ""), ["10.0.0.1", "10.0.0.1!H"]);
    lab.stop();
}

/// A network that carries less, with a guest that has a floating IP, and one for IPv6.
const SMALL: &str = r#"
[[network]]
name = "small"
mtu = 1400
[[subnet]]
name = "small-v4"
network = "small"
cidr = "10.0.3.0/24"
[[subnet]]
name = "small-v6"
network = "small"
cidr = "2001:db8:d::/64"
[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.153"
port = "small"
"#;

fn said(output: Output) -> String {
    text(&output)
}

/// A ping that says too much, with the errors that come back.
fn too_long(from: &Namespace, to: &str, size: u16) -> String {
    let mut command = from.command("ping");
    command.args(["-n", "-c", "3", "-i", "0.3", "-W", "5", "-M", "do", "-s", &size.to_string(), to]);
    said(command.output().unwrap())
}

#[test]
fn hosts_find_the_mtu_of_a_small_network_behind_the_router() {
    needs_system!();
    let small = Namespace::new("small");
    let mut scene = Scene::new("packet", "");
    scene.lab.config = scene.lab.config.replace("\"green-v4\"]", "\"green-v4\", \"small-v4\", \"small-v6\"]");
    let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", small.name);
    let keys =
        "network = \"small\"\nfixed_ips = [\"10.0.3.14\", \"2001:db8:d::14\"]\nsecurity_groups = [\"open\"]";
    scene.lab.port("small", keys, &interface);
    let mut scene = scene.start(SMALL);
    small.ip("route add default via 10.0.3.1");
    small.ip("route add default via 2001:db8:d::1");
    let Scene { lab, world, guest, .. } = &mut scene;
    world.ip("route add 2001:db8:d::/64 via 2001:db8:a::2");

    // 28 bytes of headers for IPv4, 48 for IPv6.
    for (from, gateway, gateway6) in
        [(&*world, "203.0.113.100", "2001:db8:a::2"), (&*guest, "10.0.0.1", "2001:db8:b::1")]
    {
        reaches(from, "203.0.113.153", "-M do -s 1372");
        reaches(from, "2001:db8:d::14", "-M do -s 1352");
        // Those that may be cut are.
        from.ip("route flush cache");
        reaches(from, "203.0.113.153", "-M dont -s 1472");
        reaches(from, "203.0.113.153", "-M dont -s 4000");
        let heard = too_long(from, "203.0.113.153", 1373);
        assert!(heard.contains(&format!("From {gateway} ")) && heard.contains("mtu = 1400"), "{heard}");
        let heard = too_long(from, "2001:db8:d::14", 1353);
        assert!(heard.contains(&format!("From {gateway6} ")) && heard.contains("mtu=1400"), "{heard}");
        for address in ["203.0.113.153", "2001:db8:d::14"] {
            let route = from.ip(&format!("route get {address}"));
            assert!(route.contains("mtu 1400"), "{address}: {route}");
        }
    }
    // TCP, also with a guest that claims to take more than its network carries: only an error tells the other side.
    for mtu in [1400, 1500] {
        small.ip(&format!("link set eth0 mtu {mtu}"));
        for from in [&*world, &*guest] {
            from.ip("route flush cache");
            from.ip("-6 route flush cache");
            for address in ["203.0.113.153", "2001:db8:d::14"] {
                assert!(tcp(&small, from, address, "5201") > 0.1, "{address} at {mtu}");
            }
        }
    }
    // One who never asks for the MTU has its packets cut, large segments of its offload first.
    for (from, gateway) in [(&*world, "203.0.113.100"), (&*guest, "10.0.0.1")] {
        from.ip(&format!("route add 203.0.113.153/32 via {gateway} mtu lock 1500"));
        // A segment at a time, each lost first and sent again, would come to a tenth of that.
        assert!(tcp(&small, from, "203.0.113.153", "5201") > 2.0, "{} never asks", from.name);
    }
    lab.stop();
}

#[test]
fn guests_find_the_mtu_of_a_small_link_out_in_the_world() {
    needs_system!();
    for mss_clamping in [false, true] {
        let mut scene = Scene::new("packet", "");
        scene.lab.config = scene.lab.config.replace(
            "[router.external_gateway]",
            &format!("mss_clamping = {mss_clamping}\n[router.external_gateway]"),
        );
        let mut scene = scene.start(FLOATING);
        let Scene { lab, world, guest, web, .. } = &mut scene;
        let far = Far::new(world, 1500);
        // Only on the way there: nothing else tells the guests of it.
        world.ip("link set far mtu 1300");
        eventually("the far host is reached", || ping(guest, "198.51.100.2", "-c 1 -W 1").status.success());
        for from in [&*guest, &*web] {
            // The error is about a packet that was translated, and comes back as one about the guest's own (RFC 5508, REQ-3).
            for (address, by, size, mtu) in [
                ("198.51.100.2", "203.0.113.1", 1400, "mtu = 1300"),
                ("2001:db8:f::2", "2001:db8:a::1", 1400, "mtu=1300"),
            ] {
                let heard = too_long(from, address, size);
                assert!(heard.contains(&format!("From {by} ")) && heard.contains(mtu), "{heard}");
                assert!(from.ip(&format!("route get {address}")).contains("mtu 1300"), "{}", from.name);
            }
            from.ip("route flush cache");
            from.ip("-6 route flush cache");
            for address in ["198.51.100.2", "2001:db8:f::2"] {
                assert!(tcp(&far.ns, from, address, "5201") > 0.1, "{address}");
            }
        }
        lab.stop();
    }
}
