//! The store of this system, with the copy of its catalogue that generators can read.

use std::path::{Path, PathBuf};

use image_store::{DEFAULT_ROOT, Store};

/// Copy of the default store's catalogue on the root file system: generators run before anything
/// else is mounted. It is there only where the store is on another file system.
pub const EARLY_CATALOGUE: &str = "/etc/fastboot/catalogue.json";

/// Name the store at `root`. What is published in the one that a boot uses is copied to
/// [`EARLY_CATALOGUE`] where that is needed.
pub fn open_store(root: impl Into<PathBuf>) -> Store {
    let store = Store::open(root);
    match store.root() == Path::new(DEFAULT_ROOT) {
        true => store.with_early_copy(EARLY_CATALOGUE),
        false => store,
    }
}
