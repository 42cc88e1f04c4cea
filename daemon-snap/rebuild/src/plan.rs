//! Who creates whom, and in which order. Pure: state in, order out.
//!
//! The kernel gives a child its parent's session at the moment of the fork, and a session only by
//! `setsid`. So a child of an older session is forked before its parent's `setsid`, others after. A
//! session whose leader is dead (every daemon that forked twice) gets a temporary leader with that
//! id, which ends when its members exist.

use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::{Pid, ProcessV1, ZombieV1};
use std::collections::{HashMap, HashSet};

/// Something to fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Birth {
    /// A recorded process: index into the processes of the tree.
    Process { index: usize, before_setsid: Vec<Birth>, setsid: bool, after_setsid: Vec<Birth>, group: Group },
    /// Born to end: index into its zombies.
    Zombie { index: usize, setsid: bool, group: Group },
    /// A temporary session leader.
    Leader { sid: Pid, members: Vec<Birth> },
}

/// How a process gets into its process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Already there by `setsid` or by birth.
    Inherited,
    /// `setpgid(0, 0)`.
    Own,
    /// Joins a group whose leader is alive or that another member makes.
    Join(Pid),
    /// The leader is dead: a short-lived process makes the group.
    Make(Pid),
}

/// Plans the births that the restore worker itself performs. `own_sid` and `own_pgid` are the
/// worker's.
///
/// # Errors
/// A recorded session or group belonged to a process outside the tree that is not ours either.
pub fn plan(
    processes: &[ProcessV1],
    zombies: &[ZombieV1],
    own_sid: Pid,
    own_pgid: Pid,
) -> Result<Vec<Birth>> {
    let mut planner = Planner {
        processes,
        zombies,
        children: HashMap::new(),
        // A zombie keeps its group open.
        alive: processes.iter().map(|p| p.pid).chain(zombies.iter().map(|z| z.pid)).collect(),
        made: HashSet::new(),
    };
    for (index, process) in processes.iter().enumerate() {
        planner.children.entry(process.parent).or_default().push(Child::Process(index));
    }
    for (index, zombie) in zombies.iter().enumerate() {
        planner.children.entry(Some(zombie.parent)).or_default().push(Child::Zombie(index));
    }
    // wait(2) finds the oldest first.
    for children in planner.children.values_mut() {
        children.sort_by_key(|child| child.ids(processes, zombies).pid);
    }
    let roots = planner.children.get(&None).cloned().unwrap_or_default();
    planner.births(&roots, own_sid, own_pgid, true)
}

struct Planner<'a> {
    processes: &'a [ProcessV1],
    zombies: &'a [ZombieV1],
    children: HashMap<Option<Pid>, Vec<Child>>,
    alive: HashSet<Pid>,
    made: HashSet<Pid>,
}

/// Somebody to be born, living or not.
#[derive(Clone, Copy)]
enum Child {
    Process(usize),
    Zombie(usize),
}

struct Ids {
    pid: Pid,
    sid: Pid,
    pgid: Pid,
}

impl Child {
    fn ids(self, processes: &[ProcessV1], zombies: &[ZombieV1]) -> Ids {
        match self {
            Self::Process(index) => {
                let ProcessV1 { pid, sid, pgid, .. } = processes[index];
                Ids { pid, sid, pgid }
            }
            Self::Zombie(index) => {
                let ZombieV1 { pid, sid, pgid, .. } = zombies[index];
                Ids { pid, sid, pgid }
            }
        }
    }
}

