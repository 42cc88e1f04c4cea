//! Files that are of one machine and of no other: its id and names, its keys, its random numbers.
//! One table.
//!
//! The table in `docs/golden-images.md` is this one, and a test compares both. Pure: nothing is
//! looked at here.

use std::path::Path;

use glob::Pattern;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct PlaceOfOne {
    /// A path; `*` stands for any text, with slashes or without.
    pub pattern: &'static str,
    /// What is there.
    pub what: &'static str,
}

const fn row(pattern: &'static str, what: &'static str) -> PlaceOfOne {
    PlaceOfOne { pattern, what }
}

/// The table. At most one row is about a path.
pub const OF_ONE_MACHINE: &[PlaceOfOne] = &[
    row("/etc/machine-id", "the machine id"),
    row("/var/lib/dbus/machine-id", "the machine id"),
    row("/run/machine-id", "the machine id"),
    row("/etc/hostid", "the host id"),
    row("/etc/hostname", "the host name"),
    row("/etc/ssh/ssh_host_*_key", "an ssh host key"),
    row("/etc/dropbear/*_host_key", "an ssh host key"),
    row("/etc/ssl/private/*", "a private key"),
    row("/etc/pki/tls/private/*", "a private key"),
    row("/etc/letsencrypt/*/privkey*.pem", "a private key"),
    row("/etc/wireguard/*", "a private key"),
    row("/etc/ipsec.secrets", "a private key"),
    row("/etc/krb5.keytab", "keys of Kerberos"),
    row("/var/lib/systemd/credential.secret", "the key of credentials"),
    row("/var/lib/systemd/random-seed", "a seed of random numbers"),
    row("/etc/dhcpcd.duid", "the identity for DHCP"),
    row("/var/lib/dhcpcd/*", "identity and leases of DHCP"),
    row("/var/lib/dhcp/*", "identity and leases of DHCP"),
    row("/var/lib/NetworkManager/*", "identity, keys and leases of NetworkManager"),
    row("/var/lib/cloud/*", "what a cloud has told this machine"),
    row("/etc/iscsi/initiatorname.iscsi", "the name of an iSCSI initiator"),
    row("/etc/nvme/host*", "the name of an NVMe host"),
    row("/sys/devices/virtual/dmi/id/*_serial", "a serial number of the hardware"),
    row("/sys/devices/virtual/dmi/id/product_uuid", "the number of the hardware"),
    row("/sys/firmware/dmi/*", "tables of the hardware"),
    row("/sys/devices/*/net/*/address", "an address of a network interface"),
];

impl PlaceOfOne {
    /// The row that a path is in.
    pub fn of(path: &Path) -> Option<&'static PlaceOfOne> {
        OF_ONE_MACHINE.iter().find(|row| row.holds(path))
    }

    /// Whether anything of the table may lie below this directory, or it in such a place.
    pub fn may_be_below(dir: &Path) -> bool {
        OF_ONE_MACHINE.iter().any(|row| row.fixed().starts_with(dir) || dir.starts_with(row.fixed()))
    }

    fn holds(&self, path: &Path) -> bool {
        Pattern::new(self.pattern).is_ok_and(|pattern| pattern.matches_path(path))
    }

    /// The path, or the directory in which the pattern begins.
    fn fixed(&self) -> &'static Path {
        match self.pattern.split_once('*') {
            None => Path::new(self.pattern),
            Some((begin, _)) => Path::new(
                begin.rsplit_once('/').map_or(begin, |(dir, _)| if dir.is_empty() { "/" } else { dir }),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(path: &str) -> Option<&'static str> {
        PlaceOfOne::of(Path::new(path)).map(|row| row.what)
    }

    #[test]
    fn ids_keys_and_seeds_are_of_one_machine_and_their_like_are_not() {
        assert_eq!(what("/etc/machine-id"), Some("the machine id"));
        assert_eq!(what("/etc/ssh/ssh_host_ed25519_key"), Some("an ssh host key"));
        assert_eq!(what("/etc/ssl/private/ssl-cert-snakeoil.key"), Some("a private key"));
        assert_eq!(what("/etc/ssl/private/site/a.key"), Some("a private key"));
        assert_eq!(what("/etc/letsencrypt/live/a.example/privkey.pem"), Some("a private key"));
        assert_eq!(what("/var/lib/systemd/random-seed"), Some("a seed of random numbers"));
        assert_eq!(what("/sys/devices/virtual/dmi/id/board_serial"), Some("a serial number of the hardware"));
        let address = "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/address";
        assert_eq!(what(address), Some("an address of a network interface"));
        for shared in [
            "/etc/machine-id.d",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/etc/ssh/sshd_config",
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/hosts",
            "/srv/etc/machine-id",
            "/sys/devices/system/cpu/online",
        ] {
            assert_eq!(what(shared), None, "{shared}");
        }
    }

    #[test]
    fn a_file_system_that_nobody_could_watch_may_hold_what_lies_below_it() {
        let may = |dir: &str| PlaceOfOne::may_be_below(Path::new(dir));
        assert!(may("/") && may("/etc") && may("/sys") && may("/etc/ssl/private/site"));
        assert!(!may("/srv") && !may("/proc") && !may("/home/user"));
    }

    #[test]
    fn every_pattern_can_be_read_and_no_two_rows_are_about_one_path() {
        for row in OF_ONE_MACHINE {
            Pattern::new(row.pattern).unwrap();
            let example = row.pattern.replace('*', "x");
            let holding = OF_ONE_MACHINE.iter().filter(|other| other.holds(Path::new(&example)));
            assert_eq!(holding.count(), 1, "{example}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_in_the_documentation_in_its_order() {
        let doc = include_str!("../../../docs/golden-images.md");
        let rows = doc.lines().filter(|line| line.starts_with("| `/"));
        let told: Vec<&str> = rows.collect();
        let known = OF_ONE_MACHINE.iter().map(|row| format!("| `{}` | {} |", row.pattern, row.what));
        assert_eq!(told, known.collect::<Vec<_>>());
    }
}
