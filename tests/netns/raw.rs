//! Frames byte by byte, sent by Python on AF_PACKET: a peer that shares no code with the switch.

use crate::lab::{Namespace, run};

const SEND: &str = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]: s.send(bytes.fromhex(frame))";

/// Sends frames out of a device.
pub(crate) fn send(ns: &Namespace, device: &str, frames: &[Vec<u8>]) {
    let mut command = ns.command("python3");
    command.args(["-c", SEND, device]);
    for frame in frames {
        command.arg(frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    run(&mut command);
}

/// A broadcast from 02:00:5e:00:53:`source` with these tags and a local experimental EtherType (IEEE 802, 9.2.4).
pub(crate) fn broadcast(source: u8, tags: &[u16]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0x5e, 0, 0x53, source]);
    for tag in tags {
        frame.extend([0x81, 0]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.resize(100, source);
    frame
}
