//! What the switch says of its guests: what hypervisors are given, leases, and metadata as the guests themselves read it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::{Lab, Namespace, PATIENCE, eventually, run, text};

/// Bytes that are no text.
const USER_DATA: &[u8] = &[0x1f, 0x8b, 0x08, 0x00, 0xff, 0xfe, b'\n', 0x00, 0x80];

/// A switch with a guest's TAP `nu-web1` and a namespace `web2` on one network with DHCP and metadata.
fn scene() -> (Lab, Namespace) {
    let (mut lab, web2) = (Lab::new(), Namespace::new("web2"));
    fs::write(lab.path("user-data.gz"), USER_DATA).unwrap();
    lab.add("[dhcp]\nlease_time = 600");
    lab.add("[[network]]\nname = \"blue\"\nmtu = 1450\ndns_domain = \"blue.lab\"");
    lab.add("[[subnet]]\nname = \"v4\"\nnetwork = \"blue\"\ncidr = \"10.9.0.0/24\"\ndns_nameservers = [\"192.0.2.53\"]");
    lab.add(
        "[[subnet]]\nname = \"v6\"\nnetwork = \"blue\"\ncidr = \"fd09::/64\"\nipv6_address_mode = \"dhcpv6-stateful\"",
    );
    lab.add("[[network]]\nname = \"dark\"\nmetadata = \"off\"");
    lab.port(
        "web1",
        "network = \"blue\"\nfixed_ips = [\"10.9.0.11\", \"fd09::11\"]\nmac_address = \"52:54:00:00:00:01\"\n\
         extra_dhcp_opts = [{ opt_name = \"bootfile-name\", opt_value = \"a.0\" }]",
        "kind = \"guest\", name = \"nu-web1\", owner = \"65534\"",
    );
    lab.port(
        "web2",
        "network = \"blue\"\nfixed_ips = [\"10.9.0.12\"]\nmetadata = { hostname = \"zwei\", user_data = \"user-data.gz\" }",
        &format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", web2.name),
    );
    lab.port("dark1", "network = \"dark\"", "kind = \"guest\", name = \"nu-dark1\"");
    lab.start();
    (lab, web2)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn json_of(lab: &Lab, line: &str) -> Value {
    let output = lab.nuswitch(&words(line));
    assert!(output.status.success(), "{line}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The body of an answer of the metadata service to a guest, and its status.
fn asked(guest: &Namespace, path: &str) -> (u16, Vec<u8>) {
    let service: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let mut stream = guest.within(|| TcpStream::connect_timeout(&service, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = words(&head)[1].parse().unwrap();
    (status, answer.split_off(end + 4))
}

#[test]
fn metadata_is_shown_as_the_guest_gets_it() {
    needs_system!();
    let (mut lab, web2) = scene();
    web2.ip("route replace 169.254.169.254/32 dev eth0");
    let all = json_of(&lab, "show metadata --port web2 -o json");
    let all = all.as_array().unwrap();
    assert!(all.len() > 20, "{all:#?}");
    for document in all {
        let path = document["path"].as_str().unwrap();
        let (status, body) = asked(&web2, path);
        assert_eq!((status, body.len() as u64), (200, document["length"].as_u64().unwrap()), "{path}");
        let shown = lab.nuswitch(&["show", "metadata", "--port", "web2", "--path", path]);
        assert!(shown.status.success(), "{path}: {}", text(&shown));
        assert_eq!(shown.stdout, body, "{path}");
        if let Some(text) = document["text"].as_str() {
            assert_eq!(text.as_bytes(), body, "{path}");
        }
    }
    let of = |path: &str| all.iter().find(|document| document["path"] == path).unwrap();
    assert_eq!(of("/latest/meta-data/hostname")["text"], "zwei.blue.lab");
    assert_eq!(of("/latest/user-data")["text"], Value::Null);
    let shown = lab.nuswitch(&["show", "metadata", "--port", "web2", "--path", "/latest/user-data"]);
    assert_eq!(shown.stdout, USER_DATA);
    let table = text(&lab.nuswitch(&["show", "metadata", "-p", "web2"]));
    assert!(table.contains("(binary)") && table.contains("zwei.blue.lab"), "{table}");

    // What the service counted is in the status, and nothing else of it.
    assert_eq!(asked(&web2, "/nope").0, 404);
    let counters = json_of(&lab, "show status -o json")["metadata"].clone();
    assert_eq!((&counters["requests_2xx"], &counters["requests_4xx"]), (&json!(all.len()), &json!(1)));
    assert!(counters.as_object().unwrap().values().all(|count| count.as_u64().unwrap() > 0), "{counters:#}");
    let status = text(&lab.nuswitch(&["show", "status"]));
    assert!(status.contains("requests_4xx"), "{status}");

    for (line, part) in [
        ("show metadata --port web2 --path /nope", "no document /nope"),
        ("show metadata --port dark1", "Network dark of port dark1 has no metadata"),
        ("show metadata --port nope", "Port nope could not be found"),
    ] {
        let output = lab.nuswitch(&words(line));
        assert!(output.stdout.is_empty() && text(&output).contains(part), "{line}: {}", text(&output));
        assert_eq!(output.status.code(), Some(1), "{line}");
    }
    lab.stop();
}

#[test]
fn leases_and_neutrons_words_are_shown() {
    needs_system!();
    let (mut lab, _web2) = scene();
    let lease = |port: &str, mac: &Value, ip: &str, subnet: &str, hostname: &str| {
        json!({
            "network": "blue", "subnet": subnet, "port": port, "mac_address": mac, "ip_address": ip,
            "hostname": hostname, "lease_time": 600, "kind": "fixed", "state": null, "expires_in": null,
        })
    };
    let (mac1, mac2) = (json!("52:54:00:00:00:01"), lab.show_port("web2")["mac_address"].clone());
    let web1 =
        [lease("web1", &mac1, "10.9.0.11", "v4", "web1"), lease("web1", &mac1, "fd09::11", "v6", "web1")];
    let web2 = lease("web2", &mac2, "10.9.0.12", "v4", "zwei");
    assert_eq!(json_of(&lab, "show leases -o json"), json!([web1[0], web2, web1[1]]));
    assert_eq!(json_of(&lab, "show leases --port web1 -o json"), json!(web1));
    assert_eq!(json_of(&lab, "show leases --network dark -o json"), json!([]));
    let table = text(&lab.nuswitch(&["show", "leases", "--network", "blue"]));
    assert!(table.contains("10.9.0.12") && table.contains("10m00s"), "{table}");

    let api = |path: &str| -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--unix-socket"]).arg(lab.socket());
        serde_json::from_str(&run(curl.arg(format!("http://localhost{path}")))).unwrap()
    };
    let subnet = api("/v2.0/subnets/v6")["subnet"].clone();
    assert_eq!(
        (&subnet["enable_dhcp"], &subnet["ipv6_address_mode"], &subnet["ipv6_ra_mode"]),
        (&json!(true), &json!("dhcpv6-stateful"), &Value::Null)
    );
    assert_eq!(api("/v2.0/subnets/v4")["subnet"]["dns_nameservers"], json!(["192.0.2.53"]));
    assert_eq!(api("/v2.0/networks/blue")["network"]["dns_domain"], "blue.lab");
    assert_eq!(
        api("/v2.0/ports/web1")["port"]["extra_dhcp_opts"],
        json!([{ "opt_name": "bootfile-name", "opt_value": "a.0", "ip_version": 4 }])
    );
    lab.stop();
}

#[test]
fn a_hypervisor_is_given_what_opens_the_port() {
    needs_system!();
    let (mut lab, _web2) = scene();
    let expected = "-netdev tap,id=web1,ifname=nu-web1,script=no,downscript=no -device \
                    virtio-net-pci,netdev=web1,mac=52:54:00:00:00:01,host_mtu=1450\n";
    let file = lab.path("lab.toml");
    let id = lab.show_port("web1")["id"].as_str().unwrap().to_owned();
    let live = lab.nuswitch(&["qemu", "web1"]);
    assert_eq!(String::from_utf8_lossy(&live.stdout), expected);
    let notes = String::from_utf8_lossy(&live.stderr).into_owned();
    assert!(
        notes.contains("-smbios 'type=1,serial=ds=nocloud;s=http://169.254.169.254/nocloud/'"),
        "{notes}"
    );
    assert!(notes.lines().all(|line| line.starts_with("# ")), "{notes}");
    for name in [&id, &id[..8]] {
        assert_eq!(lab.nuswitch(&["qemu", name]).stdout, live.stdout, "{name}");
    }
    let xml = lab.nuswitch(&["libvirt", "web1"]);
    let script = "import sys, xml.etree.ElementTree as e; r = e.fromstring(sys.argv[1])\n\
                  print(r.tag, r.get('type'), *[sorted(c.attrib.items()) for c in r])";
    let parsed =
        run(Command::new("python3").args(["-c", script]).arg(String::from_utf8_lossy(&xml.stdout).as_ref()));
    assert_eq!(
        parsed.trim(),
        "interface ethernet [('address', '52:54:00:00:00:01')] [('dev', 'nu-web1'), ('managed', 'no')] \
         [('type', 'virtio')] [('size', '1450')]"
    );
    for command in ["qemu", "libvirt"] {
        let refused = lab.nuswitch(&[command, "web2"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            refused.stdout.is_empty() && text(&refused).contains("kind = \"guest\""),
            "{}",
            text(&refused)
        );
    }

    // QEMU takes the options as a shell gives them, and opens the TAP: then it has a carrier.
    if Command::new("qemu-system-x86_64").arg("--version").output().is_ok() {
        let carrier = || run(lab.ns.command("cat").arg("/sys/class/net/nu-web1/carrier")).trim() == "1";
        assert!(!carrier(), "nobody has opened it");
        let script = "exec qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none -S \
                      $(\"$0\" qemu web1 --config \"$1\" 2>/dev/null)";
        let mut shell = lab.ns.command("sh");
        shell.args(["-c", script, crate::lab::NUSWITCH]).arg(&file);
        let mut qemu = shell.spawn().unwrap();
        eventually("QEMU opens the TAP", || {
            assert!(qemu.try_wait().unwrap().is_none(), "QEMU has ended");
            carrier()
        });
        qemu.kill().unwrap();
        qemu.wait().unwrap();
    }

    // The file alone says the same.
    lab.stop();
    let path = file.to_str().unwrap();
    let alone = lab.nuswitch(&["qemu", "web1", "--config", path]);
    assert_eq!((alone.stdout, alone.stderr), (live.stdout, live.stderr));
    assert_eq!(lab.nuswitch(&["libvirt", "web1", "-c", path]).stdout, xml.stdout);
    let off = lab.nuswitch(&["qemu", "dark1", "-c", path]);
    assert!(off.status.success() && !text(&off).contains("smbios"), "{}", text(&off));
    assert!(text(&lab.nuswitch(&["qemu", "web1"])).contains("no switch is running"));
}
