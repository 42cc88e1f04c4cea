//! What is special about each unit, looked at in the restored boot.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{COUNT, COUNT_BOUND, Case, journal, read_count};
use crate::container::{Container, wait_until};
use crate::fastboot;

/// What a restored unit is there for. Each has a sentence and a way to see that it holds; there is
/// no other way to have a unit looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// Nothing but that systemd knows it as one of its own.
    Service,
    Watchdog,
    NotifyReload,
    PidFile,
    StartPost,
    Reload,
    Stop,
    RuntimeDirectory,
    StateDirectory,
    PrivateTmp,
    DynamicUser,
    Status,
    SkippedStartPre,
    HookCommands,
    /// The hook protocol; some draw a key after it.
    Hooks {
        with_key: bool,
    },
    Credential,
    Slice,
    Inhibitor,
    /// What its sockets can reach, and the port that they listen on.
    Rules {
        reach: &'static str,
        port: u16,
    },
    InterfaceRules,
    FilterPrograms,
    AllRules,
    LowPort,
    LostPeer,
    /// Whose the groups below its own are, and which of them is that of its main process.
    Delegated {
        owner: &'static str,
        main: &'static str,
    },
    DroppedIn,
    Aliased,
    Sandbox,
    ListenStream,
    ListenFifo,
    ListenNetlink,
    ListenDatagram,
    MemoryPressure,
    Store,
    StoreSelf,
    /// What it sees of its session keyring.
    Keyring {
        seen: &'static str,
    },
    Message,
}

impl Feature {
    /// A sentence that holds when [`check`] passes.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Feature::Service => "systemd has it in its control group",
            Feature::Watchdog => "its watchdog is fed",
            Feature::NotifyReload => "it reloads by signal and says so",
            Feature::PidFile => "its PID file is there",
            Feature::StartPost => "ExecStartPost= ran with its main PID",
            Feature::Reload => "ExecReload= reaches it",
            Feature::Stop => "ExecStop= ends it by its main PID, and it starts cold",
            Feature::RuntimeDirectory => "its file in /run is there with its owner",
            Feature::StateDirectory | Feature::PrivateTmp => "its file is there",
            Feature::DynamicUser => "it has the user of the unit",
            Feature::Status => "systemd shows what it said of itself",
            Feature::SkippedStartPre => "ExecStartPre= waits for a cold start, where it can",
            Feature::HookCommands => "its hooks ran as its user where it lives",
            Feature::Hooks { .. } => "it heard of everything",
            Feature::Credential => "its credential is there",
            Feature::Slice => "it is in its slice",
            Feature::Inhibitor => "logind knows its inhibitor",
            Feature::Rules { .. } | Feature::InterfaceRules | Feature::FilterPrograms => {
                "its sockets obey the rules of its control group"
            }
            Feature::AllRules => "its sockets are cut off as before",
            Feature::LowPort => "it has its low port again",
            Feature::LostPeer => "its peer on loopback has gone, and it finds today's",
            Feature::Delegated { .. } => "its control groups are as it made them",
            Feature::DroppedIn => "it has the priority of its drop-in",
            Feature::Aliased => "its other name leads to it",
            Feature::Sandbox => "it is still in its sandbox",
            Feature::ListenStream => "clients of its sockets are answered from memory",
            Feature::ListenFifo => "what is written to its FIFO counts",
            Feature::ListenNetlink => "what its netlink socket says counts",
            Feature::ListenDatagram => "what is sent to its socket counts",
            Feature::MemoryPressure => "the pressure trigger of its control group is armed",
            Feature::Store => "systemd keeps what it kept, and hands it over after a crash and at a restart",
            Feature::StoreSelf => "systemd keeps a pidfd of it",
            Feature::Keyring { .. } => "its session keyring is that of a cold start",
            Feature::Message => "its messages beside stderr arrive",
        }
    }
}

