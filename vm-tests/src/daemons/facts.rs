//! What can be seen of a running service from outside, other than its answers: its processes with
//! what they may do, and the sockets that it listens at.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use crate::container::{Container, UnitState};

/// One process. Two processes with the same addresses are the same life: a new one has its stack
/// and heap elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Start of the stack and of the heap.
    pub(super) addresses: (u64, u64),
    /// Name, ids, capabilities, limits, control group and the like, as text.
    pub(super) standing: BTreeSet<String>,
}

/// A unit at one moment.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What systemd says.
    pub(super) unit: UnitState,
    /// By PID.
    pub(super) processes: BTreeMap<u32, Process>,
    /// `tcp 0.0.0.0:80`. Numbers that the kernel chose are left out.
    pub(super) listening: BTreeSet<String>,
}

/// Ports from here on are chosen by the kernel.
const FIRST_EPHEMERAL_PORT: u16 = 32768;

/// Prints, for each process of the control group in $1, what [`parse_processes`] reads.
const LOOK: &str = r#"
    for pid in $(cat "/sys/fs/cgroup$1/cgroup.procs"); do
        cd "/proc/$pid" 2>/dev/null || continue
        stat=$(cat stat) || continue
        echo "process $pid"
        echo "stat ${stat##*) }"
        grep -E '^(Name|Umask|Uid|Gid|Groups|Cap[A-Z][a-z]+|NoNewPrivs|Seccomp|Seccomp_filters|CoreDumping|THP_enabled):' status
        echo "oom_score_adj: $(cat oom_score_adj)"
        echo "cgroup: $(cat cgroup)"
        sed -n '2,$s/^/limit: /p' limits
    done 2>/dev/null
    true
"#;

impl Facts {
    /// Look at a unit.
    ///
    /// # Errors
    /// systemd does not know it, or the machine does not answer.
    pub(super) fn of(machine: &Container, unit: &str) -> Result<Facts> {
        let state = machine.unit(unit)?;
        let group =
            machine.run(&["systemctl", "show", "--property=ControlGroup", "--value", unit])?.success()?;
        let processes = match group.trim() {
            "" => BTreeMap::new(),
            group => parse_processes(&machine.run(&["sh", "-c", LOOK, "look", group])?.success()?)?,
        };
        let sockets = machine.run(&["ss", "-Hlntup"])?.success()?;
        let listening = parse_sockets(&sockets, |pid| processes.contains_key(&pid));
        Ok(Facts { unit: state, processes, listening })
    }

    /// Passes when `later` is the same life of the unit: its main process, and whatever else has a
    /// PID of then.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn require_same_life(&self, later: &Facts) -> Result<()> {
        let main = self.unit.main_pid;
        ensure!(later.unit.main_pid == main, "the main PID was {main} and is {}", later.unit.main_pid);
        ensure!(later.processes.contains_key(&main), "the main process {main} is not in the unit");
        for (pid, now) in &later.processes {
            let other = self.processes.get(pid).filter(|before| before.addresses != now.addresses);
            ensure!(other.is_none(), "process {pid} is not the one of the image: {other:?} is now {now:?}");
        }
        Ok(())
    }

    /// Passes when the unit stands as `cold` did, or as it did when its image was taken.
    ///
    /// # Errors
    /// What a cold start has and this one has not, or the other way round.
    pub(super) fn require_stands_as(&self, cold: &Facts, taken: &Facts) -> Result<()> {
        let summary =
            |facts: &Facts| (facts.unit.active.clone(), facts.unit.sub.clone(), facts.unit.result.clone());
        ensure!(summary(self) == summary(cold), "systemd says {:?}, cold {:?}", summary(self), summary(cold));
        ensure!(self.unit.restarts == 0, "it was restarted {} times", self.unit.restarts);
        ensure!(
            self.listening == cold.listening || self.listening == taken.listening,
            "it listens at {:?}, cold at {:?}",
            self.listening,
            cold.listening
        );
        ensure!(self.main() == cold.main(), "{}", difference(cold.main(), self.main()));
        let known: BTreeSet<&BTreeSet<String>> = cold
            .processes
            .values()
            .chain(taken.processes.values())
            .map(|process| &process.standing)
            .collect();
        for (pid, process) in &self.processes {
            ensure!(
                known.contains(&process.standing),
                "process {pid} stands otherwise: {:?}",
                process.standing
            );
        }
        Ok(())
    }

    fn main(&self) -> Option<&BTreeSet<String>> {
        self.processes.get(&self.unit.main_pid).map(|process| &process.standing)
    }
}

