//! Lines of `mountinfo` (proc_pid_mountinfo(5)), byte for byte: whoever mounts something chooses
//! its name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount, of its own namespace.
    pub id: u32,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where, as the reader of the file sees it.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// What it was mounted from, as the file system tells it.
    pub source: OsString,
}

/// All mounts of a text, in the kernel's order: of two at one place the later one is seen. What is
/// no such line is left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    // Between them and the separator there are optional fields.
    let [id, _, device, root, point, _, ..] = words[..] else { return None };
    let behind = words.iter().position(|word| *word == b"-")? + 1;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(Mount {
        id: std::str::from_utf8(id).ok()?.parse().ok()?,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: PathBuf::from(unescaped(root)),
        point: PathBuf::from(unescaped(point)),
        kind: String::from_utf8_lossy(words.get(behind)?).into_owned(),
        source: unescaped(words.get(behind + 1).copied().unwrap_or_default()),
    })
}

/// Blank, tab, newline, backslash and number sign are written as three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_is_taken_apart_with_and_without_optional_fields() {
        let text = b"31 24 0:27 /a /mnt/a rw,relatime shared:5 master:1 - tmpfs none rw,size=1024k\n\
                     32 24 254:1 / / rw - ext4 /dev/vda1 rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        let Mount { id, device, root, point, kind, source } = &mounts[0];
        assert_eq!((*id, *device, kind.as_str()), (31, (0, 27), "tmpfs"));
        assert_eq!((root.as_path(), point.as_path()), (Path::new("/a"), Path::new("/mnt/a")));
        assert_eq!(source, "none");
        assert_eq!((mounts[1].device, mounts[1].kind.as_str()), ((254, 1), "ext4"));
    }

    #[test]
    fn names_come_out_as_the_bytes_that_they_are() {
        let text = b"1 2 0:3 / /my\\040site/\\134040\xff rw - nfs4 host:/a\\011b rw\n";
        let mounts = parse(text);
        assert_eq!(mounts[0].point.clone().into_os_string().into_vec(), b"/my site/\\040\xff");
        assert_eq!(mounts[0].source.clone().into_vec(), b"host:/a\tb");
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        assert_eq!(parse(b"\n1 2\n1 2 0:3 / /a rw ext4 /dev/a rw\nx 2 0:3 / /a rw - ext4 a rw\n"), []);
    }

    #[test]
    fn our_own_mounts_are_found() {
        let mounts = parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        assert!(mounts.iter().any(|mount| mount.point == Path::new("/proc") && mount.kind == "proc"));
    }
}
