//! What a connection costs.

use super::binding::{Inside, Slice};
use super::*;

/// Real connections, each with a binding and a host of its own: as much as one can cost. All that was allocated counts.
#[test]
fn a_connection_takes_at_most_192_bytes_with_all_that_is_for_it() {
    let ports = 2 * 65_535 + 65_536;
    for addresses in [1u32, 3] {
        let entries = addresses * ports;
        let limits = Limits { entries, per_guest: entries };
        let mut tracker = Tracker::new(limits, SETTINGS, 11);
        let mut bindings = Bindings::new(entries, 11);
        let pool: Vec<u32> = (0..addresses).map(|n| 0xc633_6400 | n).collect();
        bindings.set_pool(1, &pool, Slice::WHOLE);
        let mut tracked = 0;
        for (protocol, count) in [(6, 65_535), (17, 65_535), (1, 65_536)] {
            for n in 0..addresses * count {
                // Of ports, 1023 are for privileged ones, and those for nobody else.
                let low = protocol != 1 && n < addresses * 1023;
                let address = 0x0a00_0000 | u32::from(protocol) << 20 | n;
                let inside = Inside { zone: 1, protocol, address, port: if low { 7 } else { 50_000 } };
                let Ok(binding) = bindings.acquire(&inside) else { continue };
                let outside = bindings.outside(binding).unwrap();
                let original = Tuple { source: v4(address), source_port: inside.port, ..tuple(protocol, 0) };
                let reply = Tuple {
                    destination: v4(outside.address),
                    destination_port: outside.port,
                    ..original.reversed()
                };
                let probe = tracker.probe(&original);
                let new = New { binding: Some(binding), ..NEW };
                let segment = super::super::tcp::Segment { flags: 2, ..Default::default() };
                let seen = Seen { bytes: 60, tcp: (protocol == 6).then_some(segment) };
                tracker.insert(&probe, &reply, &new, &seen, 0, &mut nobody).unwrap();
                tracked += 1;
            }
        }
        assert!(tracked + tracked / 50 >= entries, "{tracked} of {entries} connections fit");
        let each = (tracker.bytes() + bindings.bytes()) as f64 / f64::from(entries);
        println!("{each:.1} bytes a connection: {} of the tracker", tracker.bytes() / entries as usize);
        assert!(each <= 192.0, "{each} bytes a connection");
    }
}
