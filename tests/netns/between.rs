//! Traffic between every two kinds of port: pings of all sizes, UDP, TCP whose bytes are compared, iperf3; with the hosts'
//! offloads on and off; and jumbo frames.

use serde_json::Value;

use crate::lab::{Host, Kind, Lab};

/// Payloads of pings around what an MTU of 1500 takes: 1472 (IPv4), 1452 (IPv6); the last two are fragmented.
const SIZES: [usize; 7] = [0, 56, 1451, 1452, 1472, 1473, 4000];

fn traffic_between(left: Kind, right: Kind) {
    let mut lab = Lab::with_network(1500);
    let a = lab.host("a", left, 1);
    let b = lab.host("b", right, 2);
    lab.start();
    driver_is(&lab, "a", left);
    driver_is(&lab, "b", right);
    for on in [true, false] {
        for (host, kind) in [(&a, left), (&b, right)] {
            // Generic XDP does not keep a veth's peer from sending GSO frames, which AF_XDP cannot tell from others.
            host.offloads(on && kind != Kind::XdpGeneric);
        }
        a.ping_sizes(&b, &SIZES);
        a.udp_echo(&b, &[1, 100, 1472, 1473, 9000]);
        a.tcp_to(&b, 3 << 20);
        b.tcp_to(&a, 3 << 20);
        iperf(&a, &b);
    }
    for port in ["a", "b"] {
        let drops = &lab.show_port(port)["counters"]["drops"];
        for never in ["bad_offload", "tx_error", "giant", "mtu_exceeded", "rx_truncated"] {
            assert!(drops[never].is_null(), "{port}: {drops}");
        }
    }
    lab.stop();
}

/// TCP both ways and a UDP flow that every kind of port carries with ease.
pub(crate) fn iperf(a: &Host, b: &Host) {
    for options in ["", "-R"] {
        let report = a.iperf(b, options);
        let received = report["end"]["sum_received"]["bytes"].as_f64().unwrap();
        println!("  TCP {options} {:.0} Mbit/s", received * 8e-6);
        assert!(received > 4e6, "TCP stalls: {received} bytes in a second");
    }
    let report = a.iperf(b, "-u -b 8M -l 1200");
    let sum = &report["end"]["sum"];
    let (sent, lost) = (sum["packets"].as_f64().unwrap(), sum["lost_packets"].as_f64().unwrap());
    println!("  UDP {lost} of {sent} lost");
    assert!(sent > 500.0 && lost < sent / 4.0, "{sum}");
}

/// The port runs as what it was asked to be.
fn driver_is(lab: &Lab, port: &str, kind: Kind) {
    let port = lab.show_port(port);
    let interface = &port["interface"];
    let driver = match kind {
        Kind::Tap => "tap",
        Kind::Xdp | Kind::XdpGeneric => "xdp",
        Kind::Packet => "packet",
    };
    assert_eq!(interface["driver"], driver, "{port:#}");
    let has_note = |word: &str| {
        let notes = interface["notes"].as_array().unwrap();
        notes.iter().any(|note: &Value| note.as_str().unwrap().contains(word))
    };
    match kind {
        Kind::Xdp => assert!(has_note("native"), "{port:#}"),
        Kind::XdpGeneric => assert!(has_note("generic"), "{port:#}"),
        _ => {}
    }
}

macro_rules! pairs {
    ($($name:ident: $left:ident, $right:ident;)*) => {
        $(#[test]
        fn $name() {
            needs_system!();
            traffic_between(Kind::$left, Kind::$right);
        })*
    };
}

pairs! {
    tap_and_tap: Tap, Tap;
    tap_and_xdp: Tap, Xdp;
    tap_and_xdp_generic: Tap, XdpGeneric;
    tap_and_packet: Tap, Packet;
    xdp_and_xdp: Xdp, Xdp;
    xdp_and_xdp_generic: Xdp, XdpGeneric;
    xdp_and_packet: Xdp, Packet;
    xdp_generic_and_xdp_generic: XdpGeneric, XdpGeneric;
    xdp_generic_and_packet: XdpGeneric, Packet;
    packet_and_packet: Packet, Packet;
}

/// MTU 9000 on a TAP, an AF_PACKET port and native AF_XDP with several buffers a frame.
#[test]
fn jumbo_frames() {
    needs_system!();
    let mut lab = Lab::with_network(9000);
    let kinds = [("a", Kind::Tap), ("b", Kind::Packet), ("c", Kind::Xdp), ("d", Kind::Xdp)];
    let hosts: Vec<Host> = (1..)
        .zip(kinds)
        .map(|(number, (name, kind))| lab.host_with(name, kind, number, "network = \"blue\"", 9000))
        .collect();
    lab.start();
    for (from, to) in [(0, 1), (0, 2), (1, 2), (2, 3)] {
        let (from, to) = (&hosts[from], &hosts[to]);
        from.ping_sizes(to, &[56, 2000, 4000, 8952]);
        let whole = from.ping_once(&to.v4(), "-M do -s 8972 -c 3 -w 20");
        assert!(whole.status.success(), "9000 bytes in one piece: {whole:?}");
        from.udp_echo(to, &[8972]);
        from.tcp_to(to, 4 << 20);
        to.tcp_to(from, 4 << 20);
    }
    lab.stop();
}
