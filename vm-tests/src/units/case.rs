//! One unit for each feature of systemd that a restored service has to live with.

use super::feature::Feature;

/// How a unit has to come through a snapshot and a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Restored, with its count and with what it is there for.
    Restored(Feature),
    /// Stored and tried, but started cold at the next boot; the reason has this in it.
    Cold(&'static str),
    /// Refused by name; the reason has this in it.
    Refused(&'static str),
}

/// A unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// Name without `.service`.
    pub name: &'static str,
    /// What follows `[Service]`.
    pub service: &'static str,
    pub fate: Fate,
    /// Other units and files that belong to it.
    pub files: &'static [(&'static str, &'static str)],
}

const fn restored(name: &'static str, feature: Feature, service: &'static str) -> Case {
    Case { name, service, fate: Fate::Restored(feature), files: &[] }
}

const fn with(
    name: &'static str,
    feature: Feature,
    service: &'static str,
    files: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, service, fate: Fate::Restored(feature), files }
}

const fn refused(name: &'static str, service: &'static str, why: &'static str) -> Case {
    with_refused(name, service, why, &[])
}

const fn with_refused(
    name: &'static str,
    service: &'static str,
    why: &'static str,
    files: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, service, fate: Fate::Refused(why), files }
}

/// Takes connections over loopback and keeps them. It is in no image.
const PEER: &str = "[Service]\nExecStart=python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 7190)); \
     kept = []\\nwhile True: kept.append(s.accept())\"\n";

/// The unit whose dynamic user changes between the boots.
pub(super) const MOVED_USER: &str = "moved-user";
/// The unit whose port is for the privileged again in the second boot.
pub(super) const LOW_PORT: &str = "low-port";
/// What lets everybody have it in the first.
pub(super) const LOW_PORTS: &str = "/etc/sysctl.d/low-ports.conf";
/// The unit whose slice forbids it its port from the second boot on.
pub(super) const DENIED_PORT: &str = "denied-port";
/// What forbids it: path and text.
pub(super) const DENIAL: (&str, &str) =
    ("/etc/systemd/system/denying.slice.d/deny.conf", "[Slice]\nSocketBindDeny=7180\n");

/// The unit that finds its store empty after a restore that failed.
pub(super) const STORE_FAILS: &str = "store-fails";

