//! kill -9, and a start after it: nothing of the first process is in the way of the second, or stays.

use crate::lab::{Kind, Lab, eventually};

#[test]
fn after_kill_9_all_starts_again() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let kinds = [("a", Kind::Tap), ("b", Kind::Xdp), ("c", Kind::XdpGeneric), ("d", Kind::Packet)];
    let hosts: Vec<_> = (1..).zip(kinds).map(|(number, (name, kind))| lab.host(name, kind, number)).collect();
    let without_guest = lab.config.clone();
    lab.port("g", "network = \"blue\"", "kind = \"guest\", name = \"nu-g\", owner = \"nobody\"");
    lab.start();
    for round in 0..3 {
        for pair in hosts.windows(2) {
            pair[0].ping(&pair[1]);
        }
        lab.kill();
        assert!(lab.ns.has_device("nu-g"), "a guest's TAP outlives a crash, as a guest may hold it");
        eventually("the kernel removes TAPs and XDP programs", || {
            !hosts[0].ns.has_device("eth0") && !lab.ns.ip("-d link show").contains("xdp")
        });
        if round == 2 {
            lab.config = without_guest.clone();
        }
        lab.start();
    }
    assert!(!lab.ns.has_device("nu-g"), "the TAP of a guest that is no longer configured is removed");
    for pair in hosts.windows(2) {
        pair[0].ping(&pair[1]);
    }
    lab.stop();
    nothing_is_left(&lab);
}

#[test]
fn a_clean_stop_leaves_nothing() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Xdp, 2));
    lab.port("g", "network = \"blue\"", "kind = \"guest\", name = \"nu-g\"");
    lab.start();
    a.ping(&b);
    assert!(lab.ns.has_device("nu-g"));
    lab.stop();
    assert!(!a.ns.has_device("eth0"));
    assert!(b.ns.has_device("eth0"), "what the switch did not make it does not remove");
    nothing_is_left(&lab);
}

/// Only veths stand in the switch's namespace, without programs or packet sockets; only configuration and log in its
/// directory.
fn nothing_is_left(lab: &Lab) {
    assert!(lab.ns.devices().iter().all(|name| name.starts_with('v')), "{:?}", lab.ns.devices());
    let links = lab.ns.ip("-d link show");
    assert!(!links.contains("xdp") && !links.contains("promiscuity 1"), "{links}");
    for table in ["packet", "xdp"] {
        let path = format!("/proc/thread-self/net/{table}");
        let sockets = lab.ns.within(|| std::fs::read_to_string(&path).unwrap_or_default());
        assert!(sockets.lines().count() <= 1, "{table}: {sockets}");
    }
    let files = std::fs::read_dir(lab.path("lab.toml").parent().unwrap()).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lab.toml", "log"]);
}
