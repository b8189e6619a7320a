//! A NIC that the host uses too: its own traffic goes to its kernel, all else through the switch.

use crate::lab::{Kind, Lab, Namespace, veth};

fn shared_nic(driver: &str) {
    let mut lab = Lab::new();
    let driver = if driver.is_empty() { String::new() } else { format!("driver = \"{driver}\"") };
    lab.add(&format!("[[physical_network]]\nname = \"provider\"\ninterface = \"nic\"\n{driver}"));
    lab.add("[[network]]\nname = \"public\"\nnetwork_type = \"flat\"\nphysical_network = \"provider\"");
    let a = lab.host_with("a", Kind::Tap, 1, "network = \"public\"", 1500);
    let wire = Namespace::new("wire");
    veth(&lab.ns, "nic", &wire, "eth0", 1500);
    lab.ns.ip("addr add 10.9.0.100/24 dev nic");
    lab.ns.ip("addr add fd09::100/64 dev nic nodad");
    wire.ip("addr add 10.9.0.50/24 dev eth0");
    wire.ip("addr add fd09::50/64 dev eth0 nodad");
    let ping = |from: &Namespace, to: &str| {
        let mut command = from.command("ping");
        let output = command.args(["-n", "-q", "-c", "3", "-i", "0.1", "-w", "20", to]).output().unwrap();
        assert!(output.status.success(), "{} to {to}: {}", from.name, crate::lab::text(&output));
    };
    ping(&lab.ns, "10.9.0.50");
    lab.start();
    for address in ["10.9.0.50", "fd09::50"] {
        ping(&lab.ns, address); // the host goes on to use its NIC
        ping(&a.ns, address); // and so do the switch's ports
    }
    for address in ["10.9.0.100", "fd09::100"] {
        wire.ip("neigh flush dev eth0"); // also when it is asked for, not only when it asks
        ping(&wire, address);
    }
    for address in [a.v4(), a.v6()] {
        ping(&wire, &address);
    }
    lab.stop();
    ping(&lab.ns, "10.9.0.50");
}

#[test]
fn a_shared_nic_with_the_default_driver() {
    needs_system!();
    shared_nic("");
}

#[test]
fn a_shared_nic_with_xdp() {
    needs_system!();
    shared_nic("xdp");
}

#[test]
fn a_shared_nic_with_packet() {
    needs_system!();
    shared_nic("packet");
}
