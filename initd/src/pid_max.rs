//! Recorded processes have high numbers, which a fresh boot may not hand out.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::mount::detached_proc;

/// Highest value on 64-bit Linux.
pub const PID_MAX: u32 = 4_194_304;

/// Raise `kernel.pid_max` if it is lower. Goes through a proc mount of our own, as /proc/sys is
/// read-only in containers.
///
/// # Errors
/// When it is lower and cannot be raised. Restores with high numbers will then fail, each for
/// itself.
pub fn raise() -> io::Result<()> {
    let current = std::fs::read_to_string("/proc/sys/kernel/pid_max")?;
    if is_enough(&current) {
        return Ok(());
    }
    let proc = detached_proc()?;
    let open =
        |flags| openat(&proc, "sys/kernel/pid_max", flags | OFlag::O_CLOEXEC, Mode::empty()).map(File::from);
    open(OFlag::O_WRONLY)?.write_all(PID_MAX.to_string().as_bytes())?;
    let mut now = String::new();
    open(OFlag::O_RDONLY)?.read_to_string(&mut now)?;
    if is_enough(&now) { Ok(()) } else { Err(io::Error::other(format!("it stays at {}", now.trim()))) }
}

fn is_enough(text: &str) -> bool {
    text.trim().parse::<u32>().is_ok_and(|value| value >= PID_MAX)
}
