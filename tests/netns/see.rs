//! What the switch shows of real traffic: captures that other programs read, traces, counters, the FDB.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nuswitch::pcapng::Reader;
use serde_json::Value;

use crate::lab::{Host, Kind, Lab, eventually, run, text};
use crate::raw;
use crate::tunnel::{Family, one_to_one};

fn pair() -> (Lab, Host, Host) {
    let mut lab = Lab::with_network(1500);
    let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Xdp, 2));
    lab.start();
    a.ping(&b);
    (lab, a, b)
}

/// A frame to a reserved group address (IEEE 802.1Q-2018, table 8-1), which no bridge forwards.
fn slow_protocols_frame() -> Vec<u8> {
    let mut frame = raw::broadcast(9, &[]);
    frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0x02]);
    frame
}

#[test]
fn a_capture_is_read_by_tcpdump_and_tells_why_frames_are_dropped() {
    needs_system!();
    let (mut lab, a, b) = pair();
    let file = lab.path("a.pcapng");
    let mut capture = lab.nuswitch_command();
    let capture = capture.args(["capture", "a", "-w"]).arg(&file).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the capture has begun", || file.exists());
    a.ping(&b);
    raw::send(&a.ns, "eth0", &[slow_protocols_frame()]);
    eventually("the reserved frame is dropped", || lab.drops("a", "reserved_mac") == 1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(capture.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    let output = capture.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));

    let lines = run(Command::new("tcpdump").args(["-n", "-e", "-r"]).arg(&file));
    for expected in [
        "10.9.0.1 > 10.9.0.2: ICMP echo request",
        "10.9.0.2 > 10.9.0.1: ICMP echo reply",
        "01:80:c2:00:00:02",
    ] {
        assert!(lines.contains(expected), "{expected}: {lines}");
    }
    let records: Vec<_> = Reader::open(&file).unwrap().map(Result::unwrap).collect();
    assert!(records.len() >= 13, "{}", records.len());
    // The comment stands in the file as text (option opt_comment of the frame's block).
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.windows(21).any(|bytes| bytes == b"dropped: reserved_mac"), "no comment in the capture");
    if Command::new("tshark").arg("-v").output().is_ok() {
        let mut tshark = Command::new("tshark");
        let comments = run(tshark
            .args(["-n", "-T", "fields", "-e", "frame.comment", "-Y", "frame.comment", "-r"])
            .arg(&file));
        assert!(comments.contains("reserved_mac"), "{comments}");
    }
    lab.stop();
}

