//! New tables under traffic: what changed is forgotten, what did not is not touched.

use super::frames::*;
use super::switch::*;
use super::{CAMPUS, LAN};

/// Everyone speaks: `n` is behind the n-th of these ports, in its network.
fn everyone_speaks(sw: &mut Switch) {
    sw.send("f", frame().from(mac(1)).to(BROADCAST));
    sw.send("r", frame().from(mac(2)).to(BROADCAST));
    sw.send("b", frame().from(mac(3)).to(BROADCAST));
    sw.send("all", frame().from(mac(4)).to(BROADCAST).tag(20));
    sw.send("some", frame().from(mac(5)).to(BROADCAST).tag(20));
    sw.send("up", frame().from(mac(6)).to(BROADCAST).tag(30));
    sw.forget();
}

fn known(sw: &mut Switch) -> Vec<Option<String>> {
    let networks = ["flat", "red", "blue", "blue", "blue", "green"];
    (1..).zip(networks).map(|(n, network)| sw.knows(network, mac(n))).collect()
}

fn names(names: [&str; 6]) -> Vec<Option<String>> {
    names.iter().map(|name| (*name != "-").then(|| (*name).to_owned())).collect()
}

#[test]
fn the_same_file_forgets_nothing() {
    let mut sw = Switch::from(CAMPUS);
    everyone_speaks(&mut sw);
    sw.reload(CAMPUS);
    assert_eq!(known(&mut sw), names(["f", "r", "b", "all", "some", "up"]));
}

#[test]
fn a_vlan_that_a_trunk_loses_is_forgotten_there_and_nowhere_else() {
    let mut sw = Switch::from(CAMPUS);
    everyone_speaks(&mut sw);
    sw.reload(&CAMPUS.replace("allowed = [\"10\", \"20\"]", "allowed = [\"10\"]"));
    assert_eq!(known(&mut sw), names(["f", "r", "b", "all", "-", "up"]));
    sw.send("some", frame().from(mac(5)).to(mac(3)).tag(20));
    sw.expect_counters("some: rx_frames 1, rx_bytes 64, vlan_not_allowed 1");
}

#[test]
fn another_vlan_id_keeps_the_stations_and_changes_the_tag() {
    let mut sw = Switch::from(CAMPUS);
    everyone_speaks(&mut sw);
    sw.reload(&CAMPUS.replace("segmentation_id = 20", "segmentation_id = 21"));
    // `some` allows 20 only, which is no network's any more.
    assert_eq!(known(&mut sw), names(["f", "r", "b", "all", "-", "up"]));
    sw.send("b", frame().from(mac(3)).to(mac(4)));
    sw.expect("all", frame().from(mac(3)).to(mac(4)).tag(21));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; all: tx_frames 1, tx_bytes 64");
}

#[test]
fn a_network_that_goes_is_forgotten_and_its_successor_starts_empty() {
    let mut sw = Switch::from(CAMPUS);
    everyone_speaks(&mut sw);
    let green = "[[network]]\nname = \"green\"\nnetwork_type = \"vlan\"\nphysical_network = \"up\"\nsegmentation_id = 30\n";
    let without = CAMPUS.replace(green, "");
    assert_ne!(without, CAMPUS);
    sw.reload(&without);
    sw.reload(&CAMPUS.replace("green", "lime"));
    assert_eq!(sw.knows("lime", mac(6)), None);
    let rest = [sw.knows("flat", mac(1)), sw.knows("red", mac(2)), sw.knows("blue", mac(3))];
    assert_eq!(rest, ["f", "r", "b"].map(|name| Some(name.to_owned())));
}

#[test]
fn a_port_that_goes_is_forgotten_and_its_slots_next_owner_is_not_taken_for_it() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.send("b", frame().from(B).to(BROADCAST));
    sw.forget();
    let without_b = LAN.replace("name = \"b\"", "name = \"gone\"").replace("eth-b", "eth-gone");
    let start = without_b.find("[[port]]\nname = \"gone\"").unwrap();
    let end = without_b.find("[[port]]\nname = \"c\"").unwrap();
    sw.reload(&format!("{}{}", &without_b[..start], &without_b[end..]));
    assert_eq!((sw.knows("lan", A), sw.knows("lan", B)), (Some("a".into()), None));
    sw.reload(&LAN.replace("name = \"b\"", "name = \"d\""));
    assert_eq!(sw.knows("lan", B), None);
    sw.send("a", frame().from(A).to(B));
    sw.expect("c", frame().from(A).to(B));
    sw.expect("d", frame().from(A).to(B));
    sw.forget();
}

#[test]
fn static_addresses_come_go_and_win() {
    let with = |mac: &str| LAN.replace("name = \"b\"\n", &format!("name = \"b\"\nmac_address = \"{mac}\"\n"));
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.reload(&with(&A.to_string()));
    assert_eq!(sw.knows("lan", A), Some("b".into()), "over what was learned");
    sw.reload(&with(&B.to_string()));
    assert_eq!((sw.knows("lan", A), sw.knows("lan", B)), (None, Some("b".into())));
    sw.reload(LAN);
    assert_eq!(sw.knows("lan", B), None);
}

#[test]
fn frames_on_their_way_during_a_reload_are_not_lost() {
    let mut sw = Switch::from(LAN);
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    for round in 0..10 {
        for _ in 0..10 {
            assert!(sw.queue("a", frame()));
        }
        sw.reload(&format!("[switch]\nmac_aging_time = {}\n{LAN}", 100 + round));
        sw.settle();
        for _ in 0..10 {
            sw.expect("b", frame());
        }
        sw.expect_counters("a: rx_frames 10, rx_bytes 600, forwarded 10; b: tx_frames 10, tx_bytes 600");
    }
}

#[test]
fn a_port_taken_down_by_the_file_keeps_what_was_learned_for_later() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.reload(&LAN.replace("name = \"a\"\n", "name = \"a\"\nadmin_state_up = false\n"));
    sw.send("b", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, port_down 1");
    sw.reload(LAN);
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
}
