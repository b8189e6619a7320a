//! A child process that does not outlive us.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

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
