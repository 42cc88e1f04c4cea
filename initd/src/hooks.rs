//! What a service does before systemd hears that it runs again: `AfterRestore=`, and processes that
//! asked to be told.

use std::time::Instant;

use image_store::CatalogueEntry;
use snap_error::hook::HookFailure;
use snap_hook_calls::{HOOK_TIMEOUT, HookEvent, Hooks};

/// Call them. The whole start has until `deadline`, hooks included.
///
/// # Errors
/// The one that failed; the service must not go on then.
pub fn after_restore(entry: &CatalogueEntry, main_pid: i32, deadline: Instant) -> Result<(), HookFailure> {
    let service = &entry.service;
    let hooks = Hooks {
        unit: &entry.unit,
        main_pid,
        commands: &service.after_restore,
        channels: &service.hook_channels,
    };
    hooks.call(HookEvent::AfterRestore, deadline.min(Instant::now() + HOOK_TIMEOUT))
}
