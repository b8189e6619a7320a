//! Which frames belong to which network, and how they leave: access ports, trunks, physical networks.

use super::CAMPUS;
use super::frames::*;
use super::switch::*;

#[test]
fn an_access_port_is_untagged_and_reaches_its_vlan_only() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("b", frame().to(BROADCAST));
    sw.expect("up", frame().to(BROADCAST).tag(20));
    sw.expect("all", frame().to(BROADCAST).tag(20));
    sw.expect("some", frame().to(BROADCAST).tag(20));
    sw.expect_nothing("r");
    sw.expect_nothing("f");
    sw.expect_counters(
        "b: rx_frames 1, rx_bytes 60, flooded 1; up: tx_frames 1, tx_bytes 64; \
         all: tx_frames 1, tx_bytes 64; some: tx_frames 1, tx_bytes 64",
    );
    sw.send("up", frame().from(B).to(A).tag(20));
    sw.expect("b", frame().from(B).to(A));
    sw.expect_counters("up: rx_frames 1, rx_bytes 64, forwarded 1; b: tx_frames 1, tx_bytes 60");
}

#[test]
fn a_flat_network_is_untagged_on_its_physical_network_and_not_on_a_trunk_that_does_not_say_so() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("f", frame().to(BROADCAST));
    sw.expect("up", frame().to(BROADCAST));
    sw.expect_counters("f: rx_frames 1, rx_bytes 60, flooded 1; up: tx_frames 1, tx_bytes 60");
    sw.send("up", frame().from(B).to(BROADCAST));
    sw.expect("f", frame().from(B).to(BROADCAST));
    sw.expect_counters("up: rx_frames 1, rx_bytes 60, flooded 1; f: tx_frames 1, tx_bytes 60");
}

#[test]
fn a_native_vlan_is_untagged_on_its_trunk_and_welcome_tagged() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("some", frame().to(BROADCAST));
    sw.expect("r", frame().to(BROADCAST));
    sw.expect("up", frame().to(BROADCAST).tag(10));
    sw.expect("all", frame().to(BROADCAST).tag(10));
    sw.expect_counters(
        "some: rx_frames 1, rx_bytes 60, flooded 1; r: tx_frames 1, tx_bytes 60; \
         up: tx_frames 1, tx_bytes 64; all: tx_frames 1, tx_bytes 64",
    );
    sw.send("r", frame().from(B).to(A));
    sw.expect("some", frame().from(B).to(A));
    sw.expect_counters("r: rx_frames 1, rx_bytes 60, forwarded 1; some: tx_frames 1, tx_bytes 60");
    sw.send("some", frame().to(B).tag(10));
    sw.expect("r", frame().to(B));
    sw.expect_counters("some: rx_frames 1, rx_bytes 64, forwarded 1; r: tx_frames 1, tx_bytes 60");
}

#[test]
fn a_vlan_that_is_not_allowed_passes_neither_way() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("some", frame().to(BROADCAST).tag(30));
    sw.expect_counters("some: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
    sw.send("all", frame().to(BROADCAST).tag(30));
    sw.expect("up", frame().to(BROADCAST).tag(30));
    sw.expect_nothing("some");
    sw.expect_counters("all: rx_frames 1, rx_bytes 64, flooded 1; up: tx_frames 1, tx_bytes 64");
}

