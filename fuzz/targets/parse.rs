//! Any bytes as headers, as a frame's description, as a capture file and as a capture stream.

use std::io::Write;

use nuswitch::cli::frame_spec;
use nuswitch::frame::MAX_FRAME;
use nuswitch::pcapng::{Blocks, Reader};
use nuswitch::wire::ethernet::Ethernet;
use nuswitch::wire::ipv4::{Ipv4, Ipv4Mut};
use nuswitch::wire::ipv6::{Ipv6, Ipv6Mut};
use nuswitch::wire::tcp::Tcp;
use nuswitch::wire::udp::Udp;

pub fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => headers(data),
        1 => description(data),
        2 => file(data),
        _ => stream(data),
    }
}

fn headers(data: &[u8]) {
    let mut rest = data;
    if let Ok(view) = Ethernet::new_checked(data) {
        assert!(view.header_len() <= data.len() && view.tags().count() <= 2);
        rest = view.payload();
    }
    for bytes in [data, rest] {
        if let Ok(view) = Ipv4::new_checked(bytes) {
            assert!(view.header_len() <= bytes.len() && view.header_len() >= 20);
            let _ = (
                view.total_len(),
                view.id(),
                view.is_fragment(),
                view.ttl(),
                view.protocol(),
                view.checksum(),
            );
            let mut copy = bytes.to_vec();
            Ipv4Mut::new_checked(&mut copy).expect("what can be read can be written").fill_checksum();
        }
        if let Ok(view) = Ipv6::new_checked(bytes) {
            if let Ok(transport) = view.transport() {
                assert!(transport.offset <= bytes.len());
            }
            let mut copy = bytes.to_vec();
            Ipv6Mut::new_checked(&mut copy).expect("what can be read can be written").set_payload_len(1);
        }
        if let Ok(view) = Tcp::new_checked(bytes) {
            assert!(view.header_len() <= bytes.len() && view.header_len() >= 20);
            let _ = (view.sequence(), view.flags(), view.checksum(), view.source_port());
        }
        if let Ok(view) = Udp::new_checked(bytes) {
            let _ = (view.len(), view.checksum(), view.destination_port());
        }
    }
}

fn description(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What names a file is the file's matter.
    if !text.contains('#')
        && let Ok(frame) = frame_spec::parse(text)
    {
        assert!(frame.len() <= MAX_FRAME);
    }
}

fn file(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(data).expect("room in it");
    if let Ok(reader) = Reader::open(file.path()) {
        let bounded = reader.take(data.len() + 1);
        assert!(bounded.count() <= data.len(), "more frames than bytes");
    }
}

fn stream(data: &[u8]) {
    let (Some((step, data)), mut blocks, mut whole) = (data.split_first(), Blocks::default(), Vec::new())
    else {
        return;
    };
    for part in data.chunks(usize::from(*step).max(1)) {
        blocks.push(part);
        if blocks.pass(&mut whole, Some(100)).is_err() {
            break;
        }
    }
    assert!(data.starts_with(&whole), "whole blocks pass as they came");
}
