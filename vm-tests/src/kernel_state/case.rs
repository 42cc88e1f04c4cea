//! Services that make something in the kernel outside of their processes, and one that does not.

/// What becomes of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Refused with this code; the sentence has each of these in it.
    Refused(&'static str, &'static [&'static str]),
    /// Restored, and then this command prints what it printed before the snapshot.
    Restored(&'static str),
}

/// A unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// Name without `.service`.
    pub name: &'static str,
    /// What follows `[Service]`.
    pub service: &'static str,
    pub fate: Fate,
}

impl Case {
    pub fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    pub fn test(&self) -> String {
        format!("kernel-state/{}", self.name)
    }
}

const OWN_TABLE: &str = "table inet own: 1 chains, 3 rules, 2 sets";

pub(super) const CASES: &[Case] = &[
    // As firewalld does: what it has made goes when it stops.
    Case {
        name: "rules-that-go",
        service: "ExecStart=sh -c 'nft -f /srv/rules.nft && exec sleep infinity'\nExecStopPost=nft delete table inet own",
        fate: Fate::Refused("kernel-nftables", &[OWN_TABLE]),
    },
    Case {
        name: "rules-that-stay",
        service: "ExecStart=sh -c 'sed \"s/inet own/inet stay/\" /srv/rules.nft | nft -f - && exec sleep infinity'",
        fate: Fate::Refused("kernel-nftables", &["table inet stay"]),
    },
    Case {
        name: "interface",
        service: "ExecStart=sh -c 'ip link add made0 type veth peer made1 && ip address add 198.51.100.1/24 dev made0 && \
                  ip link set made0 up && exec sleep infinity'\nExecStopPost=ip link delete made0",
        fate: Fate::Refused("kernel-address", &["made0: veth, up", "198.51.100.1/24 on made0"]),
    },
    // Another rule or route of the same words cannot be told from the first one: the trial shows
    // that they are missing.
    Case {
        name: "routing",
        service: "ExecStart=sh -c 'ip route add 203.0.113.0/24 dev lo table 77 && ip rule add to 203.0.113.0/24 table 77 \
                  priority 770 && exec sleep infinity'\n\
                  ExecStopPost=ip route flush table 77\nExecStopPost=ip rule delete priority 770",
        fate: Fate::Refused(
            "kernel-routing-rule",
            &["203.0.113.0/24 on lo in table 77", "770 of IPv4 to table 77"],
        ),
    },
    Case {
        name: "own-network",
        service: "PrivateNetwork=yes\n\
                  ExecStart=sh -c 'ip link add inside0 type veth peer inside1 && exec sleep infinity'",
        fate: Fate::Refused("kernel-link", &["inside0: veth, down"]),
    },
    Case {
        name: "mount",
        service: "ExecStart=sh -c 'mount -t tmpfs none /srv/mounted && exec sleep infinity'\nExecStopPost=umount /srv/mounted",
        fate: Fate::Refused("kernel-mount", &["/srv/mounted: tmpfs"]),
    },
    Case {
        name: "setting",
        service: "ExecStart=sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward && exec sleep infinity'",
        fate: Fate::Refused("kernel-setting", &["/proc/sys/net/ipv4/ip_forward"]),
    },
    // A restored start runs these too.
    Case {
        name: "start-pre",
        service: "ExecStartPre=ip link add pre0 type veth peer pre1\nExecStartPre=sh -c 'echo 77 > /proc/sys/net/ipv4/ip_default_ttl'\n\
                  ExecStart=sleep infinity\nExecStopPost=ip link delete pre0",
        fate: Fate::Restored(
            "ip -o link show pre0 | grep -o 'pre0@pre1'; cat /proc/sys/net/ipv4/ip_default_ttl",
        ),
    },
    Case {
        name: "reload",
        service: "ExecStart=sh -c 'nft -f /srv/again.nft && exec sleep infinity'\nExecStopPost=nft delete table inet again\n\
                  [X-Fastboot]\nKernelState=reload\nAfterRestore=+nft -f /srv/again.nft",
        fate: Fate::Restored("nft --stateless list table inet again"),
    },
    Case {
        name: "reload-in-vain",
        service: "ExecStart=sh -c 'sed \"s/inet own/inet vain/\" /srv/rules.nft | nft -f - && exec sleep infinity'\n\
                  ExecStopPost=nft delete table inet vain\n[X-Fastboot]\nKernelState=reload\nAfterRestore=true",
        fate: Fate::Refused("kernel-state-lost", &["table inet vain"]),
    },
    // May do everything, and does nothing.
    Case { name: "plain", service: "ExecStart=sleep infinity", fate: Fate::Restored("echo nothing") },
];
