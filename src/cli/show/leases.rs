//! `nuswitch show leases`.

use clap::Args;
use serde_json::Value;

use super::super::table::Align::{Left, Right};
use super::super::table::{Table, duration, or_dash};
use super::owner;
use crate::control::client::{self, Client, encode};
use crate::control::view::{Lease, LeaseKind};

/// `nuswitch show leases`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only on this network
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Only of this port
    #[arg(long, short, value_name = "PORT")]
    port: Option<String>,
}

impl Show {
    pub(super) fn leases(&self, client: &Client) -> Result<Vec<Value>, client::Error> {
        let mut path = "/v1/leases?".to_owned();
        for (kind, name) in [("network", &self.network), ("port", &self.port)] {
            if let Some(name) = name {
                path.push_str(&format!("{kind}={}&", encode(&owner(client, kind, name)?)));
            }
        }
        client.get_key(path.trim_end_matches(['?', '&']), "leases")
    }
}

pub(super) fn table(leases: &[Lease]) -> String {
    let mut table = Table::new(&[
        ("network", Left),
        ("address", Left),
        ("mac", Left),
        ("port", Left),
        ("hostname", Left),
        ("kind", Left),
        ("lease time", Right),
        ("expires in", Right),
    ]);
    for lease in leases {
        let kind = match lease.kind {
            LeaseKind::Fixed => "fixed",
            LeaseKind::Dynamic => "dynamic",
        };
        let state = lease.state.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
        table.row([
            lease.network.clone(),
            lease.ip_address.to_string(),
            lease.mac_address.to_string(),
            or_dash(lease.port.as_ref()),
            or_dash(lease.hostname.as_ref()),
            format!("{kind}{state}"),
            duration(lease.lease_time.into()),
            or_dash(lease.expires_in.map(duration)),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::fake_leases;

    #[test]
    fn the_table_of_leases() {
        let expected = "\
NETWORK  ADDRESS     MAC                PORT  HOSTNAME  KIND            LEASE TIME  EXPIRES IN
blue     10.0.0.11   52:54:00:00:00:01  web1  web1      fixed                1d00h           -
red      10.0.0.200  52:54:00:00:00:09  -     -         dynamic, bound      10m00s       5m00s
";
        assert_eq!(table(&fake_leases()), expected);
    }
}
