//! What the path says about a frame, in the configuration's words.

use super::frames::*;
use super::switch::*;
use super::{CAMPUS, LAN};

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_flood_names_every_port() {
    let mut sw = Switch::from(CAMPUS);
    assert_eq!(
        sw.trace("all", frame().from(A).to(BROADCAST).tag(20)),
        lines(&[
            "ingress: takes off the tag of VLAN 20",
            "ingress: from port all into network blue",
            "bridge: learns 52:54:00:00:00:0a behind port all",
            "bridge: ff:ff:ff:ff:ff:ff is a group address: to all ports of network blue",
            "egress: leaves by port up with the tag of VLAN 20",
            "egress: leaves by port b untagged",
            "egress: leaves by port some with the tag of VLAN 20",
        ])
    );
    assert_eq!(sw.knows("blue", A), None, "a trace teaches nothing");
}

#[test]
fn a_known_station_and_a_drop() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("r", frame().from(B).to(BROADCAST));
    sw.forget();
    assert_eq!(
        sw.trace("up", frame().tag(0x600a)),
        lines(&[
            "ingress: takes off the tag of VLAN 10",
            "ingress: from port up into network red",
            "bridge: learns 52:54:00:00:00:0a behind port up",
            "bridge: 52:54:00:00:00:0b is behind port r",
            "egress: leaves by port r untagged",
        ])
    );
    assert_eq!(
        sw.trace("some", frame().tag(30)),
        lines(&["drop: vlan_not_allowed: its VLAN is not one of this port's"])
    );
    assert_eq!(
        sw.trace("r", frame().to(B)),
        lines(&[
            "ingress: from port r into network red",
            "bridge: learns 52:54:00:00:00:0a behind port r",
            "bridge: 52:54:00:00:00:0b is behind port r",
            "drop: same_port: its destination is behind the port that it came from",
        ])
    );
}

#[test]
fn offloads_are_told() {
    let mut sw = Build::from(LAN).caps("b", PLAIN).start();
    sw.send("b", frame().from(B).to(A));
    sw.send("c", frame().from(C).to(A));
    sw.forget();
    let last = |text: String| text.lines().last().unwrap().to_owned();
    assert_eq!(
        last(sw.trace("a", gso(Kind::Tcp4, 2500, 1000))),
        "egress: segmented into 3 frames, as port b cannot do it"
    );
    assert_eq!(
        last(sw.trace("a", partial(Kind::Tcp4, 100))),
        "egress: checksum finished in software, as port b cannot do it"
    );
    assert_eq!(
        last(sw.trace("a", gso(Kind::Tcp4, 2500, 1000).patch(0, &C.0))),
        "egress: port c takes the GSO frame whole"
    );
}
