//! What a unit has made in the kernel outside of its processes: rules of packet filters,
//! interfaces, addresses, mounts. An image does not carry it. It is found by looking before the
//! unit is restarted, when it has started, and when its image is taken; what the trial restore
//! makes again is no loss.

use crate::unit::{Cgroup, Systemd, UnitProperties};
use snap_error::{KernelObstacle, Objection, Result};
use snap_kernel_state::{Key, Place, View, configuring_sockets};
use snap_policy::{KernelState, Unit};
use snap_state::Pid;
use std::collections::BTreeSet;

/// Views of the kernel on the unit's way through the snapshot.
#[derive(Debug, Default)]
pub(super) struct KernelWatch {
    /// Before its restart. Whether the unit may change anything there is known only later: so an
    /// error counts only then.
    before: Option<Result<View>>,
    /// What its own restart has made.
    of_start: BTreeSet<Key>,
    /// When all units of the snapshot had started.
    all_started: Option<View>,
    /// What the starts of the other units have made. They may make it once more: their hooks run
    /// when their images have been taken.
    of_others: BTreeSet<Key>,
}

/// What an image does not carry, and what has to become of it.
#[derive(Clone, Debug)]
pub(super) struct KernelClaim {
    made: BTreeSet<Key>,
    /// What was there when the image was taken.
    seen: View,
    state: KernelState,
}

/// What is asked of a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub properties: &'a UnitProperties,
    pub unit: &'a Unit,
    pub cgroup: &'a Cgroup,
}

impl Subject<'_> {
    fn place(&self) -> Result<Place> {
        let main = Pid(self.properties.main_pid);
        Place::of(main, &self.cgroup.processes()?, is_started_as_root(self.properties))
    }
}

fn is_started_as_root(properties: &UnitProperties) -> bool {
    !properties.is_dynamic_user && matches!(properties.user.as_str(), "" | "root" | "0")
}

impl KernelWatch {
    /// The unit is about to be restarted. One that has ended has nowhere left anything but in our
    /// namespaces.
    pub fn before_restart(&mut self, subject: Subject<'_>) {
        let place = subject.place().or_else(|_| Place::ours());
        self.before = Some(place.and_then(|place| View::of(&place.with_all_powers())));
    }

    /// It has started and is quiet.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn has_started(&mut self, subject: Subject<'_>) -> Result<()> {
        let place = subject.place()?;
        if !place.may_change_anything() {
            return Ok(());
        }
        if let Some(before) = self.before.take() {
            self.of_start = View::of(&place)?.made_since(&before?);
        }
        Ok(())
    }

    /// What its own start has made.
    pub fn of_start(&self) -> &BTreeSet<Key> {
        &self.of_start
    }

    /// No unit is restarted any more: what appears from now on may be anybody's. `of_all`: what the
    /// starts of all units have made.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn all_have_started(&mut self, subject: Subject<'_>, of_all: &BTreeSet<Key>) -> Result<()> {
        self.of_others = of_all.difference(&self.of_start).cloned().collect();
        let place = subject.place()?;
        if place.may_change_anything() {
            self.all_started = Some(View::of(&place)?);
        }
        Ok(())
    }

    /// What the unit has made and has now. `is_tried`: a trial restore follows. `is_answered_for`:
    /// of a unit that was not restarted; somebody knows what its start has done.
    ///
    /// # Errors
    /// [`snap_error::Error::NotEligible`] naming it, where nobody would make it again.
    pub fn claim(
        &self,
        subject: Subject<'_>,
        is_tried: bool,
        is_answered_for: bool,
    ) -> Result<Option<KernelClaim>> {
        let place = subject.place()?;
        if !place.may_change_anything() {
            return Ok(None);
        }
        let seen = View::of(&place)?;
        let Some(all_started) = &self.all_started else { return unseen(subject, &seen, is_answered_for) };
        let mut made = &seen.made_since(all_started) - &self.of_others;
        made.extend(self.of_start.iter().cloned());
        seen.retain_present(&mut made);
        let state = subject.unit.options().kernel_state;
        let is_for_trial = is_tried && (state == KernelState::Reload || has_other_commands(subject.unit));
        if made.is_empty() || is_for_trial {
            return Ok(Some(KernelClaim { made, seen, state }));
        }
        let obstacles = match state {
            KernelState::Reload => vec![KernelObstacle::Untried { objects: seen.names(&made) }],
            KernelState::Refuse => seen.obstacles(&made),
        };
        Err(refused(obstacles))
    }
}

