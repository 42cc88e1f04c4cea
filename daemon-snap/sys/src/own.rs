//! What a process under construction reads and sets about itself, through raw system calls.

use nix::errno::Errno;
use snap_state::SigActionV1;

unsafe extern "C" {
    /// Where this thread's area lies, seen from the thread pointer (glibc 2.35). Named by linking
    /// and not looked up by dlsym(3), which finds nothing in a program without shared libraries.
    static __rseq_offset: isize;
    /// Length of the area, 0 when glibc has not registered one.
    static __rseq_size: libc::c_uint;
}

/// Undoes glibc's rseq registration of this thread, whose memory is about to go away (rseq(2),
/// since Linux 4.18).
///
/// # Errors
/// The kernel refuses; the process must not go on.
pub fn unregister_rseq() -> Result<(), Errno> {
    const SIGNATURE: u32 = 0x5305_3053;
    const UNREGISTER: i32 = 1;
    // SAFETY: glibc documents both as constants that its start-up code has set: ptrdiff_t and
    // unsigned int.
    let (offset, size) = unsafe { (__rseq_offset, __rseq_size) };
    if size == 0 {
        return Ok(());
    }
    let thread_pointer: usize;
    // SAFETY: on x86-64 glibc keeps the thread pointer at FS:0.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) thread_pointer) };
    let area = thread_pointer.wrapping_add_signed(offset);
    // The length that glibc registered is not published before 2.40; the kernel wants exactly that
    // one.
    for len in [32, size.next_multiple_of(32), size, 64, 96, 128] {
        // SAFETY: unregistering makes the kernel forget the area; a wrong length is refused without
        // effect.
        let done = unsafe { libc::syscall(libc::SYS_rseq, area, len, UNREGISTER, SIGNATURE) };
        if done == 0 {
            return Ok(());
        }
        if Errno::last() != Errno::EINVAL {
            break;
        }
    }
    Err(Errno::last())
}

#[repr(C)]
struct KernelSigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Sets the handler of a signal exactly as recorded; `None` is SIG_DFL (rt_sigaction(2), raw
/// because libc adds its own restorer). All signals must be blocked.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn set_signal_action(signal: i32, action: Option<&SigActionV1>) -> Result<(), Errno> {
    let raw = action.map_or(KernelSigAction { handler: 0, flags: 0, restorer: 0, mask: 0 }, |a| {
        KernelSigAction { handler: a.handler.0, flags: a.flags, restorer: a.restorer.0, mask: a.mask }
    });
    // SAFETY: `raw` is the kernel's layout and live; handlers of another address space cannot run
    // because every signal stays blocked until that address space is in place.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const raw, 0usize, 8usize) })
        .map(drop)
}

/// Blocks every signal in this thread.
pub fn block_all_signals() {
    let all = u64::MAX;
    // SAFETY: a 64-bit mask that is live; raw so that libc's reserved signals are blocked too.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, 8usize) };
}

/// The signal mask of this thread.
pub fn signal_mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: reads into a live 64-bit word.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0usize, &raw mut mask, 8usize) };
    mask
}

/// Sets the signal mask of this thread.
pub fn set_signal_mask(mask: u64) {
    // SAFETY: a 64-bit mask that is live.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0usize, 8usize) };
}

/// Effective and bounding capability sets of this thread, bit n is capability n.
///
/// # Errors
/// capget(2) or prctl(2) fails.
pub fn capabilities() -> Result<(u64, u64), Errno> {
    let set = |set| -> Result<u64, Errno> {
        let caps = caps::read(None, set).map_err(|_| Errno::last())?;
        Ok(caps.iter().fold(0, |mask, cap| mask | cap.bitmask()))
    };
    Ok((set(caps::CapSet::Effective)?, set(caps::CapSet::Bounding)?))
}

/// How a kind of speculation is set for this thread (PR_GET_SPECULATION_CTRL); `None` where it
/// cannot be.
pub fn speculation(which: u32) -> Option<u32> {
    const PR_GET_SPECULATION_CTRL: i32 = 52;
    const PR_SPEC_PRCTL: u32 = 1;
    let which = libc::c_ulong::from(which);
    // SAFETY: no pointers.
    let found = unsafe { libc::prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0) };
    u32::try_from(found).ok().filter(|found| found & PR_SPEC_PRCTL != 0)
}

/// CPU mask of a thread (0: this one), 64 CPUs a word.
///
/// # Errors
/// The thread is gone.
pub fn affinity(tid: i32) -> Result<Vec<u64>, Errno> {
    let mut mask = vec![0u64; 128];
    // SAFETY: the buffer is live and its size is given in bytes.
    let got = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid, mask.len() * 8, mask.as_mut_ptr()) };
    let bytes = Errno::result(got)? as usize;
    mask.truncate(bytes.div_ceil(8));
    Ok(mask)
}

/// Whether orphans of this process's descendants come to it (prctl(2), since Linux 3.4).
pub fn become_subreaper(on: bool) {
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on), 0, 0, 0) };
}

/// A number that nobody has drawn before, and no secret: it is given also before the kernel has
/// gathered randomness enough for secrets (GRND_INSECURE, since Linux 5.6), and without it the clock
/// serves.
pub fn draw() -> u32 {
    let mut bytes = [0u8; 4];
    // SAFETY: a live buffer of that length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_INSECURE) };
    if got == bytes.len() as isize {
        return u32::from_ne_bytes(bytes);
    }
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    (now.as_secs() as u32).rotate_left(16) ^ now.subsec_nanos()
}

/// Bytes of a mapping of this process that is known to be readable and never to change (the vDSO).
pub fn read_mapped(range: std::ops::Range<u64>) -> Vec<u8> {
    // SAFETY: the caller took the range from our own /proc/self/maps, where it is listed as
    // readable; vDSO code is never unmapped while this runs.
    unsafe { std::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize) }
        .to_vec()
}
