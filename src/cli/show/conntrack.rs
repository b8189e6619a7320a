//! `nuswitch show conntrack`: what there is, in pages, and what happens.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::super::print;
use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, duration, or_dash};
use super::Output;
use crate::control::client::{self, Client, encode};
use crate::control::view::{Connection, ConnectionEvent, Ends};

/// Which connections: each option may be given several times, then one of them must be true.
#[derive(Debug, Args)]
pub(in crate::cli) struct Filter {
    /// Of this router
    #[arg(long, value_name = "ROUTER")]
    router: Vec<String>,
    /// Of guests with security groups in this network; with --router: of either
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// Of this IP protocol, by name or number
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Vec<String>,
    /// Whose first packet came from this address or prefix, before or after its translation
    #[arg(long, value_name = "PREFIX")]
    source: Vec<String>,
    /// Whose first packet went to this address or prefix, before or after its translation
    #[arg(long, value_name = "PREFIX")]
    destination: Vec<String>,
    /// With this port at either end, before or after translation, or this ICMP identifier
    #[arg(long, value_name = "NUMBER")]
    port: Vec<String>,
    /// In this state: unreplied, replied, syn-sent, syn-received, picked-up, established, half-closed, closing, time-wait, reset
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Of the guest behind this port
    #[arg(long, value_name = "PORT")]
    guest: Vec<String>,
}

impl Filter {
    /// As the query of a request.
    pub(in crate::cli) fn query(&self) -> String {
        let all = [
            ("router", &self.router),
            ("network", &self.network),
            ("protocol", &self.protocol),
            ("source", &self.source),
            ("destination", &self.destination),
            ("port", &self.port),
            ("state", &self.state),
            ("guest", &self.guest),
        ];
        let pairs = all.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        pairs.map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
    }
}

/// `nuswitch show conntrack`.
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    filter: Filter,
    /// Tell what happens from now on: connections that begin, change their state and end
    #[arg(long, short)]
    follow: bool,
}

