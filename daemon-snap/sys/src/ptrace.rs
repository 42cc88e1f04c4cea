//! ptrace(2) as we use it: tasks are seized, never attached, so that nothing is seen of it from
//! outside.
//!
//! PTRACE_O_EXITKILL is never set for a tree: when we die, it goes on.

use nix::errno::Errno;
use snap_state::{Addr, Pid, RseqV1};
use std::ptr;

/// PTRACE_O_TRACESYSGOOD: system-call stops can be told from signals.
pub const TRACE_SYSGOOD: usize = 1;
/// PTRACE_O_SUSPEND_SECCOMP: injected calls pass the task's own filters.
pub const SUSPEND_SECCOMP: usize = 1 << 21;

/// PTRACE_O_TRACEEXEC: a stop before the first instruction of a program.
pub const TRACE_EXEC: usize = 1 << 4;
/// PTRACE_O_EXITKILL: only for processes of our own.
pub const EXIT_KILL: usize = 1 << 20;

const EVENT_STOP: i32 = 128;
const GET_SYSCALL_USER_DISPATCH_CONFIG: libc::c_uint = 0x4211;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
const SECCOMP_GET_METADATA: libc::c_uint = 0x420d;
const SETSIGMASK: libc::c_uint = 0x420b;
const GETSIGMASK: libc::c_uint = 0x420a;
const PEEKSIGINFO: libc::c_uint = 0x4209;
const PEEKSIGINFO_SHARED: u32 = 1;
const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
const SIGSET_BYTES: usize = 8;
const SIGINFO_BYTES: usize = 128;
/// BPF_MAXINSNS instructions of 8 bytes.
const MAX_FILTER_BYTES: usize = 4096 * 8;
/// Far more than any xstate component combination of today (AMX needs 11 KiB).
const MAX_XSTATE_BYTES: usize = 64 << 10;

/// Registers as PTRACE_GETREGS gives them.
pub type Regs = libc::user_regs_struct;

/// What waitpid(2) says about a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No change yet.
    Running,
    /// The stop that PTRACE_INTERRUPT asked for.
    Interrupted,
    /// Stopped by SIGSTOP and the like, before we came.
    GroupStop,
    /// About to receive this signal.
    Signal(i32),
    /// Entering or leaving a system call.
    Syscall,
    /// Has ended; there is nothing left of it.
    Exited,
}

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Default)]
struct RseqConfiguration {
    pointer: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}
const _: () = assert!(size_of::<RseqConfiguration>() == 24);

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct PeekSigInfo {
    off: u64,
    flags: u32,
    nr: i32,
}
const _: () = assert!(size_of::<PeekSigInfo>() == 16);

/// `struct seccomp_metadata`.
#[repr(C)]
struct SeccompMetadata {
    filter_off: u64,
    flags: u64,
}
const _: () = assert!(size_of::<SeccompMetadata>() == 16);

/// `struct ptrace_sud_config`.
#[repr(C)]
#[derive(Default)]
struct SudConfig {
    mode: u64,
    selector: u64,
    offset: u64,
    len: u64,
}
const _: () = assert!(size_of::<SudConfig>() == 32);

fn request(op: libc::c_uint, tid: Pid, addr: usize, data: usize) -> Result<i64, Errno> {
    // SAFETY: callers pass in `addr` and `data` either numbers or pointers to live objects of the
    // size that `op` uses.
    Errno::result(unsafe { libc::ptrace(op, tid.0, addr, data) })
}

/// PTRACE_SEIZE.
///
/// # Errors
/// `EPERM` for zombies, tasks that are traced by another, or without permission; `ESRCH`.
pub fn seize(tid: Pid, options: usize) -> Result<(), Errno> {
    request(libc::PTRACE_SEIZE, tid, 0, options).map(drop)
}

/// PTRACE_INTERRUPT.
///
/// # Errors
/// `ESRCH`.
pub fn interrupt(tid: Pid) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// PTRACE_CONT; `signal` 0 delivers none.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn resume(tid: Pid, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