impl Planner<'_> {
    /// Births of processes whose creator is in `session` and `group`. `adopts`: orphans of the
    /// creator's children come back to it, so a temporary leader may stand between.
    fn births(&mut self, children: &[Child], session: Pid, group: Pid, adopts: bool) -> Result<Vec<Birth>> {
        let mut out = Vec::new();
        let mut led: Vec<(Pid, Vec<Child>)> = Vec::new();
        for &child in children {
            let ids = child.ids(self.processes, self.zombies);
            if ids.sid == ids.pid || ids.sid == session {
                out.push(self.birth(child, session, group)?);
            } else if !adopts || self.alive.contains(&ids.sid) {
                return Err(Error::stale(
                    ReasonCode::HostUnsupported,
                    format!("process {} is in session {}, which its parent cannot give it", ids.pid, ids.sid),
                ));
            } else {
                match led.iter_mut().find(|(sid, _)| *sid == ids.sid) {
                    Some((_, members)) => members.push(child),
                    None => led.push((ids.sid, vec![child])),
                }
            }
        }
        for (sid, members) in led {
            // setsid makes the leader's group too.
            let members = members.iter().map(|child| self.birth(*child, sid, sid)).collect::<Result<_>>()?;
            out.push(Birth::Leader { sid, members });
        }
        Ok(out)
    }

    fn birth(&mut self, child: Child, session: Pid, group: Pid) -> Result<Birth> {
        let ids = child.ids(self.processes, self.zombies);
        let setsid = ids.sid == ids.pid && ids.sid != session;
        let group_at_fork = if setsid { ids.pid } else { group };
        let own_group = self.group(&ids, group_at_fork);
        let index = match child {
            Child::Process(index) => index,
            Child::Zombie(index) => return Ok(Birth::Zombie { index, setsid, group: own_group }),
        };
        let process = &self.processes[index];
        let children = self.children.get(&Some(process.pid)).cloned().unwrap_or_default();
        let older = |child: &Child| {
            let child = child.ids(self.processes, self.zombies);
            setsid && child.sid == session && child.sid != child.pid
        };
        let (before, after): (Vec<Child>, Vec<Child>) = children.iter().partition(|child| older(child));
        let adopts = process.child_subreaper;
        let before_setsid = self.births(&before, session, group, adopts)?;
        let after_setsid = self.births(&after, process.sid, group_at_fork, adopts)?;
        Ok(Birth::Process { index, before_setsid, setsid, after_setsid, group: own_group })
    }

    fn group(&mut self, process: &Ids, inherited: Pid) -> Group {
        if process.pgid == inherited {
            Group::Inherited
        } else if process.pgid == process.pid {
            Group::Own
        } else if self.alive.contains(&process.pgid) || !self.made.insert(process.pgid) {
            Group::Join(process.pgid)
        } else {
            Group::Make(process.pgid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{TreeV1, testing::tree_of};

    fn names(births: &[Birth], tree: &TreeV1) -> String {
        let part = |b: &Birth| match b {
            Birth::Process { index, before_setsid, setsid, after_setsid, group } => {
                let mut text = format!("{}", tree.processes[*index].pid);
                if !before_setsid.is_empty() {
                    text += &format!("<{}>", names(before_setsid, tree));
                }
                if *setsid {
                    text += "s";
                }
                match group {
                    Group::Inherited => {}
                    Group::Own => text += "g",
                    Group::Join(g) => text += &format!("j{g}"),
                    Group::Make(g) => text += &format!("m{g}"),
                }
                if !after_setsid.is_empty() {
                    text += &format!("({})", names(after_setsid, tree));
                }
                text
            }
            Birth::Zombie { index, setsid, group } => {
                let leads = if *setsid { "s" } else { "" };
                let joins = match group {
                    Group::Join(g) => format!("j{g}"),
                    Group::Own => "g".to_owned(),
                    Group::Inherited | Group::Make(_) => String::new(),
                };
                format!("z{}{leads}{joins}", tree.zombies[*index].pid)
            }
            Birth::Leader { sid, members } => format!("L{sid}({})", names(members, tree)),
        };
        births.iter().map(part).collect::<Vec<_>>().join(" ")
    }

    fn planned(processes: &[(i32, Option<i32>, i32, i32)]) -> String {
        let tree = tree_of(processes);
        plan(&tree.processes, &tree.zombies, Pid(1), Pid(1))
            .map_or_else(|e| e.to_string(), |b| names(&b, &tree))
    }

    #[test]
    fn service_main_process_leads_its_own_session() {
        assert_eq!(planned(&[(10, None, 10, 10), (11, Some(10), 10, 10)]), "10s(11)");
    }

    #[test]
    fn dead_session_leader_is_stood_in_for() {
        assert_eq!(planned(&[(12, None, 11, 11), (13, Some(12), 11, 11)]), "L11(12(13))");
    }

    #[test]
    fn child_of_the_older_session_is_forked_before_setsid() {
        assert_eq!(
            planned(&[(10, None, 1, 10), (11, Some(10), 11, 11), (12, Some(11), 1, 10)]),
            "10g(11<12j10>s)"
        );
    }

    #[test]
    fn dead_group_leader_is_made_once_and_joined_by_others() {
        let tree = [(10, None, 10, 10), (11, Some(10), 10, 20), (12, Some(10), 10, 20)];
        assert_eq!(planned(&tree), "10s(11m20 12j20)");
    }

    #[test]
    fn zombies_are_born_in_their_turn_and_their_groups_can_be_joined() {
        let mut tree = tree_of(&[(10, None, 10, 10), (11, Some(10), 10, 10), (13, Some(10), 10, 12)]);
        let zombie = |pid, sid, pgid| ZombieV1 {
            pid: Pid(pid),
            parent: Pid(10),
            pgid: Pid(pgid),
            sid: Pid(sid),
            exit_signal: 17,
            status: 0,
            comm: Vec::new(),
            uids: [0; 3],
            gids: [0; 3],
            groups: Vec::new(),
        };
        tree.zombies = vec![zombie(12, 10, 12), zombie(14, 14, 14), zombie(15, 10, 10)];
        let planned =
            plan(&tree.processes, &tree.zombies, Pid(1), Pid(1)).map(|births| names(&births, &tree)).unwrap();
        assert_eq!(planned, "10s(11 z12g 13j12 z14s z15)");
    }

    #[test]
    fn session_that_nobody_can_give_is_an_error() {
        let tree = [(10, None, 10, 10), (11, Some(10), 99, 99)];
        assert!(planned(&tree).contains("session 99"));
    }
}
