//! The command line: one file a subcommand. Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is
//! wrong.

pub mod frame_spec;
pub mod table;

mod capture;
mod check;
mod demo;
mod flush;
mod hypervisor;
mod reload;
mod run;
mod show;
mod trace;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::client::{self, Client};
use crate::control::view::Problem;

/// The exit code for a mistake in the command line or the configuration.
const MISTAKE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  nuswitch demo                           see it work, in a lab of its own
  nuswitch check lab.toml                 is the file right?
  nuswitch run --config lab.toml          run the switch in the foreground
  nuswitch show ports                     what is connected, and how much passes
  nuswitch show drops                     what is thrown away, and why
  nuswitch show rules --port web1         what security groups let pass there, and how often
  nuswitch show tunnels                   which other hosts there are, and how much passes
  nuswitch show conntrack --guest web1    connections of web1: by which rules, translated to what
  nuswitch capture web1 -w - | tcpdump -r -
  qemu-system-x86_64 … $(nuswitch qemu web1)    give a guest its port
  nuswitch reload                         apply what changed in lab.toml

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong.";

/// A userspace virtual switch: flat, VLAN and VXLAN networks between VMs, namespaces, NICs and hosts, from one TOML file.
///
/// `run` is the switch; all other commands talk to a running one over its control socket.
#[derive(Debug, Parser)]
#[command(name = "nuswitch", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    control: Control,
    /// Log lines on standard error as `text` or `json`; what is logged says NUSWITCH_LOG or RUST_LOG, as in `debug`
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// Which switch to talk to.
#[derive(Debug, Args)]
struct Control {
    /// Control socket of the running switch [env: NUSWITCH_CONTROL] [default: /run/nuswitch/control.sock]
    #[arg(long = "control", global = true, value_name = "PATH", help_heading = "Global options")]
    path: Option<PathBuf>,
}

impl Control {
    fn client(&self) -> io::Result<Client> {
        let from_environment =
            || std::env::var_os("NUSWITCH_CONTROL").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = self.path.clone().or_else(from_environment);
        Client::new(&path.unwrap_or_else(|| crate::model::Switch::default().control))
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the switch in the foreground until SIGTERM or SIGINT; SIGHUP reloads
    Run(run::Run),
    /// Build a small lab, run the switch in it, check and measure it
    Demo(demo::Demo),
    /// Check configuration files without starting anything
    Check(check::Check),
    /// Apply what changed in the configuration file of the running switch
    Reload(reload::Reload),
    /// Show what the running switch is and does
    Show(show::Show),
    /// Remove connections that the running switch tracks
    Flush(flush::Flush),
    /// Tell what the running switch would do with a frame
    Trace(trace::Trace),
    /// Record the frames of a port as pcapng, dropped ones with their reason
    Capture(capture::Capture),
    /// Print the options of QEMU for the guest of a port
    Qemu(hypervisor::Qemu),
    /// Print the XML of libvirt for the guest of a port
    Libvirt(hypervisor::Libvirt),
}

impl Cli {
    /// Does what the command line says and gives the exit code. Errors are already told on standard error.
    pub fn execute(self) -> ExitCode {
        let control = &self.control;
        let result = match self.command {
            Command::Run(run) => run.execute(),
            Command::Demo(demo) => demo.execute(),
            Command::Check(check) => check.execute(),
            Command::Reload(reload) => reload.execute(control),
            Command::Show(show) => show.execute(control),
            Command::Flush(flush) => flush.execute(control),
            Command::Trace(trace) => trace.execute(control),
            Command::Capture(capture) => capture.execute(control),
            Command::Qemu(qemu) => qemu.execute(control),
            Command::Libvirt(libvirt) => libvirt.execute(control),
        };
        result.unwrap_or_else(|error| tell(&error))
    }
}

/// Tells an error on standard error; configuration mistakes in full.
fn tell(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // the reader has seen enough, as in `nuswitch show ports | head`
    }
    let mut problem = error.downcast_ref::<Problem>();
    if let Some(client::Error::Refused(refused)) = error.downcast_ref() {
        problem = Some(refused);
    }
    let mut text = String::new();
    for diagnostic in problem.iter().flat_map(|problem| &problem.diagnostics) {
        text.push_str(diagnostic.rendered.trim_end());
        text.push_str("\n\n");
    }
    text.push_str(&format!("error: {error:#}"));
    if let Some(detail) = problem.map(|problem| &problem.body.detail).filter(|detail| !detail.is_empty()) {
        text.push_str(&format!("\n  {detail}"));
    }
    // Nobody to tell it to: the exit code remains.
    let _ = writeln!(io::stderr(), "{text}");
    let is_mistake = problem.is_some_and(Problem::is_configuration) || error.is::<frame_spec::Error>();
    if is_mistake { ExitCode::from(MISTAKE) } else { ExitCode::FAILURE }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match error.downcast_ref() {
        Some(client::Error::Output(error)) => broken(error),
        _ => error.downcast_ref().is_some_and(broken),
    }
}

