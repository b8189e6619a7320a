//! Tracker and bindings together, as a router uses them: a binding lives exactly as long as sessions hold it, whatever ends
//! them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::binding::{BindingRef, Inside, NoBinding, Slice};
use super::*;

const POOL: [u32; 2] = [0xc633_6401, 0xc633_6402];

struct Router {
    tracker: Tracker,
    bindings: Bindings,
    now: u32,
}

impl Router {
    /// A packet from inside: of its session, or the first of one, which may cost another.
    fn packet(&mut self, guest: u16, port: u16, server: u8) {
        let source = 0x0a00_0000 | u32::from(guest);
        let original =
            Tuple { source: v4(source), destination: v4(0x0808_0800 | u32::from(server)), ..tuple(17, port) };
        let probe = self.tracker.probe(&original);
        if let Some((at, direction)) = self.tracker.find(&probe, self.now) {
            assert_eq!(self.tracker.update(at, direction, &DATA, self.now), Verdict::Pass);
            return;
        }
        let inside = Inside { zone: 1, protocol: 17, address: source, port };
        let binding = match self.bindings.acquire(&inside) {
            Ok(binding) => binding,
            Err(error) => return assert_eq!(error, NoBinding::NoPool),
        };
        let outside = self.bindings.outside(binding).unwrap();
        let reply =
            Tuple { destination: v4(outside.address), destination_port: outside.port, ..original.reversed() };
        let new = New { guest, binding: Some(binding), ..NEW };
        let bindings = &mut self.bindings;
        let release = &mut |entry: &Entry, _: Why| bindings.release(entry.binding().unwrap());
        if self.tracker.insert(&probe, &reply, &new, &DATA, self.now, release).is_err() {
            self.bindings.release(binding);
        }
    }

    fn sweep(&mut self) {
        let bindings = &mut self.bindings;
        while self.tracker.sweep(self.now, &mut |entry, _| bindings.release(entry.binding().unwrap())) {}
    }

    fn flush(&mut self, guest: u16) {
        let bindings = &mut self.bindings;
        let release = &mut |entry: &Entry, _: Why| bindings.release(entry.binding().unwrap());
        assert_eq!(self.tracker.flush(0, u32::MAX, |entry| entry.guest() == guest, release), None);
    }

    /// The sessions of each binding, as its entries have it.
    fn held(&self) -> HashMap<BindingRef, u32> {
        let mut held = HashMap::new();
        self.tracker.walk(0, u32::MAX, |_, entry| *held.entry(entry.binding().unwrap()).or_default() += 1);
        held
    }
}

proptest! {
    #[test]
    fn bindings_live_as_long_as_their_sessions(
        steps in proptest::collection::vec((0u16..6, 1u16..9, 0u8..6, 0u8..24), 1..300),
    ) {
        let tracker = Tracker::new(Limits { entries: 30, per_guest: 12 }, SETTINGS, 3);
        let mut router = Router { tracker, bindings: Bindings::new(30, 3), now: 10 };
        router.bindings.set_pool(1, &POOL, Slice::WHOLE);
        for (guest, port, server, what) in steps {
            match what {
                0 => router.now += u32::from(port) * 60,
                1 => router.sweep(),
                2 => router.flush(guest),
                3 => router.bindings.set_pool(1, &POOL[..usize::from(server % 3)], Slice::WHOLE),
                _ => router.packet(guest, port, server),
            }
            let held = router.held();
            prop_assert_eq!(router.bindings.len() as usize, held.len());
            for (binding, sessions) in held {
                prop_assert_eq!(router.bindings.get(binding).map(|binding| binding.sessions), Some(sessions));
            }
        }
        router.now += 301;
        router.sweep();
        prop_assert!(router.tracker.is_empty() && router.bindings.is_empty());
        prop_assert!(router.bindings.usage(1).iter().all(|usage| usage.udp.0 == 0));
    }
}
