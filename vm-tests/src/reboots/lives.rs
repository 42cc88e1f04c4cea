//! Machines from the installation of the package to its purge.

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::groups::{self, Groups};
use super::root;
use super::steps::{
    Parcel, all_up, boot, cold_for, install, mount_store, restored, snapshot, snapshot_with, status,
};
use super::subject::Seen;
use crate::machine::{Boot, Kernel, Machine, Running, Store};

/// All that is on the root's file system, with type, mode and owner; contents of /etc. Left out is
/// what changes by itself or is the package manager's own history.
const TREE: &str = "find / -xdev \\( -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \
     -o -path /var/lib/systemd -o -path /var/tmp -o -path /tmp -o -path /run -o -path /srv -o -path /var/lib/redis \
     -o -path /var/lib/fastboot-tests -o -path /lost+found \\) -prune -o -printf '%p %y %m %U:%G %l\\n' | sort; \
     find /etc -xdev -type f ! -name 'ld.so.cache' -exec sha256sum {} + | sort -k2";
/// Files that are there until the next boot and must be gone after it.
const VOLATILE: [&str; 2] = ["/run/fastboot-tests.mark", "/tmp/fastboot-tests.mark"];
const PROFILE: &str = "/etc/apparmor.d/counter";
const NGINX_CONF: &str = "/etc/nginx/nginx.conf";

/// Install, snapshot, reboot, restored; configuration changed, off and on, cold with the reason;
/// purge.
pub(super) fn debian_13(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    let mut machine = parcel.machine("debian13", "trixie", &[], Store::OnRoot)?;
    let mut running = boot(&mut machine, &Boot::default())?;
    confine(&running)?;
    let before = running.shell(TREE)?;
    install(&running)?;
    groups::install(&running)?;
    let (taken, report) = snapshot_with(&running, &groups::UNITS)?;
    still_confined(&running)?;
    checks.note(
        "Debian 13: groups with controllers are taken, or refused for what is set in them",
        groups::were_taken(&report),
    );
    let grouped = Groups::look(&running)?;
    mark(&running)?;
    let first = running.boot_id().to_owned();

    running.reboot()?;
    all_up(&running)?;
    ensure!(running.boot_id() != first, "the kernel is the same");
    checks.note("Debian 13: after a reboot every service is restored", restored(&running, &taken, &[]));
    checks.note("Debian 13: /run and /tmp are empty after it", unmarked(&running));
    checks.note("Debian 13: who has an AppArmor profile is restored into it", still_confined(&running));
    checks.note(
        "Debian 13: control groups have their controllers, limits, owners and processes again",
        grouped.require_kept(&running),
    );
    groups::obstruct(&running)?;
    running.shell(&format!("cp -p {NGINX_CONF} {PROFILE} /srv/; echo '# edited' >> {NGINX_CONF}"))?;
    running.shell(&format!("sed -i 's/counter {{/counter flags=(complain) {{/' {PROFILE}"))?;
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    let nginx = "nginx.service";
    checks.note(
        "Debian 13: after a change of its configuration nginx is cold, and says why",
        status(&running).and_then(|status| {
            cold_for(&status, nginx, "file-changed")?;
            let reason = status.unit(nginx).and_then(|unit| unit.reason.clone()).unwrap_or_default();
            ensure!(reason.contains(NGINX_CONF), "the reason is {reason:?}");
            Ok(())
        }),
    );
    let counter = "counter.service";
    checks.note(
        "Debian 13: after a change of its AppArmor profile the counter is cold, and says why",
        status(&running).and_then(|status| cold_for(&status, counter, "confinement-changed")),
    );
    checks.note(
        "Debian 13: the others are restored a second time",
        restored(&running, &taken, &[nginx, counter]),
    );
    checks.note("Debian 13: a failed restore leaves nothing of control groups", groups::is_cold(&running));
    checks.note("Debian 13: control groups bear the trial of a snapshot", groups::bear_a_trial(&running));
    groups::remove(&running)?;
    running.shell(&format!("cp -p /srv/nginx.conf {NGINX_CONF}; cp -p /srv/counter {PROFILE}"))?;
    running.shell("DEBIAN_FRONTEND=noninteractive apt-get purge --yes fastboot-services > /dev/null")?;
    checks.note("Debian 13: a purge leaves the root as it was", same_tree(&before, &running.shell(TREE)?));
    checks.note("Debian 13: services run on over the purge", all_up(&running));
    running.poweroff()
}

/// Debian's own kernel has AppArmor on; from here on the counter is in a profile.
fn confine(running: &Running) -> Result<()> {
    let load = format!("apparmor_parser --replace {PROFILE} && systemctl restart counter.service");
    running.shell(&format!("cp /usr/local/share/counter.apparmor {PROFILE} && {load}")).map(drop)
}

