//! DHCP clients as they are used: each runs in a guest's namespace until it is dropped, and tells a hook what it got.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::lab::{Namespace, eventually};

/// Takes addresses and classless routes as udhcpc and dhclient give them, and writes down each event with its environment.
const HOOK: &str = r#"#!/bin/sh
event=${reason:-$1}
route() { ip route replace "$1" $([ "$2" = 0.0.0.0 ] || echo via "$2") dev eth0; }
case $event in
bound|renew|BOUND|RENEW|REBIND|REBOOT)
    [ "$ifwireless" ] || { # dhcpcd does all this itself
        ip address replace "${ip:-$new_ip_address}/${subnet:-$new_subnet_mask}" dev eth0
        set -- $staticroutes
        while [ $# -gt 0 ]; do route "$1" "$2"; shift 2; done
        set -- $new_rfc3442_classless_static_routes
        while [ $# -gt 0 ]; do
            len=$1 net= parts=$((($1 + 7) / 8)); shift
            for n in 1 2 3 4; do
                if [ $n -le $parts ]; then net=$net.$1; shift; else net=$net.0; fi
            done
            route "${net#.}/$len" "$1.$2.$3.$4"; shift 4
        done
    } ;;
BOUND6) [ "$ifwireless" ] || ip address replace "$new_ip6_address/128" dev eth0 nodad ;;
deconfig|EXPIRE|RELEASE) ip -4 address flush dev eth0 ;;
esac
text=$(echo "event=$event"; env)
printf '%s\n\n' "$text" >> "$0.events"
"#;

/// What dhclient is to ask for. Its timers follow.
const DHCLIENT: &str = "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n\
    request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name, \
    interface-mtu, ntp-servers, rfc3442-classless-static-routes;\ninitial-interval 1;\n";

/// An event of the client's, as its hook was told.
pub(crate) type Event = HashMap<String, String>;

pub(crate) struct Client {
    child: Child,
    directory: TempDir,
}

impl Client {
    fn start(ns: &Namespace, program: &str, make: impl FnOnce(&mut Command, &TempDir, PathBuf)) -> Client {
        let directory = tempfile::Builder::new().prefix("nuswitch-dhcp").tempdir().unwrap();
        let hook = directory.path().join("hook");
        fs::write(&hook, HOOK).unwrap();
        fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = ns.command(program);
        make(&mut command, &directory, hook);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Client { child: command.spawn().unwrap(), directory }
    }

    pub(crate) fn udhcpc(ns: &Namespace, options: &str) -> Client {
        Client::start(ns, "udhcpc", |command, _, hook| {
            command.args(["-i", "eth0", "-f", "-t", "10", "-T", "1", "-s"]).arg(hook);
            command.args(["-O", "mtu", "-O", "staticroutes", "-O", "ntpsrv", "-O", "domain"]);
            command.args(options.split_whitespace());
        })
    }

    /// ISC's client; `more` is of its configuration.
    pub(crate) fn dhclient(ns: &Namespace, options: &str, more: &str) -> Client {
        Client::dhclient_with(ns, options, more, "")
    }

    /// The same, with what it remembers of earlier.
    pub(crate) fn dhclient_with(ns: &Namespace, options: &str, more: &str, leases: &str) -> Client {
        Client::start(ns, "dhclient", |command, directory, hook| {
            let file = |name: &str, text: &str| {
                let path = directory.path().join(name);
                fs::write(&path, text).unwrap();
                path
            };
            command.args(["-d", "-v"]).args(options.split_whitespace()).arg("-sf").arg(hook);
            if !options.contains("-6") {
                command.arg("-cf").arg(file("conf", &format!("{DHCLIENT}{more}")));
            }
            command.arg("-lf").arg(file("leases", leases)).arg("-pf").arg(file("pid", "")).arg("eth0");
        })
    }

    pub(crate) fn dhcpcd(ns: &Namespace, options: &str) -> Client {
        Client::start(ns, "unshare", |command, _, hook| {
            let private = "mount -t tmpfs t /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs t /var/lib/dhcpcd \
                           && exec dhcpcd -d -B -A -f /dev/null \"$@\" eth0";
            command.args(["-m", "sh", "-c", private, "sh", "-c"]).arg(hook);
            command.args(["-o", "classless_static_routes,interface_mtu,ntp_servers"]);
            command.args(["-o", "domain_name_servers,host_name,domain_name"]);
            command.args(options.split_whitespace());
        })
    }

    /// systemd's, without systemd: with a read-only /sys it does not wait for udev, and it can do without D-Bus.
    pub(crate) fn networkd(ns: &Namespace) -> Client {
        Client::start(ns, "unshare", |command, _, _| {
            let settings =
                "[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n[DHCPv4]\nUseMTU=yes\n";
            let private = "mount -t tmpfs t /run && mount -o remount,bind,ro /sys \
                           && mkdir -p /run/systemd/network /run/systemd/netif/leases /run/systemd/netif/links \
                           && chown -R systemd-network /run/systemd/netif \
                           && echo \"$0\" > /run/systemd/network/10-eth0.network && exec /lib/systemd/systemd-networkd";
            command.args(["-m", "sh", "-c", private, settings]);
        })
    }

    /// Lines of the lease that networkd keeps, once it is there.
    pub(crate) fn networkd_lease(&self) -> String {
        let directory = format!("/proc/{}/root/run/systemd/netif/leases", self.child.id());
        let mut lease = String::new();
        eventually("networkd has a lease", || {
            let files = fs::read_dir(&directory).into_iter().flatten().flatten();
            lease = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
            lease.contains("CLASSLESS_ROUTES=")
        });
        lease
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.directory.path().join("hook.events")).unwrap_or_default();
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        // The last one is whole once its empty line is there.
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        whole
            .split("\n\n")
            .filter(|event| !event.is_empty())
            .map(|event| event.lines().filter_map(pair).collect())
            .collect()
    }

    /// The newest event of this name; waits until it is the `count`th.
    #[track_caller]
    pub(crate) fn waits_for(&self, name: &str, count: usize) -> Event {
        self.waits(name, count, |event| event["event"].eq_ignore_ascii_case(name))
    }

    /// The first event that tells this, whatever its name.
    #[track_caller]
    pub(crate) fn is_told(&self, key: &str) -> Event {
        self.waits(key, 1, |event| event.contains_key(key))
    }

    #[track_caller]
    fn waits(&self, what: &str, count: usize, is_it: impl Fn(&Event) -> bool) -> Event {
        let start = Instant::now();
        loop {
            let mut found: Vec<Event> = self.events().into_iter().filter(&is_it).collect();
            if found.len() >= count {
                return found.remove(count - 1);
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no {what}: {:#?} {}",
                self.events(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// All that it has said, once it has ended by itself.
    pub(crate) fn ends(mut self) -> String {
        let _ = self.child.wait();
        self.log()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Some have processes of their own, which they end themselves.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
