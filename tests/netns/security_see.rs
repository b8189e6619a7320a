//! What the switch shows of security groups with real guests behind its ports: rules with their hits, connections with the rules
//! that let them begin, and the security log in its file and as it happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, Namespace, eventually, text};

const GROUPS: &str = r#"
[[network]]
name = "blue"

[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.9.0.0/24"

[[security_group]]
name = "db"
description = "The database"
log = "all"
rules = [
  { direction = "ingress", protocol = "udp", ports = 5432, remote_group = "default" },
  { direction = "egress", protocol = "tcp", ports = 443, remote_address_group = "office" },
]

[[address_group]]
name = "office"
addresses = ["198.51.100.0/24"]
"#;

struct Scene {
    lab: Lab,
    web: Namespace,
    db: Namespace,
}

/// `web` is of the group `default`, `db` of `db`; what that one logs goes to the file `security.log`.
fn scene() -> Scene {
    let (mut lab, web, db) = (Lab::new(), Namespace::new("web"), Namespace::new("db"));
    lab.settings = format!("security_log = \"{}\"", lab.path("security.log").display());
    lab.add(GROUPS);
    for (name, ns, address, groups) in [("web", &web, 11, "default"), ("db", &db, 12, "db")] {
        let keys = format!(
            "network = \"blue\"\nfixed_ips = [\"10.9.0.{address}\"]\nsecurity_groups = [\"{groups}\"]"
        );
        lab.port(
            name,
            &keys,
            &format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", ns.name),
        );
    }
    lab.start();
    Scene { lab, web, db }
}

#[track_caller]
fn said(lab: &Lab, words: &str) -> String {
    let output = lab.nuswitch(&words.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "{words}: {}", text(&output));
    text(&output)
}

#[track_caller]
fn json_of(lab: &Lab, words: &str) -> Value {
    serde_json::from_str(&said(lab, &format!("{words} -o json"))).unwrap()
}

fn udp(ns: &Namespace, address: &str) -> UdpSocket {
    let socket = ns.within(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// How often each rule of a port let something begin, those that did.
fn hits(lab: &Lab, port: &str) -> Vec<(String, u64)> {
    let rules = json_of(lab, &format!("show rules --port {port}"));
    let of = |rule: &Value| {
        let remote = rule["remote_group"].as_str().unwrap_or("any").to_owned();
        let text = format!(
            "{} {} {remote}",
            rule["direction"].as_str().unwrap(),
            rule["ethertype"].as_str().unwrap()
        );
        (text, rule["hits"].as_u64().unwrap())
    };
    rules["rules"].as_array().unwrap().iter().map(of).filter(|(_, hits)| *hits > 0).collect()
}

/// The lines of a security log about these two guests; what their kernels say by themselves is left out.
fn lines(text: &str) -> Vec<Value> {
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["protocol"] == "udp" && line["source"] == "10.9.0.11").collect()
}

/// `nuswitch show security-log --follow`, from when it follows.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(lab: &Lab) -> Following {
        let mut command = lab.nuswitch_command();
        let mut child =
            command.args(["show", "security-log", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut following = Following { child, lines };
        assert!(following.line("").starts_with("TIME"));
        following
    }

    /// The next line with this in it.
    fn line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_groups_let_pass_is_to_be_seen() {
    needs_system!();
    let Scene { mut lab, web, db } = scene();
    let (from, to) = (udp(&web, "10.9.0.11:0"), udp(&db, "10.9.0.12:5432"));
    let mut bytes = [0; 16];
    for _ in 0..3 {
        from.send_to(b"hello", "10.9.0.12:5432").unwrap();
        let (_, source) = to.recv_from(&mut bytes).unwrap();
        to.send_to(b"there", source).unwrap();
        from.recv(&mut bytes).unwrap();
    }
    assert_eq!(hits(&lab, "db"), [("ingress IPv4 default".to_owned(), 1)]);
    assert_eq!(hits(&lab, "web"), [("egress IPv4 any".to_owned(), 1)]);
    let table = said(&lab, "show rules --port db");
    assert!(table.starts_with("db: stateful security groups db\n"), "{table}");
    let first = table.lines().find(|line| line.starts_with("ingress")).unwrap();
    assert_eq!(
        first.split_whitespace().collect::<Vec<_>>(),
        ["ingress", "IPv4", "udp", "5432", "group", "default", "db", "1"]
    );

    let port = from.local_addr().unwrap().port();
    let connections = json_of(&lab, "show conntrack --network blue --guest db --protocol udp");
    let connection = &connections[0];
    assert_eq!(connections.as_array().unwrap().len(), 1, "{connections:#}");
    assert_eq!(
        (&connection["network"], &connection["router"], &connection["guest"], &connection["state"]),
        (&"blue".into(), &Value::Null, &"web".into(), &"replied".into())
    );
    assert_eq!(connection["original"]["source_port"], port);
    assert_eq!(connection["egress_rule"]["rule"], "egress IPv4");
    assert_eq!(connection["ingress_rule"]["security_group"], "db");
    assert_eq!(connection["ingress_rule"]["rule"], "ingress IPv4 udp 5432 from group default");
    let wide = said(&lab, "show conntrack --network blue --protocol udp -o wide");
    assert!(wide.contains("db: ingress IPv4 udp 5432 from group default"), "{wide}");
    let status = said(&lab, "show status");
    assert!(status.contains("GUESTS AT WORKER"), "{status}");
    assert_eq!(said(&lab, "flush conntrack --guest web --protocol udp"), "1 connection removed\n");
    // No rule lets it out but as an answer.
    to.send_to(b"there", ("10.9.0.11", port)).unwrap();
    assert!(from.recv(&mut bytes).is_err(), "an answer to what is forgotten");

    let group = said(&lab, "show security-groups db");
    assert!(group.contains("10.9.0.12/32") && group.contains("address group office"), "{group}");
    let all = json_of(&lab, "show security-groups");
    let db_group = all.as_array().unwrap().iter().find(|group| group["name"] == "db").unwrap();
    assert_eq!((&db_group["description"], &db_group["log"]), (&"The database".into(), &"all".into()));
    assert_eq!(lab.show_port("db")["security_groups"][0], db_group["id"]);
    lab.stop();
}

#[test]
fn what_groups_log_is_in_the_file_and_told_as_it_happens() {
    needs_system!();
    let Scene { mut lab, web, db } = scene();
    let (from, to) = (udp(&web, "10.9.0.11:0"), udp(&db, "10.9.0.12:5432"));
    let mut following = Following::start(&lab);
    let mut bytes = [0; 16];
    from.send_to(b"hello", "10.9.0.12:5432").unwrap();
    to.recv(&mut bytes).unwrap();
    from.send_to(b"hello", "10.9.0.12:5433").unwrap();
    let port = from.local_addr().unwrap().port();
    let accepted = following.line(&format!("10.9.0.11:{port} > 10.9.0.12:5432"));
    assert!(accepted.contains(" accepted db "), "{accepted}");
    assert!(accepted.ends_with("db: ingress IPv4 udp 5432 from group default\n"), "{accepted}");
    let dropped = following.line(&format!("10.9.0.11:{port} > 10.9.0.12:5433"));
    assert!(dropped.ends_with("security_ingress (db)\n"), "{dropped}");
    let (path, moved) = (lab.path("security.log"), lab.path("security.log.1"));
    let read = |path: &std::path::Path| lines(&fs::read_to_string(path).unwrap());
    eventually("the file has both", || read(&path).len() == 2);
    let said_both = read(&path);
    assert_eq!((&said_both[0]["action"], &said_both[0]["reason"]), (&"accepted".into(), &Value::Null));
    assert_eq!(
        (&said_both[1]["action"], &said_both[1]["reason"]),
        (&"dropped".into(), &"security_ingress".into())
    );
    assert_eq!((&said_both[1]["port"], &said_both[1]["network"]), (&"db".into(), &"blue".into()));
    let late = said(&lab, "show security-log");
    assert!(late.contains("> 10.9.0.12:5433") && late.starts_with("TIME"), "{late}");

    // It is moved away; from the next reload on there is a new one.
    fs::rename(&path, &moved).unwrap();
    from.send_to(b"hello", "10.9.0.12:5434").unwrap();
    eventually("the old file has the line", || read(&moved).len() == 3);
    lab.reload();
    from.send_to(b"hello", "10.9.0.12:5435").unwrap();
    eventually("the new file has the next", || path.exists() && read(&path).len() == 1);
    assert_eq!(read(&moved).len(), 3);

    // Where it cannot be, nothing changes.
    let settings =
        std::mem::replace(&mut lab.settings, "security_log = \"/no/such/directory/log\"".to_owned());
    lab.write();
    let refused = lab.nuswitch(&["reload"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(
        text(&refused).contains("switch.security_log: /no/such/directory/log cannot be opened"),
        "{}",
        text(&refused)
    );
    from.send_to(b"hello", "10.9.0.12:5436").unwrap();
    eventually("it goes on as before", || read(&path).len() == 2);
    lab.settings = settings;
    lab.write();
    lab.reload();
    // It ends with the switch.
    lab.stop();
    assert!(following.child.wait().unwrap().success());
}
