//! What the API tells of guests.

use super::*;
use crate::model::{Model, load};

const BINARY: &[u8] = &[0x1f, 0x8b, 0x00, 0xff, 0x0a];

fn documents() -> [(&'static str, &'static str, &'static [u8]); 2] {
    [
        ("/latest/meta-data/hostname", "text/plain; charset=utf-8", b"web1"),
        ("/latest/user-data", "application/octet-stream", BINARY),
    ]
}

pub(crate) fn fake_guest_port(port: &str) -> Result<GuestPort, Problem> {
    if port != "web1" {
        return Err(Problem::new(409, "NoGuestPort", format!("Port {port} is of kind \"tap\".")));
    }
    Ok(GuestPort {
        id: Uuid::from_u128(1),
        name: port.into(),
        device: "nu-web1".into(),
        owner: None,
        mac_address: Some("52:54:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        metadata: "builtin".into(),
    })
}

pub(super) fn fake_documents(port: &str) -> Result<Vec<Document>, Problem> {
    if port != "web1" {
        return Err(Problem::new(409, "NoMetadata", format!("Port {port} has none.")));
    }
    Ok(documents().map(|(path, kind, body)| Document::of(path, kind, body)).into())
}

pub(super) fn fake_document(port: &str, path: &str) -> Result<(&'static str, Bytes), Problem> {
    fake_documents(port)?;
    let found = documents().into_iter().find(|(known, ..)| *known == path);
    let none = || Problem::new(404, "DocumentNotFound", format!("There is no {path}."));
    found.map(|(_, kind, body)| (kind, Bytes::from_static(body))).ok_or_else(none)
}

pub(crate) fn fake_leases() -> Vec<Lease> {
    let fixed = Lease {
        network: "blue".into(),
        subnet: "blue-v4".into(),
        port: Some("web1".into()),
        mac_address: "52:54:00:00:00:01".parse().unwrap(),
        ip_address: "10.0.0.11".parse().unwrap(),
        hostname: Some("web1".into()),
        lease_time: 86_400,
        kind: LeaseKind::Fixed,
        state: None,
        expires_in: None,
    };
    let dynamic = Lease {
        network: "red".into(),
        port: None,
        mac_address: "52:54:00:00:00:09".parse().unwrap(),
        ip_address: "10.0.0.200".parse().unwrap(),
        hostname: None,
        lease_time: 600,
        kind: LeaseKind::Dynamic,
        state: Some("bound".into()),
        expires_in: Some(300),
        ..fixed.clone()
    };
    vec![fixed, dynamic]
}

#[test]
fn documents_are_listed_and_given_byte_for_byte() {
    let switch = Running::start();
    let client = switch.client();
    let all: Vec<Document> = client.get_key("/v1/metadata?port=web1", "metadata").unwrap();
    assert_eq!(all, fake_documents("web1").unwrap());
    assert_eq!((all[0].text.as_deref(), all[1].text.as_deref()), (Some("web1"), None));
    let one: Vec<Document> =
        client.get_key("/v1/metadata?port=web1&path=%2Flatest%2Fuser-data", "metadata").unwrap();
    assert_eq!(one, all[1..]);
    let (mut bytes, path) = (Vec::new(), "/v1/metadata?port=web1&path=/latest/user-data&raw=true");
    let take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(ControlFlow::Continue(()))
    };
    client.stream(path, std::future::pending(), take).unwrap();
    assert_eq!(bytes, BINARY);
    let by_id = format!("/v1/metadata?port={}", Uuid::from_u128(1));
    assert_eq!(client.get_key::<Vec<Document>>(&by_id, "metadata").unwrap(), all);
    for (path, status, part) in [
        ("/v1/metadata", 400, "whose metadata must be said"),
        ("/v1/metadata?port=web1&raw=true", 400, "needs a path"),
        ("/v1/metadata?port=web1&raw=1&path=/", 400, "`1` is not true or false"),
        ("/v1/metadata?port=web1&name=x", 400, "no parameter name"),
        ("/v1/metadata?port=nope", 404, "nope"),
        ("/v1/metadata?port=web2", 409, "has none"),
        ("/v1/metadata?port=web1&path=/nope", 404, "/nope"),
        ("/v1/guests/nope", 404, "nope"),
        ("/v1/guests/web2", 409, "of kind"),
        ("/v1/leases?prot=web1", 400, "leases have no field prot."),
        // Both IDs begin so.
        ("/v2.0/ports/0000000", 409, "More than one Port has an ID that begins with 0000000."),
    ] {
        let problem = switch.problem(path);
        assert_eq!(problem.status, status, "{path}: {problem}");
        assert!(problem.to_string().contains(part), "{path}: {problem}");
    }
}

#[test]
fn leases_and_guest_ports_survive_the_way() {
    let switch = Running::start();
    let client = switch.client();
    let leases: Vec<Lease> = client.get_key("/v1/leases", "leases").unwrap();
    assert_eq!(leases, fake_leases());
    let of_port: Vec<Lease> = client.get_key("/v1/leases?port=web1&kind=fixed", "leases").unwrap();
    assert_eq!(of_port, leases[..1]);
    check_fields(&leases[0]);
    let guest: GuestPort = client.get("/v1/guests/web1").unwrap();
    assert_eq!(guest, fake_guest_port("web1").unwrap());
}

const TEXT: &str = r#"
metadata.mode = "off"
physical_network = [{ name = "p" }]
network = [
  { name = "blue", mtu = 9000, dns_domain = "blue.lab.", metadata = "builtin" },
  { name = "red" },
  { name = "v7", network_type = "vlan", physical_network = "p", segmentation_id = 7, mtu = 1400 },
]
[[port]]
name = "web1"
network = "blue"
interface = { kind = "guest", name = "nu-web1", owner = "root" }
extra_dhcp_opts = [{ opt_name = "bootfile-name", opt_value = "a" }, { opt_name = "59", opt_value = "b", ip_version = 6 }]
[[port]]
name = "red1"
network = "red"
interface = { kind = "guest", name = "nu-red1" }
[[port]]
name = "trunk"
trunk = { physical_network = "p" }
interface = { kind = "guest", name = "nu-trunk" }
[[port]]
name = "t"
network = "red"
interface = { kind = "tap", name = "eth0" }
[[port]]
name = "x"
network = "red"
interface = { kind = "xdp", name = "veth7" }
[[port]]
name = "f"
network = "red"
interface = { kind = "pcap", read = "in.pcapng" }
"#;

fn guest_port(model: &Model, name: &str) -> Result<GuestPort, Problem> {
    GuestPort::of(model, model.ports.iter().find(|port| port.name == name).unwrap())
}

#[test]
fn what_a_hypervisor_must_know_follows_from_the_model() {
    let model = load(TEXT, "f.toml").unwrap();
    let of = |name| {
        let guest = guest_port(&model, name).unwrap();
        assert_eq!(guest.mac_address, model.ports.iter().find(|port| port.name == name).unwrap().mac_address);
        (guest.device, guest.owner, guest.mtu, guest.metadata)
    };
    assert_eq!(of("web1"), ("nu-web1".into(), Some("root".into()), 9000, "builtin".into()));
    assert_eq!(of("red1"), ("nu-red1".into(), None, 1500, "off".into()));
    assert_eq!(of("trunk"), ("nu-trunk".into(), None, 1400, "off".into()));
    for (name, said, detail) in [
        ("t", "Port t is of kind \"tap\"", "`eth0` is itself the end point"),
        ("x", "Port x is of kind \"xdp\"", "the existing device `veth7`"),
        ("f", "Port f is of kind \"pcap\"", "it plays and writes files"),
    ] {
        let problem = guest_port(&model, name).unwrap_err();
        assert_eq!(problem.status, 409);
        assert!(problem.to_string().starts_with(said), "{problem}");
        assert!(problem.body.detail.contains("kind = \"guest\"") && problem.body.detail.contains(detail));
    }
}

#[test]
fn words_for_guests_are_neutrons() {
    let model = load(TEXT, "f.toml").unwrap();
    let opts: Vec<ExtraDhcpOpt> = model.ports[0].extra_dhcp_opts.iter().map(Into::into).collect();
    let expected = json!([
        { "opt_name": "bootfile-name", "opt_value": "a", "ip_version": 4 },
        { "opt_name": "59", "opt_value": "b", "ip_version": 6 },
    ]);
    assert_eq!(serde_json::to_value(opts).unwrap(), expected);
    assert_eq!(Network::of(&model.networks[0], 0).dns_domain.as_deref(), Some("blue.lab"));
}