#[test]
fn a_trace_tells_what_becomes_of_a_flow() {
    needs_system!();
    let (mut lab, a, b) = pair();
    let mac = |host: &Host| run(host.ns.command("cat").arg("/sys/class/net/eth0/address")).trim().to_owned();
    let (mac_a, mac_b) = (mac(&a), mac(&b));
    let before = lab.show_port("b")["counters"]["tx_frames"].clone();
    let frame = format!("eth src={mac_a} dst={mac_b} ip src=10.9.0.1 dst=10.9.0.2 icmp echo");
    let output = lab.nuswitch(&["trace", "--json", "-p", "a", &frame]);
    assert!(output.status.success(), "{}", text(&output));
    let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(trace["verdict"], "forwarded", "{trace:#}");
    assert_eq!(trace["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(trace["outputs"][0]["port"], "b");
    assert_eq!(lab.show_port("b")["counters"]["tx_frames"], before, "a trace sends nothing");
    let dropped = format!("eth src={mac_a} dst=01:80:c2:00:00:02 type=0x8809 len=50");
    let said = text(&lab.nuswitch(&["trace", "-p", "a", &dropped]));
    assert!(said.contains("dropped: reserved_mac"), "{said}");
    let fdb = lab.show("fdb");
    let port_of = |mac: &str| {
        fdb.as_array().unwrap().iter().find(|entry| entry["mac"] == mac).map(|entry| entry["port"].clone())
    };
    assert_eq!(port_of(&mac_a), Some("a".into()), "{fdb:#}");
    assert_eq!(port_of(&mac_b), Some("b".into()), "{fdb:#}");
    lab.stop();
}

/// Every frame that a port received has exactly one end.
#[test]
fn the_counters_of_a_port_add_up() {
    needs_system!();
    let (mut lab, a, b) = pair();
    raw::send(&a.ns, "eth0", &[slow_protocols_frame(), raw::broadcast(9, &[7])]);
    a.tcp_to(&b, 2 << 20);
    b.tcp_to(&a, 2 << 20);
    eventually("it adds up", || {
        ["a", "b"].iter().all(|port| {
            let counters = lab.show_port(port)["counters"].clone();
            let count = |name: &str| counters[name].as_u64().unwrap();
            let of_sending = ["tx_full", "tx_error", "handoff_full"];
            let drops = counters["drops"].as_object().unwrap().iter();
            let drops: u64 = drops
                .filter(|(name, _)| !of_sending.contains(&name.as_str()))
                .map(|(_, n)| n.as_u64().unwrap())
                .sum();
            count("rx_frames") == count("forwarded") + count("flooded") + drops
        })
    });
    assert_eq!(lab.drops("a", "tag_not_allowed"), 1);
    lab.stop();
}

/// A second of pings and what a capture on `overlay` with these options has of it, in a file.
fn captured(lab: &Lab, near: &Host, far: &Host, options: &[&str]) -> PathBuf {
    let file = lab.path("overlay.pcapng");
    let mut capture = lab.nuswitch_command();
    capture.args(["capture", "overlay", "-w", "-"]).args(options).stderr(Stdio::piped());
    let capture = capture.stdout(std::fs::File::create(&file).unwrap()).spawn().unwrap();
    // A section header: it has begun.
    eventually("the capture has begun", || std::fs::metadata(&file).unwrap().len() > 0);
    near.ping(far);
    std::thread::sleep(std::time::Duration::from_millis(300));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(capture.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    let output = capture.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    file
}

/// How often a text stands in a file.
fn occurrences(file: &Path, text: &str) -> usize {
    std::fs::read(file).unwrap().windows(text.len()).filter(|bytes| *bytes == text.as_bytes()).count()
}

/// EtherType and EtherType of the frame in a tunnel, if it is one.
fn kinds(frame: &[u8]) -> (u16, bool) {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    let is_tunnel = kind == 0x0800 && frame[23] == 17 && frame[36..38] == 4789u16.to_be_bytes();
    (kind, is_tunnel)
}

#[test]
fn a_capture_of_tunnels_has_outer_packets_or_the_frames_in_them() {
    needs_system!();
    for driver in ["packet", "xdp"] {
        let (mut lab, near, far) = one_to_one(driver, Family::V4, "");
        near.ping(&far);
        let file = captured(&lab, &near, &far, &["--inner"]);
        let frames: Vec<_> = Reader::open(&file).unwrap().map(Result::unwrap).collect();
        assert!(frames.len() >= 12, "{}", frames.len());
        assert!(frames.iter().all(|frame| !kinds(&frame.bytes).1), "an outer packet is among them");
        for way in ["from", "to"] {
            let said = occurrences(&file, &format!("tunnel {way} 192.0.2.11, VNI 1001"));
            assert!(said >= 6, "{way}: {said}");
        }
        let lines = run(Command::new("tcpdump").args(["-n", "-r"]).arg(&file));
        for ping in ["10.9.0.1 > 10.9.0.2: ICMP echo request", "10.9.0.2 > 10.9.0.1: ICMP echo reply"] {
            assert!(lines.contains(ping), "{ping}: {lines}");
        }
        assert!(!lines.contains("192.0.2."), "{lines}");

        let file = captured(&lab, &near, &far, &[]);
        let frames: Vec<_> = Reader::open(&file).unwrap().map(Result::unwrap).collect();
        assert!(frames.iter().filter(|frame| kinds(&frame.bytes).1).count() >= 12, "{}", frames.len());
        assert_eq!(occurrences(&file, "tunnel from"), 0);
        let lines = run(Command::new("tcpdump").args(["-n", "-r"]).arg(&file));
        assert!(
            lines.contains("192.0.2.10") && lines.contains("VXLAN, flags [I] (0x08), vni 1001"),
            "{lines}"
        );

        let refused = lab.nuswitch(&["capture", "near", "--inner", "-w", "-"]);
        assert!(
            !refused.status.success() && text(&refused).contains("no tunnels in it"),
            "{}",
            text(&refused)
        );
        lab.stop();
    }
}

#[test]
fn tunnels_are_shown_with_their_peers_and_what_passed() {
    needs_system!();
    for (driver, family) in [("packet", Family::V4), ("xdp", Family::V6)] {
        let (mut lab, near, far) = one_to_one(driver, family, family.zero_sums());
        let before = lab.show("tunnels");
        assert_eq!(before["vtep"]["address"], family.vtep(10), "{before:#}");
        near.ping(&far);
        far.tcp_to(&near, 1 << 20);
        let shown = lab.show("tunnels");
        let vtep = &shown["vtep"];
        assert_eq!((&vtep["status"], &vtep["mtu"]), (&"ACTIVE".into(), &1500.into()), "{shown:#}");
        assert_eq!(
            vtep["interface"]["driver"].as_str().unwrap().split(' ').next(),
            Some(driver),
            "{shown:#}"
        );
        let peer = &shown["peers"][0];
        let next_hop = run(far.ns.command("cat").arg("/sys/class/net/under/address"));
        assert_eq!(
            (&peer["address"], &peer["kind"], &peer["path_mtu"], &peer["next_hop"], &peer["networks"]),
            (
                &family.vtep(11).into(),
                &"configured".into(),
                &1500.into(),
                &next_hop.trim().into(),
                &serde_json::json!(["blue"])
            ),
            "{shown:#}"
        );
        let network = &shown["networks"][0];
        assert_eq!(
            (&network["name"], &network["segmentation_id"], &network["mtu"], &network["peers"]),
            (&"blue".into(), &1001.into(), &family.mtu().into(), &1.into()),
            "{shown:#}"
        );
        let count = |of: &Value, name: &str| of[name].as_u64().unwrap();
        for way in ["rx", "tx"] {
            let (frames, bytes) = (format!("{way}_frames"), format!("{way}_bytes"));
            assert!(count(network, &frames) >= 6 && count(network, &bytes) > 6 * 60, "{shown:#}");
            assert!(count(&peer["counters"], &frames) >= 6, "{shown:#}");
        }
        // It is one peer with one network: they count the same frames.
        assert_eq!(count(&peer["counters"], "rx_bytes"), count(network, "rx_bytes"), "{shown:#}");
        assert!(count(network, "rx_bytes") > 1 << 20, "{shown:#}");
        let port = lab.show_port("overlay");
        assert_eq!((&port["role"], &port["network"]), (&"overlay".into(), &Value::Null), "{port:#}");
        let table = text(&lab.nuswitch(&["show", "tunnels"]));
        assert!(table.contains(next_hop.trim()) && table.contains("configured"), "{table}");
        let ports = text(&lab.nuswitch(&["show", "ports"]));
        assert!(ports.contains("(tunnels)"), "{ports}");
        lab.stop();
    }
}

/// UDP datagrams that have come to the host for a port where nobody listens (RFC 4113, udpNoPorts).
fn strays(host: &Host) -> u64 {
    let counters = run(host.ns.command("cat").arg("/proc/net/snmp"));
    let udp = counters.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    udp.split(' ').nth(2).unwrap().parse().unwrap()
}

#[test]
fn a_trace_goes_into_tunnels_and_out_of_them() {
    needs_system!();
    let (mut lab, near, far) = one_to_one("packet", Family::V4, "");
    near.ping(&far);
    let mac = |host: &Host| run(host.ns.command("cat").arg("/sys/class/net/eth0/address")).trim().to_owned();
    let (near_mac, far_mac) = (mac(&near), mac(&far));
    let tunnels = lab.show("tunnels");
    let vtep = tunnels["vtep"]["mac_address"].as_str().unwrap();
    let before = (strays(&near), strays(&far));
    let trace = |port: &str, frame: &str| -> Value {
        let output = lab.nuswitch(&["trace", "--json", "-p", port, frame]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let inner =
        |from: &str, to: &str| format!("eth src={from} dst={to} ip src=10.9.0.2 dst=10.9.0.1 udp len=64");
    let outer = |peer: &str, vni: u32, inner: &str| {
        format!("eth dst={vtep} ip src={peer} dst=192.0.2.10 udp sport=50000 vxlan vni={vni} {inner}")
    };

    let out = trace("overlay", &outer("192.0.2.11", 1001, &inner(&far_mac, &near_mac)));
    assert_eq!(
        (&out["verdict"], &out["outputs"][0]["port"]),
        (&"forwarded".into(), &"near".into()),
        "{out:#}"
    );
    let frame = out["outputs"][0]["frame"].as_str().unwrap().to_owned();
    assert_eq!(frame[..24], format!("{near_mac}{far_mac}").replace(':', ""));

    for (peer, vni, reason) in
        [("192.0.2.11", 1002, "dropped: unknown_vni"), ("192.0.2.12", 1001, "dropped: unknown_peer")]
    {
        let out = trace("overlay", &outer(peer, vni, &inner(&far_mac, &near_mac)));
        assert_eq!(out["verdict"], reason, "{out:#}");
        assert_eq!(out["outputs"], serde_json::json!([]), "{out:#}");
    }

    let out = trace("near", &inner(&near_mac, &far_mac));
    assert_eq!(
        (&out["verdict"], &out["outputs"][0]["port"]),
        (&"forwarded".into(), &"overlay".into()),
        "{out:#}"
    );
    let steps = out["steps"].to_string();
    assert!(steps.contains(&format!("{far_mac} is behind port 192.0.2.11")), "{steps}");
    let next_hop = run(far.ns.command("cat").arg("/sys/class/net/under/address")).trim().replace(':', "");
    let sent = out["outputs"][0]["frame"].as_str().unwrap();
    assert_eq!(
        (&sent[..12], &sent[60..68], sent.len()),
        (&next_hop[..], "c000020b", 2 * (50 + 106)),
        "{sent}"
    );
    far.ping(&near);
    assert_eq!((strays(&near), strays(&far)), before, "a traced frame was sent");
    lab.stop();
}
