//! What the demo checks of the tunnels between its two switches, besides pings and rates: that both count the same frames.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Running;
use super::checks::LAG;
use super::lab::Site;
use super::report::{Row, Unit};
use crate::control::view::{Peer, Tunnels};

impl Running {
    /// What one switch has sent into tunnels, the other has taken out of them. To be asked while nobody sends.
    pub(super) fn tunnels(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        let what = "host 1 <> host 2".to_owned();
        let row = match self.try_tunnels(&what) {
            Ok((row, peer)) => {
                self.report.say(format!(
                    "  tunnels  host 2 is {}, next hop {}, {}:\n\
                     \x20          {} frames went into tunnels, {} came out of them",
                    peer.name,
                    crate::cli::table::or_dash(peer.next_hop),
                    row.figure,
                    row.sent,
                    row.received
                ))?;
                row
            }
            Err(error) => Row::failed("tunnels", what, &error),
        };
        Ok(self.report.add(row)?)
    }

    fn try_tunnels(&self, what: &str) -> anyhow::Result<(Row, Peer)> {
        let begin = Instant::now();
        let (ends, sent, received) = loop {
            let ends: [Tunnels; 2] =
                [self.switch.client.get("/v1/tunnels")?, self.far.client.get("/v1/tunnels")?];
            let networks = || ends.iter().flat_map(|end| &end.networks);
            let sent: u64 = networks().map(|network| network.tx_frames).sum();
            let received: u64 = networks().map(|network| network.rx_frames).sum();
            if sent == received || begin.elapsed() > LAG {
                break (ends, sent, received);
            }
            sleep(Duration::from_millis(20));
        };
        let [near, far] = ends;
        let peer = peer(near, Site::Two)?;
        let unresolved = peer.next_hop.is_none() || self::peer(far, Site::One)?.next_hop.is_none();
        let wrong = match (sent, received) {
            (0, _) => Some("nothing went into a tunnel".to_owned()),
            _ if sent != received => Some(format!("{sent} went into tunnels, {received} came out of them")),
            _ => unresolved.then(|| "the next hop is not known".to_owned()),
        };
        let mtu = peer.path_mtu.map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
        let row = Row {
            test: "tunnels",
            what: what.to_owned(),
            unit: Unit::Frames,
            sent,
            received,
            figure: format!("path MTU {mtu}"),
            value: peer.path_mtu.map(|mtu| ("path_mtu", f64::from(mtu))),
            wrong,
        };
        Ok((row, peer))
    }
}

/// The other end, as this one knows it.
fn peer(tunnels: Tunnels, site: Site) -> anyhow::Result<Peer> {
    let mut peers = tunnels.peers.into_iter();
    let vtep = site.vtep();
    peers
        .find(|peer| peer.address == Some(vtep.into()))
        .with_context(|| format!("{vtep} is not among the peers"))
}
