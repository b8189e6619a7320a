//! `nuswitch demo`: a small lab, two switches in it with tunnels between them, a router to the world, and a proof that it works here. Needs no
//! configuration, no installed tool and no root.
//!
//! It tests what it shows: each line of the table at the end is a check, and one that fails makes the exit code 1.

mod boot;
mod checks;
mod firewall;
mod lab;
mod ping;
mod rates;
mod report;
mod router;
mod stop;
mod switch;
mod tunnels;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::print;
use crate::control::view;
use lab::{BLUE, GREEN, GREY, HOME, Kind, Lab, RED, Site, WORLD};
use report::Report;
use stop::{Interrupted, Stop};
use switch::{Directory, Switch};

/// Build a small lab, run the switch in it, check and measure it, and leave nothing behind.
///
/// Hosts are network namespaces without names. A second switch runs in one of its own, as on another machine, and is joined
/// by tunnels. As root all kinds of port take part; as an ordinary user, in a user
/// namespace, all but AF_XDP, and TAPs where /dev/net/tun may be opened. Exits with 0 when everything was right.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Seconds for each measurement
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Leave the lab running at the end, until Ctrl-C, and tell how to look at it
    #[arg(long)]
    keep: bool,
    /// Print nothing but the outcome, as JSON
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let begin = Instant::now();
        // First of all, because a process with threads may not enter a user namespace.
        let can = lab::enter()?;
        let stop = Stop::listen()?;
        let report = Report::new(self.json);
        // For each kind of port and the tunnels TCP and frames, and some seconds for all else.
        let rates = u64::try_from(can.kinds().len() + 1)? * 2 * self.seconds;
        report.say(format!(
            "nuswitch demo: builds a lab of network namespaces, runs two switches in it,\n\
             checks and measures them for about {} seconds, and leaves nothing behind.\n",
            rates + 3
        ))?;
        let directory = Directory::new()?;
        let lab = Lab::build(can)?;
        let switch = Switch::start(directory.path(), None, |control| lab.config(Site::One, control))?;
        let far = directory.inner("host2")?;
        let far = Switch::start(far, Some(&lab.far), |control| lab.config(Site::Two, control))?;
        let time = Duration::from_secs(self.seconds);
        let mut running = Running { switch, far, lab, report, stop, time, _directory: directory };
        let interrupted = match running.show_all() {
            Ok(()) => false,
            Err(error) if error.is::<Interrupted>() => true,
            Err(error) => return Err(error),
        };
        if self.keep && !interrupted {
            running.keep()?;
        }
        running.finish(begin, interrupted, self.json)
    }
}

/// The demo while it runs. Dropping it ends the switches first, then the lab.
struct Running {
    switch: Switch,
    /// That of the second site.
    far: Switch,
    lab: Lab,
    report: Report,
    stop: Stop,
    /// For each measurement.
    time: Duration,
    _directory: Directory,
}

impl Running {
    fn show_all(&mut self) -> anyhow::Result<()> {
        self.introduce()?;
        self.pings()?;
        self.tunnels()?;
        self.router()?;
        self.boot()?;
        self.firewall()?;
        self.isolation()?;
        self.dropping()?;
        self.trace()?;
        self.rates()?;
        self.accounts()
    }

