//! What the switch shows of real traffic: captures that other programs read, traces, counters, the FDB.

use std::process::{Command, Stdio};

use nuswitch::pcapng::Reader;
use serde_json::Value;

use crate::lab::{Host, Kind, Lab, eventually, run, text};
use crate::raw;

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
