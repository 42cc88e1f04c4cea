//! What is special about each unit, looked at in the restored boot.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{COUNT, COUNT_BOUND, Case, journal, read_count};
use crate::container::{Machine, wait_until};
use crate::fastboot;

/// A sentence that holds when [`check`] passes.
pub(super) fn claim(case: &Case) -> &'static str {
    match case.name {
        "watchdog" => "its watchdog is fed",
        "notify-reload" => "it reloads by signal and says so",
        "forking" => "its PID file is there",
        "start-post" => "ExecStartPost= ran with its main PID",
        "reload" => "ExecReload= reaches it",
        "stop" => "ExecStop= ends it by its main PID, and it starts cold",
        "runtime-directory" => "its file in /run is there with its owner",
        "state-directory" | "private-tmp" => "its file is there",
        "dynamic-user" => "it has the user of the unit",
        "notify" => "systemd shows what it said of itself",
        "skip-start-pre" => "ExecStartPre= waits for a cold start, where it can",
        "hook-commands" => "its hooks ran as its user where it lives",
        "hook-c" | "hook-rust" | "hook-python" => "it heard of everything",
        "credential" => "its credential is there",
        "slice" => "it is in its slice",
        "inhibitor" => "logind knows its inhibitor",
        "socket-rules" | "slice-rules" | "interface-rules" | "filter-programs" | "bpf-program" => {
            "its sockets obey the rules of its control group"
        }
        "all-rules" => "its sockets are cut off as before",
        "low-port-by-capability" => "it has its low port again",
        "lost-peer" => "its peer on loopback has gone, and it finds today's",
        "delegated" | "delegated-subgroup" => "its control groups are as it made them",
        "dropped-in" => "it has the priority of its drop-in",
        "aliased" => "its other name leads to it",
        "sandboxed" => "it is still in its sandbox",
        "listen-stream" => "clients of its sockets are answered from memory",
        "listen-fifo" => "what is written to its FIFO counts",
        "listen-netlink" => "what its netlink socket says counts",
        "listen-datagram" => "what is sent to its socket counts",
        "memory-pressure" => "the pressure trigger of its control group is armed",
        "store" | "store-preserved" => {
            "systemd keeps what it kept, and hands it over after a crash and at a restart"
        }
        "store-self" => "systemd keeps a pidfd of it",
        "keyring" | "keyring-shared" => "its session keyring is that of a cold start",
        "syslog" | "native" => "its messages beside stderr arrive",
        _ => "systemd has it in its control group",
    }
}

