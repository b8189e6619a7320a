//! Who is behind which port, and what becomes of frames for those who are not known.

use super::LAN;
use super::frames::*;
use super::switch::*;

/// LAN with more keys for port `a` and for the network.
fn lan(network: &str, a: &str) -> String {
    LAN.replace("name = \"lan\"\n", &format!("name = \"lan\"\n{network}\n"))
        .replace("name = \"a\"\n", &format!("name = \"a\"\n{a}\n"))
}

#[test]
fn unknown_and_broadcast_are_flooded_and_known_is_forwarded() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(B));
    sw.expect("b", frame().from(A).to(B));
    sw.expect("c", frame().from(A).to(B));
    sw.expect_nothing("a");
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect_nothing("c");
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.expect("b", frame().from(A).to(BROADCAST));
    sw.expect("c", frame().from(A).to(BROADCAST));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn multicast_is_flooded_and_reserved_addresses_stay_here() {
    let mut sw = Switch::from(LAN);
    for last in 0..=0x10 {
        let group = nuswitch::types::Mac([0x01, 0x80, 0xc2, 0, 0, last]);
        sw.send("a", frame().to(group));
        if last < 0x10 {
            sw.expect_counters("a: rx_frames 1, rx_bytes 60, reserved_mac 1");
        } else {
            sw.expect("b", frame().to(group));
            sw.expect("c", frame().to(group));
            sw.expect_counters(
                "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
            );
        }
    }
}

#[test]
fn an_address_is_forgotten_after_more_than_300_seconds_of_silence() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.advance(secs(299));
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.advance(secs(1));
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
    sw.advance(secs(1));
    assert_eq!(sw.knows("lan", A), None);
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect("c", frame().from(B).to(A));
    sw.expect_counters(
        "b: rx_frames 1, rx_bytes 60, flooded 1; a: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn who_speaks_is_not_forgotten() {
    let mut sw = Switch::from(LAN);
    for _ in 0..5 {
        sw.send("a", frame().from(A).to(BROADCAST));
        sw.advance(secs(200));
    }
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.forget();
}

#[test]
fn the_ageing_time_is_the_files() {
    let mut sw = Switch::from(&format!("[switch]\nmac_aging_time = 10\n{LAN}"));
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.advance(secs(10));
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.advance(secs(1));
    assert_eq!(sw.knows("lan", A), None);
    sw.forget();
}

#[test]
fn a_station_moves() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.send("b", frame().from(A).to(BROADCAST));
    assert_eq!(sw.knows("lan", A), Some("b".into()));
    sw.forget();
    sw.send("c", frame().from(C).to(A));
    sw.expect("b", frame().from(C).to(A));
    sw.expect_counters("c: rx_frames 1, rx_bytes 60, forwarded 1; b: tx_frames 1, tx_bytes 60");
}

#[test]
fn a_frame_for_a_station_behind_its_own_port_goes_nowhere() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.send("a", frame().from(B).to(A));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, same_port 1");
}

#[test]
fn static_addresses_are_known_do_not_age_and_do_not_move() {
    let mut sw = Switch::from(&lan("", &format!("mac_address = \"{A}\"\nstatic_macs = [\"{C}\"]")));
    for known in [A, C] {
        sw.send("b", frame().from(B).to(known));
        sw.expect("a", frame().from(B).to(known));
        sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
    }
    // Somebody else says to be A: the frame passes, the entry stays.
    sw.send("c", frame().from(A).to(B));
    sw.expect("b", frame().from(A).to(B));
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.expect_counters("c: rx_frames 1, rx_bytes 60, forwarded 1; b: tx_frames 1, tx_bytes 60");
    sw.advance(secs(1_000_000));
    assert_eq!(sw.knows("lan", A), Some("a".into()));
}

