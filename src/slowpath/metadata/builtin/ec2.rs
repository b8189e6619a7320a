//! EC2's tree (Amazon EC2 user guide, "Instance metadata categories"), as cloud-init's `Ec2` source crawls it: a name with a
//! slash in a listing is a directory, each name is there, and a key's line is `INDEX=NAME`.

use std::net::IpAddr;

use hyper::body::Bytes;
use ipnet::IpNet;

use super::{Content, Guest};
use crate::slowpath::metadata::Nic;

/// Versions of the API. Nova has those until 2009-04-04; cloud-init looks for some of the later ones.
const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "latest",
];

/// A directory or a document.
enum Node {
    Directory(Vec<Entry>),
    Text(String),
}

struct Entry {
    name: String,
    /// Its line in the listing.
    line: String,
    node: Node,
}

fn text(name: &str, value: impl ToString) -> Entry {
    Entry { name: name.into(), line: name.into(), node: Node::Text(value.to_string()) }
}

fn directory(name: impl ToString, entries: Vec<Entry>) -> Entry {
    let name = name.to_string();
    Entry { line: format!("{name}/"), name, node: Node::Directory(entries) }
}

fn lines(values: impl IntoIterator<Item = impl ToString>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join("\n")
}

pub(super) fn answer(guest: &Guest, path: &[&str]) -> Option<Content> {
    let [version, rest @ ..] = path else { return Some(Content::text(lines(VERSIONS))) };
    if !VERSIONS.contains(version) {
        return None;
    }
    match rest {
        [] if guest.user_data.is_some() => Some(Content::text("meta-data/\nuser-data")),
        [] => Some(Content::text("meta-data/")),
        ["user-data"] => guest.user_data.clone().map(Content::binary),
        ["meta-data", rest @ ..] => meta_data(guest).find(rest).map(Node::content),
        _ => None,
    }
}

/// The paths of all documents and listings of `latest`.
pub(super) fn paths(guest: &Guest) -> Vec<String> {
    let mut paths: Vec<String> = vec!["/".into(), "/latest/".into()];
    meta_data(guest).paths("/latest/meta-data/", &mut paths);
    paths.push("/latest/user-data".into());
    paths
}

impl Node {
    fn find(&self, path: &[&str]) -> Option<&Node> {
        match (self, path) {
            (node, []) => Some(node),
            (Node::Directory(entries), [name, rest @ ..]) => {
                entries.iter().find(|entry| entry.name == *name)?.node.find(rest)
            }
            (Node::Text(_), _) => None,
        }
    }

    fn content(&self) -> Content {
        Content::text(match self {
            Node::Directory(entries) => Bytes::from(lines(entries.iter().map(|entry| &entry.line))),
            Node::Text(text) => Bytes::from(text.clone()),
        })
    }

    fn paths(&self, at: &str, paths: &mut Vec<String>) {
        paths.push(at.into());
        let Node::Directory(entries) = self else { return };
        for Entry { name, node, .. } in entries {
            let slash = if matches!(node, Node::Directory(_)) { "/" } else { "" };
            node.paths(&format!("{at}{name}{slash}"), paths);
        }
    }
}

fn meta_data(guest: &Guest) -> Node {
    let mut entries = Vec::new();
    entries.extend(guest.image_id.iter().map(|id| text("ami-id", id)));
    entries.push(text("ami-launch-index", 0));
    entries.push(text("hostname", &guest.hostname));
    entries.push(text("instance-id", &guest.instance_id));
    entries.extend(guest.instance_type.iter().map(|name| text("instance-type", name)));
    entries.push(text("local-hostname", &guest.hostname));
    if let Some(nic) = guest.nics.first() {
        entries.extend(addresses(nic, true).next().map(|(ip, _)| text("local-ipv4", ip)));
        entries.push(text("mac", nic.mac));
        let macs = guest.nics.iter().enumerate().map(|(number, nic)| interface(guest, number, nic)).collect();
        entries.push(directory("network", vec![directory("interfaces", vec![directory("macs", macs)])]));
    }
    let zone = |zone| directory("placement", vec![text("availability-zone", zone)]);
    entries.extend(guest.availability_zone.iter().map(zone));
    entries.push(text("public-hostname", &guest.hostname));
    entries.extend(guest.public_ipv4.map(|ip| text("public-ipv4", ip)));
    if !guest.public_keys.is_empty() {
        entries.push(directory("public-keys", guest.public_keys.iter().enumerate().map(key).collect()));
    }
    entries.extend(guest.reservation_id.iter().map(|id| text("reservation-id", id)));
    if !guest.security_groups.is_empty() {
        entries.push(text("security-groups", lines(&guest.security_groups)));
    }
    Node::Directory(entries)
}

/// A key's directory. Its listing has the format of a file (`0=key-0`), which is how EC2 has it.
fn key((number, key): (usize, &String)) -> Entry {
    let node = Node::Directory(vec![text("openssh-key", key)]);
    Entry { name: number.to_string(), line: format!("{number}=key-{number}"), node }
}

fn interface(guest: &Guest, number: usize, nic: &Nic) -> Entry {
    let mut entries = vec![
        text("device-number", number),
        text("interface-id", nic.port_id),
        text("local-hostname", &guest.hostname),
        text("mac", nic.mac),
        // What EC2 calls a VPC is what we have of it: the network. Without it cloud-init takes the instance for "classic".
        text("vpc-id", nic.network_id),
    ];
    let subnets = |v4| {
        let mut subnets: Vec<IpNet> = addresses(nic, v4).filter_map(|(_, subnet)| subnet).collect();
        subnets.dedup();
        subnets
    };
    if addresses(nic, true).next().is_some() {
        entries.push(text("local-ipv4s", lines(addresses(nic, true).map(|(ip, _)| ip))));
        entries.extend(subnets(true).first().map(|subnet| text("subnet-ipv4-cidr-block", subnet)));
    }
    if addresses(nic, false).next().is_some() {
        entries.push(text("ipv6s", lines(addresses(nic, false).map(|(ip, _)| ip))));
        entries.push(text("subnet-ipv6-cidr-blocks", lines(subnets(false))));
    }
    if let Some(ip) = guest.public_ipv4.filter(|_| number == 0) {
        entries.push(text("public-ipv4s", ip));
    }
    if !guest.security_groups.is_empty() {
        entries.push(text("security-groups", lines(&guest.security_groups)));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    directory(nic.mac, entries)
}

/// The addresses of one family, each with its subnet.
fn addresses(nic: &Nic, v4: bool) -> impl Iterator<Item = (IpAddr, Option<IpNet>)> {
    let of_family = nic.addresses.iter().filter(move |address| address.address.is_ipv4() == v4);
    of_family.map(|a| (a.address, IpNet::new(a.address, a.prefix_len).ok().map(|net| net.trunc())))
}