/// Looks at it.
pub(super) fn check(machine: &Machine, case: &Case, main_pid: u32) -> Result<()> {
    let unit = case.unit();
    let sh = |script: &str| machine.run(&["sh", "-c", script])?.success().map(|text| text.trim().to_owned());
    let show = |property: &str| {
        let property = format!("--property={property}");
        machine
            .run(&["systemctl", "show", "--value", &property, &unit])?
            .success()
            .map(|text| text.trim().to_owned())
    };
    let equal = |got: String, wanted: &str| -> Result<()> {
        ensure!(got == wanted, "it is {got:?} instead of {wanted:?}");
        Ok(())
    };
    let counts_on = || {
        wait_until("the next count", COUNT_BOUND, || {
            let (count, pid) = read_count(machine, case)?;
            ensure!(count == COUNT + 2 && pid == main_pid, "it wrote {count} as {pid}");
            Ok(Some(()))
        })
    };
    match case.name {
        "watchdog" => {
            // More than two of its periods.
            std::thread::sleep(Duration::from_secs(5));
            let state = machine.unit(&unit)?;
            ensure!(state.is_active() && state.restarts == 0, "it is {state:?}");
            equal(show("MainPID")?, &main_pid.to_string())
        }
        "notify-reload" => {
            machine.run(&["systemctl", "reload", &unit])?.success()?;
            equal(show("StatusText")?, "loaded again")?;
            counts_on()
        }
        "forking" => equal(sh("cat /run/forking.pid")?, &main_pid.to_string()),
        "start-post" => equal(sh("cat /run/start-post")?, &main_pid.to_string()),
        "reload" => {
            machine.run(&["systemctl", "reload", &unit])?.success()?;
            counts_on()
        }
        "stop" => {
            machine.run(&["systemctl", "stop", &unit])?.success()?;
            equal(sh("cat /var/lib/counts/stopped")?, &main_pid.to_string())?;
            machine.run(&["systemctl", "start", &unit])?.success()?;
            let state = machine.unit(&unit)?;
            ensure!(state.is_active() && state.main_pid != main_pid, "it is {state:?}");
            Ok(())
        }
        "runtime-directory" => equal(
            sh("stat -c '%U %a' /run/runtime-directory && stat -c '%U %s' /run/runtime-directory/made")?,
            "counter 750\ncounter 18",
        ),
        "state-directory" => equal(sh("cat /var/lib/state-directory/made")?, "made at the start"),
        "private-tmp" => equal(sh(&format!("cat /proc/{main_pid}/root/tmp/made"))?, "made at the start"),
        "dynamic-user" => {
            let uid = sh(&format!("stat -c %u /proc/{main_pid}"))?;
            let number: u32 = uid.parse().with_context(|| format!("reading {uid:?}"))?;
            ensure!((61184..=65519).contains(&number), "its user is {number}");
            equal(sh(&format!("nsenter -t {main_pid} -m stat -c %u /var/lib/dynamic-user/count"))?, &uid)
        }
        "notify" => equal(show("StatusText")?, "counting"),
        "skip-start-pre" => {
            // Starts: at the first boot, for the snapshot, from the image here.
            let ran = |name: &str| sh(&format!("wc -l < /var/lib/counts/{name}"));
            equal(ran("pre-carried")?, "2")?;
            equal(ran("pre-kept")?, "3")?;
            machine.run(&["systemctl", "restart", &unit])?.success()?;
            // systemctl waits for it as it waits for systemd's own.
            equal(ran("pre-carried")?, "3")?;
            equal(ran("pre-kept")?, "4")?;
            equal(sh("sort -u /var/lib/counts/pre-carried")?, "ran")?;
            ensure!(machine.unit(&unit)?.is_active(), "it does not run after a restart");
            Ok(())
        }
        "hook-commands" => equal(
            sh("cat /var/lib/counts/hook-commands.events")?,
            "before-snapshot counter\nafter-snapshot counter\nafter-restore counter",
        ),
        "hook-c" | "hook-rust" | "hook-python" => {
            let file = case.count_file();
            equal(sh(&format!("cat {file}.events"))?, "BeforeSnapshot\nAfterSnapshot\nAfterRestore")?;
            if case.name != "hook-c" {
                let key = sh(&format!("cat {file}.key"))?;
                ensure!(key.len() == 32, "its key is {key:?}");
            }
            Ok(())
        }
        "credential" => equal(
            sh(&format!("cat /proc/{main_pid}/root/run/credentials/credential.service/word"))?,
            "secret",
        ),
        "slice" => {
            let cgroup = sh(&format!("cat /proc/{main_pid}/cgroup"))?;
            ensure!(cgroup.contains("/tests.slice/slice.service"), "it is in {cgroup}");
            Ok(())
        }
        "low-port-by-capability"
        | "socket-rules"
        | "slice-rules"
        | "all-rules"
        | "interface-rules"
        | "filter-programs"
        | "bpf-program" => {
            let lines = sh(&format!("sort {}.rules | uniq -c", case.count_file()))?;
            let (wanted, port) = match case.name {
                "socket-rules" => ("near 1 far 0 bind 0", 7110),
                "slice-rules" => ("near 1 far 0 bind 0", 7120),
                "low-port-by-capability" => ("near 1 far 1 bind 1", 87),
                "interface-rules" => ("near 1 far 0 bind 1", 7170),
                "filter-programs" => ("near 1 far 0 bind 1", 7150),
                "bpf-program" => ("near 1 far 1 bind 0", 7160),
                _ => ("near 0 far 0 bind 0", 7130),
            };
            equal(lines, &format!("{} {wanted}", COUNT + 1))?;
            let sockets = sh(&format!("ss -H -l -t -n --cgroup 'sport = :{port}'"))?;
            ensure!(sockets.contains(&format!("/{unit}")), "its listener is {sockets:?}");
            let python = |script: &str| machine.run(&["python3", "-c", script])?.success();
            match case.name {
                // Others reach what it may not.
                "interface-rules" => equal(
                    python(
                        "import socket\nprint(socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.2', 9)), end='')\n",
                    )?,
                    "1",
                ),
                // What comes for its listener is dropped, which is neither an answer nor a refusal.
                "filter-programs" => equal(
                    python(
                        "import socket\ntry:\n socket.create_connection(('127.0.0.1', 7150), 2)\n print('connected')\n\
                         except OSError as error:\n print(type(error).__name__, end='')\n",
                    )?,
                    "TimeoutError",
                ),
                _ => Ok(()),
            }
        }
        "lost-peer" => {
            let file = format!("{}.peer", case.count_file());
            wait_until("its word of the peer", COUNT_BOUND, || {
                let lines = sh(&format!("cat {file}"))?;
                ensure!(lines == "Connection reset by peer", "it says {lines:?}");
                let connections = sh("ss -H -t -n -p state established 'dport = :7190'")?;
                ensure!(connections.contains(&format!("pid={main_pid},")), "there are {connections:?}");
                Ok(Some(()))
            })
        }
        "keyring" | "keyring-shared" => {
            let uid = sh("id -u counter")?;
            let rest = if case.name == "keyring" { "keys 1 user 0" } else { "keys 2 user 1" };
            let id = show("InvocationID")?;
            equal(
                sh(&format!("cat {}.keyring", case.count_file()))?,
                &format!("owner {uid} {rest} invocation {id}"),
            )
        }
        "delegated" | "delegated-subgroup" => {
            let dir = format!("/sys/fs/cgroup/system.slice/{unit}");
            let owner = if case.name == "delegated" { "counter" } else { "root" };
            equal(
                sh(&format!(
                    "cd {dir}/inner && stat -c '%U %a' . cgroup.procs empty && cat cgroup.max.depth"
                ))?,
                &format!("{owner} 755\n{owner} 644\n{owner} 750\n7"),
            )?;
            equal(sh(&format!("ps -o ppid= -p $(cat {dir}/inner/cgroup.procs)"))?, &main_pid.to_string())?;
            let of_main = if case.name == "delegated" { dir } else { format!("{dir}/main") };
            equal(sh(&format!("cat {of_main}/cgroup.procs"))?, &main_pid.to_string())
        }
        "inhibitor" => {
            let call = "busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager ListInhibitors";
            let all = sh(call)?;
            // logind has an order of its own for what is held up.
            let own =
                format!("\"shutdown:sleep\" \"Z\\303\\244hler\" \"a \\\"test\\\"\" \"delay\" 0 {main_pid}");
            ensure!(all.matches(&main_pid.to_string()).count() == 1 && all.contains(&own), "there are {all}");
            machine.run(&["systemctl", "stop", &unit])?.success()?;
            wait_until("its end", COUNT_BOUND, || {
                let all = sh(call)?;
                ensure!(!all.contains(&main_pid.to_string()), "there are still {all}");
                Ok(Some(()))
            })
        }
        "store" | "store-preserved" => check_store(machine, case, main_pid),
        "store-self" => {
            let names = stored_names(machine, &unit)?;
            ensure!(names == ["self"], "systemd keeps {names:?}");
            // Those that systemd has of its own are not waited for.
            let script = format!(
                "cd /proc/1/fdinfo && for fd in $(grep -l \"^Pid:[[:space:]]*{main_pid}$\" *); do \
                 grep -h \"^tfd: *$fd events: *18 \" *; done | wc -l"
            );
            equal(sh(&script)?, "1")
        }
        "dropped-in" => equal(sh(&format!("ps -o ni= -p {main_pid}"))?, "5"),
        "aliased" => {
            let text = sh("systemctl show --value --property=MainPID aliased.service")?;
            equal(text, &main_pid.to_string())
        }
        "sandboxed" => {
            let status = sh(&format!(
                "grep -E '^(NoNewPrivs|Seccomp):' /proc/{main_pid}/status | tr -d '\\t' | tr '\\n' ' '"
            ))?;
            equal(status, "NoNewPrivs:1 Seccomp:2")?;
            let writes = sh(&format!(
                "nsenter -t {main_pid} -m sh -c 'touch /etc/x 2>/dev/null && echo yes || echo no'"
            ))?;
            equal(writes, "no")
        }
        "listen-stream" => {
            let script = "import socket\nfor f, a in ((socket.AF_UNIX, '/run/listen-stream'), (socket.AF_INET, ('127.0.0.1', 7001))):\n \
                          s = socket.socket(f)\n s.connect(a)\n print(s.recv(9).decode().strip())\n";
            let got = machine.run(&["python3", "-c", script])?.success()?;
            equal(got.trim().to_owned(), "4\n4")
        }
        "listen-datagram" => {
            let script = "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.connect('/run/listen-datagram')\ns.send(b'x')\n";
            machine.run(&["python3", "-c", script])?.success()?;
            counts_on()
        }
        "memory-pressure" => {
            let armed = sh(&format!("grep -c 'armed' {}.pressure", case.count_file()))?;
            // At the first boot and for the snapshot, then with each count.
            equal(armed, &(COUNT + 3).to_string())?;
            equal(
                sh(&format!("sort -u {}.pressure", case.count_file()))?,
                &format!("armed /sys/fs/cgroup/system.slice/{unit}/memory.pressure"),
            )
        }
        "listen-fifo" => {
            sh("echo x > /run/listen-fifo")?;
            counts_on()
        }
        // Group 1 of the protocol: links come, go and change.
        "listen-netlink" => {
            sh("ip link set lo down && ip link set lo up")?;
            wait_until("the next count", COUNT_BOUND, || {
                let (count, pid) = read_count(machine, case)?;
                ensure!(count >= COUNT + 2 && pid == main_pid, "it wrote {count} as {pid}");
                Ok(Some(()))
            })
        }
        "syslog" | "native" => {
            let line = format!("{} {}", case.name, COUNT + 1);
            wait_until(&line, COUNT_BOUND, || {
                let entries = journal(machine, &unit)?;
                let entry =
                    entries.iter().find(|entry| entry.message == line).context("its message is not there")?;
                ensure!(entry.pid == main_pid.to_string(), "the journal says {entry:?}");
                Ok(Some(()))
            })
        }
        _ => {
            let cgroup = sh(&format!("cat /proc/{main_pid}/cgroup"))?;
            ensure!(
                cgroup.ends_with(&unit) || cgroup.contains(&unit.replace('@', "\\x40")),
                "it is in {cgroup}"
            );
            Ok(())
        }
    }
}

