//! Three switches, each in a namespace of its own, with one network between them in tunnels over the kernel's bridge.

use std::time::{Duration, Instant};

use crate::change::Flow;
use crate::lab::{Host, Kind, Lab, Namespace, add_address, eventually, veth};
use crate::raw;
use crate::tunnel::{Family, peers, switch};

const DRIVERS: [&str; 3] = ["xdp", "packet", "xdp"];
const FAMILY: Family = Family::V4;

/// The MAC of the guest that moves.
const GUEST_MAC: &str = "02:00:00:00:00:2a";

/// Bridge port, VTEP and guest of the switch at this place.
fn port(at: usize) -> String {
    format!("port{at}")
}

fn vtep(at: usize) -> u8 {
    10 + at as u8
}

/// Peers of the switch at this place, but for `without`.
fn others(at: usize, without: Option<usize>) -> String {
    let numbers: Vec<u8> =
        (0..DRIVERS.len()).filter(|other| *other != at && Some(*other) != without).map(vtep).collect();
    peers(FAMILY, &numbers)
}

struct Mesh {
    wire: Namespace,
    switches: Vec<Lab>,
    guests: Vec<Host>,
}

impl Mesh {
    fn new() -> Mesh {
        let wire = Namespace::new("wire");
        wire.ip("link add br0 type bridge");
        wire.ip("link set br0 up");
        let (mut switches, mut guests) = (Vec::new(), Vec::new());
        for (at, driver) in DRIVERS.into_iter().enumerate() {
            let mut lab = switch(driver, FAMILY, vtep(at), &others(at, None));
            veth(&lab.ns, "under", &wire, &port(at), 1500);
            wire.ip(&format!("link set {} master br0", port(at)));
            // Other names, because generated MACs come from names.
            guests.push(lab.host(&format!("g{at}"), Kind::Tap, at as u8 + 1));
            switches.push(lab);
        }
        for lab in &mut switches {
            lab.start();
        }
        Mesh { wire, switches, guests }
    }

    /// Every guest pings every other.
    fn is_whole(&self) {
        for from in &self.guests {
            for to in self.guests.iter().filter(|to| to.ns.name != from.ns.name) {
                from.ping_sizes(to, &[56, 1422, 4000]);
            }
        }
    }

    fn stop(mut self) {
        for lab in &mut self.switches {
            lab.stop();
        }
    }
}

#[test]
fn three_switches_are_one_network() {
    needs_system!();
    let mesh = Mesh::new();
    mesh.is_whole();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        mesh.guests[from].tcp_to(&mesh.guests[to], 1 << 20);
        mesh.guests[from].udp_echo(&mesh.guests[to], &[100, 4000]);
    }
    mesh.stop();
}

#[test]
fn a_host_that_was_cut_off_joins_again() {
    needs_system!();
    let mesh = Mesh::new();
    mesh.is_whole();
    let [a, b, c] = &mesh.guests[..] else { unreachable!() };
    mesh.wire.ip(&format!("link set {} down", port(2)));
    assert!(!a.reaches(c) && !c.reaches(b));
    a.ping(b);
    std::thread::sleep(Duration::from_secs(5)); // long enough to be given up
    mesh.wire.ip(&format!("link set {} up", port(2)));
    let start = Instant::now();
    eventually("the host is back", || a.reaches(c) && c.reaches(b));
    println!("back after {:?}", start.elapsed());
    mesh.is_whole();
    mesh.stop();
}

#[test]
fn a_guest_that_moves_is_found_again() {
    needs_system!();
    let mut mesh = Mesh::new();
    let guest = Host::new("mover", 42);
    let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", guest.ns.name);
    let keys = format!("network = \"blue\"\nmac_address = \"{GUEST_MAC}\"");
    let without: Vec<String> = mesh.switches.iter().map(|lab| lab.config.clone()).collect();
    for place in [0, 1, 2, 0] {
        for (lab, config) in mesh.switches.iter_mut().zip(&without) {
            lab.config.clone_from(config);
            lab.write();
            lab.reload();
        }
        let lab = &mut mesh.switches[place];
        lab.port("mover", &keys, &interface);
        lab.write();
        lab.reload();
        lab.wait_for_ports();
        add_address(&guest.ns, "eth0", "10.9.0.42/24");
        // Its first frame from here.
        raw::send(&guest.ns, "eth0", &[gratuitous_arp()]);
        let start = Instant::now();
        for other in &mesh.guests {
            eventually("the guest is reached", || other.ping_once(&guest.v4(), "-c 1 -W 1").status.success());
        }
        println!("on host {place}: reached by all after {:?}", start.elapsed());
    }
    mesh.stop();
}

/// RFC 5227, section 3: an announcement.
fn gratuitous_arp() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 0x2a];
    let address = [10, 9, 0, 42];
    let mut frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([&mac[..], &address, &[0; 6], &address].concat());
    frame.resize(60, 0);
    frame
}

#[test]
fn a_peer_removed_under_load_leaves_the_others_alone() {
    needs_system!();
    let mut mesh = Mesh::new();
    mesh.is_whole();
    let flow = |from: usize, to: usize| Flow::start(&mesh.guests[from], &mesh.guests[to]);
    let (to, back) = (flow(0, 2), flow(2, 1));
    let beside = [flow(0, 1), flow(1, 0)];
    std::thread::sleep(Duration::from_millis(500));
    for at in [0, 1] {
        let lab = &mut mesh.switches[at];
        lab.config = lab.config.replace(&others(at, None), &others(at, Some(2)));
        lab.write();
        lab.reload();
    }
    std::thread::sleep(Duration::from_secs(1));
    for flow in beside {
        let (sent, arrived) = flow.end();
        assert_eq!(arrived, sent, "traffic beside it suffers");
    }
    to.abandon();
    back.abandon();
    assert!(!mesh.guests[0].reaches(&mesh.guests[2]), "the peer is removed");
    // What it still sends is a stranger's.
    assert!(
        mesh.switches[0].drops("overlay", "unknown_peer") > 0,
        "{:#}",
        mesh.switches[0].show_port("overlay")
    );
    for at in [0, 1] {
        let lab = &mut mesh.switches[at];
        lab.config = lab.config.replace(&others(at, Some(2)), &others(at, None));
        lab.write();
        lab.reload();
    }
    mesh.is_whole();
    mesh.stop();
}
