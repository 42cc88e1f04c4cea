//! Whether a service may be taken, as far as systemd's word and the unit's text tell. Pure: nothing is looked at here.

use super::{UnitProperties, UnitText};

/// Types of which the boot side can give back a running service.
const TYPES: [&str; 7] = ["simple", "exec", "notify", "notify-reload", "forking", "dbus", "idle"];

/// Never taken: everyone's connections end there, or they are the session or the boot itself. A `*` ends a prefix.
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

/// Their memory and their files belong together; an image from an earlier day would write old pages over newer data.
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

/// Every reason of the unit itself not to take it; empty when there is none.
pub fn inspect_unit(unit: &UnitProperties, text: &UnitText) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut add = |applies: bool, reason: String| {
        if applies {
            reasons.push(reason);
        }
    };
    if let Standing::Never(why) = Standing::of(&unit.id) {
        add(true, why.to_owned());
    }
    add(unit.load_state != "loaded", format!("its unit file is {}", unit.load_state));
    let running = unit.active_state == "active" && unit.sub_state == "running";
    add(!running, format!("it is not running ({}, {})", unit.active_state, unit.sub_state));
    add(running && unit.main_pid <= 0, "systemd does not know its main process".to_owned());
    add(!TYPES.contains(&unit.service_type.as_str()), format!("Type={} is not restored", unit.service_type));
    add(
        unit.exec_start_count != 1 || text.exec_start.len() != 1,
        format!("it has {} ExecStart= lines", unit.exec_start_count.max(text.exec_start.len())),
    );
    match &unit.fragment {
        None => add(true, "it has no unit file".to_owned()),
        Some(path) => {
            let made_anew = unit.is_transient || path.starts_with("/run");
            add(made_anew, format!("its unit file {} is made anew at each boot", path.display()));
        }
    }
    let runtime =
        |path: &&std::path::PathBuf| path.starts_with("/run") && !image_store::evidence::is_own_drop_in(path);
    if let Some(path) = unit.drop_ins.iter().find(runtime) {
        add(true, format!("its drop-in {} does not outlive a reboot", path.display()));
    }
    add(
        unit.needs_reload,
        "its unit files changed since systemd read them (systemctl daemon-reload)".to_owned(),
    );
    add(!unit.can_restart, "it may not be started or stopped by hand".to_owned());
    if let Some(root) = &unit.root {
        add(true, format!("it has a root of its own ({root})"));
    }
    add(!unit.pam_name.is_empty(), format!("it opens a PAM session (PAMName={})", unit.pam_name));
    add(unit.has_own_pids, "it has a PID namespace of its own (PrivatePIDs=)".to_owned());
    let count = unit.stored_fds;
    add(
        unit.stored.len() != count as usize,
        format!(
            "systemd keeps {count} descriptors for it and does not say which (file descriptor store; systemd 254 does)"
        ),
    );
    // systemd hears the shim of such a service only as one of several that may speak.
    add(
        count > 0 && unit.service_type == "forking" && !matches!(unit.notify_access.as_str(), "exec" | "all"),
        format!(
            "systemd keeps {count} descriptors for it, and would take them back from its main process only \
             (file descriptor store; Type=forking with NotifyAccess={})",
            unit.notify_access
        ),
    );
    if let Some(key) = text.unknown.first() {
        add(true, format!("[X-Fastboot] {key}= is not known"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn running() -> (UnitProperties, UnitText) {
        let unit = UnitProperties {
            id: "web.service".into(),
            load_state: "loaded".into(),
            active_state: "active".into(),
            sub_state: "running".into(),
            service_type: "exec".into(),
            main_pid: 812,
            exec_start_count: 1,
            can_restart: true,
            fragment: Some(PathBuf::from("/etc/systemd/system/web.service")),
            ..UnitProperties::default()
        };
        (unit, UnitText { exec_start: vec!["/bin/web".into()], ..UnitText::default() })
    }

    #[test]
    fn an_ordinary_service_has_no_reasons() {
        let (unit, text) = running();
        assert_eq!(inspect_unit(&unit, &text), Vec::<String>::new());
    }

    #[test]
    fn all_reasons_are_listed() {
        let (unit, text) = running();
        let unit = UnitProperties {
            service_type: "oneshot".into(),
            pam_name: "login".into(),
            root: Some("/srv/jail".into()),
            needs_reload: true,
            ..unit
        };
        let reasons = inspect_unit(&unit, &text);
        assert_eq!(reasons.len(), 4, "{reasons:?}");
    }

    #[test]
    fn a_unit_may_have_a_store_that_systemd_lists_and_takes_back() {
        let (mut unit, text) = running();
        unit.stored_fds = 1;
        let unlisted = inspect_unit(&unit, &text);
        assert!(unlisted.iter().any(|reason| reason.contains("does not say which")), "{unlisted:?}");
        unit.stored = vec![snap_collect::dump::StoredDescriptor::default()];
        assert_eq!(inspect_unit(&unit, &text), Vec::<String>::new());
        (unit.service_type, unit.notify_access) = ("forking".into(), "main".into());
        let unheard = inspect_unit(&unit, &text);
        assert!(unheard.iter().any(|reason| reason.contains("Type=forking")), "{unheard:?}");
        unit.notify_access = "exec".into();
        assert!(inspect_unit(&unit, &text).is_empty());
    }

    #[test]
    fn a_restored_unit_may_have_our_own_drop_in() {
        let (mut unit, text) = running();
        unit.drop_ins = vec!["/run/systemd/generator.late/web.service.d/zzzz-fastboot.conf".into()];
        assert!(inspect_unit(&unit, &text).is_empty());
        unit.drop_ins = vec!["/run/systemd/system/web.service.d/x.conf".into()];
        assert_eq!(inspect_unit(&unit, &text).len(), 1);
    }

    #[test]
    fn names_tell_hubs_and_owners_of_data() {
        assert!(matches!(Standing::of("dbus.service"), Standing::Never(_)));
        assert!(matches!(Standing::of("user@1000.service"), Standing::Never(_)));
        assert!(matches!(Standing::of("postgresql@17-main.service"), Standing::OnlyNamed(_)));
        assert_eq!(Standing::of("redis-server.service"), Standing::Ordinary);
        assert_eq!(Standing::of("nginx.service"), Standing::Ordinary);
    }
}