/// Names of what systemd keeps for a unit, in its order.
pub(super) fn stored_names(machine: &Machine, unit: &str) -> Result<Vec<String>> {
    let call = ["busctl", "--json=short", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"];
    let method = ["org.freedesktop.systemd1.Manager", "DumpUnitFileDescriptorStore", "s", unit];
    let text = machine.run(&[&call[..], &method[..]].concat())?.success()?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("reading what systemd keeps")?;
    let names = answer.pointer("/data/0").and_then(|listed| listed.as_array()).context("no list")?;
    let name = |one: &serde_json::Value| one.get(0).and_then(|name| name.as_str()).map(str::to_owned);
    names.iter().map(name).collect::<Option<_>>().context("a stored descriptor without name")
}

/// The store is that of the image; what is in it is what the restored instance made of it; systemd hands it over.
fn check_store(machine: &Machine, case: &Case, main_pid: u32) -> Result<()> {
    let unit = case.unit();
    let state = machine.run(&["fastboot", "show", "--state", &unit])?.success()?;
    let state: serde_json::Value = serde_json::from_str(&state).context("reading the state")?;
    let recorded = state.get("stored").and_then(|stored| stored.as_array()).context("nothing is recorded")?;
    let text = |one: &serde_json::Value, key: &str| one.get(key).map(ToString::to_string).unwrap_or_default();
    let recorded: Vec<(String, String)> =
        recorded.iter().map(|one| (text(one, "name").replace('"', ""), text(one, "polled"))).collect();
    let names: Vec<&String> = recorded.iter().map(|(name, _)| name).collect();
    ensure!(stored_names(machine, &unit)?.iter().eq(names.iter().copied()), "recorded are {names:?}");
    let mut sorted = recorded.clone();
    sorted.sort();
    // Regular files cannot be waited for, memfds among them.
    let polled: Vec<String> = sorted.iter().map(|(name, polled)| format!("{name} {polled}")).collect();
    let wanted = "counter true, line true, listener true, memory false, pair false, twin false, twin false";
    ensure!(polled.join(", ") == wanted, "recorded are {polled:?}");
    let seen = format!("{}.store", case.count_file());
    // Neither the start for the image nor the restored one was handed anything.
    let handed = machine.run(&["cat", &seen])?.success()?;
    ensure!(handed == "nothing\n", "it was handed {handed:?} before");

    // Both counted on through what the processes have in common with the store.
    let count = 5 + COUNT + 1;
    let wanted = format!(
        "counter {count}\nlistener listens\nmemory remembered\npair letter\ntwin one\ntwin two1234\n"
    );
    let is_handed = |what: &str, before: u32| -> Result<u32> {
        wait_until(what, COUNT_BOUND, || {
            let state = machine.unit(&unit)?;
            ensure!(state.is_active() && state.main_pid != before, "it is {state:?}");
            let handed = machine.run(&["sort", &seen])?.success()?;
            ensure!(handed == wanted, "it was handed {handed:?} instead of {wanted:?}");
            Ok(Some(state.main_pid))
        })
    };
    machine.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", &unit])?.success()?;
    let crashed = is_handed("what it is handed after a crash", main_pid)?;
    machine.run(&["rm", &seen])?.success()?;
    machine.run(&["systemctl", "restart", &unit])?.success()?;
    is_handed("what it is handed at a restart", crashed)?;
    let left = stored_names(machine, &unit)?;
    ensure!(left.len() == 6 && !left.contains(&"line".to_owned()), "systemd keeps {left:?}");

    // Another image, with a trial: both starts for it are as at a boot, and the next restart is none of them again.
    let report = fastboot::snapshot_with_trial(machine, &[&unit], &["--keep-slow"])?;
    let row = report.unit(&unit).context("it is not in the report")?;
    ensure!(row.outcome == "stored", "{}: {}", row.outcome, row.reasons.join("; "));
    let note =
        row.notes.iter().any(|note| note.contains("without the descriptors that systemd keeps for it (6: "));
    ensure!(note, "its notes are {:?}", row.notes);
    let handed = machine.run(&["cat", &seen])?.success()?;
    ensure!(handed == "nothing\n", "it was handed {handed:?} for an image");
    let now = stored_names(machine, &unit)?;
    ensure!(now.len() == 7, "systemd keeps {now:?}");
    machine.run(&["systemctl", "restart", &unit])?.success()?;
    let wanted = "counter 5\nlistener listens\nmemory remembered\npair letter\ntwin one\ntwin two\n";
    wait_until("what it is handed at a restart after the trial", COUNT_BOUND, || {
        let handed = machine.run(&["sort", &seen])?.success()?;
        ensure!(handed == wanted, "it was handed {handed:?} instead of {wanted:?}");
        Ok(Some(()))
    })
}