/// PTRACE_SYSCALL.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn resume_to_syscall(tid: Pid) -> Result<(), Errno> {
    request(libc::PTRACE_SYSCALL, tid, 0, 0).map(drop)
}

/// PTRACE_DETACH; the task runs on.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn detach(tid: Pid) -> Result<(), Errno> {
    request(libc::PTRACE_DETACH, tid, 0, 0).map(drop)
}

/// waitpid(2) for one tracee.
///
/// # Errors
/// `ECHILD` when it is not our tracee.
pub fn wait(tid: Pid, block: bool) -> Result<Wait, Errno> {
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: status is writable.
        match Errno::result(unsafe { libc::waitpid(tid.0, &raw mut status, flags) }) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(Wait::Running),
            Ok(_) => return Ok(decode(status)),
        }
    }
}

fn decode(status: i32) -> Wait {
    if !libc::WIFSTOPPED(status) {
        return Wait::Exited;
    }
    match (status >> 16, libc::WSTOPSIG(status)) {
        (EVENT_STOP, libc::SIGTRAP) => Wait::Interrupted,
        (EVENT_STOP, _) => Wait::GroupStop,
        (_, signal) if signal == libc::SIGTRAP | 0x80 => Wait::Syscall,
        (_, signal) => Wait::Signal(signal),
    }
}

fn get_regset<T>(tid: Pid, kind: usize, buffer: &mut [T]) -> Result<usize, Errno> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size_of_val(buffer) };
    request(libc::PTRACE_GETREGSET, tid, kind, (&raw mut iov) as usize)?;
    Ok(iov.iov_len)
}

/// General registers; `None` for a 32-bit task.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn regs(tid: Pid) -> Result<Option<Regs>, Errno> {
    let mut words = [0u64; size_of::<Regs>() / 8];
    let len = get_regset(tid, NT_PRSTATUS, &mut words)?;
    // SAFETY: user_regs_struct is plain words of the same total size; every bit pattern is valid.
    let regs = unsafe { std::mem::transmute::<[u64; size_of::<Regs>() / 8], Regs>(words) };
    const CS_64: u64 = 0x33;
    Ok((len == size_of::<Regs>() && regs.cs == CS_64).then_some(regs))
}

/// Sets general registers, orig_rax included.
///
/// # Errors
/// `ESRCH` when it is not stopped, `EIO` for values that the kernel refuses.
pub fn set_regs(tid: Pid, regs: &Regs) -> Result<(), Errno> {
    request(libc::PTRACE_SETREGS, tid, 0, ptr::from_ref(regs) as usize).map(drop)
}

/// Only rax.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn rax(tid: Pid) -> Result<i64, Errno> {
    const RAX: usize = std::mem::offset_of!(Regs, rax);
    Errno::clear();
    // glibc's wrapper returns the word itself; errno tells an error.
    // SAFETY: PEEKUSER takes an offset and no pointer in this wrapper.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, tid.0, RAX, 0usize) };
    if word == -1 && Errno::last_raw() != 0 { Err(Errno::last()) } else { Ok(word) }
}

/// The whole extended state in XSAVE format.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn xstate(tid: Pid) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; MAX_XSTATE_BYTES];
    let len = get_regset(tid, NT_X86_XSTATE, &mut bytes)?;
    Ok(bytes[..len].to_vec())
}

/// Blocked signals; bit n-1 is signal n. In a call with a temporary mask this is the one that comes
/// back after it.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn sigmask(tid: Pid) -> Result<u64, Errno> {
    let mut mask = 0u64;
    request(GETSIGMASK, tid, SIGSET_BYTES, (&raw mut mask) as usize)?;
    Ok(mask)
}

/// Sets the blocked signals.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn set_sigmask(tid: Pid, mask: u64) -> Result<(), Errno> {
    request(SETSIGMASK, tid, SIGSET_BYTES, (&raw const mask) as usize).map(drop)
}