/// Writes to standard output. Unlike `println!`, a reader that went away is an error, not a panic.
fn print(text: impl std::fmt::Display) -> io::Result<()> {
    let mut output = io::stdout().lock();
    write!(output, "{text}")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::control::tests::Running;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn run(switch: &Running, arguments: &[&str]) -> ExitCode {
        let control = ["nuswitch", "--control", switch.path.to_str().unwrap()];
        Cli::try_parse_from(control.iter().chain(arguments)).unwrap().execute()
    }

    #[test]
    fn commands_against_a_running_switch() {
        let switch = Running::start();
        for arguments in [
            "show status",
            "show networks blue",
            "show ports -o wide",
            "show fdb blue",
            "show drops web1",
            "show drops 2001:db8:0::11",
            "show tunnels",
            "show tunnels -o wide",
            "show tunnels -o json",
            "show ports -o json",
            "show status -o json",
            "show routers",
            "show routers edge -o wide",
            "show routes --router edge",
            "show neighbours --router edge --network blue",
            "show neighbors -o json",
            "show conntrack --guest web1 --protocol tcp --protocol 17 --source 10.0.0.0/24",
            "show conntrack -o json",
            "show nat --router edge",
            "show nat -o json",
            "show drops edge/public-v4",
            "show metadata --port web1",
            "show metadata -p web1 -o json",
            "show metadata --port web1 --path /latest/user-data",
            "show metadata --port web1 --path /latest/user-data -o json",
            "show leases --network blue --port web1",
            "show leases -o json",
            "qemu web1",
            "libvirt web1",
            "flush conntrack --port 53",
            "reload",
            "trace -p web1 eth",
            "trace -p web1 --json ffff",
        ] {
            let words: Vec<&str> = arguments.split(' ').collect();
            assert_eq!(run(&switch, &words), ExitCode::SUCCESS, "{arguments}");
        }
        let wrong = [
            ("show fdb nope", 1),
            ("show ports nope", 1),
            ("show routes --router nope", 1),
            ("show conntrack --router nope", 1),
            ("show metadata --port nope", 1),
            ("show metadata --port web2", 1),
            ("show metadata --port web1 --path /nope", 1),
            ("show leases --network nope", 1),
            ("qemu web2", 1),
            ("libvirt nope", 1),
            ("flush conntrack --source nope", 1),
            ("show drops 2001:db8::12", 1),
            ("trace -p web9 ffff", 1),
            ("trace -p web1 xyz", 2),
        ];
        for (arguments, code) in wrong {
            let words: Vec<&str> = arguments.split(' ').collect();
            assert_eq!(run(&switch, &words), ExitCode::from(code), "{arguments}");
        }
        switch.refuse_configuration();
        assert_eq!(run(&switch, &["reload"]), ExitCode::from(MISTAKE));
    }

    #[test]
    fn a_capture_of_so_many_frames_is_a_whole_file() {
        let switch = Running::start();
        let feeder = switch.feed_captures();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web1.pcapng");
        let words = ["capture", "web1", "--count", "7", "-w", file.to_str().unwrap()];
        assert_eq!(run(&switch, &words), ExitCode::SUCCESS);
        assert_eq!(crate::pcapng::Reader::open(&file).unwrap().map(Result::unwrap).count(), 7);
        feeder.join().unwrap();
        let none = directory.path().join("none.pcapng");
        assert_eq!(run(&switch, &["capture", "nope", "-w", none.to_str().unwrap()]), ExitCode::FAILURE);
        assert!(!none.exists(), "a refused capture leaves no file");
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = Cli::try_parse_from(["nuswitch", "show", "ports", "--control", "/tmp/x"]).unwrap();
        assert_eq!(cli.control.path, Some("/tmp/x".into()));
        for wrong in
            [&["nuswitch"][..], &["nuswitch", "show"], &["nuswitch", "run"], &["nuswitch", "trace", "eth"]]
        {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), i32::from(MISTAKE), "{wrong:?}");
        }
    }
}
