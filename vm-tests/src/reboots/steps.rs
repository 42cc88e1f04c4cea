//! What the lives share: the package on a disk, a machine that it is installed on, images, and what
//! is asked after a boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::root;
use super::subject::{CLOCKWORK, SUBJECTS, Seen};
use crate::fastboot::{self, SnapshotReport, StatusReport};
use crate::machine::{Boot, Kernel, Machine, Running, Store};
use crate::roots::CACHE_DIR;

const APT_BOUND: Duration = Duration::from_secs(600);
const SNAPSHOT_BOUND: Duration = Duration::from_secs(600);
/// Where the warm-up command of a snapshot asks for the state that is to be in the images.
const WARM_UP_WANTED: &str = "/var/lib/fastboot-tests/warm-up.wanted";
const REPORT: &str = "/run/fastboot-tests-snapshot.json";

/// The package, in a directory that becomes a disk.
#[derive(Debug)]
pub(super) struct Parcel {
    dir: PathBuf,
}

impl Parcel {
    pub(super) fn prepare(package: &Path) -> Result<Parcel> {
        let dir = Path::new(CACHE_DIR).join("machines").join(format!("parcel-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::copy(package, dir.join("fastboot.deb")).context("copying the package")?;
        Ok(Parcel { dir })
    }

    /// Put the files of a directory beside the package, in a directory of that name. Before the
    /// machine is made.
    pub(super) fn add(&self, files: &Path, name: &Path) -> Result<()> {
        let to = self.dir.join(name);
        fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
        for file in fs::read_dir(files).with_context(|| format!("listing {}", files.display()))? {
            let file = file.with_context(|| format!("listing {}", files.display()))?;
            fs::copy(file.path(), to.join(file.file_name()))
                .with_context(|| format!("copying {}", file.path().display()))?;
        }
        Ok(())
    }

    /// A machine that has never been booted; kernels of `others` may boot it too.
    pub(super) fn machine(
        &self,
        name: &str,
        suite: &'static str,
        others: &[Kernel],
        store: Store,
    ) -> Result<Machine> {
        Machine::new(name, &root::recipe(suite)?, others, store, Some(&self.dir))
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        // What is left is swept up by the next run.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Switch on, and wait until all has been started and answers.
pub(super) fn boot(machine: &mut Machine, boot: &Boot) -> Result<Running> {
    let running = machine.boot(boot)?;
    all_up(&running)?;
    Ok(running)
}

/// The boot is over, nothing has failed, and every service answers.
pub(super) fn all_up(running: &Running) -> Result<()> {
    running.wait_booted()?;
    let failed = running.failed_units()?;
    ensure!(failed.is_empty(), "failed units: {failed}\n{}", running.journal(None, 60));
    for subject in SUBJECTS {
        let asked = subject.ask(running);
        asked
            .with_context(|| running.journal(Some(subject.unit), 20))
            .with_context(|| subject.unit.to_owned())?;
    }
    Ok(())
}

/// Put the store where it belongs, for this boot and those to come.
pub(super) fn mount_store(running: &Running, store: Store) -> Result<()> {
    let (prepare, options) = match store {
        Store::OnRoot => return Ok(()),
        Store::Nvme => ("", "nofail"),
        // Not `nofail`: the driver is a module, and udev may get to it when services have already
        // asked (fastboot-initd(8), FILES).
        Store::VirtioBlk => ("modprobe virtio_blk; udevadm settle", "defaults"),
        // Without labels the kernel has made one name space of everything.
        Store::Pmem => (
            "modprobe nfit; echo nfit > /etc/modules-load.d/nfit.conf; udevadm settle; \
             ndctl create-namespace --force --reconfig=namespace0.0 --mode fsdax > /dev/null; udevadm settle; mkfs.ext4 -q -b 4096 -L store /dev/pmem0; udevadm settle",
            // Not `nofail`: services wait for local-fs.target, and that for the mount, however long
            // the NVDIMM takes to appear.
            "dax=always",
        ),
    };
    running.shell(&format!(
        "{prepare}\nmkdir -m 700 -p {dir}\necho 'LABEL=store {dir} ext4 {options} 0 0' >> /etc/fstab\n\
         systemctl daemon-reload\nsystemctl start var-lib-fastboot.mount\nchmod 700 {dir}",
        dir = fastboot::STORE_DIR
    ))?;
    Ok(())
}

pub(super) fn install(running: &Running) -> Result<()> {
    install_from(running, "fastboot.deb", "")
}

/// Install packages of the parcel, given as a pattern of the shell, with more options for apt-get.
pub(super) fn install_from(running: &Running, pattern: &str, options: &str) -> Result<()> {
    running
        .shell("mkdir -p /srv/parcel; mountpoint -q /srv/parcel || mount -o ro LABEL=parcel /srv/parcel")?;
    let apt =
        format!("DEBIAN_FRONTEND=noninteractive exec apt-get install --yes {options} /srv/parcel/{pattern}");
    running.run_for(&["/bin/sh", "-euc", &apt], APT_BOUND)?.success()?;
    running.shell("umount /srv/parcel; rmdir /srv/parcel; sync")?;
    Ok(())
}

/// Snapshot of all services, whose memories are filled when the snapshot's warm-up command asks for
/// it. All must be stored.
pub(super) fn snapshot(running: &Running) -> Result<Vec<Seen>> {
    snapshot_with(running, &[]).map(|(taken, _)| taken)
}

/// The same with other units beside them, of which the report tells.
pub(super) fn snapshot_with(running: &Running, others: &[&str]) -> Result<(Vec<Seen>, SnapshotReport)> {
    let mut command =
        vec!["systemd-run", "--quiet", "--unit=fastboot-tests-snapshot", "--property=RemainAfterExit=yes"];
    let output = format!("--property=StandardOutput=file:{REPORT}");
    command.extend([output.as_str(), "fastboot", "snapshot", "--no-trial", "--json"]);
    command.extend(["--warm-up", "/usr/local/bin/fastboot-tests-warm-up"]);
    command.extend(SUBJECTS.iter().map(|subject| subject.unit).chain(others.iter().copied()));
    running.run(&command)?.success()?;
    let end = Instant::now() + SNAPSHOT_BOUND;
    let mut driven = false;
    loop {
        ensure!(Instant::now() < end, "the snapshot took too long");
        let state = running.shell(&format!(
            "test ! -e {WARM_UP_WANTED} || echo wanted; systemctl show -p SubState --value fastboot-tests-snapshot"
        ))?;
        if state.contains("wanted") {
            for subject in SUBJECTS {
                subject.drive(running).with_context(|| format!("filling the memory of {}", subject.unit))?;
            }
            running.shell(&format!("rm {WARM_UP_WANTED}"))?;
            driven = true;
        }
        if state.contains("exited") || state.contains("failed") {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let text = running
        .shell(&format!("cat {REPORT}; systemctl stop fastboot-tests-snapshot 2> /dev/null || true"))?;
    ensure!(driven, "the snapshot ran no warm-up: {text} {}", running.journal(None, 20));
    let report: SnapshotReport = fastboot::parse(&text)?;
    for subject in SUBJECTS {
        let unit = report.unit(subject.unit).with_context(|| format!("no report of {}", subject.unit))?;
        ensure!(unit.outcome == "stored", "{}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; "));
    }
    Ok((Seen::all(running)?, report))
}

pub(super) fn status(running: &Running) -> Result<StatusReport> {
    fastboot::parse(&running.run(&["fastboot", "status", "--json"])?.success()?)
}

/// Every service but `cold` is what it was when it was taken, by fastboot's word and by its own;
/// its clocks too.
pub(super) fn restored(running: &Running, taken: &[Seen], cold: &[&str]) -> Result<()> {
    let status = status(running)?;
    let now = Seen::all(running)?;
    for (taken, now) in taken.iter().zip(&now) {
        let unit = taken.subject.unit;
        if cold.contains(&unit) {
            taken.require_gone(now).with_context(|| unit.to_owned())?;
            continue;
        }
        let said = status.unit(unit);
        let said = said.with_context(|| {
            let store = running.shell(
                "ls -laR /etc/fastboot /var/lib/fastboot 2>&1; cat /run/fastboot/generator.json 2>&1 || true",
            );
            let kernel = running.shell("dmesg | grep -i -e ext4 -e nvme || true");
            format!("fastboot status does not name {unit}: {status:?}\n{store:?}\n{kernel:?}")
        })?;
        if said.outcome != "restored" {
            bail!(
                "{unit}: {}: {}\n{}",
                said.outcome,
                said.reason.as_deref().unwrap_or_default(),
                running.journal(None, 30)
            );
        }
        taken.require_kept(now).with_context(|| unit.to_owned())?;
        if unit == CLOCKWORK {
            let (before, after) =
                taken.clocks().zip(now.clocks()).context("the clockwork's answer is another")?;
            before.require_continued(&after, uptime_ms(running)?).context("its clocks")?;
        }
    }
    Ok(())
}

/// Every service is another life; where `code` is given, for that reason.
pub(super) fn cold(running: &Running, taken: &[Seen], code: Option<&str>) -> Result<()> {
    let now = Seen::all(running)?;
    for (taken, now) in taken.iter().zip(&now) {
        taken.require_gone(now).with_context(|| taken.subject.unit.to_owned())?;
    }
    let Some(code) = code else { return Ok(()) };
    let status = status(running)?;
    for subject in SUBJECTS {
        cold_for(&status, subject.unit, code)?;
    }
    Ok(())
}

pub(super) fn cold_for(status: &StatusReport, unit: &str, code: &str) -> Result<()> {
    let said = status.unit(unit).with_context(|| format!("fastboot status does not name {unit}"))?;
    let is = said.reason_code.as_deref().unwrap_or("none");
    ensure!(said.outcome == "cold" && is == code, "{unit}: {} for {is}: {:?}", said.outcome, said.reason);
    Ok(())
}

fn uptime_ms(running: &Running) -> Result<i64> {
    let text = running.shell("cat /proc/uptime")?;
    let seconds: f64 = text.split(' ').next().unwrap_or_default().parse().context("reading /proc/uptime")?;
    #[expect(clippy::cast_possible_truncation, reason = "no machine runs for that long")]
    Ok((seconds * 1000.0) as i64)
}