/// Looks at it.
pub(super) fn check(machine: &Container, case: &Case, feature: Feature, main_pid: u32) -> Result<()> {
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
    let python = |script: &str| machine.run(&["python3", "-c", script])?.success();
    let obey_rules = |reach: &str, port: u16| -> Result<()> {
        let lines = sh(&format!("sort {}.rules | uniq -c", case.count_file()))?;
        equal(lines, &format!("{} {reach}", COUNT + 1))?;
        let sockets = sh(&format!("ss -H -l -t -n --cgroup 'sport = :{port}'"))?;
        ensure!(sockets.contains(&format!("/{unit}")), "its listener is {sockets:?}");
        Ok(())
    };
    match feature {
        Feature::Watchdog => {
            // More than two of its periods.
            std::thread::sleep(Duration::from_secs(5));
            let state = machine.unit(&unit)?;
            ensure!(state.is_active() && state.restarts == 0, "it is {state:?}");
            equal(show("MainPID")?, &main_pid.to_string())
        }
        Feature::NotifyReload => {
            machine.run(&["systemctl", "reload", &unit])?.success()?;
            equal(show("StatusText")?, "loaded again")?;
            counts_on()
        }
        Feature::PidFile => equal(sh("cat /run/forking.pid")?, &main_pid.to_string()),
        Feature::StartPost => equal(sh("cat /run/start-post")?, &main_pid.to_string()),
        Feature::Reload => {
            machine.run(&["systemctl", "reload", &unit])?.success()?;
            counts_on()
        }
        Feature::Stop => {
            machine.run(&["systemctl", "stop", &unit])?.success()?;
            equal(sh("cat /var/lib/counts/stopped")?, &main_pid.to_string())?;
            machine.run(&["systemctl", "start", &unit])?.success()?;
            let state = machine.unit(&unit)?;
            ensure!(state.is_active() && state.main_pid != main_pid, "it is {state:?}");
            Ok(())
        }
        Feature::RuntimeDirectory => equal(
            sh("stat -c '%U %a' /run/runtime-directory && stat -c '%U %s' /run/runtime-directory/made")?,
            "counter 750\ncounter 18",
        ),
        Feature::StateDirectory => equal(sh("cat /var/lib/state-directory/made")?, "made at the start"),
        Feature::PrivateTmp => {
            equal(sh(&format!("cat /proc/{main_pid}/root/tmp/made"))?, "made at the start")
        }
        Feature::DynamicUser => {
            let uid = sh(&format!("stat -c %u /proc/{main_pid}"))?;
            let number: u32 = uid.parse().with_context(|| format!("reading {uid:?}"))?;
            ensure!((61184..=65519).contains(&number), "its user is {number}");
            equal(sh(&format!("nsenter -t {main_pid} -m stat -c %u /var/lib/dynamic-user/count"))?, &uid)
        }
        Feature::Status => equal(show("StatusText")?, "counting"),
        Feature::SkippedStartPre => {
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
        Feature::HookCommands => equal(
            sh("cat /var/lib/counts/hook-commands.events")?,
            "before-snapshot counter\nafter-snapshot counter\nafter-restore counter",
        ),
        Feature::Hooks { with_key } => {
            let file = case.count_file();
            equal(sh(&format!("cat {file}.events"))?, "BeforeSnapshot\nAfterSnapshot\nAfterRestore")?;
            if with_key {
                let key = sh(&format!("cat {file}.key"))?;
                ensure!(key.len() == 32, "its key is {key:?}");
            }
            Ok(())
        }
        Feature::Credential => equal(
            sh(&format!("cat /proc/{main_pid}/root/run/credentials/credential.service/word"))?,
            "secret",
        ),
        Feature::Slice => {
            let cgroup = sh(&format!("cat /proc/{main_pid}/cgroup"))?;
            ensure!(cgroup.contains("/tests.slice/slice.service"), "it is in {cgroup}");
            Ok(())
        }
        Feature::Rules { reach, port } => obey_rules(reach, port),
        Feature::AllRules => obey_rules("near 0 far 0 bind 0", 7130),
        Feature::LowPort => obey_rules("near 1 far 1 bind 1", 87),
        Feature::InterfaceRules => {
            obey_rules("near 1 far 0 bind 1", 7170)?;
            // Others reach what it may not.
            let script = "import socket\nprint(socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.2', 9)), end='')\n";
            equal(python(script)?, "1")
        }
        Feature::FilterPrograms => {
            obey_rules("near 1 far 0 bind 1", 7150)?;
            // What comes for its listener is dropped, which is neither an answer nor a refusal.
            let script = "import socket\ntry:\n socket.create_connection(('127.0.0.1', 7150), 2)\n print('connected')\n\
                          except OSError as error:\n print(type(error).__name__, end='')\n";
            equal(python(script)?, "TimeoutError")
        }
        Feature::LostPeer => {
            let file = format!("{}.peer", case.count_file());
            wait_until("its word of the peer", COUNT_BOUND, || {
                let lines = sh(&format!("cat {file}"))?;
                ensure!(lines == "Connection reset by peer", "it says {lines:?}");
                let connections = sh("ss -H -t -n -p state established 'dport = :7190'")?;
                ensure!(connections.contains(&format!("pid={main_pid},")), "there are {connections:?}");
                Ok(Some(()))
            })
        }
        Feature::Keyring { seen } => {
            let uid = sh("id -u counter")?;
            let id = show("InvocationID")?;
            equal(
                sh(&format!("cat {}.keyring", case.count_file()))?,
                &format!("owner {uid} {seen} invocation {id}"),
            )
        }
        Feature::Delegated { owner, main } => {
            let dir = format!("/sys/fs/cgroup/system.slice/{unit}");
            equal(
                sh(&format!(
                    "cd {dir}/inner && stat -c '%U %a' . cgroup.procs empty && cat cgroup.max.depth"
                ))?,
                &format!("{owner} 755\n{owner} 644\n{owner} 750\n7"),
            )?;
            equal(sh(&format!("ps -o ppid= -p $(cat {dir}/inner/cgroup.procs)"))?, &main_pid.to_string())?;
            equal(sh(&format!("cat {dir}{main}/cgroup.procs"))?, &main_pid.to_string())
        }
        Feature::Inhibitor => {
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
        Feature::Store => check_store(machine, case, main_pid),
        Feature::StoreSelf => {
            let names = stored_names(machine, &unit)?;
            ensure!(names == ["self"], "systemd keeps {names:?}");
            // Those that systemd has of its own are not waited for.
            let script = format!(
                "cd /proc/1/fdinfo && for fd in $(grep -l \"^Pid:[[:space:]]*{main_pid}$\" *); do \
                 grep -h \"^tfd: *$fd events: *18 \" *; done | wc -l"
            );
            equal(sh(&script)?, "1")
        }
        Feature::DroppedIn => equal(sh(&format!("ps -o ni= -p {main_pid}"))?, "5"),
        Feature::Aliased => {
            let text = sh("systemctl show --value --property=MainPID aliased.service")?;
            equal(text, &main_pid.to_string())
        }
        Feature::Sandbox => {
            let status = sh(&format!(
                "grep -E '^(NoNewPrivs|Seccomp):' /proc/{main_pid}/status | tr -d '\\t' | tr '\\n' ' '"
            ))?;
            equal(status, "NoNewPrivs:1 Seccomp:2")?;
            let writes = sh(&format!(
                "nsenter -t {main_pid} -m sh -c 'touch /etc/x 2>/dev/null && echo yes || echo no'"
            ))?;
            equal(writes, "no")
        }
        Feature::ListenStream => {
            let script = "import socket\nfor f, a in ((socket.AF_UNIX, '/run/listen-stream'), (socket.AF_INET, ('127.0.0.1', 7001))):\n \
                          s = socket.socket(f)\n s.connect(a)\n print(s.recv(9).decode().strip())\n";
            let got = machine.run(&["python3", "-c", script])?.success()?;
            equal(got.trim().to_owned(), "4\n4")
        }
        Feature::ListenDatagram => {
            let script = "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.connect('/run/listen-datagram')\ns.send(b'x')\n";
            machine.run(&["python3", "-c", script])?.success()?;
            counts_on()
        }
        Feature::MemoryPressure => {
            let armed = sh(&format!("grep -c 'armed' {}.pressure", case.count_file()))?;
            // At the first boot and for the snapshot, then with each count.
            equal(armed, &(COUNT + 3).to_string())?;
            equal(
                sh(&format!("sort -u {}.pressure", case.count_file()))?,
                &format!("armed /sys/fs/cgroup/system.slice/{unit}/memory.pressure"),
            )
        }
        Feature::ListenFifo => {
            sh("echo x > /run/listen-fifo")?;
            counts_on()
        }
        // Group 1 of the protocol: links come, go and change.
        Feature::ListenNetlink => {
            sh("ip link set lo down && ip link set lo up")?;
            wait_until("the next count", COUNT_BOUND, || {
                let (count, pid) = read_count(machine, case)?;
                ensure!(count >= COUNT + 2 && pid == main_pid, "it wrote {count} as {pid}");
                Ok(Some(()))
            })
        }
        Feature::Message => {
            let line = format!("{} {}", case.name, COUNT + 1);
            wait_until(&line, COUNT_BOUND, || {
                let entries = journal(machine, &unit)?;
                let entry =
                    entries.iter().find(|entry| entry.message == line).context("its message is not there")?;
                ensure!(entry.pid == main_pid.to_string(), "the journal says {entry:?}");
                Ok(Some(()))
            })
        }
        Feature::Service => {
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
pub(super) fn stored_names(machine: &Container, unit: &str) -> Result<Vec<String>> {
    let call = ["busctl", "--json=short", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"];
    let method = ["org.freedesktop.systemd1.Manager", "DumpUnitFileDescriptorStore", "s", unit];
    let text = machine.run(&[&call[..], &method[..]].concat())?.success()?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("reading what systemd keeps")?;
    let names = answer.pointer("/data/0").and_then(|listed| listed.as_array()).context("no list")?;
    let name = |one: &serde_json::Value| one.get(0).and_then(|name| name.as_str()).map(str::to_owned);
    names.iter().map(name).collect::<Option<_>>().context("a stored descriptor without name")
}

/// The store is that of the image; what is in it is what the restored instance made of it; systemd
/// hands it over.
fn check_store(machine: &Container, case: &Case, main_pid: u32) -> Result<()> {
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

    // Another image, with a trial: both starts for it are as at a boot, and the next restart is
    // none of them again.
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
