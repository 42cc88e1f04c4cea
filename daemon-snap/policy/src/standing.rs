//! How a service stands towards snapshots by its name alone.

/// Never taken: everyone's connections end there, or they are the session or the boot itself. A `*`
/// ends a prefix.
const HUBS: [&str; 18] = [
    "dbus.service",
    "dbus-broker.service",
    "systemd-journald*",
    "systemd-logind.service",
    "systemd-udevd.service",
    "systemd-userdbd.service",
    "systemd-homed.service",
    "systemd-machined.service",
    "systemd-nsresourced.service",
    "systemd-mountfsd.service",
    "systemd-executor*",
    "getty@*",
    "serial-getty@*",
    "console-getty.service",
    "container-getty@*",
    "user@*",
    "fastboot*",
    "emergency.service",
];

/// Owners of kernel state: what they believe to exist is gone after a reboot.
const KERNEL_STATE: [&str; 31] = [
    "systemd-networkd*",
    "systemd-resolved*",
    "systemd-timesyncd*",
    "NetworkManager*",
    "wpa_supplicant*",
    "iwd*",
    "ModemManager*",
    "bluetooth*",
    "firewalld*",
    "nftables*",
    "ufw*",
    "docker*",
    "containerd*",
    "podman*",
    "crio*",
    "kubelet*",
    "frr*",
    "bird*",
    "keepalived*",
    "strongswan*",
    "ipsec*",
    "openvpn*",
    "libvirt*",
    "virt*",
    "openvswitch*",
    "ovs-*",
    "multipathd*",
    "iscsid*",
    "lvm2-*",
    "rpcbind*",
    "nfs-*",
];

/// Their memory and their files belong together; an image from an earlier day would write old pages
/// over newer data.
const DATA_OWNERS: [&str; 31] = [
    "mariadb*",
    "mysql*",
    "postgresql*",
    "etcd*",
    "rabbitmq*",
    "slapd*",
    "smbd*",
    "nmbd*",
    "winbind*",
    "samba*",
    "sssd*",
    "mongod*",
    "influxdb*",
    "elasticsearch*",
    "opensearch*",
    "couchdb*",
    "cassandra*",
    "clickhouse*",
    "neo4j*",
    "zookeeper*",
    "kafka*",
    "activemq*",
    "prometheus*",
    "postfix*",
    "exim4*",
    "dovecot*",
    "named*",
    "bind9*",
    "ceph*",
    "cups*",
    "fail2ban*",
];

/// They start in a few milliseconds, and whoever works on the machine may hang on them.
const POINTLESS: [&str; 8] = [
    "cron.service",
    "cronie.service",
    "atd.service",
    "ssh.service",
    "sshd.service",
    "rsyslog.service",
    "polkit.service",
    "anacron.service",
];

/// How a service stands towards snapshots in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Taken when it can be.
    Ordinary,
    /// Taken only when it is named; the text says what is risky.
    OnlyNamed(&'static str),
    /// Never taken.
    Never(&'static str),
}

impl Standing {
    /// How the service of this name stands.
    pub fn of(unit: &str) -> Self {
        let is_in = |list: &[&str]| list.iter().any(|pattern| is_match(pattern, unit));
        if is_in(&HUBS) {
            Self::Never("it is a hub that others are connected to, or part of the boot itself")
        } else if is_in(&KERNEL_STATE) {
            Self::OnlyNamed("it owns kernel state, which a reboot takes away under it")
        } else if is_in(&DATA_OWNERS) {
            Self::OnlyNamed("it writes files that belong together with its memory")
        } else if is_in(&POINTLESS) {
            Self::OnlyNamed("it starts in a few milliseconds anyway")
        } else {
            Self::Ordinary
        }
    }
}

fn is_match(pattern: &str, unit: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => unit.starts_with(prefix),
        None => pattern == unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_hubs_and_owners_of_data() {
        assert!(matches!(Standing::of("dbus.service"), Standing::Never(_)));
        assert!(matches!(Standing::of("user@1000.service"), Standing::Never(_)));
        assert!(matches!(Standing::of("postgresql@17-main.service"), Standing::OnlyNamed(_)));
        assert_eq!(Standing::of("redis-server.service"), Standing::Ordinary);
        assert_eq!(Standing::of("nginx.service"), Standing::Ordinary);
    }
}
