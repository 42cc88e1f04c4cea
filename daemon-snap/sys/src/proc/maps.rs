//! `/proc/PID/smaps`: areas with their flags.

use super::unreadable;
use snap_error::Result;
use snap_state::Addr;

/// One area of an address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsEntry {
    pub start: Addr,
    pub end: Addr,
    /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
    pub prot: u8,
    pub shared: bool,
    pub offset: u64,
    /// `MAJOR:MINOR` as the kernel writes it.
    pub dev: Vec<u8>,
    pub ino: u64,
    /// Path or bracketed name, escapes resolved; empty for plain anonymous memory.
    pub name: Vec<u8>,
    /// Two-letter flags of the `VmFlags` line.
    pub flags: Vec<[u8; 2]>,
    pub protection_key: u32,
    /// Anonymous pages present or swapped, in KiB (`Anonymous` and `Swap` together).
    pub own_kib: u64,
}

impl MapsEntry {
    /// Whether `VmFlags` has this flag.
    pub fn has(&self, flag: &[u8; 2]) -> bool {
        self.flags.contains(flag)
    }
}

/// Areas in ascending order.
///
/// # Errors
/// When the text is not that of smaps.
pub fn parse_smaps(text: &[u8]) -> Result<Vec<MapsEntry>> {
    let mut entries: Vec<MapsEntry> = Vec::with_capacity(text.len() / 700 + 1);
    for line in text.split(|&b| b == b'\n') {
        // Headers start with a hexadecimal digit in lower case, attributes with a capital.
        match line.first() {
            Some(b'0'..=b'9' | b'a'..=b'f') => {
                let entry = header(line).ok_or_else(|| unreadable("maps", String::from_utf8_lossy(line)))?;
                entries.push(entry);
            }
            Some(b'V') => {
                if let (Some(flags), Some(entry)) = (line.strip_prefix(b"VmFlags:"), entries.last_mut()) {
                    let words = flags.split(|&b| b == b' ').filter_map(|word| word.try_into().ok());
                    entry.flags = words.collect();
                }
            }
            Some(b'A' | b'S') => {
                let value = line.strip_prefix(b"Anonymous:").or_else(|| line.strip_prefix(b"Swap:"));
                if let (Some(value), Some(entry)) = (value, entries.last_mut()) {
                    let kib = std::str::from_utf8(value).ok().and_then(|v| v.trim().strip_suffix(" kB"));
                    let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
                    entry.own_kib += kib.ok_or_else(|| unreadable("maps", "a size"))?;
                }
            }
            Some(b'P') => {
                if let (Some(key), Some(entry)) = (line.strip_prefix(b"ProtectionKey:"), entries.last_mut()) {
                    let key = std::str::from_utf8(key).ok().and_then(|key| key.trim().parse().ok());
                    entry.protection_key = key.ok_or_else(|| unreadable("maps", "a protection key"))?;
                }
            }
            _ => {}
        }
    }
    Ok(entries)
}

fn header(line: &[u8]) -> Option<MapsEntry> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut text = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let (start, end) = text()?.split_once('-')?;
    let perms = text()?.as_bytes();
    let offset = hex(text()?)?;
    let dev = text()?.as_bytes().to_vec();
    let ino = text()?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    let bit = |index: usize, value: u8| if perms.get(index) == Some(&b'-') { 0 } else { value };
    Some(MapsEntry {
        start: Addr(hex(start)?),
        end: Addr(hex(end)?),
        prot: bit(0, 1) | bit(1, 2) | bit(2, 4),
        shared: perms.get(3) == Some(&b's'),
        offset,
        dev,
        ino,
        name: unescaped(name),
        flags: Vec::new(),
        protection_key: 0,
        own_kib: 0,
    })
}

/// Newlines in paths are written as `\012`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = after;
        } else {
            plain.push(rest[0]);
            rest = &rest[1..];
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_headers_and_flags_are_understood() {
        let text = b"7f0000000000-7f0000002000 rw-s 00001000 08:02 1234                   /a b\\012c (deleted)\n\
                     Size:                  8 kB\nAnonymous:             4 kB\nSwap: 8 kB\nProtectionKey:         3\nVmFlags: rd wr sh mr mw me ms sd \n\
                     7ffd000-7ffe000 r-xp 00000000 00:00 0                          [vdso]\nVmFlags: rd ex \n";
        let entries = parse_smaps(text).unwrap();
        assert_eq!(entries.len(), 2);
        let first = &entries[0];
        assert_eq!((first.start, first.end), (Addr(0x7f00_0000_0000), Addr(0x7f00_0000_2000)));
        assert_eq!((first.prot, first.shared, first.offset, first.ino), (3, true, 4096, 1234));
        assert_eq!(first.name, b"/a b\nc (deleted)");
        assert_eq!((first.protection_key, first.own_kib), (3, 12));
        assert!(first.has(b"mw") && !first.has(b"gd"));
        assert_eq!(entries[1].name, b"[vdso]");
        assert_eq!((entries[1].prot, entries[1].shared), (5, false));
    }
}
