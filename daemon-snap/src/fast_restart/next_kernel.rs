//! Which kernel the next boot will start. An image is of today's, and a service that was ended for
//! one that nobody uses has lost what its ordinary stop would have written.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Links to the kernel that boots by default, as Debian's packages and others keep them.
const DEFAULT_KERNELS: [&str; 2] = ["vmlinuz", "boot/vmlinuz"];
const PREFIX: &str = "vmlinuz-";

/// The release of the kernel that will boot by default, if that is another one than `running`, or
/// another build of it: its file has changed since this boot began. `None` also where nobody can
/// tell.
pub(super) fn other_kernel(root: &Path, running: &str, boot_unix_s: i64) -> Option<String> {
    DEFAULT_KERNELS.iter().find_map(|link| {
        let link = root.join(link);
        let target = std::fs::read_link(&link).ok()?;
        let release = target.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        // A link that leads nowhere boots nothing.
        let path = link.parent()?.join(&target);
        let file = std::fs::metadata(&path).ok()?;
        // A machine that got its kernel from elsewhere (a container, a hypervisor) gets the next one
        // from there too.
        std::fs::metadata(path.with_file_name(format!("{PREFIX}{running}"))).ok()?;
        (release != running || file.ctime() > boot_unix_s).then(|| release.to_owned())
    })
}

/// When this boot began, in seconds since 1970; the end of time where that is not known.
pub(super) fn boot_unix_s() -> i64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let began = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    began.unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_upgraded_kernel_is_noticed_by_its_name_and_by_its_file() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(other_kernel(root, "6.12.1", 0), None, "a container has none");
        fs::create_dir(root.join("boot")).unwrap();
        let now_s = {
            fs::write(root.join("boot/vmlinuz-6.12.1"), "").unwrap();
            fs::metadata(root.join("boot/vmlinuz-6.12.1")).unwrap().ctime()
        };
        symlink("boot/vmlinuz-6.12.1", root.join("vmlinuz")).unwrap();
        assert_eq!(other_kernel(root, "6.12.1", now_s + 1), None);
        assert_eq!(other_kernel(root, "6.12.1", now_s - 1).as_deref(), Some("6.12.1"), "another build");
        assert_eq!(other_kernel(root, "6.1.9", now_s + 1), None, "what runs came from elsewhere");
        fs::write(root.join("boot/vmlinuz-6.1.9"), "").unwrap();
        assert_eq!(other_kernel(root, "6.1.9", now_s + 1).as_deref(), Some("6.12.1"));
        fs::remove_file(root.join("boot/vmlinuz-6.12.1")).unwrap();
        assert_eq!(other_kernel(root, "6.1.9", now_s + 1), None, "it boots nothing");
    }
}
