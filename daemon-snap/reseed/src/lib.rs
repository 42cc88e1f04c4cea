//! Makes OpenSSL and libgcrypt seed themselves again after a restore, without the application's
//! help.
//!
//! Both remember their process id with the state of their generator and seed it again when
//! getpid(2) says something else, because that means that they are the child of a fork. A restored
//! process has the id it had. Preloaded (ld.so(8), `LD_PRELOAD`), this library gives these two, and
//! nobody else, another number in each life of the process: one that is drawn when a page that the
//! kernel empties on fork (MADV_WIPEONFORK, since Linux 4.14), and fastboot on restore, is found
//! empty.
//!
//! x86-64 only, as the engine is today.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Beginnings of the file names of libraries that ask for their process id only to find out whether
/// they were forked.
const LIBRARIES: [&[u8]; 3] = [b"libcrypto.so", b"libgcrypt.so", b"fips.so"];
/// Places that call are few: one or two in each library, and those of the application.
const SITES: usize = 64;
const PAGE_BYTES: usize = 4096;
/// In the highest bit of a remembered place, which no address has: it belongs to one of the
/// libraries.
const IN_LIBRARY: usize = 1 << 63;

/// Return addresses, and whether they lie in one of the libraries.
static KNOWN: [AtomicUsize; SITES] = [const { AtomicUsize::new(0) }; SITES];
/// The page that comes back empty.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

/// getpid(2), for everybody in the process.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn getpid() -> libc::pid_t {
    // Hands on who asks.
    core::arch::naked_asm!("mov rdi, [rsp]", "jmp {answer}", answer = sym answer)
}

extern "C" fn answer(caller: usize) -> libc::pid_t {
    // SAFETY: no arguments.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) } as libc::pid_t;
    if is_library(caller) { life().map_or(pid, |life| pid ^ life as libc::pid_t) } else { pid }
}

fn is_library(caller: usize) -> bool {
    for site in &KNOWN {
        match site.load(Ordering::Relaxed) {
            0 => {
                let found = looked_up(caller);
                // When another thread has taken the slot, the next call looks it up again.
                let _ = site.compare_exchange(
                    0,
                    caller | if found { IN_LIBRARY } else { 0 },
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                return found;
            }
            known if known & !IN_LIBRARY == caller => return known & IN_LIBRARY != 0,
            _ => {}
        }
    }
    looked_up(caller)
}

fn looked_up(caller: usize) -> bool {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `info` is live; any address may be asked for.
    let found = unsafe { libc::dladdr(caller as *const c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return false;
    }
    // SAFETY: dladdr(3) gives a string that lives as long as the library.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    LIBRARIES.iter().any(|library| name.starts_with(library))
}

/// A number that is another one after each fork and each restore; never 0. `None` where the kernel
/// has no such pages.
fn life() -> Option<u32> {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let fresh = map_page()?;
        page = match PAGE.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(first) => {
                // SAFETY: the page that was just mapped and that nobody else knows.
                unsafe { libc::munmap(fresh.cast(), PAGE_BYTES) };
                first
            }
        };
    }
    // SAFETY: mapped for ever, aligned.
    let word = unsafe { &*page };
    match word.load(Ordering::Acquire) {
        0 => {
            let drawn = draw()?;
            match word.compare_exchange(0, drawn, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => Some(drawn),
                Err(first) => Some(first),
            }
        }
        known => Some(known),
    }
}

fn map_page() -> Option<*mut AtomicU32> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory at a place of the kernel's choice.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES, prot, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page that was just mapped.
    let wiped = unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) } == 0;
    if !wiped {
        // SAFETY: as above.
        unsafe { libc::munmap(page, PAGE_BYTES) };
        return None;
    }
    Some(page.cast())
}

fn draw() -> Option<u32> {
    let mut bytes = [0u8; 4];
    // SAFETY: a live buffer of that length.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) };
    (got == 4).then(|| u32::from_ne_bytes(bytes) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_no_such_library_gets_the_process_id() {
        assert_eq!(getpid() as u32, std::process::id());
        assert!(!looked_up(looked_up as *const () as usize));
    }

    #[test]
    fn a_life_is_one_number_until_the_page_is_empty() {
        let first = life().unwrap();
        assert_eq!(life(), Some(first));
        // SAFETY: mapped by `life`.
        unsafe { &*PAGE.load(Ordering::Acquire) }.store(0, Ordering::Release);
        // One in two thousand million is the same.
        assert_ne!(life(), Some(first));
    }
}
