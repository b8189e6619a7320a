//! Peers that are learned, as the daemon does it.

use nuswitch::dataplane::underlay::Note;

use super::*;

impl Switch {
    /// Makes those peers that the workers told of; gives their addresses and networks, as `192.0.2.11 blue`.
    pub fn learn_peers(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            let Notice::Underlay(Note::Stranger(vtep, network)) = notice else { continue };
            let name = self.published.load().network(network).unwrap().name.to_string();
            told.push(format!("{vtep} {name}"));
            self.places.learned.insert((vtep, name));
        }
        self.publish();
        self.settle();
        told
    }

    /// Forgets peers that were silent for too long, by worker 0's FDB; gives them.
    pub fn age_peers(&mut self) -> Vec<String> {
        let fdb = &self.hands[0].worker.shard().fdb;
        let stations = fdb.iter().map(|entry| (entry.key.network(), entry.port, entry.seen));
        let seconds = self.now.secs() as u32;
        let gone = self.places.age_peers(stations, seconds, self.model.switch.mac_aging_time);
        self.publish();
        self.settle();
        self.release();
        gone.into_iter().map(|(vtep, network)| format!("{vtep} {network}")).collect()
    }

    fn release(&mut self) {
        let Switch { places, devices, .. } = self;
        let tunnels = &places.tunnels;
        places.ports.release(|key| match key {
            AttachmentKey::Tunnel(remote) => tunnels.contains_key(remote),
            AttachmentKey::Resolver => true,
            key => devices.contains_key(key),
        });
    }
}
