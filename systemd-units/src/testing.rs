//! A unit for tests of what becomes of units.

use std::path::PathBuf;

use snap_policy::{Restorable, Surroundings, TextFile, Unit, judge};

/// Judge a unit that consists of this text.
pub(crate) fn with_restorable<T>(text: &str, use_it: impl FnOnce(&Restorable<'_>) -> T) -> T {
    let path = PathBuf::from("/etc/systemd/system/a.service");
    let unit = Unit::from_text("a.service", Some(TextFile { path, text: text.to_owned() }), Vec::new());
    let around = Surroundings {
        shim: "/shim",
        own_drop_in: "zzzz-fastboot.conf",
        has_apparmor: true,
        is_after_soft_reboot: false,
    };
    use_it(&judge(&unit, &around).unwrap())
}
