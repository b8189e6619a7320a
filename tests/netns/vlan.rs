//! VLANs on the wire: a physical network's device, trunks and native networks. The peers are a second switch and Python.

use crate::lab::{Host, Kind, Lab, Namespace, Watch, veth};
use crate::raw;

const NETWORKS: &str = r#"
[[network]]
name = "storage"
network_type = "vlan"
physical_network = "provider"
segmentation_id = 120

[[network]]
name = "backup"
network_type = "vlan"
physical_network = "provider"
segmentation_id = 130

[[network]]
name = "public"
network_type = "flat"
physical_network = "provider"
"#;

/// A switch whose provider network leaves by `uplink`, with a TAP host in each of its networks, which may send from any MAC.
fn leaf(driver: &str) -> (Lab, [Host; 3]) {
    let mut lab = Lab::new();
    lab.add(&format!(
        "[[physical_network]]\nname = \"provider\"\ninterface = \"uplink\"\ndriver = \"{driver}\"\n{NETWORKS}"
    ));
    let hosts = [("storage", 1), ("backup", 3), ("public", 5)].map(|(network, number)| {
        let keys = format!("network = \"{network}\"\nport_security_enabled = false");
        lab.host_with(network, Kind::Tap, number, &keys, 1500)
    });
    (lab, hosts)
}

/// A switch with a trunk port on `downlink`, and hosts in the same networks. Their ports have other names, because generated
/// MACs come from names.
fn spine(kind: &str) -> (Lab, [Host; 3]) {
    let mut lab = Lab::new();
    lab.add(&format!("[[physical_network]]\nname = \"provider\"\n{NETWORKS}"));
    lab.port(
        "core",
        "trunk = { physical_network = \"provider\", native = \"public\", allowed = [\"120\", \"130\"] }",
        &format!("kind = \"{kind}\", name = \"downlink\""),
    );
    let hosts = [("storage", 2), ("backup", 4), ("public", 6)].map(|(network, number)| {
        lab.host_with(&format!("far-{network}"), Kind::Tap, number, &format!("network = \"{network}\""), 1500)
    });
    (lab, hosts)
}

fn two_switches(driver: &str, trunk: &str) {
    let (mut leaf, here) = leaf(driver);
    let (mut spine, there) = spine(trunk);
    veth(&leaf.ns, "uplink", &spine.ns, "downlink", 1500);
    leaf.start();
    spine.start();
    let storage = Watch::start(&there[0].ns, "eth0", "arp or ip");
    for (at, (a, b)) in here.iter().zip(&there).enumerate() {
        a.ping_sizes(b, &[56, 1472, 1473]);
        a.tcp_to(b, 1 << 20);
        b.tcp_to(a, 1 << 20);
        for (_, stranger) in there.iter().enumerate().filter(|(other, _)| *other != at) {
            assert!(!a.reaches(stranger), "{} reaches {}", a.ns.name, stranger.ns.name);
        }
    }
    let lines = storage.lines();
    assert!(lines.iter().any(|line| line.contains("10.9.0.1 > 10.9.0.2")), "{lines:#?}");
    // Not even what is flooded in another VLAN is heard here.
    for foreign in ["10.9.0.3 ", "10.9.0.5 ", "tell 10.9.0.3,", "tell 10.9.0.5,", "vlan"] {
        assert!(!lines.iter().any(|line| line.contains(foreign)), "{foreign}: {lines:#?}");
    }
    leaf.stop();
    spine.stop();
}

#[test]
fn vlans_pass_between_an_xdp_uplink_and_an_xdp_trunk() {
    needs_system!();
    two_switches("xdp", "xdp");
}

#[test]
fn vlans_pass_between_a_packet_uplink_and_a_packet_trunk() {
    needs_system!();
    two_switches("packet", "packet");
}

#[test]
fn vlans_pass_between_an_xdp_uplink_and_a_packet_trunk() {
    needs_system!();
    two_switches("xdp", "packet");
}

#[test]
fn vlans_pass_between_a_packet_uplink_and_an_xdp_trunk() {
    needs_system!();
    two_switches("packet", "xdp");
}

/// Frames of Python's arrive in the network of their tag, and frames leave with it.
fn tags_on_the_wire(driver: &str) {
    let (mut lab, [storage, backup, public]) = leaf(driver);
    let wire = Namespace::new("wire");
    veth(&lab.ns, "uplink", &wire, "wire0", 1500);
    lab.start();
    let filter = "ether proto 0x88b5 or (vlan and ether proto 0x88b5)";
    let watches = [&storage, &backup, &public].map(|host| host.watch(filter));
    let on_the_wire = Watch::start(&wire, "wire0", filter);
    let untagged_priority = 5 << 13; // VLAN ID 0 with a priority: a priority tag, which is the native network's
    let frames = [(1, &[120][..]), (2, &[130]), (3, &[]), (4, &[140]), (5, &[untagged_priority])];
    raw::send(&wire, "wire0", &frames.map(|(source, tags)| raw::broadcast(source, tags)));
    raw::send(&storage.ns, "eth0", &[raw::broadcast(11, &[])]);
    raw::send(&public.ns, "eth0", &[raw::broadcast(13, &[])]);
    raw::send(&backup.ns, "eth0", &[raw::broadcast(12, &[120])]); // an access port takes no tags
    let [in_storage, in_backup, in_public] = watches.map(Watch::lines);
    let sources = |lines: &[String]| -> Vec<String> {
        let source = |line: &String| line.split("02:00:5e:00:53:").nth(1).map(|rest| rest[..2].to_owned());
        lines.iter().filter_map(source).collect()
    };
    assert_eq!(sources(&in_storage), ["01"], "{in_storage:#?}");
    assert_eq!(sources(&in_backup), ["02"], "{in_backup:#?}");
    assert_eq!(sources(&in_public), ["03", "05"], "{in_public:#?}");
    let wire_lines = on_the_wire.lines();
    assert_eq!(sources(&wire_lines), ["0b", "0d"], "{wire_lines:#?}");
    assert!(wire_lines[0].contains("vlan 120"), "{wire_lines:#?}");
    assert!(!wire_lines[1].contains("vlan"), "{wire_lines:#?}");
    assert_eq!(lab.drops("provider", "vlan_not_allowed"), 1, "{:#}", lab.show_port("provider"));
    assert_eq!(lab.drops("backup", "tag_not_allowed"), 1, "{:#}", lab.show_port("backup"));
    lab.stop();
}

#[test]
fn tags_on_an_xdp_wire() {
    needs_system!();
    tags_on_the_wire("xdp");
}

#[test]
fn tags_on_a_packet_wire() {
    needs_system!();
    tags_on_the_wire("packet");
}
