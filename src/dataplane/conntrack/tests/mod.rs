//! The tracker and the bindings as a whole; what one part can show alone stands beside it.
#![allow(clippy::cast_possible_truncation)] // small numbers

mod bindings;
mod hosts;
mod leaks;
mod life;
mod live;
mod memory;
mod model;
mod tcp;

use super::*;

/// What a test does not want to know about entries that go.
fn nobody(_: &Entry, _: Why) {}

const TIMEOUTS: Timeouts =
    Timeouts { tcp_transitory: 240, tcp_established: 7440, tcp_closing: 241, udp: 300, icmp: 60, other: 310 };
const SETTINGS: Settings = Settings { timeouts: TIMEOUTS, pick_up: false, inbound_refresh: false };
const ROOM: Limits = Limits { entries: 1000, per_guest: 1000 };
const NEW: New = New { guest: 1, inbound: false, epoch: 5, data: [8, 9], binding: None };
const DATA: Seen = Seen { bytes: 100, tcp: None };

fn tuple(protocol: u8, port: u16) -> Tuple {
    Tuple {
        zone: 1,
        protocol,
        source: v4(0x0a00_0005),
        destination: v4(0xc000_0201),
        source_port: port,
        destination_port: 53,
    }
}

/// What comes back to a source-translated connection.
fn translated(original: &Tuple) -> Tuple {
    Tuple { destination: v4(0xc633_6401), ..original.reversed() }
}

fn track(
    tracker: &mut Tracker,
    original: &Tuple,
    new: &New,
    seen: &Seen,
    now: u32,
) -> Result<EntryRef, Refused> {
    let probe = tracker.probe(original);
    tracker.insert(&probe, &translated(original), new, seen, now, &mut nobody)
}

fn find(tracker: &Tracker, tuple: &Tuple, now: u32) -> Option<(EntryRef, Direction)> {
    tracker.find(&tracker.probe(tuple), now)
}

fn sweep(tracker: &mut Tracker, now: u32) -> Vec<(Tuple, Why)> {
    let mut gone = Vec::new();
    while tracker.sweep(now, &mut |entry, why| gone.push((entry.tuple(Direction::Original), why))) {}
    gone
}