impl Show {
    pub(super) fn execute(&self, client: &Client, output: Output) -> anyhow::Result<ExitCode> {
        if self.follow {
            self.follow(client, output)?;
        } else {
            let path = format!("/v1/conntrack?{}", self.filter.query());
            let wide = output == Output::Wide;
            pages(client, &path, "conntrack", output, |page: &[Connection]| table(page, wide))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn follow(&self, client: &Client, output: Output) -> Result<(), client::Error> {
        follow(client, &format!("/v1/conntrack/events?{}", self.filter.query()), output, event_line)
    }
}

/// Prints what happens as it happens: a line for each event, or the JSON that it came as.
pub(super) fn follow<E: DeserializeOwned>(
    client: &Client,
    path: &str,
    output: Output,
    text: impl Fn(&E) -> String,
) -> Result<(), client::Error> {
    let mut lines = Vec::new();
    client.stream(path, stop(), |piece| {
        lines.extend_from_slice(piece);
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut stdout = io::stdout().lock();
        for line in lines.drain(..whole).as_slice().split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            if output == Output::Json {
                stdout.write_all(line)?;
                stdout.write_all(b"\n")?;
            } else {
                let event = serde_json::from_slice(line).map_err(io::Error::other)?;
                stdout.write_all(text(&event).as_bytes())?;
            }
        }
        stdout.flush()?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Done at SIGINT or SIGTERM.
async fn stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await.unwrap_or(()),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Prints a list that comes in pages: a table for each, or one array.
pub(super) fn pages<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    key: &str,
    output: Output,
    table: impl Fn(&[T]) -> String,
) -> anyhow::Result<()> {
    let mut next = Some(path.trim_end_matches('?').to_owned());
    let (mut is_first, mut opened) = (true, false);
    while let Some(path) = next {
        let mut page: Value = client.get(&path)?;
        let link = page[format!("{key}_links")][0]["href"].as_str();
        next = link.and_then(|href| href.strip_prefix("http://localhost")).map(str::to_owned);
        let objects = page.get_mut(key).map(Value::take).unwrap_or_default();
        if output == Output::Json {
            for object in objects.as_array().into_iter().flatten() {
                let before = if opened { ",\n" } else { "[\n" };
                opened = true;
                print(format_args!("{before}{object:#}"))?;
            }
        } else {
            let objects: Vec<T> = serde_json::from_value(objects).map_err(client::Error::from)?;
            // The last page may have nothing left on it.
            if is_first || !objects.is_empty() {
                print(format_args!("{}{}", if is_first { "" } else { "\n" }, table(&objects)))?;
            }
        }
        is_first = false;
    }
    if output == Output::Json {
        print(if opened { "\n]\n" } else { "[]\n" })?;
    }
    Ok(())
}

fn table(connections: &[Connection], wide: bool) -> String {
    let mut columns = vec![
        ("router", Left),
        ("network", Left),
        ("protocol", Left),
        ("state", Left),
        ("original", Left),
        ("translated", Left),
        ("guest", Left),
        ("expires", Right),
        ("packets", Right),
        ("answers", Right),
        ("bytes", Right),
    ];
    if wide {
        columns.extend([("answer bytes", Right), ("reply", Left), ("worker", Right), ("rules", Left)]);
    }
    let mut table = Table::new(&columns);
    for connection in connections {
        let Connection { packets: [packets, answers], bytes: [bytes, answer_bytes], .. } = connection;
        table.row([
            or_dash(connection.router.as_ref()),
            or_dash(connection.network.as_ref()),
            connection.protocol.clone(),
            connection.state.clone(),
            ends(&connection.original),
            translated(connection),
            or_dash(connection.guest.as_ref()),
            duration(connection.expires_in.into()),
            count(*packets),
            count(*answers),
            count(*bytes),
            count(*answer_bytes),
            ends(&connection.reply),
            connection.worker.to_string(),
            or_dash(rules(connection)),
        ]);
    }
    table.to_string()
}

/// What the first packet became, where a router had the choice.
fn translated(connection: &Connection) -> String {
    or_dash(connection.router.as_ref().map(|_| ends(&connection.translated)))
}

/// The rules that let it begin.
fn rules(connection: &Connection) -> Option<String> {
    let both = [&connection.egress_rule, &connection.ingress_rule];
    let said = both.into_iter().flatten().map(|by| format!("{}: {}", by.security_group, by.rule));
    Some(said.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

/// `10.0.0.10:40000 > 203.0.113.1:80`; `10.0.0.10 > 203.0.113.1 id 7`.
fn ends(ends: &Ends) -> String {
    let end = |address, port| super::endpoint(address, port);
    let id = ends.icmp_id.map(|id| format!(" id {id}")).unwrap_or_default();
    let source = end(ends.source, ends.source_port);
    format!("{source} > {}{id}", end(ends.destination, ends.destination_port))
}

/// An event as a line, in columns that fit most.
fn event_line(event: &ConnectionEvent) -> String {
    let line = |event: &str, state: &str, connection: &Connection| {
        let guest = or_dash(connection.guest.as_ref());
        format!(
            "{event:<8} {:<9} {:<12} {:<44} {:<44} {guest} {}\n",
            connection.protocol,
            state,
            ends(&connection.original),
            translated(connection),
            or_dash(connection.router.as_ref().or(connection.network.as_ref())),
        )
    };
    match event {
        ConnectionEvent::Following => format!(
            "{:<8} {:<9} {:<12} {:<44} {:<44} GUEST ROUTER OR NETWORK\n",
            "EVENT", "PROTOCOL", "STATE", "ORIGINAL", "TRANSLATED"
        ),
        ConnectionEvent::New { connection } => line("new", &connection.state, connection),
        ConnectionEvent::Changed { connection } => line("changed", &connection.state, connection),
        ConnectionEvent::Ended { connection, why } => line("ended", why, connection),
        ConnectionEvent::Lost { count } => {
            format!("lost     {count} events: too much happened at once\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::fake_connection;
    use crate::control::view::AdmittedBy;

    #[test]
    fn the_table_of_connections() {
        let mut ping = fake_connection(7);
        ping.protocol = "icmp".into();
        ping.state = "replied".into();
        for ends in [&mut ping.original, &mut ping.translated, &mut ping.reply] {
            (ends.source_port, ends.destination_port, ends.icmp_id) = (None, None, Some(9));
        }
        ping.guest = None;
        let mut own = fake_connection(2);
        (own.router, own.network) = (None, Some("blue".into()));
        own.egress_rule = Some(AdmittedBy { security_group: "web".into(), rule: "egress IPv4 tcp".into() });
        let expected = "\
ROUTER  NETWORK PROTOCOL  STATE        ORIGINAL                         TRANSLATED                           GUEST  EXPIRES  PACKETS  ANSWERS  BYTES
edge    -  tcp       established  10.0.0.10:40001 > 203.0.113.1:80  203.0.113.100:40001 > 203.0.113.1:80  web1    2h04m        3        2    180
edge    -  icmp      replied      10.0.0.10 > 203.0.113.1 id 9     203.0.113.100 > 203.0.113.1 id 9     -       2h04m        3        2    180
-       blue  tcp   established  10.0.0.10:40002 > 203.0.113.1:80 - web1 2h04m 3 2 180
";
        let squeeze = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        assert_eq!(squeeze(&table(&[fake_connection(1), ping, own.clone()], false)), squeeze(expected));
        let wide = table(&[fake_connection(1)], true);
        assert!(wide.contains("203.0.113.1:80 > 203.0.113.100:40001"), "{wide}");
        assert!(table(&[own], true).ends_with("  web: egress IPv4 tcp\n"));
    }

    #[test]
    fn events_are_lines_of_columns() {
        let connection = fake_connection(1);
        let ended =
            event_line(&ConnectionEvent::Ended { connection: connection.clone(), why: "expired".into() });
        let new = event_line(&ConnectionEvent::New { connection });
        let header = event_line(&ConnectionEvent::Following);
        assert!(
            ended.starts_with("ended    tcp       expired      10.0.0.10:40001 > 203.0.113.1:80 "),
            "{ended}"
        );
        let at = |line: &str, part: &str| line.find(part).unwrap();
        assert_eq!(at(&new, "established"), at(&header, "STATE"));
        assert_eq!(at(&new, "203.0.113.100:40001 >"), at(&header, "TRANSLATED"));
        assert!(event_line(&ConnectionEvent::Lost { count: 5 }).starts_with("lost     5 events"));
    }

    #[test]
    fn options_become_a_query() {
        let filter = Filter {
            router: vec!["a/b".into()],
            network: vec!["blue".into()],
            protocol: vec!["udp".into(), "tcp".into()],
            source: vec!["10.0.0.0/24".into()],
            destination: Vec::new(),
            port: vec!["53".into()],
            state: Vec::new(),
            guest: Vec::new(),
        };
        assert_eq!(
            filter.query(),
            "router=a%2Fb&network=blue&protocol=udp&protocol=tcp&source=10.0.0.0%2F24&port=53"
        );
    }
}