    /// The lab in a few lines, and the switch that comes up.
    fn introduce(&mut self) -> anyhow::Result<()> {
        let names = |network| {
            let hosts = self.lab.of(network);
            hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        let guest = if self.lab.can.no_tap.is_none() { " guest" } else { "" };
        self.report.say(format!("  open    untagged   {}{guest} trunk", names("open")))?;
        self.report.say(format!("  blue    VLAN {BLUE}   {} trunk (tagged)", names("blue")))?;
        self.report.say(format!("  green   VLAN {GREEN}   {}", names("green")))?;
        for (network, vni) in [("red", RED), ("grey", GREY)] {
            let [here, there] = [Site::One, Site::Two].map(|site| {
                let hosts = self.lab.of(network).into_iter().filter(|host| host.site == site);
                hosts.map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ")
            });
            self.report.say(format!("  {network:<7} VXLAN {vni} {here}, and on host 2 {there}"))?;
        }
        self.report.say(format!(
            "  {HOME:<7} a router   {}, behind it, and {} outside",
            names(HOME),
            names(WORLD)
        ))?;
        self.report.say(format!("  beside  the kernel's bridge: {}", names("none")))?;
        self.report.say(format!(
            "  host 2  a switch of its own, at {} over a veth with {} ports",
            Site::Two.vtep(),
            self.lab.underlay()
        ))?;
        let left_out = [("tap and guest", &self.lab.can.no_tap), ("xdp", &self.lab.can.no_xdp)];
        for (kind, reason) in left_out {
            if let Some(reason) = reason {
                self.report.say(format!("  without {kind} ports here: {reason}"))?;
            }
        }
        self.report.say("")?;
        for switch in [&self.switch, &self.far] {
            self.report.say(format!("  $ nuswitch run --config {}", switch.file("lab.toml")))?;
        }
        let begin = Instant::now();
        let mut ports = self.switch.wait(&self.stop)?;
        ports.extend(self.far.wait(&self.stop)?);
        let count = |kind: &str| ports.iter().filter(|port| port.interface.kind == kind).count();
        let kinds = ["tap", "guest", "packet", "xdp"].map(|kind| (kind, count(kind)));
        let kinds =
            kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let time = begin.elapsed().as_secs_f64();
        self.report.say(format!("  {} ports up after {time:.1} s: {kinds}\n", ports.len()))?;
        Ok(())
    }

    fn switch_at(&self, site: Site) -> &Switch {
        if site == Site::One { &self.switch } else { &self.far }
    }

    /// Waits for Ctrl-C.
    fn keep(&mut self) -> anyhow::Result<()> {
        let (pid, control) = (std::process::id(), self.switch.file("control.sock"));
        let Some(host) = self.lab.of("open").first().copied() else { return Ok(()) };
        let user = if self.lab.can.root { "" } else { "-U --preserve-credentials " };
        self.report.say(format!(
            "\nThe lab runs until Ctrl-C. Look at it from another terminal:\n\
             \x20 nuswitch --control {control} show ports\n\
             \x20 nuswitch --control {control} capture {name} -w - | \\\n\
             \x20     tcpdump -n -r -\n\
             \x20 nuswitch --control {control} show tunnels\n\
             \x20 nuswitch --control {far} show tunnels\n\
             \x20 cat {config}\n\
             Be {name}, {address}:\n\
             \x20 nsenter {user}-t {pid} --net={netns} ping {address}",
            name = host.name,
            config = self.switch.file("lab.toml"),
            far = self.far.file("control.sock"),
            netns = host.netns.path().display(),
            address = self.lab.of("open").last().map_or(host.address, |other| other.address),
        ))?;
        while !self.stop.is_wanted() {
            for switch in [&mut self.switch, &mut self.far] {
                anyhow::ensure!(switch.is_alive(), "a switch has ended; its log:\n{}", switch.log());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends the switches and gives the outcome.
    fn finish(mut self, begin: Instant, interrupted: bool, json: bool) -> anyhow::Result<ExitCode> {
        let drops = [&self.switch, &self.far].map(drops);
        let ended = [self.switch.end(), self.far.end()];
        let (checks, wrong) = (self.report.rows.len(), self.report.wrong());
        let ok = wrong == 0 && ended.iter().all(Result::is_ok) && !interrupted;
        let seconds = begin.elapsed().as_secs_f64();
        if json {
            let outcome = json!({
                "ok": ok, "interrupted": interrupted, "seconds": seconds, "root": self.lab.can.root,
                "without": { "tap": self.lab.can.no_tap, "xdp": self.lab.can.no_xdp },
                "tests": self.report.json(), "drops": drops[0], "drops_of_host_2": drops[1],
                "switch": ended[0].as_ref().err(), "switch_of_host_2": ended[1].as_ref().err(),
            });
            print(format_args!("{outcome:#}\n"))?;
        } else {
            self.report.say(format!("\n{}", self.report.table()))?;
            for (whose, drops) in ["the switch", "that of host 2"].into_iter().zip(&drops) {
                let dropped =
                    drops.iter().map(|drop| format!("{} {} {}", drop.port, drop.reason, drop.count));
                let dropped = dropped.collect::<Vec<_>>();
                if !dropped.is_empty() {
                    for line in report::wrap(&format!("Dropped by {whose}: {}.", dropped.join(", "))) {
                        self.report.say(line)?;
                    }
                }
            }
        }
        for (switch, ended) in [&self.switch, &self.far].into_iter().zip(&ended) {
            if let Err(error) = ended {
                eprintln!("error: {error}; its log:\n{}", switch.log());
            }
        }
        self.report.say(match (interrupted, wrong) {
            (true, _) => format!("Interrupted after {seconds:.1} s; the lab is gone."),
            (_, 0) if ok => format!("All {checks} checks passed in {seconds:.1} s. The lab is gone."),
            (_, wrong) => {
                format!("{wrong} of {checks} checks FAILED in {seconds:.1} s. The lab is gone.")
            }
        })?;
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What a switch has dropped until now.
fn drops(switch: &Switch) -> Vec<view::Drop> {
    switch.client.get_key("/v1/drops", "drops").unwrap_or_default()
}

impl Kind {
    /// As the measurements name it.
    fn title(self) -> &'static str {
        if self == Kind::Bridge { "Linux bridge" } else { self.name() }
    }
}
