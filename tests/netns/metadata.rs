//! Metadata as guests ask for it: curl and plain sockets, over IPv4 with a router and without, and over IPv6; and a Nova of
//! the tests' own that checks what it is told.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Namespace, PATIENCE, require, run, text};

/// Two networks with the same addresses, and a router in front of one of them.
const NETWORKS: &str = r#"
[[network]]
name = "blue"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
[[network]]
name = "red"
[[subnet]]
name = "red-v4"
network = "red"
cidr = "10.0.0.0/24"
[[router]]
name = "edge"
interfaces = ["blue-v4"]
"#;

/// A guest at 10.0.0.10 of each network, with what a lease would have told it.
fn lab(more: &str, keys: &str) -> (Lab, Namespace, Namespace) {
    require("curl");
    let mut lab = Lab::new();
    lab.add(&format!("{NETWORKS}{more}"));
    let [blue, red] = ["blue", "red"].map(Namespace::new);
    for ns in [&blue, &red] {
        let name = ns.name.rsplit('-').next().unwrap().to_owned();
        let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", ns.name);
        let keys = if name == "blue" { keys } else { "" };
        lab.port(&name, &format!("network = \"{name}\"\nfixed_ips = [\"10.0.0.10\"]\n{keys}"), &interface);
    }
    lab.start();
    blue.ip("route add default via 10.0.0.1");
    red.ip("route add 169.254.169.254 dev eth0");
    (lab, blue, red)
}

/// What curl says: the body, a line's end, and the status.
fn curl(guest: &Namespace, options: &[&str], path: &str) -> String {
    let mut command = guest.command("curl");
    command.args(["-sS", "--max-time", "40", "-w", "\n%{http_code}"]).args(options);
    let url = if path.starts_with('/') { format!("http://169.254.169.254{path}") } else { path.to_owned() };
    text(&command.arg(url).output().unwrap())
}

const HOSTNAME: &str = "/latest/meta-data/hostname";

#[test]
fn each_guest_gets_its_own_wherever_it_is() {
    needs_system!();
    let (mut lab, blue, red) = lab("", "");
    for (guest, name) in [(&blue, "blue"), (&red, "red")] {
        assert_eq!(curl(guest, &[], HOSTNAME), format!("{name}\n200"));
        assert_eq!(curl(guest, &[], "/latest/meta-data/local-ipv4"), "10.0.0.10\n200");
        crate::lab::eventually("a link-local address", || {
            let said = guest.ip("-6 address show dev eth0");
            said.contains("fe80::") && !said.contains("tentative")
        });
        let six = format!("http://[fe80::a9fe:a9fe%25eth0]{HOSTNAME}");
        assert_eq!(curl(guest, &[], &six), format!("{name}\n200"));
        let documents = curl(guest, &[], "/openstack/latest/meta_data.json");
        assert!(documents.contains(&format!("\"hostname\":\"{name}\"")), "{documents}");
        // One connection for both.
        let twice = curl(guest, &["-v", &format!("http://169.254.169.254{HOSTNAME}")], HOSTNAME);
        assert!(twice.contains("Re-using existing connection"), "{twice}");
    }
    lab.stop();
}

#[test]
fn a_session_of_imds_v2_is_its_guest_s_alone() {
    needs_system!();
    let (mut lab, blue, red) = lab("", "");
    let token = |ttl: &str| {
        let ttl = format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}");
        curl(&blue, &["-X", "PUT", "-H", &ttl], "/latest/api/token")
    };
    let said = token("60");
    let (token_60, status) = said.split_once('\n').unwrap();
    assert_eq!(status, "200");
    let header = format!("X-aws-ec2-metadata-token: {token_60}");
    assert_eq!(curl(&blue, &["-H", &header], HOSTNAME), "blue\n200");
    assert!(curl(&red, &["-H", &header], HOSTNAME).ends_with("\n401"));
    assert!(token("21601").ends_with("\n400") && token("0").ends_with("\n400"));
    let said = token("1");
    let header = format!("X-aws-ec2-metadata-token: {}", said.lines().next().unwrap());
    std::thread::sleep(Duration::from_millis(2100));
    assert!(curl(&blue, &["-H", &header], HOSTNAME).ends_with("\n401"));
    lab.stop();
}

#[test]
fn user_data_is_the_file_s_and_after_a_reload_the_new_one_s() {
    needs_system!();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("user-data");
    // More than goes at once.
    let (first, second) =
        ("#!/bin/sh\n".to_owned() + &"# first\n".repeat(6000), "#cloud-config\n{}\n".to_owned());
    fs::write(&file, &first).unwrap();
    let keys = format!("metadata = {{ user_data = \"{}\" }}", file.display());
    let (mut lab, blue, red) = lab("", &keys);
    let get = |path: &str| curl(&blue, &[], path);
    for path in ["/latest/user-data", "/openstack/latest/user_data", "/nocloud/user-data"] {
        assert!(get(path) == format!("{first}\n200"), "{path}");
    }
    assert!(curl(&red, &[], "/latest/user-data").ends_with("\n404"));
    fs::write(&file, &second).unwrap();
    lab.reload();
    assert_eq!(get("/latest/user-data"), format!("{second}\n200"));
    // And nobody at all.
    lab.config =
        lab.config.replace("name = \"blue\"\n[[subnet]]", "name = \"blue\"\nmetadata = \"off\"\n[[subnet]]");
    lab.write();
    lab.reload();
    let said = curl(&blue, &["--connect-timeout", "2"], HOSTNAME);
    assert!(said.contains("\n000"), "{said}");
    assert_eq!(curl(&red, &[], HOSTNAME), "red\n200");
    lab.stop();
}

