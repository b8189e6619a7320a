//! Frames through tunnels, counted by each worker for itself and added to the shared counters now and then: a tunnel port is
//! every worker's to send by, so its counters have many writers.

use std::sync::atomic::Ordering;

use crate::tables::Tables;
use crate::types::{NetIdx, PortIdx};

#[derive(Clone, Copy, Default)]
struct Count {
    frames: u64,
    bytes: u64,
}

impl Count {
    #[inline(always)]
    fn add(&mut self, bytes: u64) {
        self.frames += 1;
        self.bytes += bytes;
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Tally {
    /// Sent, by tunnel port.
    ports: Vec<Count>,
    /// Received and sent, by network.
    networks: Vec<[Count; 2]>,
    any: bool,
}

impl Tally {
    pub(in crate::dataplane) fn make_room(&mut self, tables: &Tables) {
        if tables.underlay.is_some() {
            self.ports.resize(self.ports.len().max(tables.ports.len()), Count::default());
            self.networks.resize(self.networks.len().max(tables.networks.len()), [Count::default(); 2]);
        }
    }

    #[inline(always)]
    pub(in crate::dataplane) fn count_rx(&mut self, network: NetIdx, bytes: u64) {
        if let Some([rx, _]) = self.networks.get_mut(network.index()) {
            rx.add(bytes);
        }
        self.any = true;
    }

    #[inline(always)]
    pub(in crate::dataplane) fn count_tx(&mut self, port: PortIdx, network: NetIdx, bytes: u64) {
        if let Some(tx) = self.ports.get_mut(port.index()) {
            tx.add(bytes);
        }
        if let Some([_, tx]) = self.networks.get_mut(network.index()) {
            tx.add(bytes);
        }
        self.any = true;
    }

    /// Adds what was counted to the counters of ports and networks.
    pub fn flush(&mut self, tables: &Tables) {
        if !std::mem::take(&mut self.any) {
            return;
        }
        for (count, port) in self.ports.iter_mut().zip(&tables.ports) {
            let count = std::mem::take(count);
            if let Some(port) = port.as_ref().filter(|_| count.frames > 0) {
                port.counters.tx_frames.add_shared(count.frames);
                port.counters.tx_bytes.add_shared(count.bytes);
            }
        }
        for (counts, network) in self.networks.iter_mut().zip(&tables.networks) {
            let [rx, tx] = std::mem::take(counts);
            let Some(tunnels) = network.as_ref().and_then(|network| network.tunnels.as_ref()) else {
                continue;
            };
            let counters = &tunnels.counters;
            let each = [
                (&counters.rx_frames, rx.frames),
                (&counters.rx_bytes, rx.bytes),
                (&counters.tx_frames, tx.frames),
                (&counters.tx_bytes, tx.bytes),
            ];
            for (counter, count) in each.into_iter().filter(|(_, count)| *count > 0) {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}