#[test]
fn a_vlan_that_nobody_configured_is_dropped_as_4095_is() {
    let mut sw = Switch::from(CAMPUS);
    for id in [31, 4095, 0xffff] {
        sw.send("all", frame().to(BROADCAST).tag(id));
        sw.expect_counters("all: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
        sw.send("up", frame().to(BROADCAST).tag(id));
        sw.expect_counters("up: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
    }
}

#[test]
fn priority_and_drop_eligibility_of_a_tag_do_not_change_its_vlan() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("up", frame().to(BROADCAST).tag(0xf000 | 10));
    sw.expect("r", frame().to(BROADCAST));
    sw.expect("all", frame().to(BROADCAST).tag(10));
    sw.expect("some", frame().to(BROADCAST));
    sw.expect_counters(
        "up: rx_frames 1, rx_bytes 64, flooded 1; r: tx_frames 1, tx_bytes 60; \
         all: tx_frames 1, tx_bytes 64; some: tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn a_priority_tag_counts_as_untagged() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("f", frame().to(BROADCAST).tag(0xe000));
    sw.expect("up", frame().to(BROADCAST));
    sw.expect_counters("f: rx_frames 1, rx_bytes 64, flooded 1; up: tx_frames 1, tx_bytes 60");
    sw.send("up", frame().from(B).to(A).tag(0));
    sw.expect("f", frame().from(B).to(A));
    sw.expect_counters("up: rx_frames 1, rx_bytes 64, forwarded 1; f: tx_frames 1, tx_bytes 60");
    sw.send("all", frame().to(BROADCAST).tag(0));
    sw.expect_counters("all: rx_frames 1, rx_bytes 64, untagged_not_allowed 1");
}

#[test]
fn a_tag_is_not_allowed_on_an_access_port_be_it_its_own_vlan() {
    let mut sw = Switch::from(CAMPUS);
    for tagged in
        [frame().tag(10), frame().tag(20), frame().service_tag(10), frame().service_tag(0), frame().tag(4095)]
    {
        sw.send("r", tagged);
        sw.expect_counters("r: rx_frames 1, rx_bytes 64, tag_not_allowed 1");
    }
}

#[test]
fn untagged_on_a_trunk_without_native_network_is_dropped() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("all", frame());
    sw.expect_counters("all: rx_frames 1, rx_bytes 60, untagged_not_allowed 1");
}

#[test]
fn a_service_tag_in_front_belongs_to_a_provider_bridge() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("all", frame().service_tag(10));
    sw.expect_counters("all: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
    sw.send("up", frame().service_tag(10).tag(20));
    sw.expect_counters("up: rx_frames 1, rx_bytes 68, vlan_not_allowed 1");
    sw.send("up", frame().service_tag(0));
    sw.expect_counters("up: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
}

#[test]
fn a_second_tag_is_payload_and_a_third_is_refused() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("all", frame().to(BROADCAST).tag(20).tag(77));
    sw.expect("up", frame().to(BROADCAST).tag(20).tag(77));
    sw.expect("some", frame().to(BROADCAST).tag(20).tag(77));
    sw.expect("b", frame().to(BROADCAST).tag(77));
    sw.expect_counters(
        "all: rx_frames 1, rx_bytes 68, flooded 1; up: tx_frames 1, tx_bytes 68; \
         some: tx_frames 1, tx_bytes 68; b: tx_frames 1, tx_bytes 64",
    );
    sw.send("all", frame().tag(20).service_tag(77).tag(5));
    sw.expect_counters("all: rx_frames 1, rx_bytes 72, third_tag 1");
    sw.send("b", frame().tag(0).tag(77).tag(5));
    sw.expect_counters("b: rx_frames 1, rx_bytes 72, third_tag 1");
}

#[test]
fn a_payload_tag_does_not_become_a_vlan_of_the_next_switch() {
    let mut sw = Switch::from(CAMPUS);
    // Known unicast: VLAN 10 leaves `some` untagged, so the second tag would stand in front.
    sw.send("some", frame().from(B).to(A).tag(10));
    sw.expect("up", frame().from(B).to(A).tag(10));
    sw.expect("all", frame().from(B).to(A).tag(10));
    sw.expect("r", frame().from(B).to(A));
    sw.forget();
    sw.send("up", frame().tag(10).tag(20));
    sw.expect_counters("up: rx_frames 1, rx_bytes 68, vlan_hop 1");
    // Flooded: the copy to `some` alone is dropped.
    sw.send("up", frame().to(BROADCAST).tag(10).tag(20));
    sw.expect("r", frame().to(BROADCAST).tag(20));
    sw.expect("all", frame().to(BROADCAST).tag(10).tag(20));
    sw.expect_nothing("some");
    sw.expect_counters(
        "up: rx_frames 1, rx_bytes 68, flooded 1, vlan_hop 1; r: tx_frames 1, tx_bytes 64; all: tx_frames 1, tx_bytes 68",
    );
    // From an access port behind a priority tag, out of the physical network's flat network.
    sw.send("f", frame().to(BROADCAST).tag(0).tag(20));
    sw.expect_nothing("up");
    sw.expect_counters("f: rx_frames 1, rx_bytes 68, vlan_hop 1");
}

#[test]
fn the_same_address_in_two_vlans_is_two_stations() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("r", frame().from(A).to(BROADCAST));
    sw.send("all", frame().from(A).to(BROADCAST).tag(20));
    assert_eq!(sw.knows("red", A), Some("r".into()));
    assert_eq!(sw.knows("blue", A), Some("all".into()));
    sw.forget();
    sw.send("up", frame().from(B).to(A).tag(10));
    sw.expect("r", frame().from(B).to(A));
    sw.send("up", frame().from(B).to(A).tag(20));
    sw.expect("all", frame().from(B).to(A).tag(20));
    sw.expect_counters(
        "up: rx_frames 2, rx_bytes 128, forwarded 2; r: tx_frames 1, tx_bytes 60; all: tx_frames 1, tx_bytes 64",
    );
}

#[test]
fn trunks_of_a_physical_network_without_a_device_reach_each_other() {
    let text = CAMPUS.replace("interface = \"eth-up\"\ndriver = \"packet\"\n", "");
    let mut sw = Switch::from(&text);
    sw.send("all", frame().to(BROADCAST).tag(20));
    sw.expect("b", frame().to(BROADCAST));
    sw.expect("some", frame().to(BROADCAST).tag(20));
    sw.expect_counters(
        "all: rx_frames 1, rx_bytes 64, flooded 1; b: tx_frames 1, tx_bytes 60; some: tx_frames 1, tx_bytes 64",
    );
}

#[test]
fn a_flat_network_is_native_on_a_trunk_that_says_so() {
    let mut sw = Switch::from(&CAMPUS.replace("native = \"red\", allowed", "native = \"flat\", allowed"));
    sw.send("some", frame().to(BROADCAST));
    sw.expect("up", frame().to(BROADCAST));
    sw.expect("f", frame().to(BROADCAST));
    sw.expect_counters(
        "some: rx_frames 1, rx_bytes 60, flooded 1; up: tx_frames 1, tx_bytes 60; f: tx_frames 1, tx_bytes 60",
    );
    sw.send("some", frame().to(BROADCAST).tag(10));
    sw.expect("r", frame().to(BROADCAST));
    sw.expect("up", frame().to(BROADCAST).tag(10));
    sw.expect("all", frame().to(BROADCAST).tag(10));
    sw.expect_counters(
        "some: rx_frames 1, rx_bytes 64, flooded 1; r: tx_frames 1, tx_bytes 60; \
         up: tx_frames 1, tx_bytes 64; all: tx_frames 1, tx_bytes 64",
    );
}
