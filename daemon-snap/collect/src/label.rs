//! Labels of security modules. An AppArmor profile is taken again at the end of a restore; others
//! cannot be.

use crate::blockers::{Found, refused};
use crate::member::Member;
use snap_error::obstacle::SandboxObstacle;
use snap_error::{Error, Result};
use snap_state::{ConfinementV1, MAX_PROFILE_BYTES, Pid, RawPath};
use snap_sys::label::{self, APPARMOR_CURRENT, text_of};
use snap_sys::proc;
use std::path::Path;

/// Our own label, with which a restored process begins.
#[derive(Debug)]
pub(crate) struct Labels {
    /// `None`: no security module keeps labels.
    own: Option<Vec<u8>>,
}

impl Labels {
    pub fn new() -> Self {
        Self { own: proc::read(Pid(std::process::id() as i32), "attr/current").ok() }
    }

    /// The profile that a process has to be given; `None` where it has the label that it begins
    /// with.
    pub fn profile_of(&self, member: &Member) -> Found<Option<String>> {
        let Some(own) = &self.own else { return Ok(None) };
        let pid = member.pid;
        let theirs = proc::read(pid, "attr/current")?;
        for (tid, _) in member.threads.iter().filter(|(tid, _)| *tid != pid) {
            if proc::read_task(pid, *tid, "attr/current")? != theirs {
                return refused(SandboxObstacle::LabelDiffers);
            }
        }
        let text = text_of(&theirs);
        if theirs == *own || text.is_empty() {
            return Ok(None);
        }
        if proc::read(pid, APPARMOR_CURRENT).ok().as_ref() != Some(&theirs) {
            return refused(SandboxObstacle::LabelForeign { label: text });
        }
        match profile_name(&text) {
            None => refused(SandboxObstacle::NotOneProfile { label: text }),
            Some(_) if !label::can_change_profile() => {
                refused(SandboxObstacle::ProfileNotFromInside { label: text })
            }
            Some(name) => Ok(Some(name.to_owned())),
        }
    }
}

/// Of `NAME (MODE)`.
fn profile_name(label: &str) -> Option<&str> {
    let (name, mode) = label.rsplit_once(" (")?;
    let is_one = mode.ends_with(')') && !name.is_empty() && name.len() <= MAX_PROFILE_BYTES;
    // A stack of profiles; one of another policy namespace.
    (is_one && !name.contains("//&") && !name.starts_with(':') && !name.contains('\0')).then_some(name)
}

/// What a cold start of `program` is confined to; `None` without AppArmor.
///
/// # Errors
/// [`Error::Kernel`] when the program cannot be executed.
pub fn collect_confinement(program: &Path) -> Result<Option<ConfinementV1>> {
    if !label::is_apparmor_on() {
        return Ok(None);
    }
    let label = label::of_executed(program)
        .map_err(|e| Error::kernel("find out the AppArmor label", program.display(), e))?;
    Ok(Some(ConfinementV1 { program: RawPath::from_path(program), label }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_are_found_in_labels() {
        assert_eq!(profile_name("/usr/sbin/cupsd (enforce)"), Some("/usr/sbin/cupsd"));
        assert_eq!(profile_name("a (b)//hat (complain)"), Some("a (b)//hat"));
        assert_eq!(profile_name("unconfined"), None);
        assert_eq!(profile_name("a//&b (enforce)"), None);
        assert_eq!(profile_name(":ns:a (enforce)"), None);
    }
}
