//! What several commands share: the store's place, unit names, tables.

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use image_store::{DEFAULT_ROOT, Store};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FAILED: i32 = 1;

/// `println!` for readers that may have had enough (`| head`).
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::common::say_line(format_args!($($arg)*)) };
}

/// One line of output. That nobody reads it is no failure; that it cannot be written is one.
pub fn say_line(line: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("fastboot: output cannot be written: {error}");
            std::process::exit(FAILED);
        }
        _ => {}
    }
}

/// Arguments that every command about the store takes.
#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Where images are kept
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

    /// For people.
    pub fn say_empty(&self) {
        say!("there are no images in {}", self.store.display());
    }
}

/// `nginx` means `nginx.service`, as in systemctl.
pub fn unit_names(names: &[String]) -> Vec<String> {
    names.iter().map(|name| daemon_snap::unit::full_name(name)).collect()
}

/// A table with a heading row.
pub fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(heading);
    table
}

/// Bytes as MB with one decimal.
pub fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Milliseconds, or a dash.
pub fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}"))
}
