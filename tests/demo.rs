//! `nuswitch demo` as a user runs it. It takes the whole machine for some seconds, so it runs where NUSWITCH_SYSTEM is 1.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Whether to run. Says why not.
fn wanted() -> bool {
    let wanted = std::env::var_os("NUSWITCH_SYSTEM").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: set NUSWITCH_SYSTEM=1");
    }
    wanted
}

/// Without any variable that a user may not have.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuswitch"));
    command.arg("demo").args(["--seconds", "1"]).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Its directory goes with it.
fn assert_clean(process: u32) {
    let left = std::path::Path::new("/tmp").join(format!("nuswitch-demo-{process}"));
    assert!(!left.exists(), "{} is left behind", left.display());
}

#[test]
fn it_ends_by_itself_with_a_table_in_which_all_is_right() {
    if !wanted() {
        return;
    }
    let child = demo(&[]).spawn().unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("nuswitch demo: "), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too long for a terminal: {line}");
    }
    for part in [
        "TEST  ",
        "isolated  world1 > home1",
        "blue1 > green1",
        "red1 > grey2",
        "VXLAN: red1 > red2",
        "host 1 <> host 2",
        "path MTU 1500",
        "vlan_not_allowed",
        "world1 sees 198.19.0.100",
        "home3 is told its address and gateway",
        "world1 > home2, port 80: let in",
        "enters its receiver by a rule of security group web: ingress IPv4 tcp 80",
        "world1 > home2, port 22: security_ingress",
        "by no rule it enters its receiver; its security groups: default, web",
        "home2 sends 5 packets as home1: dropped, spoofed_ip",
        "packet1 > packet2",
        "checks passed",
    ] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(!text.contains("FAIL") && !text.contains('\r'), "{text}");
    assert_clean(process);
}

#[test]
fn two_at_once_do_not_meet_and_one_may_be_an_ordinary_users() {
    if !wanted() {
        return;
    }
    let mut user = demo(&["--json"]);
    if nix::unistd::geteuid().is_root() {
        // `nobody` must be able to reach the program.
        let program = std::env::temp_dir().join(format!("nuswitch-demo-test-{}", std::process::id()));
        std::fs::copy(env!("CARGO_BIN_EXE_nuswitch"), &program).unwrap();
        user = Command::new(&program);
        user.args(["demo", "--seconds", "1", "--json"]).env_clear().current_dir("/");
        user.stdout(Stdio::piped()).stderr(Stdio::piped()).uid(65534).gid(65534);
        let child = user.spawn().unwrap();
        let both = [demo(&["--json"]).spawn().unwrap(), child].map(outcome);
        std::fs::remove_file(program).unwrap();
        assert_eq!(both[1]["root"], false);
        assert!(both[1]["without"]["xdp"].is_string(), "an ordinary user may not load an XDP program");
    } else {
        let _ = [demo(&["--json"]).spawn().unwrap(), user.spawn().unwrap()].map(outcome);
    }
}

/// Waits for it and reads what it says, which must be that all was right.
fn outcome(child: Child) -> Value {
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["ok"], true);
    let tests = outcome["tests"].as_array().unwrap();
    for name in [
        "ping", "tunnels", "router", "boot", "firewall", "isolated", "dropped", "trace", "tcp", "frames",
        "counters",
    ] {
        assert!(tests.iter().any(|test| test["test"] == name && test["ok"] == true), "{name}: {outcome:#}");
    }
    let find = |name: &str, what: &str| {
        tests
            .iter()
            .find(|test| test["test"] == name && test["what"] == what)
            .unwrap_or_else(|| panic!("{what}"))
    };
    for what in ["packet1 > packet2", "red1 > red2"] {
        let tcp = find("tcp", what);
        assert!(tcp["bits_per_second"].as_f64().unwrap() > 0.0 && tcp["sent"] == tcp["received"], "{tcp}");
        assert!(find("frames", what)["received"].as_u64().unwrap() > 0);
    }
    // Across the tunnels nothing is lost, and nothing comes out in another network.
    let tunnels = find("tunnels", "host 1 <> host 2");
    assert!(tunnels["sent"].as_u64().unwrap() >= 160 && tunnels["path_mtu"] == 1500.0, "{tunnels}");
    assert_eq!(tunnels["lost"], 0);
    let apart = find("isolated", "red1 > grey2");
    assert!(apart["sent"].as_u64().unwrap() > 0 && apart["received"] == 0, "{apart}");
    for (from, to) in [("red1", "red2"), ("red2", "red1"), ("grey1", "grey2"), ("grey2", "grey1")] {
        let ping = find("ping", &format!("VXLAN: {from} > {to}"));
        assert!(ping["sent"].as_u64().unwrap() > 0 && ping["lost"] == 0, "{ping}");
    }
    // Through the router: by its address, by a floating IP in both directions, by a forwarded port; and no stranger.
    for what in
        ["SNAT: home1 > world1", "float: world1 > home2", "float: home2 > world1", "port: world1 > home1"]
    {
        let connection = find("router", what);
        assert!(connection["sent"] == 1 << 20 && connection["lost"] == 0, "{connection}");
    }
    // A guest that knows nothing but its MAC.
    for what in ["home3: its address", "home3: its name"] {
        assert_eq!(find("boot", what)["ok"], true);
    }
    assert_eq!(find("ping", "boot: home3 > world1")["lost"], 0);
    let stranger = find("isolated", "world1 > home1");
    assert!(stranger["sent"].as_u64().unwrap() > 0 && stranger["received"] == 0, "{stranger}");
    // What the guest's groups let in, what they do not, and a guest that pretends to be another.
    for (what, sent, came) in
        [("world1 > home2, port 80", 1, 1), ("world1 > home2, port 22", 1, 0), ("home2 as home1", 5, 0)]
    {
        let firewall = find("firewall", what);
        assert!(firewall["sent"] == sent && firewall["received"] == came, "{firewall}");
    }
    assert!(outcome["switch_of_host_2"].is_null());
    assert_clean(process);
    outcome
}

#[test]
fn an_interrupted_demo_cleans_up_and_is_no_success() {
    if !wanted() {
        return;
    }
    use nix::sys::signal::{Signal, kill};
    use std::io::Read;
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuswitch"));
    command.args(["demo", "--seconds", "60"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let process = child.id();
    let mut text = String::new();
    let mut piece = [0; 4096];
    let output = child.stdout.as_mut().unwrap();
    while !text.contains("ports up") {
        let len = output.read(&mut piece).unwrap();
        assert!(len > 0, "it ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
    kill(nix::unistd::Pid::from_raw(process.cast_signed()), Signal::SIGINT).unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
    assert!(text.contains("Interrupted after"), "{text}");
    assert_clean(process);
}
