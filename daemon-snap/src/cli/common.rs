//! What several commands share: the store's place, unit names, figures.

use image_store::{DEFAULT_ROOT, Store};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FAILED: i32 = 1;

/// `println!` for readers that may have had enough (`| head`).
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::common::say_line(format_args!($($arg)*)) };
}

/// One line of output.
pub fn say_line(line: fmt::Arguments<'_>) {
    say_text(&format!("{line}\n"));
}

/// Lines of output. That nobody reads them is no failure; that they cannot be written is one.
pub fn say_text(text: &str) {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("fastboot: output cannot be written: {error}");
            std::process::exit(FAILED);
        }
        _ => {}
    }
}

/// Arguments that every command about the store takes.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// Where images are kept; a boot looks into /var/lib/fastboot only
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl StoreArgs {
    pub fn open(&self) -> Store {
        fastboot_runtime::open_store(self.store.clone())
    }

    pub fn path(&self) -> &Path {
        &self.store
    }

    /// Whether a boot looks for images there.
    pub fn is_of_boots(&self) -> bool {
        self.store == Path::new(DEFAULT_ROOT)
    }

    /// For people.
    pub fn say_empty(&self) {
        say!("there are no images in {}", self.store.display());
    }
}

/// The full name of a service, for arguments: `nginx` means `nginx.service`, as in systemctl.
///
/// # Errors
/// For what cannot be the name of one; nothing has been done then.
pub fn service_name(name: &str) -> Result<String, String> {
    /// Suffixes of the other kinds of units.
    const OTHERS: [&str; 10] =
        ["socket", "target", "timer", "mount", "automount", "path", "slice", "scope", "device", "swap"];
    let is_unit_byte = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_unit_byte) {
        return Err("no unit has such a name".to_owned());
    }
    match name.rsplit_once('.') {
        Some((stem, kind)) if OTHERS.contains(&kind) => {
            Err(format!("only services have images, and this is a {kind}; is {stem}.service meant?"))
        }
        _ => Ok(daemon_snap::unit::full_name(name)),
    }
}

/// Its name in a sentence.
pub fn short(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

/// Bytes as MB with one decimal.
pub fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Milliseconds, or a dash for what was not measured.
pub fn ms(value: Option<f64>) -> String {
    value.map_or_else(dash, |ms| format!("{ms:.0}"))
}

/// What was not measured.
pub fn dash() -> String {
    "–".to_owned()
}

/// Before anything is said or done: what follows would fail half way.
///
/// # Errors
/// For everybody but root.
pub fn require_root(what: &str) -> anyhow::Result<()> {
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(anyhow::Error::new(denied).context(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_kind_of_unit_is_no_service() {
        assert_eq!(service_name("nginx").unwrap(), "nginx.service");
        assert_eq!(service_name("a@b.service").unwrap(), "a@b.service");
        assert_eq!(service_name("php8.2-fpm").unwrap(), "php8.2-fpm.service");
        let said = service_name("epmd.socket").unwrap_err();
        assert!(said.contains("this is a socket") && said.contains("epmd.service"), "{said}");
        for name in ["", ".hidden", "a b", "a/b.service", "*"] {
            service_name(name).unwrap_err();
        }
    }
}
