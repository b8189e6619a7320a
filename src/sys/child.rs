//! Child processes that do not outlive us, and ones that begin in another network namespace.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Has the kernel end the child when the thread that starts it ends, SIGKILL included (prctl(2), `PR_SET_PDEATHSIG`).
/// Start it from the main thread.
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    let parent = Pid::this();
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        // We may have died before the kernel knew.
        if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec `prepare` makes two system calls, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(prepare) }
}

/// Has the child begin in this network namespace; nothing else of it differs, and ours stays what it is.
pub fn begins_in(command: &mut Command, netns: OwnedFd) -> &mut Command {
    let prepare = move || Ok(setns(&netns, CloneFlags::CLONE_NEWNET)?);
    // SAFETY: between fork and exec `prepare` makes one system call, which is async-signal-safe, and allocates nothing; the
    // descriptor is open as long as the command is.
    unsafe { command.pre_exec(prepare) }
}