#[test]
fn a_networks_limit_holds_and_frames_pass_all_the_same() {
    let mut sw = Switch::from(&lan("mac_limit = 2", ""));
    for n in 1..=3 {
        sw.send("a", frame().from(mac(n)).to(BROADCAST));
    }
    sw.forget();
    assert_eq!([1, 2, 3].map(|n| sw.knows("lan", mac(n)).is_some()), [true, true, false]);
    sw.send("b", frame().from(mac(4)).to(mac(3)));
    sw.expect("a", frame().from(mac(4)).to(mac(3)));
    sw.expect("c", frame().from(mac(4)).to(mac(3)));
    assert_eq!(sw.knows("lan", mac(4)), None);
    sw.expect_counters(
        "b: rx_frames 1, rx_bytes 60, flooded 1; a: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
    // A move takes no room; what ages makes some.
    sw.send("b", frame().from(mac(1)).to(mac(2)));
    sw.expect("a", frame().from(mac(1)).to(mac(2)));
    assert_eq!(sw.knows("lan", mac(1)), Some("b".into()));
    sw.advance(secs(301));
    sw.send("b", frame().from(mac(4)).to(BROADCAST));
    assert_eq!(sw.knows("lan", mac(4)), Some("b".into()));
    sw.forget();
}

#[test]
fn a_ports_limit_holds_for_it_alone() {
    let mut sw = Switch::from(&lan("", "mac_limit = 1"));
    for n in 1..=2 {
        sw.send("a", frame().from(mac(n)).to(BROADCAST));
        sw.send("b", frame().from(mac(n + 10)).to(BROADCAST));
    }
    sw.forget();
    assert_eq!([1, 2, 11, 12].map(|n| sw.knows("lan", mac(n)).is_some()), [true, false, true, true]);
    // Neither may another's station move here.
    sw.send("a", frame().from(mac(11)).to(mac(12)));
    sw.expect("b", frame().from(mac(11)).to(mac(12)));
    assert_eq!(sw.knows("lan", mac(11)), Some("b".into()));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, forwarded 1; b: tx_frames 1, tx_bytes 60");
}

#[test]
fn a_limit_of_zero_learns_nothing() {
    let mut sw = Switch::from(&lan("mac_limit = 0", ""));
    sw.send("a", frame().from(A).to(BROADCAST));
    assert_eq!(sw.knows("lan", A), None);
    sw.forget();
}

#[test]
fn networks_are_apart() {
    let text = format!(
        "{LAN}\n[[network]]\nname = \"other\"\n\n[[port]]\nname = \"d\"\nnetwork = \"other\"\n\
         interface = {{ kind = \"packet\", name = \"eth-d\" }}\n\n[[port]]\nname = \"e\"\nnetwork = \"other\"\n\
         interface = {{ kind = \"packet\", name = \"eth-e\" }}\n"
    );
    let mut sw = Switch::from(&text);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.send("d", frame().from(B).to(A));
    sw.expect("e", frame().from(B).to(A));
    sw.expect_counters("d: rx_frames 1, rx_bytes 60, flooded 1; e: tx_frames 1, tx_bytes 60");
    assert_eq!((sw.knows("other", A), sw.knows("lan", B)), (None, None));
}

#[test]
fn alone_in_its_network_a_port_has_no_receiver() {
    let text = "[[network]]\nname = \"lan\"\n\n[[port]]\nname = \"a\"\nnetwork = \"lan\"\n\
                interface = { kind = \"packet\", name = \"eth-a\" }\n";
    let mut sw = Switch::from(text);
    sw.send("a", frame().to(BROADCAST));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, no_receiver 1");
    sw.send("a", frame().to(B));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, no_receiver 1");
}

#[test]
fn a_port_that_is_not_wanted_up_neither_receives_nor_sends() {
    let mut sw = Switch::from(&lan("", &format!("admin_state_up = false\nmac_address = \"{A}\"")));
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, port_down 1");
    sw.send("b", frame().from(B).to(BROADCAST));
    sw.expect("c", frame().from(B).to(BROADCAST));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, flooded 1; c: tx_frames 1, tx_bytes 60");
    sw.send("b", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, port_down 1");
}

#[test]
fn a_device_that_is_down_takes_its_port_down_and_back_up() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    sw.set_device("a", false);
    sw.send("b", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, port_down 1");
    sw.set_device("a", true);
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
}
