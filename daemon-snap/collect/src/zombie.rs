//! Children that have ended and that nobody has waited for.

use crate::blockers::Blockers;
use crate::freeze::Stopped;
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Part, Result};
use snap_state::{ZombieV1, can_end_so};
use snap_sys::proc::Status;

/// What their parents can still learn of them.
pub(crate) fn collect_zombies(stopped: &Stopped, blockers: &mut Blockers) -> Result<Vec<ZombieV1>> {
    let processes = stopped.processes();
    let mut zombies = Vec::new();
    for (pid, stat) in stopped.zombies() {
        if !can_end_so(stat.exit_code) {
            let obstacle = ProcessObstacle::ZombieCoreDump { status: stat.exit_code };
            blockers.add(pid, Part::Process, obstacle);
            continue;
        }
        // Its members could only have been born by it.
        if let Some(&(member, _)) = processes.iter().find(|(_, other)| other.sid == pid) {
            blockers.add(pid, Part::Process, ProcessObstacle::ZombieSessionLeader { member });
        }
        let Status { comm, uids, gids, groups, .. } = Status::of(pid, pid)?;
        let three = |[real, effective, saved, _]: [u32; 4]| [real, effective, saved];
        zombies.push(ZombieV1 {
            pid,
            parent: stat.ppid,
            pgid: stat.pgid,
            sid: stat.sid,
            exit_signal: stat.exit_signal,
            status: stat.exit_code,
            comm,
            uids: three(uids),
            gids: three(gids),
            groups,
        });
    }
    Ok(zombies)
}
