//! Mistakes stop nothing that runs: wrong files, a second daemon, devices that are missing, go, and come back.

use std::fs;
use std::process::Command;

use crate::lab::{Kind, Lab, NUSWITCH, Namespace, eventually, text, veth};

#[test]
fn a_wrong_file_at_reload_stops_nothing() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Tap, 2));
    lab.start();
    a.ping(&b);
    let epoch = lab.show("status")["epoch"].clone();
    fs::write(lab.path("lab.toml"), "[switch]\nwrokers = [0]\n\n[[port]]\nname = \"a\"\nnetwork = \"red\"\n")
        .unwrap();
    let refused = lab.nuswitch(&["reload"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = text(&refused);
    for mistake in ["wrokers", "red", "lab.toml:2", "interface"] {
        assert!(said.contains(mistake), "every mistake is told, `{mistake}` too: {said}");
    }
    lab.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("SIGHUP is answered in the log", || lab.log().contains("not reloaded"));
    assert_eq!(lab.show("status")["epoch"], epoch);
    a.ping(&b);
    b.tcp_to(&a, 1 << 20);
    lab.write();
    lab.reload();
    a.ping(&b);
    lab.stop();
}

#[test]
fn a_device_that_is_refused_at_reload_stops_nothing() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Packet, 2));
    lab.start();
    a.ping(&b);
    let good = lab.config.clone();
    // A name that is taken already in that namespace.
    lab.port(
        "c",
        "network = \"blue\"",
        &format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", b.ns.name),
    );
    lab.write();
    let refused = lab.nuswitch(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused).contains("eth0"), "{refused:?}");
    a.ping(&b);
    lab.config = good;
    lab.write();
    lab.reload();
    lab.stop();
}

#[test]
fn check_tells_by_its_exit_code() {
    needs_system!();
    let lab = Lab::with_network(1500);
    lab.write();
    let check = |file: &str| Command::new(NUSWITCH).arg("check").arg(lab.path(file)).output().unwrap();
    assert_eq!(check("lab.toml").status.code(), Some(0));
    fs::write(lab.path("bad.toml"), "[switch]\nidle = \"sometimes\"\n").unwrap();
    let bad = check("bad.toml");
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad).contains("bad.toml:2"), "{}", text(&bad));
    assert_eq!(check("missing.toml").status.code(), Some(1));
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Packet, 1), lab.host("b", Kind::Packet, 2));
    lab.start();
    let second =
        lab.ns.command(NUSWITCH).arg("run").arg("--config").arg(lab.path("lab.toml")).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(text(&second).contains("control.sock"), "{second:?}");
    a.ping(&b);
    lab.stop();
}

/// A port whose device is missing is down and says why; it comes up with the device, goes with it and comes back.
fn devices_come_and_go(kind: &str) {
    let mut lab = Lab::with_network(1500);
    let a = lab.host("a", Kind::Tap, 1);
    lab.port("b", "network = \"blue\"", &format!("kind = \"{kind}\", name = \"late\""));
    lab.launch();
    let b = Namespace::new("b");
    for round in 0..3 {
        eventually("the port is down, with a reason", || {
            let port = lab.show_port("b");
            port["status"] == "DOWN"
                && port["status_reason"].as_str().is_some_and(|reason| !reason.is_empty())
        });
        assert_eq!(lab.show_port("a")["status"], "ACTIVE");
        veth(&lab.ns, "late", &b, "eth0", 1500);
        // The same card again: others remember its MAC.
        b.ip("link set eth0 address 02:00:5e:00:53:02");
        b.ip("addr add 10.9.0.2/24 dev eth0");
        lab.wait_for_ports();
        let ping = a.ping_once("10.9.0.2", "-c 3 -w 20");
        assert!(ping.status.success(), "round {round}: {ping:?}");
        lab.ns.ip("link del late");
    }
    eventually("the port is down", || lab.show_port("b")["status"] == "DOWN");
    lab.stop();
}

#[test]
fn an_xdp_device_comes_and_goes() {
    needs_system!();
    devices_come_and_go("xdp");
}

#[test]
fn a_packet_device_comes_and_goes() {
    needs_system!();
    devices_come_and_go("packet");
}

#[test]
fn a_tap_that_is_deleted_comes_back() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Tap, 2));
    lab.start();
    a.ping(&b);
    let epoch = lab.show("status")["epoch"].as_u64().unwrap();
    b.ns.ip("link del eth0");
    eventually("the switch notices", || lab.show("status")["epoch"].as_u64().unwrap() > epoch);
    lab.wait_for_ports();
    a.ping(&b);
    b.tcp_to(&a, 1 << 20);
    lab.stop();
}
