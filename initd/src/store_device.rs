//! Whether the device that the images are on is known to the kernel, as far as fstab(5) tells.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

const FSTAB: &str = "/etc/fstab";

/// What is known of the device below a directory that is not mounted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The kernel has it; its file system can be mounted.
    Known,
    /// fstab names it, and no device is called so or bears that label or UUID.
    Missing,
    /// fstab names none: a mount unit may, or the directory is on the root file system.
    NotNamed,
}

/// Ask findmnt(8), which reads fstab and looks into the kernel's devices itself: udev's links come
/// later than the devices.
pub fn look(dir: &Path) -> Device {
    look_in(Path::new(FSTAB), dir)
}

fn look_in(fstab: &Path, dir: &Path) -> Device {
    // The root is mounted.
    let below_root = dir.ancestors().filter(|ancestor| ancestor.parent().is_some());
    below_root.into_iter().find_map(|point| source(fstab, point)).map_or(Device::NotNamed, |source| {
        // For a tag that belongs to no device nothing is printed, or (newer findmnt) the tag as it
        // is in fstab.
        let is_device = source.starts_with('/') && Path::new(&source).exists();
        if is_device { Device::Known } else { Device::Missing }
    })
}

/// What `fstab` mounts on `point`, tags such as `LABEL=` replaced by the device that has them.
/// `None` when nothing is.
fn source(fstab: &Path, point: &Path) -> Option<String> {
    let findmnt = Command::new("findmnt")
        .args([OsStr::new("--tab-file"), fstab.as_os_str(), OsStr::new("--mountpoint"), point.as_os_str()])
        .args(["--evaluate", "--noheadings", "--raw", "--output", "SOURCE"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let source = String::from_utf8(findmnt.stdout).ok()?.trim().to_owned();
    findmnt.status.success().then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(line: &str) -> Device {
        let fstab = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(fstab.path(), format!("LABEL=other /srv ext4 defaults 0 0\n{line}\n")).unwrap();
        look_in(fstab.path(), Path::new("/var/lib/fastboot"))
    }

    #[test]
    fn a_label_that_no_device_has_is_missing() {
        assert_eq!(look_at("LABEL=no-such-label-here /var/lib/fastboot ext4 nofail 0 0"), Device::Missing);
        assert_eq!(look_at("/dev/no-such-disk /var/lib/fastboot ext4 nofail 0 0"), Device::Missing);
    }

    #[test]
    fn a_device_that_is_there_is_known_also_for_a_directory_above() {
        assert_eq!(look_at("/dev/null /var/lib/fastboot ext4 nofail 0 0"), Device::Known);
        assert_eq!(look_at("/dev/null /var ext4 nofail 0 0"), Device::Known);
    }

    #[test]
    fn a_directory_that_fstab_does_not_name_says_nothing() {
        assert_eq!(look_at(""), Device::NotNamed);
        assert_eq!(look_at("/dev/null / ext4 defaults 0 1"), Device::NotNamed);
    }
}
