//! The machine that the tests run on: which release it is, and what it is called in reports.

use anyhow::{Context as _, Result};

/// Debian's name of the release that runs here, as `bookworm`.
pub fn codename() -> Option<String> {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    field(&os_release, "VERSION_CODENAME", '=').map(str::to_owned)
}

/// Write out what is dirty and forget all clean pages, so that the next boot reads from the disk.
///
/// # Errors
/// /proc/sys is not writable.
pub fn drop_page_cache() -> Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3\n").context("dropping the page cache")
}

/// One line that names CPU, cores, memory, kernel and distribution.
pub fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = field(&cpuinfo, "model name", ':').unwrap_or("unknown CPU").to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_gib = field(&read("/proc/meminfo"), "MemTotal", ':')
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / f64::from(1 << 20));
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let os_release = read("/etc/os-release");
    let system =
        field(&os_release, "PRETTY_NAME", '=').unwrap_or("unknown system").trim_matches('"').to_owned();
    format!("{cpu}, {cores} cores, {memory_gib:.0} GiB, Linux {kernel}, {system}")
}

/// The value of the first line `name<separator>value`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_first_line_with_that_name() {
        let text = "model : 1\nmodel name\t: Some CPU @ 2 GHz\nmodel name : other\n";
        assert_eq!(field(text, "model name", ':'), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags", ':'), None);
    }
}