/// All of them. Where nothing else is said the count is in `/var/lib/counts/NAME`.
pub(super) const CASES: &[Case] = &[
    restored(
        "keyring",
        Feature::Keyring { seen: "keys 1 user 0" },
        "User=counter\nExecStart=/usr/local/bin/subject keyring",
    ),
    restored(
        "keyring-shared",
        Feature::Keyring { seen: "keys 2 user 1" },
        "User=counter\nKeyringMode=shared\nExecStart=/usr/local/bin/subject keyring",
    ),
    restored("simple", Feature::Service, "ExecStart=/usr/local/bin/subject"),
    restored("exec", Feature::Service, "Type=exec\nExecStart=/usr/local/bin/subject"),
    restored("idle", Feature::Service, "Type=idle\nExecStart=/usr/local/bin/subject"),
    restored("notify", Feature::Status, "Type=notify\nExecStart=/usr/local/bin/subject notify"),
    restored(
        "watchdog",
        Feature::Watchdog,
        "Type=notify\nWatchdogSec=2\nExecStart=/usr/local/bin/subject notify watchdog",
    ),
    restored(
        "notify-reload",
        Feature::NotifyReload,
        "Type=notify-reload\nExecStart=/usr/local/bin/subject reload",
    ),
    restored(
        "forking",
        Feature::PidFile,
        "Type=forking\nPIDFile=/run/forking.pid\nExecStart=/usr/local/bin/subject fork=/run/forking.pid",
    ),
    restored("forking-guessed", Feature::Service, "Type=forking\nExecStart=/usr/local/bin/subject fork"),
    restored(
        "start-post",
        Feature::StartPost,
        "ExecStart=/usr/local/bin/subject\nExecStartPost=/bin/sh -c 'echo $MAINPID > /run/start-post'",
    ),
    restored(
        "reload",
        Feature::Reload,
        "ExecStart=/usr/local/bin/subject\nExecReload=/bin/kill -HUP $MAINPID",
    ),
    restored(
        "stop",
        Feature::Stop,
        "ExecStart=/usr/local/bin/subject\nExecStop=/bin/sh -c 'echo $MAINPID > /var/lib/counts/stopped; kill $MAINPID'",
    ),
    restored(
        "runtime-directory",
        Feature::RuntimeDirectory,
        "User=counter\nRuntimeDirectory=runtime-directory\nRuntimeDirectoryMode=0750\n\
         ExecStart=/usr/local/bin/subject touch=/run/runtime-directory/made",
    ),
    restored(
        "state-directory",
        Feature::StateDirectory,
        "StateDirectory=state-directory\nExecStart=/usr/local/bin/subject touch=/var/lib/state-directory/made",
    ),
    restored(
        "private-tmp",
        Feature::PrivateTmp,
        "PrivateTmp=yes\nExecStart=/usr/local/bin/subject touch=/tmp/made",
    ),
    restored(
        "dynamic-user",
        Feature::DynamicUser,
        "DynamicUser=yes\nStateDirectory=dynamic-user\nEnvironment=COUNT_FILE=/var/lib/dynamic-user/count\n\
         ExecStart=/usr/local/bin/subject",
    ),
    // systemd takes the user from the owner of the directory, which is another one at the next
    // boot.
    Case {
        name: MOVED_USER,
        service: "DynamicUser=yes\nStateDirectory=moved-user\nEnvironment=COUNT_FILE=/var/lib/moved-user/count\n\
                  ExecStart=/usr/local/bin/subject",
        fate: Fate::Cold("the unit's dynamic user was "),
        files: &[],
    },
    with(
        "credential",
        Feature::Credential,
        "LoadCredential=word:/etc/credential-word\nExecStart=/usr/local/bin/subject",
        &[("/etc/credential-word", "secret\n")],
    ),
    with(
        "environment-file",
        Feature::Service,
        "EnvironmentFile=/etc/environment-word\nExecStart=/usr/local/bin/subject",
        &[("/etc/environment-word", "WORD=one\n")],
    ),
    with(
        "slice",
        Feature::Slice,
        "Slice=tests.slice\nExecStart=/usr/local/bin/subject",
        &[("/etc/systemd/system/tests.slice", "[Slice]\nTasksMax=100\n")],
    ),
    restored("template@some-word", Feature::Service, "Environment=WORD=%i\nExecStart=/usr/local/bin/subject"),
    restored(
        "aliased",
        Feature::Aliased,
        "ExecStart=/usr/local/bin/subject\n[Install]\nAlias=other-name.service",
    ),
    with(
        "dropped-in",
        Feature::DroppedIn,
        "ExecStart=/usr/local/bin/subject",
        &[("/etc/systemd/system/dropped-in.service.d/local.conf", "[Service]\nNice=5\n")],
    ),
    with(
        "listen-stream",
        Feature::ListenStream,
        "ExecStart=/usr/local/bin/subject listen",
        &[(
            "/etc/systemd/system/listen-stream.socket",
            "[Socket]\nListenStream=/run/listen-stream\nListenStream=127.0.0.1:7001\n",
        )],
    ),
    with(
        "listen-datagram",
        Feature::ListenDatagram,
        "ExecStart=/usr/local/bin/subject listen",
        &[("/etc/systemd/system/listen-datagram.socket", "[Socket]\nListenDatagram=/run/listen-datagram\n")],
    ),
    with(
        "listen-fifo",
        Feature::ListenFifo,
        "ExecStart=/usr/local/bin/subject listen",
        &[("/etc/systemd/system/listen-fifo.socket", "[Socket]\nListenFIFO=/run/listen-fifo\n")],
    ),
    with(
        "listen-netlink",
        Feature::ListenNetlink,
        "ExecStart=/usr/local/bin/subject listen",
        &[("/etc/systemd/system/listen-netlink.socket", "[Socket]\nListenNetlink=route 1\n")],
    ),
    // systemd names the pressure file of the unit's own control group.
    restored(
        "memory-pressure",
        Feature::MemoryPressure,
        "MemoryPressureWatch=on\nExecStart=/usr/local/bin/subject pressure",
    ),
    restored("inhibitor", Feature::Inhibitor, "ExecStart=/usr/local/bin/inhibitor.py"),
    restored("syslog", Feature::Message, "ExecStart=/usr/local/bin/subject syslog"),
    restored("native", Feature::Message, "ExecStart=/usr/local/bin/subject native"),
    restored(
        "sandboxed",
        Feature::Sandbox,
        "User=counter\nProtectSystem=strict\nReadWritePaths=/var/lib/counts\nNoNewPrivileges=yes\nPrivateDevices=yes\n\
         SystemCallFilter=@system-service\nRestrictNamespaces=yes\nProtectKernelTunables=yes\nUMask=0027\n\
         LimitNOFILE=512\nExecStart=/usr/local/bin/subject",
    ),
    restored(
        "socket-rules",
        Feature::Rules { reach: "near 1 far 0 bind 0", port: 7110 },
        "IPAddressDeny=127.0.0.2\nSocketBindDeny=7111\nExecStart=/usr/local/bin/subject rules=7110",
    ),
    with(
        "slice-rules",
        Feature::Rules { reach: "near 1 far 0 bind 0", port: 7120 },
        "Slice=guarded.slice\nExecStart=/usr/local/bin/subject rules=7120",
        &[("/etc/systemd/system/guarded.slice", "[Slice]\nIPAddressDeny=127.0.0.2\nSocketBindDeny=7121\n")],
    ),
    restored(
        "all-rules",
        Feature::AllRules,
        "IPAddressDeny=any\nSocketBindDeny=7131\nExecStart=/usr/local/bin/subject rules=7130",
    ),
    restored(
        "interface-rules",
        Feature::InterfaceRules,
        "RestrictNetworkInterfaces=lo\nExecStart=/usr/local/bin/subject far=192.0.2.2 rules=7170\n\
         [Unit]\nRequires=rules-for-all.service\nAfter=rules-for-all.service",
    ),
    restored(
        "filter-programs",
        Feature::FilterPrograms,
        "IPEgressFilterPath=/run/programs/no-far\nIPIngressFilterPath=/run/programs/no-near\n\
         ExecStart=/usr/local/bin/subject rules=7150\n\
         [Unit]\nRequires=rules-for-all.service\nAfter=rules-for-all.service",
    ),
    restored(
        "bpf-program",
        Feature::Rules { reach: "near 1 far 1 bind 0", port: 7160 },
        "BPFProgram=bind4:/run/programs/no-bind\nExecStart=/usr/local/bin/subject rules=7160\n\
         [Unit]\nRequires=rules-for-all.service\nAfter=rules-for-all.service",
    ),
    Case {
        name: DENIED_PORT,
        service: "Slice=denying.slice\nExecStart=/usr/local/bin/subject rules=7180",
        fate: Fate::Cold("the unit's control group may not bind to 127.0.0.1:7180"),
        files: &[("/etc/systemd/system/denying.slice", "[Slice]\n")],
    },
    Case {
        name: LOW_PORT,
        service: "User=counter\nNoNewPrivileges=yes\nExecStart=/usr/local/bin/subject rules=85",
        fate: Fate::Cold("the unit may not bind to 127.0.0.1:85: ports below 1024 need a privilege"),
        files: &[(LOW_PORTS, "net.ipv4.ip_unprivileged_port_start = 80\n")],
    },
    restored(
        "low-port-by-capability",
        Feature::LowPort,
        "User=counter\nNoNewPrivileges=yes\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n\
         ExecStart=/usr/local/bin/subject rules=87",
    ),
    with(
        "lost-peer",
        Feature::LostPeer,
        "ExecStart=/usr/local/bin/subject connect=7190\n[Unit]\nWants=peer.service\nAfter=peer.service\n\
         [X-Fastboot]\nOnLostPeer=close",
        &[("/etc/systemd/system/peer.service", PEER)],
    ),
    with_refused(
        "kept-peer",
        "ExecStart=/usr/local/bin/subject connect=7190\n[Unit]\nWants=peer.service\nAfter=peer.service",
        "an established TCP connection to 127.0.0.1:7190",
        &[("/etc/systemd/system/peer.service", PEER)],
    ),
    restored(
        "delegated",
        Feature::Delegated { owner: "counter", main: "" },
        "User=counter\nDelegate=yes\nExecStart=/usr/local/bin/subject groups",
    ),
    restored(
        "delegated-subgroup",
        Feature::Delegated { owner: "root", main: "/main" },
        "Delegate=yes\nDelegateSubgroup=main\nExecStart=/usr/local/bin/subject groups",
    ),
    // Its groups are there when the restore fails: the cold one could not make its own if they were
    // left.
    Case {
        name: "delegated-fails",
        service: "Delegate=yes\nExecStart=/usr/local/bin/subject groups\n[X-Fastboot]\nAfterRestore=test -e /run/warm-up",
        fate: Fate::Cold("AfterRestore=test -e /run/warm-up: exit status: 1"),
        files: &[],
    },
    refused(
        "threaded",
        "Delegate=yes\nExecStart=/bin/sh -c 'cd /sys/fs/cgroup$(grep ^0:: /proc/self/cgroup | cut -d: -f3) && \
         mkdir below && echo threaded > below/cgroup.type && exec sleep infinity'",
        "a control group that is domain threaded (",
    ),
    restored(
        "store",
        Feature::Store,
        "Type=notify\nRestart=on-failure\nRestartSec=100ms\nFileDescriptorStoreMax=20\n\
         ExecStart=/usr/local/bin/subject notify store=7200",
    ),
    restored(
        "store-preserved",
        Feature::Store,
        "Restart=on-failure\nRestartSec=100ms\nFileDescriptorStoreMax=20\nFileDescriptorStorePreserve=yes\n\
         User=counter\nProtectSystem=strict\nReadWritePaths=/var/lib/counts\n\
         ExecStart=/usr/local/bin/subject store=7201",
    ),
    // The cold start finds an empty store and fills it itself.
    Case {
        name: STORE_FAILS,
        service: "Type=notify\nFileDescriptorStoreMax=20\nExecStart=/usr/local/bin/subject notify store=7202\n[X-Fastboot]\n\
                  AfterRestore=test -e /run/warm-up",
        fate: Fate::Cold("AfterRestore=test -e /run/warm-up: exit status: 1"),
        files: &[],
    },
    refused(
        "store-names",
        "Type=notify\nFileDescriptorStoreMax=20\nExecStart=/usr/local/bin/subject notify store-names",
        "(FDNAME=first, second, anon_inode:[eventfd]), and systemd does not tell which has which name",
    ),
    // systemd has pidfds of its main process itself.
    restored(
        "store-self",
        Feature::StoreSelf,
        "Type=notify\nFileDescriptorStoreMax=20\nExecStart=/usr/local/bin/subject notify store-self",
    ),
    refused(
        "store-locked",
        "Type=notify\nFileDescriptorStoreMax=20\nExecStart=/usr/local/bin/subject notify store-locked",
        "is a file with a lock that only systemd keeps (FDNAME=locked)",
    ),
    refused(
        "store-epoll",
        "Type=notify\nFileDescriptorStoreMax=20\nExecStart=/usr/local/bin/subject notify store-epoll",
        "(FDNAME=set, anon_inode:[eventpoll]) that cannot be told from others that systemd has open",
    ),
    restored(
        "skip-start-pre",
        Feature::SkippedStartPre,
        "ExecStartPre=+/bin/sh -c 'echo ran >> /var/lib/counts/pre-kept'\n\
         ExecStartPre=/bin/sh -c 'sleep 0.3; echo \"$WORD\" >> /var/lib/counts/pre-carried'\nExecStartPre=-/bin/false\n\
         Environment=WORD=ran\nExecStart=/usr/local/bin/subject\n[X-Fastboot]\nSkipStartPre=yes",
    ),
    restored(
        "hook-commands",
        Feature::HookCommands,
        "User=counter\nPrivateTmp=yes\nExecStart=/usr/local/bin/subject touch=/tmp/made\n[X-Fastboot]\n\
         BeforeSnapshot=test -s /tmp/made && echo \"$FASTBOOT_EVENT $(id -un)\" >> /var/lib/counts/hook-commands.events\n\
         BeforeSnapshot=-/bin/false\n\
         AfterRestore=test -s /tmp/made && test -d /proc/$MAINPID && echo \"$FASTBOOT_EVENT $(id -un)\" >> /var/lib/counts/hook-commands.events\n\
         AfterRestore=+test ! -e /tmp/made",
    ),
    refused(
        "hook-before-fails",
        "ExecStart=/usr/local/bin/subject\n[X-Fastboot]\nBeforeSnapshot=exit 7",
        "BeforeSnapshot=exit 7: exit status: 7",
    ),
    // The file is there in the boot of the snapshot only.
    Case {
        name: "hook-after-fails",
        service: "ExecStart=/usr/local/bin/subject\n[X-Fastboot]\nAfterRestore=test -e /run/warm-up",
        fate: Fate::Cold("AfterRestore=test -e /run/warm-up: exit status: 1"),
        files: &[],
    },
    restored("hook-c", Feature::Hooks { with_key: false }, "ExecStart=/usr/local/bin/subject hooks"),
    restored("hook-rust", Feature::Hooks { with_key: true }, "ExecStart=/usr/local/bin/hooks-rust"),
    restored(
        "hook-python",
        Feature::Hooks { with_key: true },
        "DynamicUser=yes\nStateDirectory=hook-python\n\
         Environment=COUNT_FILE=/var/lib/hook-python/count\nExecStart=/usr/local/bin/hooks.py",
    ),
    // Nobody can tell whether a process has read ahead from it.
    refused(
        "random-device",
        "ExecStart=/bin/sh -c 'exec 3</dev/urandom; exec /usr/local/bin/subject'",
        "holds /dev/urandom open",
    ),
    restored(
        "random-device-allowed",
        Feature::Service,
        "ExecStart=/bin/sh -c 'exec 3</dev/urandom; exec /usr/local/bin/subject'\n\
         [X-Fastboot]\nAllowRepeatedRandom=yes",
    ),
    Case {
        name: "short-lived",
        service: "ExecStart=/usr/local/bin/subject\n[X-Fastboot]\nMaxAge=1",
        fate: Fate::Cold("s old, and MaxAge= allows 1 s"),
        files: &[],
    },
    // Its shim could not reach the restore daemon: the generator would leave it alone.
    refused(
        "no-unix-sockets",
        "RestrictAddressFamilies=AF_INET\nExecStart=/usr/local/bin/subject",
        "RestrictAddressFamilies= does not allow AF_UNIX",
    ),
    refused(
        "wrong-options",
        "ExecStart=/usr/local/bin/subject\n[X-Fastboot]\nAllowState=maybe\nDependsOn=relative",
        "[X-Fastboot] DependsOn=relative is not an absolute path; [X-Fastboot] AllowState=maybe is not yes or no",
    ),
    refused("oneshot", "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true", "Type=oneshot"),
];

