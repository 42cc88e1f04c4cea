//! Lines about file locks, in `/proc/locks` and in `/proc/PID/fdinfo/FD`.

use snap_state::Pid;

/// `1: POSIX  ADVISORY  WRITE 359 fe:00:2048 3 7`, without its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockLine {
    pub class: LockClass,
    pub exclusive: bool,
    /// Who took it; -1 for locks of open file descriptions, 0 for somebody outside our PID
    /// namespace.
    pub pid: Pid,
    /// `MAJOR:MINOR:INODE` as the kernel writes it.
    pub object: String,
    pub start: u64,
    /// Last byte; `None` is `EOF`.
    pub last: Option<u64>,
}

/// What kind of lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockClass {
    Posix,
    Ofd,
    Flock,
    /// A lease, a delegation, a layout: somebody is told when others open the file.
    Lease,
}

impl LockLine {
    /// `None` when the line is of no kind that is known.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let class = match words.next()? {
            "POSIX" => LockClass::Posix,
            "OFDLCK" => LockClass::Ofd,
            "FLOCK" => LockClass::Flock,
            "LEASE" | "DELEG" | "LAYOUT" => LockClass::Lease,
            _ => return None,
        };
        let mut words = words.skip(1);
        let exclusive = match words.next()? {
            "WRITE" => true,
            "READ" => false,
            // A lease that is being broken.
            "UNLCK" if class == LockClass::Lease => false,
            _ => return None,
        };
        let pid = Pid(words.next()?.parse().ok()?);
        let object = words.next()?.to_owned();
        let start = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => None,
            number => Some(number.parse().ok()?),
        };
        Some(Self { class, exclusive, pid, object, start, last })
    }
}

/// The locks that `/proc/locks` lists, those that are waited for left out.
///
/// # Errors
/// The file cannot be read.
pub fn locks_of_all() -> std::io::Result<Vec<LockLine>> {
    let text = std::fs::read_to_string("/proc/locks")?;
    Ok(text.lines().filter_map(LockLine::parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_lines_are_understood() {
        let line = LockLine::parse("\t2: POSIX  ADVISORY  WRITE 3943854 fe:00:10027079 3 7").unwrap();
        assert_eq!((line.class, line.exclusive, line.pid), (LockClass::Posix, true, Pid(3_943_854)));
        assert_eq!((line.object.as_str(), line.start, line.last), ("fe:00:10027079", 3, Some(7)));
        let line = LockLine::parse("\t3: OFDLCK ADVISORY  READ -1 fe:00:10027079 100 EOF").unwrap();
        assert_eq!((line.class, line.exclusive, line.pid), (LockClass::Ofd, false, Pid(-1)));
        assert_eq!(line.last, None);
        assert_eq!(
            LockLine::parse("4: LEASE  ACTIVE    WRITE 7 fe:00:1 0 EOF").unwrap().class,
            LockClass::Lease
        );
        assert_eq!(LockLine::parse("1: -> POSIX  ADVISORY  WRITE 7 fe:00:1 0 EOF"), None);
    }
}