fn difference(cold: Option<&BTreeSet<String>>, now: Option<&BTreeSet<String>>) -> String {
    let (Some(cold), Some(now)) = (cold, now) else {
        return "there is no main process".to_owned();
    };
    let lost: Vec<&String> = cold.difference(now).collect();
    let new: Vec<&String> = now.difference(cold).collect();
    format!("the main process has {new:?} where a cold start has {lost:?}")
}

fn parse_processes(text: &str) -> Result<BTreeMap<u32, Process>> {
    let mut processes = BTreeMap::new();
    let mut current: Option<(u32, Process)> = None;
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("process", pid)) => {
                processes.extend(current.take());
                let process = Process { addresses: (0, 0), standing: BTreeSet::new() };
                current = Some((pid.parse().context("PID")?, process));
            }
            Some(("stat", fields)) => {
                let (_, process) = current.as_mut().context("fields of no process")?;
                process.addresses = addresses(fields).with_context(|| format!("addresses in {fields:?}"))?;
            }
            _ => {
                let (_, process) = current.as_mut().context("a line of no process")?;
                process.standing.insert(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    processes.extend(current);
    // What ended while it was looked at has no memory any more.
    processes.retain(|_, process| process.addresses != (0, 0));
    Ok(processes)
}

/// Of /proc/PID/stat behind the name, which is the second field: `startstack` is number 28,
/// `start_brk` number 47.
fn addresses(fields: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = fields.split(' ').collect();
    Some((fields.get(28 - 3)?.parse().ok()?, fields.get(47 - 3)?.parse().ok()?))
}

fn parse_sockets(text: &str, is_ours: impl Fn(u32) -> bool) -> BTreeSet<String> {
    let mut listening = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, _, _, _, local, ..] = words[..] else { continue };
        let mut pids = line
            .split("pid=")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
        let port: u16 = local.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        if port < FIRST_EPHEMERAL_PORT && pids.any(&is_ours) {
            listening.insert(format!("{kind} {local}"));
        }
    }
    listening
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_belong_to_units_by_their_processes() {
        let text = "\
udp UNCONN 0 0 127.0.0.1:53 0.0.0.0:* users:((\"named\",pid=7,fd=4),(\"named\",pid=8,fd=4))
udp UNCONN 0 0 127.0.0.1:40001 0.0.0.0:* users:((\"named\",pid=7,fd=5))
tcp LISTEN 0 10 [::1]:953 [::]:* users:((\"named\",pid=7,fd=6))
tcp LISTEN 0 10 *:80 *:* users:((\"nginx\",pid=9,fd=6))
";
        let named = parse_sockets(text, |pid| pid == 7);
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["tcp [::1]:953", "udp 127.0.0.1:53"]);
    }

    #[test]
    fn processes_are_told_apart_by_their_addresses() {
        let stat: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let text = format!(
            "process 7\nstat {}\nUid:\t33\t33\nlimit: Max  locked\nprocess 8\nUid: 0\n",
            stat.join(" ")
        );
        let processes = parse_processes(&text).unwrap();
        assert_eq!(processes.len(), 1, "a process without memory has ended");
        assert_eq!(processes[&7].addresses, (28, 47));
        assert!(processes[&7].standing.contains("Uid: 33 33"));
        assert!(processes[&7].standing.contains("limit: Max locked"));
    }
}