/// A unit that nobody has looked at while it started is refused where it is likely to have made
/// something: it may, it keeps a socket for that, and there is something. A service that merely
/// runs as root has no such socket.
fn unseen(subject: Subject<'_>, seen: &View, is_answered_for: bool) -> Result<Option<KernelClaim>> {
    let main = Pid(subject.properties.main_pid);
    let sockets = configuring_sockets(main, &subject.cgroup.processes()?);
    if is_answered_for || sockets.is_empty() || seen.is_empty() {
        return Ok(None);
    }
    let (sockets, objects) = (format!("netlink {}", sockets.join(", ")), seen.names(&seen.keys()));
    Err(refused(vec![KernelObstacle::Unseen { sockets, objects }]))
}

/// What a look at a running unit tells: that it may have made something, and not what.
///
/// # Errors
/// When its control group cannot be read.
pub(super) fn note(subject: Subject<'_>) -> Result<Option<String>> {
    let processes = subject.cgroup.processes()?;
    let sockets = match subject.place() {
        Ok(place) if place.may_change_network() => {
            configuring_sockets(Pid(subject.properties.main_pid), &processes)
        }
        // It has ended meanwhile, or may not do anything.
        _ => Vec::new(),
    };
    Ok((!sockets.is_empty()).then(|| {
        format!(
            "it may set rules, interfaces, addresses and routes, and has a socket for that (netlink {}): a snapshot, which \
             restarts it, refuses it for what it has set",
            sockets.join(", ")
        )
    }))
}

/// Commands that a restored start runs too: what they make is made again.
fn has_other_commands(unit: &Unit) -> bool {
    let settings = unit.settings();
    ["ExecStartPre", "ExecStartPost"].iter().any(|key| settings.all(key).iter().any(|line| !line.is_empty()))
}

impl KernelClaim {
    /// What is there just before the trial, in the place of what was there when the image was
    /// taken: the trial of another unit may have changed it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn look_again(&mut self, subject: Subject<'_>) -> Result<()> {
        self.seen = View::of(&subject.place()?)?;
        Ok(())
    }

    /// Compares with what is there after a restore.
    ///
    /// # Errors
    /// [`snap_error::Error::NotEligible`] naming what is missing, or what has stayed where it would
    /// not stay at a reboot.
    pub fn check(&self, subject: Subject<'_>) -> Result<()> {
        let now = View::of(&subject.place()?)?;
        let lost = now.lost_since(&self.seen);
        if self.state == KernelState::Reload {
            let objects = self.seen.names(&lost);
            return if lost.is_empty() {
                Ok(())
            } else {
                Err(refused(vec![KernelObstacle::Lost { objects }]))
            };
        }
        if !lost.is_empty() {
            return Err(refused(self.seen.obstacles(&lost)));
        }
        // What has only stayed would be gone after a reboot.
        let again = now.made_again(&self.made, &self.seen);
        let stayed: BTreeSet<Key> = self.made.difference(&again).cloned().collect();
        if stayed.is_empty() { Ok(()) } else { Err(refused(now.obstacles(&stayed))) }
    }
}

/// A trial restore between two looks. Where it is refused for what the unit has made, the restored
/// instance is without that: the unit is started once more, cold.
///
/// # Errors
/// Those of the trial, and what [`KernelClaim::check`] says.
pub(super) fn around<T>(
    systemd: &Systemd,
    text: &Unit,
    claim: Option<&mut KernelClaim>,
    trial: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(claim) = claim else { return trial() };
    let id = text.name();
    let look = |look: &mut dyn FnMut(Subject<'_>) -> Result<()>| {
        let properties = systemd.properties(id)?;
        let cgroup = Cgroup::open(&properties.control_group)?;
        look(Subject { properties: &properties, unit: text, cgroup: &cgroup })
    };
    look(&mut |subject| claim.look_again(subject))?;
    let tried = trial()?;
    look(&mut |subject| claim.check(subject)).inspect_err(|_| {
        if let Err(error) = systemd.restart(id) {
            tracing::debug!(%error, id, "it does not start after its trial");
        }
    })?;
    Ok(tried)
}

fn refused(obstacles: Vec<KernelObstacle>) -> snap_error::Error {
    snap_error::Error::NotEligible(obstacles.into_iter().map(Objection::from).collect())
}
