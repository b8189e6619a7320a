//! `nuswitch show nat`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::super::print;
use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, or_dash};
use super::conntrack::pages;
use super::{Output, endpoint, owner};
use crate::control::client::{self, Client, encode};
use crate::control::view::{Binding, Mapping, Nat, Pool, TrackerStats};

/// `nuswitch show nat`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only of this router
    #[arg(long, value_name = "ROUTER")]
    router: Option<String>,
    /// Only bindings of this IP protocol, by name or number
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Only bindings of this inside address or prefix
    #[arg(long, value_name = "PREFIX")]
    inside: Option<String>,
    /// Only bindings at this outside address or prefix
    #[arg(long, value_name = "PREFIX")]
    outside: Option<String>,
}

impl Show {
    pub(super) fn execute(&self, client: &Client, output: Output) -> anyhow::Result<ExitCode> {
        let mut all: Value = client.get("/v1/nat")?;
        let router = self.router.as_ref().map(|name| owner(client, "router", name)).transpose()?;
        for list in ["pools", "mappings"] {
            if let (Some(router), Some(lines)) = (&router, all[list].as_array_mut()) {
                lines.retain(|line| line["router"] == **router);
            }
        }
        let path = self.bindings_path(router.as_deref());
        if output == Output::Json {
            let Value::Object(all) = all else { return Err(anyhow::anyhow!("the answer cannot be read")) };
            // One object, with the bindings last, as they may be many.
            print("{\n")?;
            for (name, value) in all {
                print(format_args!("{}: {value:#},\n", Value::String(name)))?;
            }
            print("\"bindings\": ")?;
            pages(client, &path, "bindings", output, bindings)?;
            print("}\n")?;
        } else {
            let nat: Nat = serde_json::from_value(all).map_err(client::Error::from)?;
            let parts = [pools(&nat.pools), mappings(&nat.mappings), trackers(&nat.trackers)];
            print(format_args!("{}\n", parts.join("\n")))?;
            pages(client, &path, "bindings", output, bindings)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn bindings_path(&self, router: Option<&str>) -> String {
        let mut path = "/v1/bindings?".to_owned();
        for (name, value) in [
            ("router", router),
            ("protocol", self.protocol.as_deref()),
            ("inside_address", self.inside.as_deref()),
            ("outside_address", self.outside.as_deref()),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("{name}={}&", encode(value)));
            }
        }
        path.trim_end_matches('&').to_owned()
    }
}

fn pools(pools: &[Pool]) -> String {
    let mut table = Table::new(&[
        ("router", Left),
        ("snat address", Left),
        ("protocol", Left),
        ("used", Right),
        ("of", Right),
        ("exhausted", Right),
    ]);
    for pool in pools {
        table.row([
            pool.router.clone(),
            pool.address.to_string(),
            pool.protocol.clone(),
            pool.used.to_string(),
            pool.total.to_string(),
            count(pool.exhausted),
        ]);
    }
    table.to_string()
}

fn mappings(mappings: &[Mapping]) -> String {
    let mut table = Table::new(&[
        ("router", Left),
        ("floating ip", Left),
        ("protocol", Left),
        ("ports", Left),
        ("port", Left),
        ("address", Left),
        ("ports there", Left),
    ]);
    for mapping in mappings {
        table.row([
            mapping.router.clone(),
            mapping.floating_ip_address.to_string(),
            mapping.protocol.clone().unwrap_or_else(|| "all".to_owned()),
            or_dash(mapping.external_ports.as_ref()),
            mapping.port.clone(),
            mapping.fixed_ip_address.to_string(),
            or_dash(mapping.internal_ports.as_ref()),
        ]);
    }
    table.to_string()
}

fn trackers(trackers: &[TrackerStats]) -> String {
    let mut table = Table::new(&[
        ("worker", Right),
        ("connections", Right),
        ("of", Right),
        ("bindings", Right),
        ("created", Right),
        ("expired", Right),
        ("guest limit", Right),
        ("full", Right),
        ("removed", Right),
        ("refused", Right),
        ("invalid", Right),
    ]);
    for stats in trackers {
        table.row([
            stats.worker.to_string(),
            stats.connections.to_string(),
            stats.max_connections.to_string(),
            stats.bindings.to_string(),
            count(stats.created),
            count(stats.expired),
            count(stats.guest_limit),
            count(stats.full),
            count(stats.removed),
            count(stats.refused),
            count(stats.invalid),
        ]);
    }
    table.to_string()
}

fn bindings(bindings: &[Binding]) -> String {
    let mut table = Table::new(&[
        ("router", Left),
        ("protocol", Left),
        ("inside", Left),
        ("outside", Left),
        ("connections", Right),
        ("address", Left),
    ]);
    for binding in bindings {
        table.row([
            binding.router.clone(),
            binding.protocol.clone(),
            endpoint(binding.inside_address, binding.inside_port),
            endpoint(binding.outside_address, binding.outside_port),
            binding.connections.to_string(),
            if binding.current { "current" } else { "gone" }.to_owned(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{fake_binding, fake_nat};

    #[test]
    fn the_tables_of_nat() {
        let nat = fake_nat();
        let expected = "\
ROUTER  SNAT ADDRESS   PROTOCOL   USED     OF  EXHAUSTED
edge    203.0.113.100  tcp       64511  65535       1.0k
";
        assert_eq!(pools(&nat.pools), expected);
        let expected = "\
ROUTER  FLOATING IP    PROTOCOL  PORTS      PORT  ADDRESS    PORTS THERE
edge    203.0.113.150  all       -          web1  10.0.0.11  -
edge    203.0.113.151  udp       6000:6009  web2  10.0.0.12  7000:7009
";
        assert_eq!(mappings(&nat.mappings), expected);
        let expected = "\
WORKER  CONNECTIONS      OF  BINDINGS  CREATED  EXPIRED  GUEST LIMIT  FULL  REMOVED  REFUSED  INVALID
     1           12  262144         7     1.0k        9            0     0        0        0        0
";
        assert_eq!(trackers(&nat.trackers), expected);
        let expected = "\
ROUTER  PROTOCOL  INSIDE           OUTSIDE              CONNECTIONS  ADDRESS
edge    udp       10.0.0.10:40000  203.0.113.100:40000            2  current
";
        assert_eq!(bindings(&[fake_binding()]), expected);
    }
}
