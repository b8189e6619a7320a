//! Frames through tunnels, counted by each worker for itself and added to the shared counters now and then: a tunnel port is
//! every worker's to send by, so its counters have many writers; and frames of one burst come from many of them.

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

/// Both ways of one tunnel port.
#[derive(Clone, Copy, Default)]
struct Peer {
    rx: Count,
    tx: Count,
    forwarded: u64,
    flooded: u64,
}

/// Both ways of one network.
#[derive(Clone, Copy, Default)]
struct Network {
    rx: Count,
    tx: Count,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Tally {
    peers: Vec<Peer>,
    networks: Vec<Network>,
    any: bool,
}

impl Tally {
    pub(in crate::dataplane) fn make_room(&mut self, tables: &Tables) {
        if tables.underlay.is_some() {
            self.peers.resize(self.peers.len().max(tables.ports.len()), Peer::default());
            self.networks.resize(self.networks.len().max(tables.networks.len()), Network::default());
        }
    }

    /// A frame came out of a tunnel, and ended so.
    #[inline(always)]
    pub(in crate::dataplane) fn count_rx(
        &mut self,
        peer: PortIdx,
        network: NetIdx,
        bytes: u64,
        ended: Result<Sent, DropReason>,
    ) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.rx.add(bytes);
            peer.forwarded += u64::from(ended == Ok(Sent::Forwarded));
            peer.flooded += u64::from(ended == Ok(Sent::Flooded));
        }
        if let Some(network) = self.networks.get_mut(network.index()) {
            network.rx.add(bytes);
        }
        self.any = true;
    }

    /// A frame goes into a tunnel.
    #[inline(always)]
    pub(in crate::dataplane) fn count_tx(&mut self, peer: PortIdx, network: NetIdx, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.tx.add(bytes);
        }
        if let Some(network) = self.networks.get_mut(network.index()) {
            network.tx.add(bytes);
        }
        self.any = true;
    }

    /// Adds what was counted to the counters of ports and networks.
    pub fn flush(&mut self, tables: &Tables) {
        if !std::mem::take(&mut self.any) {
            return;
        }
        for (peer, port) in self.peers.iter_mut().zip(&tables.ports) {
            let peer = std::mem::take(peer);
            let Some(port) = port else { continue };
            let counters = &port.counters;
            let each = [
                (&counters.rx_frames, peer.rx.frames),
                (&counters.rx_bytes, peer.rx.bytes),
                (&counters.tx_frames, peer.tx.frames),
                (&counters.tx_bytes, peer.tx.bytes),
                (&counters.forwarded, peer.forwarded),
                (&counters.flooded, peer.flooded),
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
