//! Debian's own services that live on the bus.

use anyhow::{Context as _, Result, ensure};

use super::bus;
use super::bus_site::SOON;
use crate::container::{Container, wait_until};
use crate::fastboot;
use crate::fastboot::StatusReport;

/// One of them, with a question that only it can answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packaged {
    pub unit: &'static str,
    /// Arguments of busctl behind `--system`; the second is the service's name.
    question: &'static [&'static str],
}

/// Not bluez: it needs AF_BLUETOOTH, which neither Debian's cloud kernel has (CONFIG_BT) nor, as a
/// rule, the host of a container.
pub(super) const PACKAGES: [&str; 7] =
    ["polkitd", "avahi-daemon", "accountsservice", "udisks2", "upower", "modemmanager", "packagekit"];

pub(super) const SERVICES: [Packaged; 7] = [
    Packaged {
        unit: "polkit.service",
        question: &[
            "get-property",
            "org.freedesktop.PolicyKit1",
            "/org/freedesktop/PolicyKit1/Authority",
            "org.freedesktop.PolicyKit1.Authority",
            "BackendName",
        ],
    },
    Packaged {
        unit: "avahi-daemon.service",
        question: &["call", "org.freedesktop.Avahi", "/", "org.freedesktop.Avahi.Server", "GetVersionString"],
    },
    Packaged {
        unit: "accounts-daemon.service",
        question: &[
            "call",
            "org.freedesktop.Accounts",
            "/org/freedesktop/Accounts",
            "org.freedesktop.Accounts",
            "FindUserById",
            "x",
            "0",
        ],
    },
    Packaged {
        unit: "udisks2.service",
        question: &[
            "get-property",
            "org.freedesktop.UDisks2",
            "/org/freedesktop/UDisks2/Manager",
            "org.freedesktop.UDisks2.Manager",
            "Version",
        ],
    },
    Packaged {
        unit: "upower.service",
        question: &[
            "call",
            "org.freedesktop.UPower",
            "/org/freedesktop/UPower",
            "org.freedesktop.UPower",
            "EnumerateDevices",
        ],
    },
    Packaged {
        unit: "ModemManager.service",
        question: &[
            "get-property",
            "org.freedesktop.ModemManager1",
            "/org/freedesktop/ModemManager1",
            "org.freedesktop.ModemManager1",
            "Version",
        ],
    },
    Packaged {
        unit: "packagekit.service",
        question: &[
            "get-property",
            "org.freedesktop.PackageKit",
            "/org/freedesktop/PackageKit",
            "org.freedesktop.PackageKit",
            "VersionMajor",
        ],
    },
];

impl Packaged {
    /// Its name on the bus.
    pub(super) fn name(self) -> &'static str {
        self.question[1]
    }

    /// Its answer.
    pub(super) fn ask(self, machine: &Container) -> Result<String> {
        let mut arguments = vec!["busctl", "--system", "--timeout=10"];
        arguments.extend(self.question);
        machine.run(&arguments)?.success()
    }
}

const PACKAGEKIT: &str = "packagekit.service";
const TRANSACTIONS: &str = "/var/lib/PackageKit/transactions.db";

/// The restored PackageKit is asked for a transaction, and numbers it in its database.
pub(super) fn write_state(machine: &Container) -> Result<()> {
    let sum = || machine.run(&["sha256sum", TRANSACTIONS])?.success();
    let before = sum()?;
    let name = "org.freedesktop.PackageKit";
    let create = [
        "busctl",
        "--system",
        "--timeout=10",
        "call",
        name,
        "/org/freedesktop/PackageKit",
        name,
        "CreateTransaction",
    ];
    let answer = machine.run(&create)?.success()?;
    ensure!(answer.starts_with("o \"/"), "it answers {answer:?}");
    wait_until(TRANSACTIONS, SOON, || {
        ensure!(sum()? != before, "nothing has been written to it");
        Ok(Some(()))
    })
}

/// In the boot after that its image is older than its database: it starts cold and says so.
pub(super) fn check_written_state(machine: &Container) -> Result<()> {
    wait_until(PACKAGEKIT, SOON, || {
        let status = fastboot::status(machine)?;
        let said = status.unit(PACKAGEKIT).context("fastboot status does not know it")?;
        let reason = said.reason.as_deref().unwrap_or_default();
        ensure!(said.outcome == "cold" && reason.contains(TRANSACTIONS), "{}: {reason:?}", said.outcome);
        Ok(Some(()))
    })
}

/// A service that the bus starts for a question and that ends by itself is nobody's business here.
pub(super) fn check_short_lived(machine: &Container, status: &StatusReport) -> Result<()> {
    let unit = "systemd-hostnamed.service";
    let question = [
        "busctl",
        "--system",
        "--timeout=30",
        "get-property",
        "org.freedesktop.hostname1",
        "/org/freedesktop/hostname1",
        "org.freedesktop.hostname1",
        "Hostname",
    ];
    let answer = machine.run(&question)?.success()?;
    ensure!(answer.trim() == "s \"bus\"", "it answers {answer:?}");
    ensure!(status.unit(unit).is_none(), "fastboot has something to do with it");
    let text = machine.run(&["systemctl", "cat", unit])?.success()?;
    ensure!(!text.contains("fastboot"), "fastboot has changed its unit: {text}");
    Ok(())
}

/// polkit says of a connection whether it may do something; it looks the connection's process up
/// for that.
pub(super) fn is_authorised(machine: &Container, name: &str) -> Result<String> {
    let owner = bus::owner(machine, name)?;
    let arguments = [
        "busctl",
        "--system",
        "--timeout=10",
        "call",
        "org.freedesktop.PolicyKit1",
        "/org/freedesktop/PolicyKit1/Authority",
        "org.freedesktop.PolicyKit1.Authority",
        "CheckAuthorization",
        "(sa{sv})sa{ss}us",
        "system-bus-name",
        "1",
        "name",
        "s",
        &owner,
        "org.freedesktop.policykit.exec",
        "0",
        "0",
        "",
    ];
    machine.run(&arguments)?.success()
}
