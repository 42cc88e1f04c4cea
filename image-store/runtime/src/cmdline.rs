//! The kernel command line, as systemd sees it.

use std::fs;
use std::path::Path;

/// Environment variable that replaces the command line, as for systemd itself (since systemd 245).
pub const ENV: &str = "SYSTEMD_PROC_CMDLINE";

/// The command line: `ENV` where set, the arguments of PID 1 in a container, else `/proc/cmdline`.
///
/// A file that cannot be read counts as empty.
pub fn read(root: &Path) -> String {
    if let Ok(text) = std::env::var(ENV) {
        return text;
    }
    if in_container(root) {
        let arguments = fs::read(root.join("proc/1/cmdline")).unwrap_or_default();
        return join_arguments(&arguments);
    }
    fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default()
}

/// systemd hands the result of its own detection to generators; older versions leave it in a file.
fn in_container(root: &Path) -> bool {
    if let Ok(kind) = std::env::var("SYSTEMD_VIRTUALIZATION") {
        return kind.starts_with("container:");
    }
    let noted = fs::read_to_string(root.join("run/systemd/container"));
    noted.is_ok_and(|kind| !kind.trim().is_empty()) || std::env::var_os("container").is_some()
}

/// NUL-separated arguments without the first, quoted so that [`is_off`] takes each as one word.
fn join_arguments(arguments: &[u8]) -> String {
    let text = String::from_utf8_lossy(arguments);
    let words = text.split('\0').skip(1).filter(|word| !word.is_empty() && !word.contains('"'));
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" ")
}

/// Whether `fastboot=0` (or `no`, `off`, `false`) stands on the command line. The last one counts;
/// a bare `fastboot` means on. In an initial RAM disk `rd.` words belong to it and are not ours.
pub fn is_off(cmdline: &str) -> bool {
    let mut off = false;
    for word in words(cmdline) {
        // Everything after `--` belongs to PID 1's command line only in the kernel's eyes; systemd
        // reads it all.
        match word.split_once('=') {
            Some(("fastboot", value)) => off = is_false(value),
            None if word == "fastboot" => off = false,
            _ => {}
        }
    }
    off
}

fn is_false(value: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].contains(&value.to_ascii_lowercase().as_str())
}

/// Words separated by white space; quotes keep white space and are dropped.
fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in cmdline.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fastboot_0_switches_off_and_the_last_word_counts() {
        assert!(is_off("root=/dev/sda1 fastboot=0 quiet"));
        assert!(is_off("\"fastboot=off\""));
        assert!(is_off("fastboot=1 fastboot=No"));
        assert!(!is_off("fastboot=0 fastboot=1"));
        assert!(!is_off("fastboot=0 fastboot"));
        assert!(!is_off("root=/dev/sda1 notfastboot=0 fastboot.x=0 rd.fastboot=0"));
        assert!(!is_off(""));
    }

    #[test]
    fn words_inside_quotes_are_not_ours() {
        assert!(!is_off("init=\"/bin/sh -c fastboot=0\""));
    }

    #[test]
    fn the_arguments_of_pid_1_are_the_command_line_of_a_container() {
        assert!(is_off(&join_arguments(b"/usr/lib/systemd/systemd\0fastboot=0\0")));
        assert!(!is_off(&join_arguments(b"fastboot=0\0quiet\0")));
    }
}
