//! Children that have ended and that nobody has waited for: they are born and end once more, before
//! their parent goes on.

use super::plan::Group;
use super::process::Builder;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};
use snap_error::fault::Ended;
use snap_error::{Error, RestoreFault, Result};
use snap_state::{ProcessV1, ZombieV1};
use snap_sys::ending;

impl Builder<'_> {
    /// The life of a zombie.
    ///
    /// # Errors
    /// Ids or group cannot be taken on.
    pub fn become_zombie(
        &self,
        zombie: &ZombieV1,
        own_session: bool,
        group: Group,
    ) -> Result<std::convert::Infallible> {
        self.forget_go();
        if own_session {
            setsid().map_err(|e| Error::kernel("setsid", zombie.pid, e))?;
        }
        self.join_group(zombie.pid, zombie.pgid, group)?;
        ending::set_name(&zombie.comm);
        let failed = |step| move |e| Error::kernel(step, zombie.pid, e);
        let groups: Vec<Gid> = zombie.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(failed("setgroups"))?;
        let [real, effective, saved] = zombie.gids.map(Gid::from_raw);
        setresgid(real, effective, saved).map_err(failed("setresgid"))?;
        let [real, effective, saved] = zombie.uids.map(Uid::from_raw);
        setresuid(real, effective, saved).map_err(failed("setresuid"))?;
        ending::end_like(zombie.status)
    }

    /// Waits until the children of a process that are zombies have ended as they did then, and
    /// takes away the signals of that: those of then that are still pending are queued by the tape.
    /// The handlers of the process are not set yet, so nothing is reaped by itself.
    ///
    /// # Errors
    /// One of them ended otherwise.
    pub fn await_zombies(&self, process: &ProcessV1) -> Result<()> {
        let bit = |signal: i32| if signal == 0 { 0 } else { 1u64 << (signal - 1) };
        let mut signals = 0;
        for zombie in self.tree.zombies.iter().filter(|zombie| zombie.parent == process.pid) {
            let status =
                ending::await_end(zombie.pid.0).map_err(|e| Error::kernel("waitid", zombie.pid, e))?;
            if status != zombie.status {
                let (process, wanted) = (Ended::Zombie(zombie.pid), zombie.status);
                return Err(RestoreFault::EndedOtherwise { process, status, wanted }.into());
            }
            // An orphan of another one sends SIGCHLD when it comes to its new parent.
            signals |= bit(zombie.exit_signal) | bit(libc::SIGCHLD);
        }
        if signals != 0 {
            ending::drop_pending(signals);
        }
        Ok(())
    }
}
