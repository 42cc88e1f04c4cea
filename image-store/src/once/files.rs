//! Names and removal.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::publish::TEMPORARY_PREFIX;
use crate::store::unit_file_name;

/// The name of a unit as a part of a file name.
pub(super) fn file_name(dir: &Path, unit: &str) -> Result<String> {
    unit_file_name(unit).ok_or_else(|| Error::misuse(dir, format!("{unit:?} is not the name of a unit")))
}

pub(super) fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX))
}

/// Gone already is what we want.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "remove", error)),
        _ => Ok(()),
    }
}