/// All its threads have the label that it began with.
fn still_confined(running: &Running) -> Result<()> {
    let labels = running
        .shell("cat /proc/$(systemctl show --value -p MainPID counter)/task/*/attr/current | sort -u")?;
    ensure!(labels.trim() == "counter (enforce)", "its label is {labels:?}");
    Ok(())
}

/// The power fails as soon as the snapshot says that it is done.
pub(super) fn debian_12(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    let mut machine = parcel.machine("debian12", "bookworm", &[], Store::OnRoot)?;
    let (running, taken) = provision(&mut machine, Store::OnRoot, &Boot::default())?;
    mark(&running)?;
    running.power_cut()?;

    let mut running = boot(&mut machine, &Boot::default())?;
    checks.note(
        "Debian 12: after a power cut right behind the snapshot every service is restored",
        restored(&running, &taken, &[]),
    );
    checks.note("Debian 12: /run and /tmp are empty after it", unmarked(&running));
    running.reset()?;
    all_up(&running)?;
    checks.note("Debian 12: after a reset they are restored again", restored(&running, &taken, &[]));
    running.poweroff()
}

pub(super) fn pmem(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    let mut machine = parcel.machine("pmem", "trixie", &[], Store::Pmem)?;
    let (running, taken) = provision(&mut machine, Store::Pmem, &Boot::default())?;
    running.poweroff()?;
    let running = boot(&mut machine, &Boot::default())?;
    let mounts = running.shell("cat /proc/mounts")?;
    let store = mounts.lines().find(|line| line.contains("/var/lib/fastboot")).unwrap_or("not mounted");
    let is_dax = store.starts_with("/dev/pmem0 ") && store.contains("dax=always");
    checks
        .note("pmem: the store is mounted with DAX", is_dax.then_some(()).with_context(|| store.to_owned()));
    checks.note("pmem: every service is restored", restored(&running, &taken, &[]));
    running.poweroff()
}

pub(super) fn virtio_blk(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    over_a_power_cycle(parcel, checks, "trixie", None, Store::VirtioBlk)
}

pub(super) fn trixie_on_bookworm_kernel(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    over_a_power_cycle(parcel, checks, "trixie", Some("bookworm"), Store::OnRoot)
}

pub(super) fn bookworm_on_trixie_kernel(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    over_a_power_cycle(parcel, checks, "bookworm", Some("trixie"), Store::OnRoot)
}

pub(super) fn trixie_on_sid_kernel(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    over_a_power_cycle(parcel, checks, "trixie", Some("sid"), Store::OnRoot)
}

pub(super) fn sid(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    over_a_power_cycle(parcel, checks, "sid", None, Store::OnRoot)
}

fn over_a_power_cycle(
    parcel: &Parcel,
    checks: &mut Checks,
    suite: &'static str,
    kernel: Option<&'static str>,
    store: Store,
) -> Result<()> {
    let kernel = kernel.map(|suite| Kernel::of(&root::recipe(suite)?)).transpose()?;
    let mut machine = parcel.machine(&format!("cycle-{suite}"), suite, kernel.as_slice(), store)?;
    let options = Boot { kernel, ..Boot::default() };
    let (running, taken) = provision(&mut machine, store, &options)?;
    running.poweroff()?;
    let running = boot(&mut machine, &options)?;
    let versions = running.shell("uname -r; systemctl --version | head -n 1")?;
    let name = format!("{suite} on {}: every service is restored", versions.trim().replace('\n', ", "));
    checks.note(name, restored(&running, &taken, &[]));
    running.poweroff()
}

/// First boot, store, package, images.
pub(super) fn provision(machine: &mut Machine, store: Store, options: &Boot) -> Result<(Running, Vec<Seen>)> {
    let running = boot(machine, options)?;
    mount_store(&running, store)?;
    install(&running)?;
    let taken = snapshot(&running)?;
    Ok((running, taken))
}

fn mark(running: &Running) -> Result<()> {
    running.shell(&format!("touch {}", VOLATILE.join(" "))).map(drop)
}

fn unmarked(running: &Running) -> Result<()> {
    let left = running.shell(&format!("ls -d {} 2> /dev/null || true", VOLATILE.join(" ")))?;
    ensure!(left.is_empty(), "still there: {left}");
    Ok(())
}

fn same_tree(before: &str, after: &str) -> Result<()> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (lines(before), lines(after));
    ensure!(before.len() > 1000, "the list of {} files is too short to be one", before.len());
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let differences: Vec<String> =
        gone.chain(after.difference(&before).map(|line| format!("+ {line}"))).collect();
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