impl Case {
    /// Name of its test.
    pub(super) fn test(&self) -> String {
        format!("units/{}", self.name)
    }

    pub(super) fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    /// File of the unit: a template's has no instance.
    pub(super) fn unit_file(&self) -> String {
        match self.name.split_once('@') {
            Some((template, _)) => format!("/etc/systemd/system/{template}@.service"),
            None => format!("/etc/systemd/system/{}.service", self.name),
        }
    }

    pub(super) fn text(&self) -> String {
        let count = match self.service.contains("COUNT_FILE=") {
            true => String::new(),
            false => format!("Environment=COUNT_FILE={}\n", self.count_file()),
        };
        format!("[Unit]\nDescription=Subject {}\n[Service]\n{count}{}\n", self.name, self.service)
    }

    /// Where it writes its count.
    pub(super) fn count_file(&self) -> String {
        let given = self.service.lines().find_map(|line| line.split_once("COUNT_FILE="));
        given.map_or_else(|| format!("/var/lib/counts/{}", self.name), |(_, path)| path.to_owned())
    }

    /// Its socket unit, if it has one.
    pub(super) fn socket(&self) -> Option<String> {
        let is_socket = |path: &&str| path.ends_with(".socket");
        self.files.iter().map(|(path, _)| *path).find(is_socket).map(|_| format!("{}.socket", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_and_a_count_of_its_own() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
            assert_eq!(case.text().matches("COUNT_FILE=").count(), 1, "{}", case.name);
        }
        let template = CASES.iter().find(|case| case.name.contains('@')).unwrap();
        assert!(template.unit_file().ends_with("/template@.service"));
    }
}
