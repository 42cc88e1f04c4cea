//! Whether a service may be taken, as far as systemd's word and the unit's text tell: both are
//! brought into the form that the judge knows (`snap_policy`), which the generator asks too.

use super::UnitProperties;
use image_store::UnitEvidence;
use image_store::evidence::{OWN_DROP_IN, is_own_drop_in};
use snap_error::{Error, Result};
use snap_policy::{ManagerView, Reason, Restorable, SHIM, Surroundings, Unit, judge};
use std::path::{Path, PathBuf};
use unit_search::{UnitDirs, is_executable};

const ROOT: &str = "/";

/// The unit with its text as the generator will find it, not as systemd has found it, and with
/// systemd's word beside it.
///
/// # Errors
/// When a file of it cannot be read.
pub fn read_unit(properties: &UnitProperties) -> Result<Unit> {
    let view = view_of(properties);
    let known: Vec<PathBuf> = view.fragment.iter().chain(&view.drop_ins).cloned().collect();
    Ok(read_text(&properties.id, &known)?.with_manager(view))
}

/// The unit with its text as the generator will find it; `known` are paths of its files as they are
/// spelt elsewhere.
///
/// # Errors
/// When a file of it cannot be read.
pub fn read_text(name: &str, known: &[PathBuf]) -> Result<Unit> {
    let root = Path::new(ROOT);
    let fail = |e: std::io::Error| Error::io("list", "the directories of unit files", &e);
    let located = UnitDirs::read(root).and_then(|dirs| dirs.locate(name)).map_err(fail)?;
    let Ok(mut files) = located else { return Ok(Unit::from_text(name, None, Vec::new())) };
    files.respell(root, known.iter());
    files.read(root, name).map_err(|unread| Error::io("read", unread.path.display(), &unread.source))
}

/// Asks the judge, and whether the unit's program is there.
///
/// # Errors
/// [`Error::Unit`] with every reason.
pub fn judge_unit(unit: &Unit) -> Result<Restorable<'_>> {
    let around = Surroundings {
        shim: SHIM,
        own_drop_in: OWN_DROP_IN,
        has_apparmor: snap_sys::label::is_apparmor_on(),
        is_after_soft_reboot: false,
    };
    let restorable = judge(unit, &around).map_err(Error::Unit)?;
    let program = restorable.line().path;
    if program.starts_with('/') && !is_executable(Path::new(program)) {
        return Err(Error::Unit(vec![Reason::ProgramMissing { program: program.to_owned() }]));
    }
    Ok(restorable)
}

/// What systemd tells, as far as the judge wants to know.
pub fn view_of(unit: &UnitProperties) -> ManagerView {
    ManagerView {
        load_state: unit.load_state.clone(),
        active_state: unit.active_state.clone(),
        sub_state: unit.sub_state.clone(),
        main_pid: unit.main_pid,
        service_type: unit.service_type.clone(),
        exec_start_count: unit.exec_start_count,
        fragment: unit.fragment.clone(),
        drop_ins: unit.drop_ins.iter().filter(|path| !is_own_drop_in(path)).cloned().collect(),
        is_transient: unit.is_transient,
        needs_reload: unit.needs_reload,
        can_restart: unit.can_restart,
        root: unit.root.clone(),
        pam_name: unit.pam_name.clone(),
        has_own_pids: unit.has_own_pids,
        notify_access: unit.notify_access.clone(),
        stored_count: unit.stored_fds,
        listed_count: unit.stored.len(),
    }
}

/// What the unit's files say now, in a few words for comparing; `None` where there are none.
pub fn text_mark(name: &str) -> Option<String> {
    let files = UnitDirs::read(Path::new("/")).ok()?.locate(name).ok()?.ok()?;
    let text = UnitEvidence::collect(Path::new("/"), &files.fragment, &files.drop_ins).ok()?;
    Some(format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_unit_may_have_our_own_drop_in() {
        let unit = UnitProperties {
            stored_fds: 2,
            stored: vec![snap_collect::dump::StoredDescriptor::default()],
            drop_ins: vec![
                "/run/systemd/generator.late/web.service.d/zzzz-fastboot.conf".into(),
                "/etc/systemd/system/web.service.d/zzzz-fastboot.conf".into(),
            ],
            ..UnitProperties::default()
        };
        let view = view_of(&unit);
        assert_eq!((view.stored_count, view.listed_count), (2, 1));
        assert_eq!(view.drop_ins, [PathBuf::from("/etc/systemd/system/web.service.d/zzzz-fastboot.conf")]);
    }
}