/// Queued signals of the thread, or of its process when `shared`: the 128 bytes of siginfo_t each.
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn pending_signals(tid: Pid, shared: bool) -> Result<Vec<Vec<u8>>, Errno> {
    const BATCH: usize = 16;
    let mut signals = Vec::new();
    loop {
        let mut batch = [0u64; BATCH * SIGINFO_BYTES / 8];
        let flags = if shared { PEEKSIGINFO_SHARED } else { 0 };
        let args = PeekSigInfo { off: signals.len() as u64, flags, nr: BATCH as i32 };
        let got =
            request(PEEKSIGINFO, tid, (&raw const args) as usize, batch.as_mut_ptr() as usize)? as usize;
        let bytes: Vec<u8> = batch.iter().flat_map(|word| word.to_ne_bytes()).collect();
        signals.extend(bytes.chunks_exact(SIGINFO_BYTES).take(got).map(<[u8]>::to_vec));
        if got < BATCH {
            return Ok(signals);
        }
    }
}

/// rseq registration (since Linux 5.13).
///
/// # Errors
/// `ESRCH` when it is not stopped, `EIO` on older kernels.
pub fn rseq(tid: Pid) -> Result<Option<RseqV1>, Errno> {
    let mut config = RseqConfiguration::default();
    request(GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), (&raw mut config) as usize)?;
    Ok((config.pointer != 0).then_some(RseqV1 {
        addr: Addr(config.pointer),
        len_bytes: config.size,
        signature: config.signature,
    }))
}

/// Whether system calls of the thread are dispatched to itself (Syscall User Dispatch; readable
/// since Linux 6.4).
///
/// # Errors
/// `ESRCH` when it is not stopped.
pub fn has_syscall_user_dispatch(tid: Pid) -> Result<bool, Errno> {
    let mut config = SudConfig::default();
    let data = (&raw mut config) as usize;
    match request(GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of::<SudConfig>(), data) {
        Ok(_) => Ok(config.mode != 0),
        Err(Errno::EIO | Errno::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Classic BPF program of the `index`-th filter, 0 being the one that was installed first (the
/// manual page has it the other way round).
///
/// # Errors
/// `ENOENT` past the last one; `EACCES` without CAP_SYS_ADMIN or when we are filtered ourselves.
pub fn seccomp_filter(tid: Pid, index: usize) -> Result<Vec<u8>, Errno> {
    let mut program = vec![0u8; MAX_FILTER_BYTES];
    let instructions = request(SECCOMP_GET_FILTER, tid, index, program.as_mut_ptr() as usize)?;
    program.truncate(instructions as usize * 8);
    Ok(program)
}

/// SECCOMP_FILTER_FLAG_* of the `index`-th filter.
///
/// # Errors
/// As [`seccomp_filter`].
pub fn seccomp_flags(tid: Pid, index: usize) -> Result<u32, Errno> {
    let mut metadata = SeccompMetadata { filter_off: index as u64, flags: 0 };
    request(SECCOMP_GET_METADATA, tid, size_of::<SeccompMetadata>(), (&raw mut metadata) as usize)?;
    Ok(metadata.flags as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_tells_interrupt_from_group_stop() {
        let stopped = |event: i32, signal: i32| (event << 16) | (signal << 8) | 0x7f;
        assert_eq!(decode(stopped(EVENT_STOP, libc::SIGTRAP)), Wait::Interrupted);
        assert_eq!(decode(stopped(EVENT_STOP, libc::SIGTSTP)), Wait::GroupStop);
        assert_eq!(decode(stopped(0, libc::SIGTRAP | 0x80)), Wait::Syscall);
        assert_eq!(decode(stopped(0, libc::SIGUSR1)), Wait::Signal(libc::SIGUSR1));
        assert_eq!(decode(0), Wait::Exited);
    }
}
