//! Frames of ports without a device, tunnel ports and routers' interfaces, counted by each worker for itself and added to the
//! shared counters now and then: such a port is every worker's, so its counters have many writers; and frames of one burst
//! come from many of them.

use std::sync::atomic::Ordering;

use crate::dataplane::Sent;
use crate::stats::DropReason;
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

/// Both ways of one port.
#[derive(Clone, Copy, Default)]
struct Port {
    rx: Count,
    tx: Count,
    forwarded: u64,
    flooded: u64,
}

/// One network's frames in tunnels.
#[derive(Clone, Copy, Default)]
struct Network {
    rx: Count,
    tx: Count,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Tally {
    ports: Vec<Port>,
    networks: Vec<Network>,
    any: bool,
}

impl Tally {
    pub(in crate::dataplane) fn make_room(&mut self, tables: &Tables) {
        if tables.underlay.is_some() || !tables.routers.is_empty() {
            self.ports.resize(self.ports.len().max(tables.ports.len()), Port::default());
            self.networks.resize(self.networks.len().max(tables.networks.len()), Network::default());
        }
    }

    /// A frame came from the port, and ended so.
    #[inline(always)]
    pub(in crate::dataplane) fn count_rx(
        &mut self,
        port: PortIdx,
        bytes: u64,
        ended: Result<Sent, DropReason>,
    ) {
        if let Some(port) = self.ports.get_mut(port.index()) {
            port.rx.add(bytes);
            port.forwarded += u64::from(ended == Ok(Sent::Forwarded));
            port.flooded += u64::from(ended == Ok(Sent::Flooded));
        }
        self.any = true;
    }

    /// Frames go to the port.
    #[inline(always)]
    pub(in crate::dataplane) fn count_tx(&mut self, port: PortIdx, frames: u64, bytes: u64) {
        if let Some(port) = self.ports.get_mut(port.index()) {
            port.tx.frames += frames;
            port.tx.bytes += bytes;
        }
        self.any = true;
    }

    /// A frame of the network came out of a tunnel.
    #[inline(always)]
    pub(in crate::dataplane) fn count_tunnel_rx(&mut self, network: NetIdx, bytes: u64) {
        if let Some(network) = self.networks.get_mut(network.index()) {
            network.rx.add(bytes);
        }
    }

    /// A frame of the network goes into a tunnel.
    #[inline(always)]
    pub(in crate::dataplane) fn count_tunnel_tx(&mut self, network: NetIdx, bytes: u64) {
        if let Some(network) = self.networks.get_mut(network.index()) {
            network.tx.add(bytes);
        }
    }

    /// Adds what was counted to the counters of ports and networks.
    pub fn flush(&mut self, tables: &Tables) {
        if !std::mem::take(&mut self.any) {
            return;
        }
        for (counted, port) in self.ports.iter_mut().zip(&tables.ports) {
            let counted = std::mem::take(counted);
            let Some(port) = port else { continue };
            let counters = &port.counters;
            let each = [
                (&counters.rx_frames, counted.rx.frames),
                (&counters.rx_bytes, counted.rx.bytes),
                (&counters.tx_frames, counted.tx.frames),
                (&counters.tx_bytes, counted.tx.bytes),
                (&counters.forwarded, counted.forwarded),
                (&counters.flooded, counted.flooded),
            ];
            each.into_iter()
                .filter(|(_, count)| *count > 0)
                .for_each(|(counter, count)| counter.add_shared(count));
        }
        for (network, entry) in self.networks.iter_mut().zip(&tables.networks) {
            let Network { rx, tx } = std::mem::take(network);
            let Some(tunnels) = entry.as_ref().and_then(|entry| entry.tunnels.as_ref()) else { continue };
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