/// A plain GET, with a connection of its own.
fn ask(guest: &Namespace) -> String {
    let service: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let mut stream = guest.within(|| TcpStream::connect_timeout(&service, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {HOSTNAME} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn two_hundred_guests_ask_at_once_and_one_that_is_slow_delays_none() {
    needs_system!();
    const GUESTS: usize = 200;
    let mut lab = Lab::new();
    lab.settings = "workers = [0]".to_owned();
    lab.add("[[network]]\nname = \"blue\"\n[[subnet]]\nname = \"blue-v4\"\nnetwork = \"blue\"\ncidr = \"10.0.0.0/23\"");
    let slow = Namespace::new("slow");
    let guests: Vec<Namespace> = (0..GUESTS).map(|n| Namespace::new(&format!("g{n}"))).collect();
    for ns in guests.iter().chain([&slow]) {
        let name = ns.name.rsplit('-').next().unwrap();
        let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", ns.name);
        lab.port(name, "network = \"blue\"", &interface);
    }
    lab.start();
    for ns in guests.iter().chain([&slow]) {
        ns.ip("route add 169.254.169.254 dev eth0");
    }
    // As many connections as it may have, and a byte now and then.
    let service: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let mut dripping: Vec<TcpStream> =
        (0..16).map(|_| slow.within(|| TcpStream::connect_timeout(&service, PATIENCE)).unwrap()).collect();
    dripping.iter_mut().for_each(|stream| stream.write_all(b"GET /").unwrap());
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let one = |(n, guest)| {
            move || {
                let start = Instant::now();
                let answer = ask(guest);
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("g{n}")), "{answer}");
                start.elapsed()
            }
        };
        let asking: Vec<_> = guests.iter().enumerate().map(|guest| scope.spawn(one(guest))).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    took.sort();
    println!("{GUESTS} guests at once: median {:?}, p99 {:?}", took[GUESTS / 2], took[GUESTS * 99 / 100]);
    dripping.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
    lab.stop();
}

/// A Nova in the switch's own namespace. It gives on each request's head, and answers with what `answer` makes of it.
fn nova(lab: &Lab, port: u16) -> mpsc::Receiver<String> {
    let listener = lab.ns.within(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
    let (say, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut head, mut reader) = (String::new(), BufReader::new(stream.try_clone().unwrap()));
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            // The path that never comes to an end.
            if head.starts_with("GET /hangs ") {
                std::mem::forget(stream);
            } else {
                let body = "from nova\n";
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
            if say.send(head).is_err() {
                return;
            }
        }
    });
    heard
}

/// As Nova does it (nova.api.metadata.handler): HMAC-SHA256 of the instance's identifier under the shared secret.
fn signature(secret: &str, instance: &str) -> String {
    let python =
        "import hmac, sys; print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), 'sha256').hexdigest())";
    run(std::process::Command::new("python3").args(["-c", python, secret, instance])).trim().to_owned()
}

fn header<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let pairs = head.lines().filter_map(|line| line.split_once(": "));
    pairs.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[test]
fn a_nova_is_told_who_asks_and_believes_no_guest() {
    needs_system!();
    let instance = "9c9c7b1e-4a8b-4f8e-9d0c-2f5f2f8d1a11";
    let proxy = "[metadata]\nmode = \"proxy\"\nnova_metadata_host = \"127.0.0.1\"\nnova_metadata_port = 8775\n\
                 metadata_proxy_shared_secret = \"s3cret\"\n";
    let keys = format!("metadata = {{ instance_id = \"{instance}\", project_id = \"tenant-1\" }}");
    let (mut lab, blue, _red) = lab(proxy, &keys);
    // None is there.
    assert!(curl(&blue, &[], HOSTNAME).ends_with("\n502"));
    let heard = nova(&lab, 8775);
    let forged = [
        "-H",
        "X-Instance-ID: other",
        "-H",
        "X_Instance_ID: other",
        "-H",
        "X-Tenant-ID: other",
        "-H",
        "X-Forwarded-For: 192.0.2.66",
        "-H",
        "X-Instance-ID-Signature: 00",
        "-H",
        "X-Mine: kept",
    ];
    assert_eq!(curl(&blue, &forged, "/latest/meta-data/?a=b"), "from nova\n\n200");
    let head = heard.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("GET /latest/meta-data/?a=b HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "X-Instance-ID"), [instance]);
    assert_eq!(header(&head, "X-Tenant-ID"), ["tenant-1"]);
    assert_eq!(header(&head, "X-Forwarded-For"), ["10.0.0.10"]);
    assert_eq!(header(&head, "X-Instance-ID-Signature"), [signature("s3cret", instance)]);
    assert_eq!(header(&head, "X-Mine"), ["kept"]);
    assert!(!head.contains("other") && !head.contains("192.0.2.66"), "{head}");
    // One that hangs delays no other.
    let mut hanging = blue.command("curl");
    hanging.args(["-sS", "--max-time", "40", "-w", "\n%{http_code}", "http://169.254.169.254/hangs"]);
    let hanging = hanging.stdout(Stdio::piped()).spawn().unwrap();
    heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(curl(&blue, &[], HOSTNAME), "from nova\n\n200");
    let said = hanging.wait_with_output().unwrap();
    assert!(text(&said).ends_with("\n504"), "{}", text(&said));
    lab.stop();
}
